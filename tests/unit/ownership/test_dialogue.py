"""Dialogues: numbers, resending, confirming."""

from __future__ import annotations

from mray.ownership.dialogue import Dialogues
from mray.wire.messages import Address, Borrows

PEER = Address(b"peer", b"node")


def test_one_batch_is_under_way_and_the_rest_makes_up_the_next() -> None:
    dialogues = Dialogues(1.0, 4.0)
    dialogues.line(PEER).drops[5] = [b"a"]
    assert dialogues.flush(0.0) == [(PEER, Borrows(1, [], [], [(5, [b"a"])]))]
    dialogues.line(PEER).drops[6] = [b"b"]
    dialogues.line(PEER).drops[7] = [b"c"]
    assert dialogues.flush(0.1) == []
    dialogues.check()
    dialogues.confirmed(b"peer", 1)
    assert dialogues.flush(0.2) == [(PEER, Borrows(2, [], [], [(6, [b"b"]), (7, [b"c"])]))]
    dialogues.confirmed(b"peer", 1)  # Once more: it says nothing about the second.
    dialogues.check()
    assert dialogues.deadline() == 1.0
    dialogues.confirmed(b"peer", 2)
    assert (dialogues.flush(0.3), dialogues.deadline()) == ([], None)


def test_a_batch_goes_again_ever_more_slowly() -> None:
    dialogues = Dialogues(1.0, 4.0)
    dialogues.line(PEER).drops[5] = [b"a"]
    dialogues.flush(0.0)
    sent_at = []
    now = 0.0
    while len(sent_at) < 5:
        deadline = dialogues.deadline()
        assert deadline is not None
        now = deadline
        if dialogues.flush(now):
            sent_at.append(now)
        dialogues.check()
    assert sent_at == [1.0, 3.0, 7.0, 11.0, 15.0]


def test_what_waits_comes_back_when_confirmed_or_when_the_peer_dies() -> None:
    dialogues = Dialogues()
    line = dialogues.line(PEER)
    line.drops[5] = [b"a"]
    line.follow.append("first")
    dialogues.flush(0.0)
    dialogues.line(PEER).follow.append("second")
    assert dialogues.confirmed(b"stranger", 1) == []
    assert dialogues.died(b"peer") == ["first", "second"]
    assert (dialogues.deadline(), dialogues.flush(9.0)) == (None, [])
    dialogues.check()


def test_a_number_is_heeded_once() -> None:
    dialogues = Dialogues()
    heeded = [dialogues.fresh(b"peer", seq) for seq in (1, 1, 2, 1, 2, 3)]
    assert heeded == [True, False, True, False, False, True]
    assert dialogues.fresh(b"other", 1)
