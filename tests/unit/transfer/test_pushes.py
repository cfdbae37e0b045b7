"""The machine that serves objects to other nodes: event in, effects out."""

from __future__ import annotations

import pytest

from mray.node.transfer.effects import Refuse, Release, SendChunk
from mray.node.transfer.pushes import Present, Pushes, PushRules

ME, A, B, C, D = b"me", b"na", b"nb", b"nc", b"nd"
X = b"xx"
WHOLE = Present(100)


@pytest.fixture
def pushes() -> Pushes:
    return Pushes(ME, PushRules(chunk_bytes=10, in_flight_max=6))


def ask(pushes: Pushes, node: bytes, *chunks: int, owed: int = 99, tried=(), now=0.0) -> list:
    effects = pushes.asked(node, 1, X, list(chunks), owed, list(tried), WHOLE, now)
    pushes.check()
    return effects


def test_chunks_that_are_here_are_sent_in_the_order_asked(pushes: Pushes) -> None:
    assert ask(pushes, A, 3, 1) == [SendChunk(A, 1, X, 3), SendChunk(A, 1, X, 1)]


def test_what_is_not_here_is_refused(pushes: Pushes) -> None:
    [refuse] = pushes.asked(A, 1, X, [0], 0, [], None, 0.0)
    assert isinstance(refuse, Refuse)
    assert "not in the store" in refuse.text


def test_chunks_that_there_are_not_are_an_error_that_changes_nothing(pushes: Pushes) -> None:
    for chunk in (-1, 10):
        with pytest.raises(ValueError, match="10 chunks"):
            ask(pushes, A, 0, chunk)
    assert not len(pushes)


def test_the_third_puller_is_sent_to_those_who_get_it_each_in_its_turn(pushes: Pushes) -> None:
    ask(pushes, A, 0)
    ask(pushes, B, 0)
    assert ask(pushes, C, 0) == [Refuse(C, 1, (A,), "")]
    assert ask(pushes, D, 0) == [Refuse(D, 1, (B,), "")]


def test_who_has_tried_all_others_is_served(pushes: Pushes) -> None:
    ask(pushes, A, 0)
    ask(pushes, B, 0)
    assert ask(pushes, C, 0, tried=[A, B]) == [SendChunk(C, 1, X, 0)]


def test_whoever_has_got_all_of_it_is_named_while_others_get_it(pushes: Pushes) -> None:
    ask(pushes, A, 0)
    ask(pushes, B, 0)
    pushes.end(A, 1, 0.0)
    assert ask(pushes, C, 0) == [SendChunk(C, 1, X, 0)]
    assert ask(pushes, D, 0, tried=[B, C]) == [Refuse(D, 1, (A,), "")]


def test_small_objects_are_sent_to_everybody(pushes: Pushes) -> None:
    for node in (A, B, C, D):
        sent = pushes.asked(node, 1, X, [0], 0, [], Present(40), 0.0)
        assert sent == [SendChunk(node, 1, X, 0)]


def test_what_is_on_its_way_here_is_sent_on_as_it_comes(pushes: Pushes) -> None:
    partial = Present(100, bytes([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]))
    sent = pushes.asked(A, 1, X, [0, 1, 2, 3], 0, [], partial, 0.0)
    assert sent == [SendChunk(A, 1, X, 0), SendChunk(A, 1, X, 3)]
    assert pushes.arrived(X, 9) == []
    assert pushes.arrived(X, 2) == [SendChunk(A, 1, X, 2)]
    assert pushes.gone(X, "its source died") == [
        Release(X), Refuse(A, 1, (), "its source died"),
    ]  # fmt: skip
    pushes.check()


def test_what_is_under_way_has_a_bound_and_pullers_take_turns(pushes: Pushes) -> None:
    assert len(ask(pushes, A, 0, 1, 2, 3)) == 4
    assert len(ask(pushes, B, 0, 1, 2, 3)) == 2
    assert ask(pushes, A, 4, owed=2) == [
        SendChunk(B, 1, X, 2), SendChunk(A, 1, X, 4), SendChunk(B, 1, X, 3),
    ]  # fmt: skip


def test_a_chunk_that_is_asked_for_again_is_sent_again_and_counts_once(pushes: Pushes) -> None:
    ask(pushes, A, 0, 1, 2, 3, 4, 5)
    assert ask(pushes, A, 0) == []
    assert ask(pushes, A, owed=6) == [SendChunk(A, 1, X, 0)]


def test_the_last_puller_lets_go_of_the_copy(pushes: Pushes) -> None:
    ask(pushes, A, 0)
    ask(pushes, B, 0)
    assert pushes.end(A, 1, 0.0) == []
    assert pushes.end(A, 1, 0.0) == []
    assert pushes.end(B, 1, 0.0) == [Release(X)]


def test_a_dead_node_gets_nothing_and_is_named_to_nobody(pushes: Pushes) -> None:
    ask(pushes, A, 0)
    ask(pushes, B, 0)
    pushes.node_gone(A)
    ask(pushes, D, 0)
    assert ask(pushes, C, 0) == [Refuse(C, 1, (B,), "")]


def test_a_puller_that_asks_for_nothing_any_more_is_forgotten(pushes: Pushes) -> None:
    ask(pushes, A, 0, now=0.0)
    assert pushes.tick(29.0) == []
    assert pushes.tick(30.0) == [Release(X)]
    assert pushes.tick(60.0) == []
    assert pushes.deadline() is None
