"""Copies that nodes tell of: which are noted, which are dropped, and when that is known."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mray.ids import TaskId, object_id
from mray.ownership.entry import Entry
from mray.ownership.references import References
from mray.runtime.copies import CopiesPart
from mray.wire.messages import CopyMade, FreeObjects, Located

HERE, THERE = b"here", b"there"
TASK = TaskId(b"t" * 24)
DONE, ITEM = object_id(TASK, 1), object_id(TASK, 2)


class Owner:
    """The part of an owner that knows of copies, without a process."""

    def __init__(self) -> None:
        self.handlers: dict[type, Callable[[bytes, Any], None]] = {}
        self.sent: list[tuple[bytes, Any]] = []
        self.references = References(1)
        rt: Any = SimpleNamespace(
            references=self.references,
            pump=SimpleNamespace(
                on=self.handlers.__setitem__,
                send=lambda to, message: self.sent.append((to, message)),
            ),
        )
        self.part = CopiesPart(rt)

    def entry(self, made: bytes) -> Entry:
        mailbox: Any = None
        entry = self.references.entries[made] = Entry(made, None, mailbox, 1)
        return entry

    def hear_of(self, made: bytes) -> None:
        self.handlers[CopyMade](THERE, CopyMade([made], THERE))


@pytest.fixture
def owner() -> Owner:
    return Owner()


def test_what_nobody_wants_is_dropped_at_once(owner: Owner) -> None:
    owner.hear_of(DONE)
    assert owner.sent == [(THERE, FreeObjects([DONE]))]


@pytest.mark.parametrize(
    ("data", "located", "sent", "places"),
    [
        (None, Located(HERE, 7), [], [HERE, THERE]),
        (None, Located(THERE, 7), [], [THERE]),
        (b"small", None, [(THERE, FreeObjects([DONE]))], []),
    ],
)
def test_what_a_dead_attempt_left_is_judged_when_the_task_is_over(
    owner: Owner, data: bytes | None, located: Located | None, sent: list[Any], places: list[bytes]
) -> None:
    """Not before: the next attempt may be putting its value into the same place."""
    entry = owner.entry(DONE)
    owner.hear_of(DONE)
    assert owner.sent == []
    owner.references.fill(entry, data, located)
    assert owner.sent == sent
    assert owner.part.locations.places(entry) == places


def test_an_item_that_its_generator_has_not_told_of_is_judged_when_that_is_over(
    owner: Owner,
) -> None:
    done = owner.entry(DONE)
    owner.hear_of(ITEM)
    assert owner.sent == []
    owner.references.fill(done, b"two items", None)
    assert owner.sent == [(THERE, FreeObjects([ITEM]))]
