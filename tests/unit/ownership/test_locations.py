"""Further copies of objects: made, dropped, promoted."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace

import pytest

from mray.machine import InvariantError
from mray.ownership.entry import Entry
from mray.ownership.locations import GONE_MAX, Locations
from mray.wire.messages import Located

HOME = SimpleNamespace(posts=deque(), resolved=deque(), asleep=False)


@pytest.fixture
def entry() -> Entry:
    entry = Entry(b"o" * 28, None, HOME, 1)  # type: ignore[arg-type]
    entry.located, entry.ready = Located(b"first", 1000), True
    return entry


def test_the_primary_copy_is_named_first(entry: Entry) -> None:
    locations = Locations()
    assert locations.made(entry, b"second")
    assert locations.made(entry, b"first")
    assert locations.places(entry) == [b"first", b"second"]
    entry.ready = False
    assert locations.places(entry) == []


def test_a_copy_of_what_is_freed_or_inline_is_not_wanted(entry: Entry) -> None:
    locations = Locations()
    entry.freed = True
    assert not locations.made(entry, b"second")
    entry.freed, entry.located = False, None
    assert not locations.made(entry, b"second")
    assert locations.copies == {}


def test_the_oldest_copy_that_is_left_becomes_the_primary_one(entry: Entry) -> None:
    locations = Locations()
    for node_id in (b"second", b"third"):
        locations.made(entry, node_id)
    assert locations.node_gone(b"first", [entry]) == [entry]
    assert locations.promote(entry) == b"second"
    assert entry.located == Located(b"second", 1000)
    assert locations.places(entry) == [b"second", b"third"]
    locations.dropped(entry.object_id, b"third")
    assert locations.copies == {}
    assert locations.promote(entry) is None


def test_nothing_is_believed_of_a_node_that_is_gone(entry: Entry) -> None:
    locations = Locations()
    locations.made(entry, b"second")
    assert locations.node_gone(b"second", [entry]) == []
    assert locations.copies == {}
    assert locations.made(entry, b"second"), "said before the node died"
    assert locations.copies == {}
    assert locations.is_gone(b"second")


def test_all_nodes_are_told_when_it_is_freed(entry: Entry) -> None:
    locations = Locations()
    locations.made(entry, b"second")
    locations.made(entry, b"third")
    assert locations.forget(entry.object_id) == [b"second", b"third"]
    assert locations.forget(entry.object_id) == []


def test_a_copy_on_a_dead_node_is_noticed(entry: Entry) -> None:
    locations = Locations()
    locations.made(entry, b"second")
    locations.check()
    locations._gone[b"second"] = None
    with pytest.raises(InvariantError, match="copies on"):
        locations.check()


def test_the_last_nodes_that_are_gone_are_remembered() -> None:
    locations = Locations()
    for number in range(GONE_MAX + 10):
        locations.node_gone(number.to_bytes(4, "big"), [])
    assert not locations.is_gone((9).to_bytes(4, "big"))
    assert locations.is_gone((10).to_bytes(4, "big"))
