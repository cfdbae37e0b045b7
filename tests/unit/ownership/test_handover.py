"""The lender's side of borrowing: when a reply may leave, and what it says."""

from __future__ import annotations

from typing import Any

from mray.wire.messages import Address, Borrows, BorrowsHeard, RefGroup

CALLER = Address(b"caller", b"node")
OWNER = Address(b"owner", b"node")


def test_a_value_without_foreign_references_may_leave_at_once(desk: Any) -> None:
    mine = desk.owned(b"mine")
    desk.ledger.handover.pack("reply", CALLER, [], [[mine], []])
    [parcel] = desk.ledger.handover.ready
    assert parcel.cargo == "reply"
    assert parcel.groups == [[RefGroup(desk.me, [b"mine"], 1001)], []]
    assert mine.borrowers == {b"caller": {1001}}
    assert desk.sent() == []


def test_a_reference_of_a_third_process_waits_until_its_owner_knows_the_receiver(
    desk: Any,
) -> None:
    entry = desk.borrowed(b"b")
    desk.ledger.handover.pack("reply", CALLER, [], [[entry]])
    desk.refs.drop_local(entry)
    assert desk.ledger.handover.ready == []
    assert desk.sent() == [(b"owner", Borrows(1, [], [(CALLER, 1001, [b"b"])]))]
    assert entry.held == 1
    desk.ledger.confirmed(b"owner", BorrowsHeard(1))
    [parcel] = desk.ledger.handover.ready
    assert parcel.groups == [[RefGroup(OWNER, [b"b"], 1001)]]
    desk.ledger.handover.left(parcel)
    assert desk.refs.entries == {}


def test_the_death_of_the_owner_lets_the_reply_go(desk: Any) -> None:
    desk.ledger.handover.pack("reply", CALLER, [], [[desk.borrowed(b"b")]])
    desk.ledger.died(b"owner", lambda _: b"lost")
    assert [parcel.cargo for parcel in desk.ledger.handover.ready] == ["reply"]


def test_an_argument_that_is_kept_is_registered_before_the_reply(desk: Any) -> None:
    kept, dropped = desk.borrowed(b"kept"), desk.borrowed(b"dropped", local=0)
    desk.ledger.handover.pack("reply", CALLER, [kept, dropped], [[]])
    assert desk.ledger.handover.ready == []
    assert desk.sent() == [(b"owner", Borrows(1, [(1001, [b"kept"])]))]
    desk.ledger.confirmed(b"owner", BorrowsHeard(1))
    assert [parcel.cargo for parcel in desk.ledger.handover.ready] == ["reply"]


def test_a_second_task_waits_for_what_the_first_registers(desk: Any) -> None:
    kept = desk.borrowed(b"kept")
    desk.ledger.handover.pack("first", CALLER, [kept], [])
    desk.sent()
    desk.ledger.handover.pack("second", CALLER, [kept], [])
    assert desk.ledger.handover.ready == []
    desk.ledger.confirmed(b"owner", BorrowsHeard(1))
    assert [parcel.cargo for parcel in desk.ledger.handover.ready] == ["first", "second"]


def test_the_callers_own_argument_goes_back_without_a_registration(desk: Any) -> None:
    entry = desk.borrowed(b"b", b"caller")
    entry.tokens = [5]  # Known already.
    desk.ledger.handover.pack("reply", CALLER, [entry], [[entry]])
    [parcel] = desk.ledger.handover.ready
    assert parcel.groups == [[RefGroup(CALLER, [b"b"], 0)]]


def test_the_callers_own_reference_from_elsewhere_is_offered_to_it(desk: Any) -> None:
    entry = desk.borrowed(b"b", b"caller")
    entry.tokens = [5]
    desk.ledger.handover.pack("reply", CALLER, [], [[entry]])
    assert desk.sent() == [(b"caller", Borrows(1, [], [(CALLER, 1001, [b"b"])]))]


def test_nothing_is_registered_for_the_dead(desk: Any) -> None:
    mine = desk.owned(b"mine")
    desk.ledger.died(b"caller", lambda _: b"lost")
    desk.ledger.handover.pack("reply", CALLER, [], [[mine]])
    [parcel] = desk.ledger.handover.ready
    assert (parcel.groups, mine.borrowers) == ([[]], None)
