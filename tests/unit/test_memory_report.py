"""Joining what nodes and processes tell: who holds what, why it is alive, what is a leak."""

from __future__ import annotations

from mray.memory_report import MemoryObject, join

from .memory_cluster import (
    ACTOR,
    DRIVER,
    MIB,
    WORKER,
    memory,
    node,
    object_id,
    report,
    stored,
    told,
    view,
)


def only(*args, **kwargs) -> MemoryObject:
    (found,) = memory(*args, **kwargs).objects
    return found


def test_a_local_reference_keeps_an_object():
    found = only(told(DRIVER, 10, [view(1, {"LOCAL_REFERENCE": 2}, size_bytes=5)]))
    assert (found.why, found.is_leak, found.size_bytes) == ("2 references in driver 10", False, 5)
    assert (found.kind, found.count, found.owner.pid) == ("LOCAL_REFERENCE", 2, 10)


def test_owner_and_borrower_are_one_object_and_the_borrower_is_named():
    found = only(
        told(DRIVER, 10, [view(1, {"BORROWED": 1}, borrowers=[(ACTOR, 1)], size_bytes=MIB)]),
        told(ACTOR, 12, [view(1, {"LOCAL_REFERENCE": 1}, state="unread")], title="Keeper.keep"),
    )
    assert found.why == "1 reference in actor Keeper 12"
    assert found.kinds == {"LOCAL_REFERENCE": 1, "BORROWED": 1}
    assert [reference.process.pid for reference in found.references] == [10, 12]
    assert found.state == "ready"
    assert not found.is_leak


def test_every_kind_has_its_words():
    kinds = {
        "PINNED_IN_MEMORY": 1, "USED_BY_PENDING_TASK": 2, "LOCAL_REFERENCE": 1,
        "CAPTURED_IN_OBJECT": 3, "OUT_OF_BAND": 1, "CLOSURE": 1,
        "LINEAGE": 2,
    }  # fmt: skip
    assert only(told(DRIVER, 10, [view(1, kinds)])).why == (
        "read in place by driver 10; needed by 2 pending tasks of driver 10; "
        "1 reference in driver 10; inside 3 objects of driver 10; "
        "pickled out of band: kept until driver 10 ends; "
        "captured by a function of driver 10: kept until its job ends; "
        "needed if 2 finished tasks of driver 10 must run again"
    )


def test_a_borrowed_handle_counts_as_a_handle():
    found = only(
        told(DRIVER, 10, [view(1, {"ACTOR_HANDLE": 1, "BORROWED": 1}, name="Keeper")]),
        told(WORKER, 11, [view(1, {"LOCAL_REFERENCE": 1})]),
    )
    assert found.kinds == {"ACTOR_HANDLE": 2, "BORROWED": 1}


def test_a_pending_object_says_what_it_waits_for_and_has_no_size():
    found = only(
        told(DRIVER, 10, [view(1, {"LOCAL_REFERENCE": 1}, state="pending", reason="needs 1 GPU")])
    )
    assert (found.size_bytes, found.state) == (None, "pending")
    assert found.why == "being made: needs 1 GPU; 1 reference in driver 10"


def test_out_of_band_closures_and_values_read_in_place_are_leaks():
    for kind in ("OUT_OF_BAND", "CLOSURE", "PINNED_IN_MEMORY"):
        assert only(told(DRIVER, 10, [view(1, {kind: 1})])).is_leak


def test_what_a_result_needs_to_be_made_again_is_no_leak():
    assert not only(told(DRIVER, 10, [view(1, {"LINEAGE": 1})])).is_leak


def test_a_stored_object_that_its_owner_does_not_list_is_a_leak():
    found = only(told(DRIVER, 10, []), store=[stored(1, MIB)])
    assert found.is_leak
    assert found.why == "in the store; its owner, driver 10, does not list it"


def test_what_the_silent_may_hold_is_no_leak():
    silent = told(ACTOR, 12, None, title="Keeper")
    mine = told(DRIVER, 10, [view(1, {"BORROWED": 1}, borrowers=[(ACTOR, 1)])])
    found = only(mine, silent)
    assert not found.is_leak
    assert found.why == "borrowed by actor Keeper 12, which did not answer"
    of_silent = only(told(DRIVER, 10, None), store=[stored(1, MIB)])
    assert not of_silent.is_leak
    assert "did not answer" in of_silent.why


def test_what_may_be_beyond_the_limit_is_no_leak():
    assert not only(told(DRIVER, 10, [], more=5), store=[stored(1, MIB)]).is_leak


def test_a_silent_process_that_reads_in_place_is_known_by_the_store():
    found = only(
        told(DRIVER, 10, [view(1, {"LOCAL_REFERENCE": 1}, size_bytes=MIB)]),
        told(WORKER, 11, None),
        store=[stored(1, MIB, {WORKER: 2})],
    )
    assert found.why == "1 reference in driver 10; read in place by worker 11"


def test_a_spilled_object_says_so_and_one_being_written_is_pending():
    mine = told(DRIVER, 10, [view(1, {"LOCAL_REFERENCE": 1}, size_bytes=MIB)])
    assert only(mine, store=[stored(1, MIB, state="spilled")]).state == "spilled"
    assert only(told(DRIVER, 10, []), store=[stored(1, MIB, state="created")]).state == "pending"


def test_what_vanished_is_an_error_at_whoever_holds_it():
    theirs = told(WORKER, 11, [view(1, {"LOCAL_REFERENCE": 1}, state="error")])
    found = only(told(DRIVER, 10, []), theirs)
    assert (found.state, found.size_bytes, found.is_leak) == ("error", None, False)


def test_sizes_and_ages_that_are_not_known_are_none_never_negative():
    found = only(told(DRIVER, 10, [view(1, {"LOCAL_REFERENCE": 1}, size_bytes=-1, age_s=-1.0)]))
    assert (found.size_bytes, found.age_s) == (None, None)


def test_objects_come_biggest_first_and_unknown_sizes_last():
    views = [
        view(1, {"LOCAL_REFERENCE": 1}),
        view(2, {"LOCAL_REFERENCE": 1}, size_bytes=1),
        view(3, {"LOCAL_REFERENCE": 1}, size_bytes=9),
    ]
    ids = [found.object_id for found in memory(told(DRIVER, 10, views)).objects]
    assert ids == [object_id(number).hex() for number in (3, 2, 1)]


def test_a_node_that_could_not_be_asked_is_kept_with_its_reason():
    mine = told(DRIVER, 10, [view(1, {"OUT_OF_BAND": 1})])
    found = join([node(report(mine)), node("no answer in time")])
    assert [one.error for one in found.unreachable] == ["no answer in time"]
    assert not found.objects[0].is_leak


def test_totals_count_what_is_not_listed_too():
    found = memory(told(DRIVER, 10, [view(1, {"LOCAL_REFERENCE": 1})], more=3))
    assert found.unlisted_count == 3
    assert found.kinds == {"LOCAL_REFERENCE": 1}
