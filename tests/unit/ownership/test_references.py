"""References, event by event."""

from __future__ import annotations

import itertools
from collections import deque
from typing import Any

import pytest

from mray.machine import InvariantError
from mray.ownership.references import Entry, Free, Ready, References, Unborrow
from mray.wire.messages import Address, Located, RefGroup

OTHER = Address(b"other", b"node")
PLACE = Located(b"node", 1_000_000)


class Home:
    posts: Any = deque()
    asleep = False

    def wake(self) -> None:
        return None


class Waiter:
    def __init__(self) -> None:
        self.fired: list[Entry] = []

    def fire(self, entry: Entry) -> None:
        self.fired.append(entry)


HOME = Home()


@pytest.fixture
def refs() -> References:
    return References(1000)


def owned(refs: References, name: bytes = b"o", local: int = 1, ready: bool = True) -> Entry:
    entry = refs.entries[name] = Entry(name, None, HOME, local)
    if ready:
        refs.fill(entry, None, PLACE)
    return entry


def borrowed(refs: References, name: bytes = b"b", local: int = 1) -> Entry:
    entry = refs.entries[name] = Entry(name, OTHER, HOME, local)
    return entry


def test_the_last_local_reference_frees_a_stored_object(refs: References) -> None:
    entry = owned(refs, local=2)
    refs.drop_local(entry)
    assert refs.take() == []
    refs.drop_local(entry)
    assert refs.take() == [Free(entry)]
    assert refs.entries == {}


def test_an_inline_value_needs_no_freeing(refs: References) -> None:
    entry = owned(refs, ready=False)
    refs.fill(entry, b"value", None)
    refs.drop_local(entry)
    assert (refs.take(), refs.entries) == ([], {})


def test_the_last_handle_of_an_actor_ends_it(refs: References) -> None:
    entry = owned(refs, ready=False)
    entry.is_actor = entry.ready = True
    refs.drop_local(entry)
    assert refs.take() == [Free(entry)]


def test_a_value_still_being_made_is_let_go_when_made(refs: References) -> None:
    entry = owned(refs, ready=False)
    refs.drop_local(entry)
    assert refs.entries == {b"o": entry}
    refs.fill(entry, None, PLACE)
    refs.settle(entry)
    assert (refs.take(), refs.entries) == ([Free(entry)], {})


def test_a_submitted_task_keeps_its_arguments(refs: References) -> None:
    entry = owned(refs)
    refs.hold(entry)
    refs.drop_local(entry)
    assert refs.take() == []
    refs.release(entry)
    assert refs.take() == [Free(entry)]


def test_a_value_keeps_the_references_inside_it_however_deep(refs: References) -> None:
    entries = [owned(refs, b"%d" % n) for n in range(3000)]
    for outer, inner in itertools.pairwise(entries):
        refs.nest(outer, RefGroup(OTHER, []), [inner])
    for entry in entries[1:]:
        refs.drop_local(entry)
    refs.check()
    assert refs.take() == []
    refs.drop_local(entries[0])
    assert [effect.entry for effect in refs.take() if isinstance(effect, Free)] == entries
    assert refs.entries == {}


@pytest.mark.parametrize("kind", ["pinned", "captured"])
def test_pins_and_captures_keep_for_good(refs: References, kind: str) -> None:
    entry = owned(refs)
    assert (entry.pinned, entry.captured) == (0, 0)
    for _ in range(2):
        (refs.pin if kind == "pinned" else refs.capture)(entry)
    refs.drop_local(entry)
    refs.check()
    assert (refs.take(), refs.entries) == ([], {b"o": entry})
    assert (entry.pinned, entry.captured) == ((2, 0) if kind == "pinned" else (0, 2))
    assert entry.kept


def test_a_borrowed_reference_that_is_pinned_must_be_registered(refs: References) -> None:
    entry = borrowed(refs)
    refs.pin(entry)
    refs.drop_local(entry)
    assert refs.unregistered(entry)


