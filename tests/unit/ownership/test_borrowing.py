"""The borrower's side of borrowing."""

from __future__ import annotations

from typing import Any

from mray.wire.messages import Address, Borrows, BorrowsHeard, RefGroup


def test_what_is_found_in_one_round_is_registered_in_one_message_an_owner(desk: Any) -> None:
    for name, owner in ((b"1", b"x"), (b"2", b"y"), (b"3", b"x")):
        desk.ledger.borrowing.register(desk.borrowed(name, owner))
    assert desk.sent() == [
        (b"x", Borrows(1, [(1001, [b"1", b"3"])])),
        (b"y", Borrows(1, [(1002, [b"2"])])),
    ]


def test_the_carrier_is_held_until_the_owner_knows(desk: Any) -> None:
    entry, carrier = desk.borrowed(b"b"), desk.owned(b"carrier")
    desk.ledger.borrowing.register(entry, carrier)
    desk.sent()
    assert carrier.held == 1
    assert not desk.ledger.borrowing.known(entry)
    desk.ledger.confirmed(b"owner", BorrowsHeard(1))
    assert carrier.held == 0
    assert desk.ledger.borrowing.known(entry)


def test_the_death_of_the_owner_lets_the_carrier_go(desk: Any) -> None:
    carrier = desk.owned(b"carrier")
    desk.ledger.borrowing.register(desk.borrowed(b"b"), carrier)
    desk.ledger.died(b"owner", lambda _: b"lost")
    assert carrier.held == 0
    assert desk.sent() == []


def test_letting_go_and_coming_back_in_one_round_is_a_new_registration(desk: Any) -> None:
    entry = desk.borrowed(b"b")
    desk.ledger.borrowing.register(entry)
    desk.refs.drop_local(entry)
    desk.ledger.take()
    again = desk.borrowed(b"b")
    desk.ledger.borrowing.register(again)
    assert desk.sent() == [
        (b"owner", Borrows(1, [(1001, [b"b"]), (1002, [b"b"])], [], [(1001, [b"b"])]))
    ]
    assert again.tokens == [1002]


def test_what_is_declined_is_given_back_unless_it_is_held(desk: Any) -> None:
    owner = Address(b"owner", b"node")
    outer, held = desk.owned(b"outer"), desk.borrowed(b"held", local=0)
    desk.ledger.receive(outer, RefGroup(owner, [b"held"], 5), [held])
    desk.ledger.decline([RefGroup(owner, [b"held", b"new"], 5), RefGroup(owner, [b"x"], 0)])
    assert desk.sent() == [(b"owner", Borrows(1, [], [], [(5, [b"new"])]))]


def test_asked_about_the_dead_it_gives_up_what_it_did_not_get(desk: Any) -> None:
    owner = Address(b"owner", b"node")
    outer, held = desk.owned(b"outer"), desk.borrowed(b"held", local=0)
    desk.ledger.receive(outer, RefGroup(owner, [b"held"], 5), [held])
    asks = [(owner, b"dead", 5, [b"held"]), (owner, b"dead", 6, [b"other"])]
    desk.ledger.hear(b"owner", Borrows(1, [], [], [], asks))
    assert desk.sent() == [
        (b"owner", BorrowsHeard(1)),
        (b"owner", Borrows(1, [], [], [(6, [b"other"])])),
    ]
    assert desk.ledger.refuses(b"dead")


def test_tokens_offered_with_a_value_are_dropped_with_it(desk: Any) -> None:
    outer, inner = desk.owned(b"outer"), desk.borrowed(b"b", local=0)
    desk.ledger.receive(outer, RefGroup(Address(b"owner", b"node"), [b"b"], 5), [inner])
    desk.refs.drop_local(outer)
    assert desk.sent() == [(b"owner", Borrows(1, [], [], [(5, [b"b"])]))]
