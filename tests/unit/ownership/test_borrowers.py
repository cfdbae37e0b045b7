"""The owner's side of borrowing, event by event."""

from __future__ import annotations

from typing import Any

from mray.ownership.references import Free
from mray.wire.messages import Address, Borrows, BorrowsHeard

P1, P2 = Address(b"p1", b"node"), Address(b"p2", b"node")


def lost(object_id: bytes) -> bytes:
    return b"lost"


def test_a_borrower_keeps_the_object_until_its_last_token(desk: Any) -> None:
    entry = desk.owned(b"o")
    borrowers = desk.ledger.borrowers
    borrowers.add([b"o"], b"p1", 1)
    borrowers.add([b"o"], b"p1", 2)
    desk.refs.drop_local(entry)
    borrowers.drop([b"o"], b"p1", 1)
    desk.ledger.check()
    assert desk.ledger.take() == []
    borrowers.drop([b"o"], b"p1", 2)
    desk.ledger.check()
    assert desk.ledger.take() == [Free(entry)]


def test_what_is_not_held_is_not_dropped(desk: Any) -> None:
    entry = desk.owned(b"o")
    desk.ledger.borrowers.add([b"o", b"unknown"], b"p1", 1)
    desk.ledger.borrowers.drop([b"o", b"unknown"], b"p2", 1)
    desk.ledger.borrowers.drop([b"o"], b"p1", 2)
    assert entry.borrowers == {b"p1": {1}}


def test_the_death_of_a_borrower_ends_its_borrows_and_only_its(desk: Any) -> None:
    first, second = desk.owned(b"1"), desk.owned(b"2")
    desk.ledger.borrowers.add([b"1", b"2"], b"p1", 1)
    desk.ledger.borrowers.add([b"2"], b"p2", 3)
    desk.refs.drop_local(first)
    desk.refs.drop_local(second)
    desk.ledger.died(b"p1", lost)
    desk.ledger.check()
    assert desk.ledger.take() == [Free(first)]
    assert second.borrowers == {b"p2": {3}}


def test_what_arrives_from_the_dead_changes_nothing(desk: Any) -> None:
    entry = desk.owned(b"o")
    desk.ledger.died(b"p1", lost)
    desk.ledger.hear(b"p1", Borrows(1, [(1, [b"o"])], [(P2, 2, [b"o"])]))
    assert entry.borrowers is None
    assert desk.sent() == []


def test_a_batch_that_comes_again_is_confirmed_and_not_obeyed(desk: Any) -> None:
    entry = desk.owned(b"o")
    add, drop = Borrows(1, [(7, [b"o"])]), Borrows(2, [], [], [(7, [b"o"])])
    desk.ledger.hear(b"p1", add)
    assert desk.sent() == [(b"p1", BorrowsHeard(1))]
    desk.ledger.hear(b"p1", drop)
    desk.ledger.hear(b"p1", add)
    desk.ledger.hear(b"p1", drop)
    assert entry.borrowers is None
    assert desk.sent() == [(b"p1", BorrowsHeard(2))]


def test_when_who_made_an_offer_dies_the_borrower_is_asked(desk: Any) -> None:
    entry = desk.owned(b"o")
    desk.ledger.hear(b"p1", Borrows(1, [], [(P2, 7, [b"o"])]))
    assert desk.ledger.strangers == [P2]
    assert desk.sent() == [(b"p1", BorrowsHeard(1))]
    desk.ledger.died(b"p1", lost)
    [(peer, message)] = desk.sent()
    assert (peer, message.asks) == (b"p2", [(desk.me, b"p1", 7, [b"o"])])
    assert entry.borrowers == {b"p2": {7}}
    desk.ledger.hear(b"p2", Borrows(1, [], [], [(7, [b"o"])]))
    assert entry.borrowers is None


def test_an_offer_that_was_given_up_needs_no_question(desk: Any) -> None:
    desk.owned(b"o")
    desk.ledger.hear(b"p1", Borrows(1, [], [(P2, 7, [b"o"])]))
    desk.ledger.hear(b"p2", Borrows(1, [], [], [(7, [b"o"])]))
    desk.sent()
    desk.ledger.died(b"p1", lost)
    assert desk.sent() == []


def test_an_offer_to_the_owner_itself_ends_with_who_made_it(desk: Any) -> None:
    entry = desk.owned(b"o")
    desk.ledger.hear(b"p1", Borrows(1, [], [(desk.me, 7, [b"o"])]))
    assert entry.borrowers == {b"me": {7}}
    desk.ledger.died(b"p1", lost)
    assert entry.borrowers is None
    assert desk.ledger.refuses(b"p1")