def test_fill_fires_waiters_and_tells_watchers_once(refs: References) -> None:
    entry, waiter = owned(refs, ready=False), Waiter()
    entry.waiters = [waiter]
    assert not refs.watch(entry, b"p1")
    assert not refs.watch(entry, b"p1")
    refs.fill(entry, b"value", None)
    assert waiter.fired == [entry]
    assert refs.take() == [Ready(entry, [b"p1"])]
    assert refs.watch(entry, b"p2")
    assert refs.take() == []


# ---- borrowed


def test_a_borrower_that_lets_go_tells_the_owner_its_tokens(refs: References) -> None:
    entry = borrowed(refs)
    assert refs.unregistered(entry)
    entry.tokens = [5]
    assert not refs.unregistered(entry)
    outer = owned(refs)
    refs.nest(outer, RefGroup(OTHER, [b"b"], 6), [entry])
    refs.drop_local(entry)
    assert refs.take() == []
    refs.drop_local(outer)
    assert refs.take() == [Free(outer), Unborrow(OTHER, b"b", [5, 6])]


def test_an_unregistered_borrower_says_nothing_when_it_lets_go(refs: References) -> None:
    refs.drop_local(borrowed(refs))
    assert (refs.take(), refs.entries) == ([], {})


# ---- the owner's death


def test_what_a_dead_process_owned_is_lost_unless_the_value_is_here(refs: References) -> None:
    waiting, stored, inline = (borrowed(refs, name) for name in (b"w", b"s", b"i"))
    waiter = Waiter()
    waiting.waiters = [waiter]
    refs.fill(stored, None, PLACE)
    refs.fill(inline, b"value", None)
    refs.lose(OTHER.process_id, lambda _: b"lost")
    refs.check()
    assert waiter.fired == [waiting]
    assert [e.data for e in (waiting, stored, inline)] == [b"lost", b"lost", b"value"]
    assert stored.located is None


def test_nobody_registers_with_a_dead_owner(refs: References) -> None:
    entry = borrowed(refs)
    refs.dead[OTHER.process_id] = None
    assert not refs.unregistered(entry)


# ---- coming back


def test_an_entry_that_was_let_go_comes_back(refs: References) -> None:
    entry = borrowed(refs)
    refs.drop_local(entry)
    refs.add_local(entry)
    refs.check()
    assert refs.entries == {b"b": entry}
    assert not entry.freed


@pytest.mark.parametrize("way", ["late", "ready", "owner dies"])
def test_an_entry_that_comes_back_to_find_another_follows_it(refs: References, way: str) -> None:
    first = borrowed(refs)
    refs.drop_local(first)
    second = borrowed(refs)
    if way == "ready":
        refs.fill(second, b"value", None)
    refs.add_local(first)
    refs.check()
    waiter = Waiter()
    if way != "ready":
        first.waiters = [waiter]
    if way == "late":
        refs.fill(second, b"value", None)
    if way == "owner dies":
        refs.lose(OTHER.process_id, lambda _: b"lost")
    assert first.data == (b"lost" if way == "owner dies" else b"value")
    assert waiter.fired == ([] if way == "ready" else [first])
    refs.check()
    refs.drop_local(second)
    assert refs.entries == {b"b": second}  # kept by the first
    refs.drop_local(first)
    refs.check()
    assert refs.entries == {}


def test_letting_go_of_a_follower_leaves_the_other_in_its_place(refs: References) -> None:
    first = borrowed(refs)
    refs.drop_local(first)
    second = borrowed(refs)
    refs.hold(first)
    refs.release(first)
    assert refs.entries == {b"b": second}
    refs.check()


def test_tokens_are_counted_from_the_base(refs: References) -> None:
    assert [refs.token(), refs.token()] == [1001, 1002]


@pytest.mark.parametrize("field", ["local", "held", "inside"])
def test_check_sees_counts_that_are_wrong(refs: References, field: str) -> None:
    setattr(owned(refs), field, -1)
    with pytest.raises(InvariantError):
        refs.check()
