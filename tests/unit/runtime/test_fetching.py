"""Waits for copies on this node, while values are lost on their way and made again."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from mray.exceptions import GetTimeoutError
from mray.ownership.entry import Entry
from mray.runtime.fetching import FetchingPart
from mray.runtime.objects import ObjectsPart
from mray.wire.messages import FetchObjects, Located, ObjectsFetched

HERE, AWAY = b"h" * 16, b"a" * 16


class Ref:
    """As much of an ObjectRef as a wait looks at."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    def hex(self) -> str:
        return self._entry.object_id.hex()


class World:
    """A process whose loop runs within its calls. ``steps``: what happens in each wait, in turn."""

    def __init__(self, count: int) -> None:
        self.sent: list[FetchObjects] = []
        self.steps: list[Callable[[], None]] = []
        self.entries = [Entry(bytes([n]) * 28, None, None, 1) for n in range(count)]  # type: ignore[arg-type]
        for entry in self.entries:
            entry.located, entry.ready = Located(AWAY, 1_000), True
        self.refs: Any = [Ref(entry) for entry in self.entries]
        objects = SimpleNamespace(
            first_ready=ObjectsPart.first_ready, begin_wait=self._begin_wait, block=self._block,
            end_wait=lambda waiter, pending: None,
        )  # fmt: skip
        runtime: Any = SimpleNamespace(
            node=SimpleNamespace(node_id=HERE),
            pump=SimpleNamespace(on=lambda *_: None, send=lambda _, m: self.sent.append(m)),
            post=lambda call: call(),
            objects=objects,
            address=None,
        )
        self.fetching = FetchingPart(runtime)
        self.fetching._source = lambda *_: None  # type: ignore[assignment,method-assign]

    def _begin_wait(self, waiter: Any, pending: list[Entry]) -> None:
        for entry in pending:
            if entry.ready:
                waiter.fire(entry)
            else:
                entry.waiters = [*(entry.waiters or ()), waiter]

    def _block(self, waiter: Any, pending: list[Entry], timeout_s: float | None) -> bool:
        self._begin_wait(waiter, pending)
        while not waiter._done:
            if not self.steps:
                return False
            self.steps.pop(0)()
        return True

    def come(self, *numbers: int) -> None:
        fetched = ObjectsFetched([bytes([n]) * 28 for n in numbers], ["" for _ in numbers])
        self.fetching._fetched(HERE, fetched)

    def lose(self, number: int) -> None:
        """Its node is gone, and the transfer over."""
        self.entries[number].ready = False
        self.come(number)

    def make_again(self, number: int) -> None:
        entry = self.entries[number]
        entry.located, entry.ready = Located(HERE, 1_000), True
        waiters, entry.waiters = entry.waiters or [], None
        for waiter in waiters:
            waiter.fire(entry)


def test_a_value_that_is_lost_on_its_way_is_waited_for_until_it_is_made_again() -> None:
    world = World(2)
    world.steps = [
        lambda: world.come(0),
        lambda: world.lose(1),
        lambda: world.make_again(1),
    ]
    world.fetching.bring(world.refs, monotonic() + 60)
    assert not world.steps
    assert all(world.fetching.is_here(entry) for entry in world.entries)


def test_wait_without_a_limit_returns_as_many_as_were_asked_for() -> None:
    world = World(2)
    world.steps = [lambda: world.lose(1), lambda: world.make_again(1)]
    ready, rest = world.fetching.wait(world.refs, 1, None)
    assert (ready, rest) == ([world.refs[1]], [world.refs[0]])


def test_what_does_not_come_in_time_is_named() -> None:
    world = World(2)
    world.steps = [lambda: world.come(0)]
    with pytest.raises(GetTimeoutError, match=world.refs[1].hex()):
        world.fetching.bring(world.refs, monotonic())


def test_more_than_can_be_remembered_are_brought_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mray.runtime.fetching._HERE_KEPT", 2)
    world = World(5)
    world.steps = [lambda: world.come(*range(5)), lambda: world.come(0, 1, 2)]
    world.steps.append(lambda: world.come(0))
    world.fetching.bring(world.refs, monotonic() + 60)
    assert not world.steps
