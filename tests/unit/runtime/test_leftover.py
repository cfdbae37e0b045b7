"""What wait() left over is known again, and not for long."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from mray.runtime.leftover import Leftover


class Loop:
    """Posts at once; ``later`` is what waits for its time."""

    def __init__(self) -> None:
        self.later: list[Callable[[], None]] = []
        self.pump = SimpleNamespace(after=lambda delay_s, call: self.later.append(call))

    def post(self, call: Callable[[], None]) -> None:
        call()


class Odd:
    """Compares as numpy's arrays do."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")

    __hash__ = None  # type: ignore[assignment]


def test_the_same_list_is_known_until_it_is_forgotten() -> None:
    loop: Any = Loop()
    leftover = Leftover(loop)
    refs = [object(), object()]
    assert not leftover.equals(refs)
    leftover.keep(refs)  # type: ignore[arg-type]
    assert leftover.equals(list(refs))
    assert not leftover.equals(refs[:1])
    (forget,) = loop.later
    forget()
    assert not leftover.equals(refs)


def test_a_list_that_its_user_changes_is_another_one() -> None:
    leftover = Leftover(Loop())  # type: ignore[arg-type]
    refs: list[Any] = [object(), object()]
    leftover.keep(refs)
    refs[1] = refs[0]
    assert not leftover.equals(refs)


def test_one_timer_is_enough_for_many_waits() -> None:
    loop: Any = Loop()
    leftover = Leftover(loop)
    for _ in range(3):
        leftover.keep([])
    assert len(loop.later) == 1


def test_what_cannot_be_compared_is_not_known() -> None:
    leftover = Leftover(Loop())  # type: ignore[arg-type]
    leftover.keep([object()])  # type: ignore[list-item]
    assert not leftover.equals([Odd()])
