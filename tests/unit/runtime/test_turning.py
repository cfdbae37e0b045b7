"""Who turns the loop is known as long as the loop is theirs: finalizers must not wait for it."""

from __future__ import annotations

import gc
import threading
from typing import Any, cast

import pytest

from mray.exceptions import RaySystemError
from mray.rpc.pump import Pump
from mray.runtime.runtime import Runtime
from mray.runtime.turn import Turn


class _Door:
    def wake(self) -> None:
        """Nobody sleeps here."""


class _Loop:
    """A loop in which nothing happens."""

    running = True
    door = _Door()
    rounds = 0

    def run_once(self, timeout_s: float | None, done: Any = None) -> None:
        self.rounds += 1


class _Process:
    """What Runtime.block_on() needs of a runtime."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn

    def wait(self) -> None:
        Runtime.block_on(cast(Runtime, self), threading.Lock(), 0.0)


class _Gets:
    """Garbage, with a finalizer that waits for the loop. ``caught``: what that raised."""

    def __init__(self, process: _Process, caught: list[BaseException]) -> None:
        self.me, self.process, self.caught = self, process, caught

    def __del__(self) -> None:
        assert self.process.turn.turning, "it would wait for ever"
        try:
            self.process.wait()
        except BaseException as error:
            self.caught.append(error)


@pytest.fixture
def turn() -> Turn:
    return Turn(cast(Pump, _Loop()), guarded=False)


def test_a_finalizer_between_two_rounds_is_told_that_it_cannot_wait(turn: Turn) -> None:
    process, caught, looks = _Process(turn), list[BaseException](), list[None]()

    def until() -> bool:
        looks.append(None)
        _Gets(process, caught)
        gc.collect()
        return len(looks) == 2

    assert turn.lead(until)
    assert [type(error) for error in caught] == [RaySystemError] * 2


def test_the_loop_is_nobodys_once_it_was_left(turn: Turn) -> None:
    seen: list[int] = []
    turn.lead(lambda: bool(seen.append(turn.turning)) or len(seen) > 1)
    assert set(seen) == {threading.get_ident()}
    assert turn.turning == 0
    assert turn.here()
    turn.glance()
    assert turn.turning == 0
