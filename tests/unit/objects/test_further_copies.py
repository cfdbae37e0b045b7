"""Copies of what other nodes keep, in the store machine: places, readers, room, promotion."""

from __future__ import annotations

import pytest

from mray.node.objects.allocator import Allocator
from mray.node.objects.cooling import CoolingRules
from mray.node.objects.effects import (
    AnswerPins,
    Created,
    Evicted,
    OwnerGone,
    Refuse,
    WriteSpill,
)
from mray.node.objects.spilling import SpillRules
from mray.node.objects.store import ObjectStore, StoreRules
from mray.wire.messages import Address

PAGE = 4096
NODE, A = b"node", b"client"
OWNER = Address(b"owner", b"far")
X, Y, Z = b"x", b"y", b"z"


@pytest.fixture
def store() -> ObjectStore:
    rules = StoreRules(
        cooling=CoolingRules(warm_bytes=100 * PAGE),
        spill=SpillRules(disks=("disk",), threshold=0.8),
        overflow_bytes=100 * PAGE,
    )
    return ObjectStore(Allocator(10 * PAGE, 160 * PAGE, PAGE), rules)


def bring(store: ObjectStore, object_id: bytes, pages: int, now: float = 0.0) -> list:
    """A copy comes from another node."""
    effects = store.create(NODE, 1, object_id, pages * PAGE, OWNER.process_id, now)
    assert [type(one) for one in effects if isinstance(one, Created)] == [Created]
    effects = store.seal_further(NODE, object_id, OWNER, now)
    store.check()
    return effects


def write(store: ObjectStore, object_id: bytes, pages: int) -> list:
    """A process of this node makes an object."""
    effects = store.create(A, 1, object_id, pages * PAGE, b"other", 0.0)
    store.check()
    return effects + store.seal(A, object_id, 0.0)


def test_a_reader_of_what_will_come_waits_for_it_however_long(store: ObjectStore) -> None:
    store.expect(X)
    assert store.pin(A, 7, [X], 0.0) == []
    assert store.tick(60.0) == []
    [answer] = bring(store, X, 2, now=60.0)
    assert answer == AnswerPins(A, 7, ((0, 2 * PAGE),))


def test_a_reader_hears_why_it_will_not_come(store: ObjectStore) -> None:
    store.expect(X)
    store.pin(A, 7, [X], 0.0)
    [answer] = store.not_coming(X, "all its nodes are dead", None, 1.0)
    assert answer == AnswerPins(A, 7, ((-1, 0),), ("all its nodes are dead",))
    store.check()


def test_a_place_that_is_taken_back_answers_nobody_yet(store: ObjectStore) -> None:
    store.expect(X)
    store.create(NODE, 1, X, PAGE, OWNER.process_id, 0.0)
    store.pin(A, 7, [X], 0.0)
    assert store.abort(NODE, X, 1.0) == []
    [answer] = store.not_coming(X, "its node died", None, 1.0)
    assert answer == AnswerPins(A, 7, ((-1, 0),), ("its node died",))


def test_a_reader_is_refused_where_the_store_has_no_place(store: ObjectStore) -> None:
    store.expect(X)
    store.pin(A, 7, [X], 0.0)
    why = OwnerGone(X, OWNER.process_id)
    assert store.not_coming(X, "", why, 1.0) == [Refuse(A, 7, why)]


def test_what_was_made_here_meanwhile_answers_readers_of_what_did_not_come(
    store: ObjectStore,
) -> None:
    store.expect(X)
    store.pin(A, 7, [X], 0.0)
    answers = [one for one in write(store, X, 1) if isinstance(one, AnswerPins)]
    assert [one.rid for one in answers] == [7]
    assert store.not_coming(X, "it is being made here", None, 1.0) == []


def test_unused_further_copies_make_room_before_anything_is_spilled(store: ObjectStore) -> None:
    write(store, Z, 3)
    bring(store, X, 3)
    bring(store, Y, 2)
    effects = store.create(A, 2, b"new", 4 * PAGE, b"other", 0.0)
    assert Evicted(OWNER, (X, Y)) in effects
    assert not any(isinstance(one, WriteSpill) for one in effects)
    assert any(isinstance(one, Created) for one in effects)
    assert not store.has(X)
    store.check()


def test_a_further_copy_that_is_read_stays(store: ObjectStore) -> None:
    bring(store, X, 4)
    store.pin(A, 7, [X], 0.0)
    effects = store.create(A, 2, b"new", 8 * PAGE, b"other", 0.0)
    assert not any(isinstance(one, Evicted) for one in effects)
    assert store.has(X)
    effects = store.unpin(A, [(X, 1)], 0.0)
    assert Evicted(OWNER, (X,)) in effects
    assert any(isinstance(one, Created) for one in effects)


def test_a_promoted_copy_is_kept_like_any_other(store: ObjectStore) -> None:
    bring(store, X, 4)
    assert [copy.state for copy in store.copies()] == ["copy"]
    assert store.promote([X, Y], 0.0) == ([], [Y])
    assert [copy.state for copy in store.copies()] == ["sealed"]
    effects = store.create(A, 2, b"new", 8 * PAGE, b"other", 0.0)
    assert not any(isinstance(one, Evicted) for one in effects)
    assert any(isinstance(one, WriteSpill) for one in effects)
    store.check()


def test_a_copy_in_the_overflow_file_goes_with_its_last_reader(store: ObjectStore) -> None:
    store.expect(X)
    store.pin(A, 7, [X], 0.0)
    bring(store, X, 12)
    assert store.space.overflow_bytes == 12 * PAGE
    assert Evicted(OWNER, (X,)) in store.unpin(A, [(X, 1)], 0.0)
    assert store.space.overflow_bytes == 0
    store.check()


def test_pressure_takes_unused_further_copies(store: ObjectStore) -> None:
    bring(store, X, 4)
    assert Evicted(OWNER, (X,)) in store.press(0.0, spill_bytes=PAGE)


def test_what_is_freed_while_it_comes_is_not_kept(store: ObjectStore) -> None:
    store.create(NODE, 1, X, PAGE, OWNER.process_id, 0.0)
    store.free(OWNER.process_id, [X], 0.0)
    store.seal_further(NODE, X, OWNER, 0.0)
    assert not store.has(X)
    assert store.used_bytes == 0
    store.check()


def test_a_held_copy_is_left_until_it_is_let_go(store: ObjectStore) -> None:
    bring(store, X, 4)
    assert store.hold(NODE, X) == 0
    assert store.hold(NODE, Y) is None
    store.free(OWNER.process_id, [X], 0.0)
    assert store.used_bytes == 4 * PAGE
    store.unpin(NODE, [(X, 1)], 0.0)
    assert store.used_bytes == 0
