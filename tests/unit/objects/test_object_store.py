"""The store machine: events in, whole effect lists out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mray.node.objects.allocator import Allocator
from mray.node.objects.cooling import CoolingRules
from mray.node.objects.effects import (
    AnswerPins,
    Complain,
    Created,
    Full,
    Holder,
    OwnerGone,
    Punch,
    Refuse,
    WriteSpill,
)
from mray.node.objects.spilling import SpillRules
from mray.node.objects.store import ObjectStore, StoreRules

PAGE = 4096
X, Y, Z = b"x", b"y", b"z"
OWNER, WRITER, READER = b"owner", b"writer", b"reader"
NOWHERE = (-1, 0)


def make_store(capacity_pages: int = 10, punch_pages: int = 1000) -> ObjectStore:
    cooling = CoolingRules(
        warm_bytes=5 * PAGE, idle_warm_bytes=2 * PAGE, punch_bytes_max=punch_pages * PAGE
    )
    allocator = Allocator(capacity_pages * PAGE, capacity_pages * 16 * PAGE, PAGE)
    return ObjectStore(allocator, StoreRules(cooling=cooling))


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    store = make_store()
    yield store
    store.check()


def sealed(
    store: ObjectStore, object_id: bytes, pages: int = 1, now: float = 0.0, writer: bytes = WRITER
) -> int:
    """Create and seal an object of OWNER; returns its offset."""
    (created,) = store.create(writer, 1, object_id, pages * PAGE, OWNER, now)
    assert isinstance(created, Created)
    assert store.seal(writer, object_id, now) == []
    return created.offset


# ------------------------------------------------------------------------------------- writing


def test_a_create_with_room_is_answered_at_once(store: ObjectStore) -> None:
    assert store.create(WRITER, 7, X, 3 * PAGE, OWNER, 0.0) == [
        Created(WRITER, 7, 0, ((0, 3 * PAGE),))
    ]
    assert (store.used_bytes, store.object_count) == (3 * PAGE, 1)


def test_a_repeated_create_gets_the_same_place(store: ObjectStore) -> None:
    first = store.create(WRITER, 7, X, PAGE, OWNER, 0.0)
    assert store.create(WRITER, 7, X, PAGE, OWNER, 0.1) == first
    assert store.used_bytes == PAGE


def test_a_create_of_another_size_gives_the_former_attempt_up(store: ObjectStore) -> None:
    store.create(WRITER, 1, X, 2 * PAGE, OWNER, 0.0)
    (created,) = store.create(WRITER, 2, X, 3 * PAGE, OWNER, 0.0)
    assert isinstance(created, Created)
    store.tick(0.0)
    assert store.used_bytes == 3 * PAGE


def test_a_negative_size_raises_and_changes_nothing(store: ObjectStore) -> None:
    with pytest.raises(ValueError, match="cannot have -1 bytes"):
        store.create(WRITER, 1, X, -1, OWNER, 0.0)
    assert store.object_count == 0


def test_sealing_what_one_does_not_write_is_a_complaint(store: ObjectStore) -> None:
    store.create(WRITER, 1, X, PAGE, OWNER, 0.0)
    (effect,) = store.seal(READER, X, 0.0)
    assert effect == Complain(READER, f"sealed {X.hex()}, which it does not write")


def test_an_aborted_object_is_gone_and_its_pages_are_punched(store: ObjectStore) -> None:
    store.create(WRITER, 1, X, 2 * PAGE, OWNER, 0.0)
    assert store.abort(WRITER, X, 0.0) == []
    assert store.deadline() == 0.0
    assert store.tick(0.0) == [Punch(((0, 2 * PAGE),))]
    assert (store.used_bytes, store.object_count, store.deadline()) == (0, 0, None)


def test_an_abort_by_somebody_else_changes_nothing(store: ObjectStore) -> None:
    store.create(WRITER, 1, X, PAGE, OWNER, 0.0)
    assert store.abort(READER, X, 0.0) == []
    assert store.object_count == 1


def test_death_of_the_writer_reclaims_what_it_was_writing(store: ObjectStore) -> None:
    sealed(store, Y)
    store.create(WRITER, 2, X, 2 * PAGE, OWNER, 0.0)
    store.client_died(WRITER, 0.0)
    store.tick(0.0)
    assert (store.used_bytes, store.object_count) == (PAGE, 1)


# ----------------------------------------------------------------------------- writing it again


def test_a_retry_drops_the_sealed_copy_at_once_if_nobody_reads_it(store: ObjectStore) -> None:
    sealed(store, X, 8)
    assert store.create(b"other", 1, X, 8 * PAGE, OWNER, 1.0) == [Created(b"other", 1, 0, ())]


def test_a_retry_keeps_the_old_copy_for_those_who_read_it(store: ObjectStore) -> None:
    sealed(store, X, 2)
    assert store.pin(READER, 1, [X], 0.0) == [AnswerPins(READER, 1, ((0, 2 * PAGE),))]
    (created,) = store.create(b"other", 1, X, 3 * PAGE, OWNER, 1.0)
    assert isinstance(created, Created)
    assert created.offset == 2 * PAGE
    store.seal(b"other", X, 1.0)
    assert store.pin(b"second", 1, [X], 1.0) == [AnswerPins(b"second", 1, ((2 * PAGE, 3 * PAGE),))]
    assert store.used_bytes == 5 * PAGE
    store.unpin(READER, [(X, 1)], 2.0)
    assert store.used_bytes == 3 * PAGE


def test_pins_are_given_back_oldest_copy_first(store: ObjectStore) -> None:
    sealed(store, X, 2)
    store.pin(READER, 1, [X], 0.0)
    store.create(b"other", 1, X, 3 * PAGE, OWNER, 1.0)
    store.seal(b"other", X, 1.0)
    store.pin(READER, 2, [X], 1.0)
    store.unpin(READER, [(X, 1)], 1.0)
    assert [(copy.size, copy.pin_count) for copy in store.copies()] == [(3 * PAGE, 1)]


def test_of_two_former_copies_the_older_is_given_back_first(store: ObjectStore) -> None:
    for turn, pages in enumerate((1, 2, 3)):
        sealed(store, X, pages, writer=bytes([turn]))
        store.pin(READER, turn, [X], 0.0)
    for left in ([3, 2], [3], []):
        store.unpin(READER, [(X, 1)], 0.0)
        assert [copy.size // PAGE for copy in store.copies() if copy.pin_count] == left


def test_a_superseded_writer_keeps_its_range_until_it_is_done(store: ObjectStore) -> None:
    store.create(WRITER, 1, X, 2 * PAGE, OWNER, 0.0)
    (created,) = store.create(b"other", 1, X, 2 * PAGE, OWNER, 0.0)
    assert isinstance(created, Created)
    assert created.offset == 2 * PAGE
    assert store.seal(b"other", X, 0.0) == []
    assert store.used_bytes == 4 * PAGE
    assert store.seal(WRITER, X, 0.0) == []
    assert store.used_bytes == 2 * PAGE
    assert store.pin(READER, 1, [X], 0.0) == [AnswerPins(READER, 1, ((2 * PAGE, 2 * PAGE),))]


# ------------------------------------------------------------------------------------- reading


def test_pin_tells_places_in_the_order_asked(store: ObjectStore) -> None:
    sealed(store, X, 2)
    sealed(store, Y, 1)
    assert store.pin(READER, 9, [Y, Z, X], 0.0) == [
        AnswerPins(READER, 9, ((2 * PAGE, PAGE), NOWHERE, (0, 2 * PAGE)))
    ]


def test_a_repeated_pin_request_pins_once(store: ObjectStore) -> None:
    sealed(store, X)
    first = store.pin(READER, 9, [X], 0.0)
    assert store.pin(READER, 9, [X], 1.0) == first
    assert [copy.pin_count for copy in store.copies()] == [1]


def test_a_reader_waits_for_the_seal(store: ObjectStore) -> None:
    sealed(store, X)
    store.create(WRITER, 1, Y, PAGE, OWNER, 0.0)
    assert store.pin(READER, 9, [X, Y, Y], 0.0) == []
    assert store.pin(READER, 9, [X, Y, Y], 0.1) == []
    assert store.seal(WRITER, Y, 1.0) == [
        AnswerPins(READER, 9, ((0, PAGE), (PAGE, PAGE), (PAGE, PAGE)))
    ]
    assert [copy.pin_count for copy in store.copies()] == [1, 2]


def test_a_reader_of_an_object_that_is_not_sealed_in_time_hears_that_it_is_not_here(
    store: ObjectStore,
) -> None:
    store.create(WRITER, 1, X, PAGE, OWNER, 0.0)
    store.pin(READER, 9, [X], 1.0)
    assert store.deadline() == 3.0
    assert store.tick(2.9) == []
    assert store.tick(3.0) == [AnswerPins(READER, 9, (NOWHERE,))]
    assert store.seal(WRITER, X, 4.0) == []


@pytest.mark.parametrize("how", ["abort", "writer died", "freed", "owner died"])
def test_a_reader_hears_at_once_that_nothing_will_come(store: ObjectStore, how: str) -> None:
    store.create(WRITER, 1, X, PAGE, OWNER, 0.0)
    store.pin(READER, 9, [X], 0.0)
    effects = {
        "abort": lambda: store.abort(WRITER, X, 1.0),
        "writer died": lambda: store.client_died(WRITER, 1.0),
        "freed": lambda: store.free(OWNER, [X], 1.0),
        "owner died": lambda: store.owner_died(OWNER, 1.0),
    }[how]()
    assert effects == [AnswerPins(READER, 9, (NOWHERE,))]


def test_a_reader_that_gave_up_waiting_gets_no_pin(store: ObjectStore) -> None:
    store.create(WRITER, 1, X, PAGE, OWNER, 0.0)
    store.create(WRITER, 2, Y, PAGE, OWNER, 0.0)
    store.pin(READER, 9, [X, Y], 0.0)
    store.unpin(READER, [(X, 1)], 0.1)
    store.check()
    assert store.seal(WRITER, X, 0.2) == []
    assert store.seal(WRITER, Y, 0.2) == [AnswerPins(READER, 9, (NOWHERE, (PAGE, PAGE)))]
    store.create(WRITER, 3, Z, PAGE, OWNER, 0.3)
    store.pin(READER, 10, [Z], 0.3)
    store.unpin(READER, [(Z, 1)], 0.4)
    assert store.seal(WRITER, Z, 0.5) == []
    assert [copy.pin_count for copy in store.copies()] == [0, 1, 0]


def test_a_count_below_one_cannot_be_unpinned(store: ObjectStore) -> None:
    sealed(store, X)
    store.pin(READER, 1, [X], 0.0)
    with pytest.raises(ValueError, match="unpinned 0 times"):
        store.unpin(READER, [(X, 1), (X, 0)], 0.0)
    assert [copy.pin_count for copy in store.copies()] == [1]


# ------------------------------------------------------------------------------------- freeing


def test_a_freed_object_goes_at_once_if_nobody_reads_it(store: ObjectStore) -> None:
    sealed(store, X, 2)
    assert store.free(OWNER, [X, Z], 0.0) == []
    assert (store.used_bytes, store.warm_bytes) == (0, 2 * PAGE)


def test_a_freed_object_stays_until_its_last_pin(store: ObjectStore) -> None:
    sealed(store, X, 2)
    store.pin(READER, 1, [X, X], 0.0)
    store.free(OWNER, [X], 0.0)
    assert [copy.state for copy in store.copies()] == ["leaving"]
    assert store.pin(READER, 2, [X], 0.0) == [AnswerPins(READER, 2, (NOWHERE,))]
    store.unpin(READER, [(X, 1)], 0.0)
    assert store.used_bytes == 2 * PAGE
    store.unpin(READER, [(X, 1)], 0.0)
    assert store.used_bytes == 0


def test_an_object_freed_while_it_is_written_goes_when_the_writer_is_done(
    store: ObjectStore,
) -> None:
    store.create(WRITER, 1, X, 2 * PAGE, OWNER, 0.0)
    store.free(OWNER, [X], 0.0)
    assert [copy.state for copy in store.copies()] == ["unwanted"]
    store.seal(WRITER, X, 0.0)
    assert store.used_bytes == 0


def test_only_the_owner_frees(store: ObjectStore) -> None:
    sealed(store, X)
    assert store.free(READER, [X], 0.0) == [
        Complain(READER, f"freed {X.hex()}, which {OWNER.hex()} owns")
    ]
    assert store.object_count == 1


def test_death_of_a_reader_gives_its_pins_back(store: ObjectStore) -> None:
    sealed(store, X)
    store.pin(READER, 1, [X, X], 0.0)
    store.free(OWNER, [X], 0.0)
    store.client_died(READER, 0.0)
    assert store.used_bytes == 0


def test_death_of_the_owner_frees_its_objects_but_not_under_a_reader(store: ObjectStore) -> None:
    sealed(store, X)
    sealed(store, Y)
    store.pin(READER, 1, [Y], 0.0)
    store.owner_died(OWNER, 0.0)
    assert [(copy.object_id, copy.state) for copy in store.copies()] == [(Y, "leaving")]
    store.unpin(READER, [(Y, 1)], 0.0)
    assert store.used_bytes == 0


def test_nothing_is_made_for_a_dead_owner(store: ObjectStore) -> None:
    store.owner_died(OWNER, 0.0)
    assert store.create(WRITER, 3, X, PAGE, OWNER, 0.0) == [Refuse(WRITER, 3, OwnerGone(X, OWNER))]


def test_last_words_of_a_dead_process_leave_nothing_behind(store: ObjectStore) -> None:
    sealed(store, X)
    store.client_died(READER, 0.0)
    assert store.create(READER, 1, Y, PAGE, OWNER, 0.0) == []
    assert store.pin(READER, 2, [X], 0.0) == []
    assert store.seal(READER, Y, 0.0) == []
    assert store.abort(READER, Y, 0.0, no_space=True) == []
    assert store.unpin(READER, [(X, 1)], 0.0) == []
    assert [(copy.object_id, copy.pin_count) for copy in store.copies()] == [(X, 0)]


# ------------------------------------------------------------------------------------ admission


def test_what_is_larger_than_the_store_is_refused_at_once(store: ObjectStore) -> None:
    sealed(store, X)
    assert store.create(WRITER, 3, X, 11 * PAGE, OWNER, 0.0) == [
        Refuse(
            WRITER,
            3,
            Full(
                object_id=X,
                requested_bytes=11 * PAGE,
                capacity_bytes=10 * PAGE,
                used_bytes=PAGE,
                object_count=1,
                waited_s=0.0,
                holders=(Holder(X, PAGE, "sealed", 0, OWNER),),
            ),
        )
    ]
    assert store.object_count == 1


def test_a_create_waits_for_room_and_gets_it(store: ObjectStore) -> None:
    sealed(store, X, 8)
    assert store.create(WRITER, 3, Y, 4 * PAGE, OWNER, 1.0) == []
    assert store.deadline() == 3.0
    assert store.free(OWNER, [X], 2.0) == [Created(WRITER, 3, 0, ())]


def test_a_create_that_waited_in_vain_is_refused_with_the_facts(store: ObjectStore) -> None:
    sealed(store, X, 3)
    sealed(store, Y, 6)
    store.pin(READER, 1, [X], 0.0)
    store.create(WRITER, 3, Z, 2 * PAGE, OWNER, 1.0)
    assert store.tick(2.9) == []
    assert store.tick(3.0) == [
        Refuse(
            WRITER,
            3,
            Full(
                object_id=Z,
                requested_bytes=2 * PAGE,
                capacity_bytes=10 * PAGE,
                used_bytes=9 * PAGE,
                object_count=2,
                waited_s=2.0,
                holders=(
                    Holder(Y, 6 * PAGE, "sealed", 0, OWNER),
                    Holder(X, 3 * PAGE, "sealed", 1, OWNER),
                ),
            ),
        )
    ]
    assert store.deadline() is None


def test_the_five_biggest_holders_are_named(store: ObjectStore) -> None:
    for index in range(7):
        sealed(store, bytes([index]))
    store.create(WRITER, 3, Z, 9 * PAGE, OWNER, 0.0)
    (refuse,) = store.tick(2.0)
    assert isinstance(refuse, Refuse)
    assert isinstance(refuse.why, Full)
    assert len(refuse.why.holders) == 5


def test_creates_are_served_in_order(store: ObjectStore) -> None:
    sealed(store, X, 8)
    store.create(WRITER, 3, Y, 9 * PAGE, OWNER, 1.0)
    assert store.create(b"second", 4, Z, PAGE, OWNER, 1.5) == []
    # The big one has waited long enough; the small one behind it fits.
    refuse, created = store.tick(3.0)
    assert isinstance(refuse, Refuse)
    assert created == Created(b"second", 4, 8 * PAGE, ((8 * PAGE, PAGE),))


def test_a_waiting_create_can_be_repeated_or_given_up(store: ObjectStore) -> None:
    sealed(store, X, 10)
    store.create(WRITER, 3, Y, PAGE, OWNER, 1.0)
    store.create(WRITER, 4, Y, PAGE, OWNER, 1.5)
    store.create(b"second", 5, Z, PAGE, OWNER, 1.5)
    store.abort(b"second", Z, 1.6)
    assert store.free(OWNER, [X], 2.0) == [Created(WRITER, 4, 0, ())]
    assert store.object_count == 1


def test_a_waiting_create_leaves_with_its_client_or_its_owner(store: ObjectStore) -> None:
    sealed(store, X, 10)
    store.create(WRITER, 3, Y, PAGE, OWNER, 1.0)
    store.create(b"second", 4, Z, PAGE, b"another", 1.0)
    store.client_died(WRITER, 1.0)
    assert store.owner_died(b"another", 1.0) == [Refuse(b"second", 4, OwnerGone(Z, b"another"))]
    assert store.deadline() is None


# -------------------------------------------------------------------------------------- cooling


def test_warm_pages_above_the_mark_are_punched_after_a_second() -> None:
    store = make_store(20)
    sealed(store, X, 8)
    store.free(OWNER, [X], 1.0)
    assert store.warm_bytes == 8 * PAGE
    assert store.deadline() == 2.0
    assert store.tick(2.0) == [Punch(((5 * PAGE, 3 * PAGE),))]
    assert store.deadline() == 30.0
    assert store.tick(30.0) == [Punch(((2 * PAGE, 3 * PAGE),))]
    assert store.deadline() is None
    store.check()


def test_a_loop_of_put_and_free_above_the_mark_stays_warm() -> None:
    store = make_store(20)
    for turn in range(5):
        assert len(store.create(WRITER, turn, X, 8 * PAGE, OWNER, turn * 0.9)) == 1
        store.seal(WRITER, X, turn * 0.9)
        store.free(OWNER, [X], turn * 0.9)
        assert store.tick(turn * 0.9) == []
    assert store.warm_bytes == 8 * PAGE


def test_small_creates_do_not_keep_pages_above_the_mark() -> None:
    store = make_store(20)
    sealed(store, X, 12)
    store.free(OWNER, [X], 1.0)
    for turn in range(5):
        sealed(store, bytes([turn]), 1, now=1.0 + turn / 10)
    assert store.deadline() == 2.0
    assert store.tick(2.0) == [Punch(((10 * PAGE, 2 * PAGE),))]


def test_cooling_goes_in_small_bits() -> None:
    store = make_store(20, punch_pages=2)
    sealed(store, X, 10)
    store.free(OWNER, [X], 0.0)
    assert store.tick(1.0) == [Punch(((8 * PAGE, 2 * PAGE),))]
    assert store.deadline() == 1.0
    assert store.tick(1.0) == [Punch(((6 * PAGE, 2 * PAGE),))]


def test_a_create_waits_until_free_pages_in_its_way_are_cold() -> None:
    store = make_store(10, punch_pages=2)
    sealed(store, X, 4)
    sealed(store, Y, 4)
    store.free(OWNER, [X], 0.0)
    # Needs six cold pages; four warm ones lie idle and the store may have ten in all.
    assert store.create(WRITER, 3, Z, 6 * PAGE, OWNER, 0.0) == [Punch(((2 * PAGE, 2 * PAGE),))]
    assert store.deadline() == 0.0
    assert store.tick(5.0) == [
        Punch(((0, 2 * PAGE),)),
        Created(WRITER, 3, 8 * PAGE, ((8 * PAGE, 6 * PAGE),)),
    ]
    store.check()


@pytest.mark.parametrize("how", ["abort", "client died", "owner died", "other size"])
def test_a_create_that_waits_for_cold_pages_can_still_leave(how: str) -> None:
    store = make_store(10, punch_pages=1)
    sealed(store, X, 4)
    sealed(store, Y, 4)
    store.free(OWNER, [X], 0.0)
    store.create(WRITER, 3, Z, 6 * PAGE, b"another", 0.0)
    if how == "abort":
        store.abort(WRITER, Z, 0.0)
    elif how == "client died":
        store.client_died(WRITER, 0.0)
    elif how == "owner died":
        effects = store.owner_died(b"another", 0.0)
        assert Refuse(WRITER, 3, OwnerGone(Z, b"another")) in effects
    else:
        store.create(WRITER, 4, Z, PAGE, b"another", 0.0)
    store.check()
    while store.deadline() == 0.0:
        store.tick(0.0)
    assert store.used_bytes == (5 if how == "other size" else 4) * PAGE
    store.check()


def test_sealing_before_the_place_was_told_is_a_complaint() -> None:
    store = make_store(10, punch_pages=1)
    sealed(store, X, 4)
    sealed(store, Y, 4)
    store.free(OWNER, [X], 0.0)
    store.create(WRITER, 3, Z, 6 * PAGE, OWNER, 0.0)
    (effect,) = store.seal(WRITER, Z, 0.0)
    assert isinstance(effect, Complain)


def test_a_full_file_system_makes_the_store_give_all_free_pages_back_first() -> None:
    store = make_store(20, punch_pages=3)
    sealed(store, X, 5)
    sealed(store, Y, 1)
    store.free(OWNER, [X], 0.0)
    store.create(WRITER, 3, Z, 6 * PAGE, OWNER, 0.0)
    assert store.abort(WRITER, Z, 0.0, no_space=True) == []
    assert store.create(WRITER, 4, Z, 6 * PAGE, OWNER, 0.0) == []
    effects = []
    while store.deadline() == 0.0:
        effects += store.tick(0.0)
    punched = [effect for effect in effects if isinstance(effect, Punch)]
    assert sum(length for punch in punched for _, length in punch.ranges) == 11 * PAGE
    assert effects[-1] == Created(WRITER, 4, 6 * PAGE, ((6 * PAGE, 6 * PAGE),))
    store.check()


def test_pressure_cools_everything_that_is_free() -> None:
    store = make_store(20)
    sealed(store, X, 2)
    sealed(store, Y, 1)
    store.free(OWNER, [X], 0.0)
    assert store.press(0.0) == []
    assert store.tick(0.0) == [Punch(((0, 2 * PAGE),))]
    assert store.warm_bytes == 0
    assert store.deadline() is None
    assert len(store.create(WRITER, 1, Z, PAGE, OWNER, 0.0)) == 1


def test_pressure_spills_as_much_as_was_asked_and_ends_with_it() -> None:
    spill = SpillRules(disks=("/disk",), batch_bytes=PAGE, fused_max=1)
    rules = StoreRules(cooling=CoolingRules(warm_bytes=64 * PAGE), spill=spill)
    store = ObjectStore(Allocator(20 * PAGE, 20 * PAGE, PAGE), rules)
    for name in (X, Y, Z):
        sealed(store, name, 2)
    effects = store.press(0.0, 3 * PAGE)
    writes = [effect for effect in effects if isinstance(effect, WriteSpill)]
    assert store.is_giving_back
    for write in writes:
        effects = store.spill_written(write.file, [0], 0.1, 0.2)
        writes += [effect for effect in effects if isinstance(effect, WriteSpill)]
    while store.deadline() == 0.2:
        store.tick(0.2)
    assert (len(writes), store.used_bytes, store.warm_bytes) == (2, 2 * PAGE, 0)
    assert not store.is_giving_back
    store.relax(0.3)
    assert store.spilling.threshold_bytes == 16 * PAGE
    store.check()
