"""Requests to a peer that goes and comes back: none is lost, each is answered once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mray.rpc.patience import PatientRequests
from mray.rpc.pump import Pump, RequestFailed
from mray.wire.messages import Ack, Message, Ping

HEAD = b"h" * 28
FAILED = RequestFailed("RpcError", "no answer in time")


class Wire:
    """What requests need of a pump: it remembers them, and the test answers."""

    def __init__(self) -> None:
        self.open: dict[int, Callable[[Message], None]] = {}
        self.sent: list[Message] = []

    def request(
        self, peer: bytes, make: Callable[[int], Message], on_reply: Callable[[Message], None],
        timeout_s: float,
    ) -> int:  # fmt: skip
        rid = len(self.sent) + 1
        self.open[rid] = on_reply
        self.sent.append(make(rid))
        return rid

    def forget_request(self, rid: int) -> None:
        self.open.pop(rid, None)

    def answer(self, rid: int, message: Message) -> None:
        self.open.pop(rid)(message)


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def requests(wire: Wire) -> PatientRequests:
    pump: Pump = wire  # type: ignore[assignment]
    return PatientRequests(pump, HEAD)


def test_a_peer_that_is_there_is_asked_at_once(wire: Wire, requests: PatientRequests) -> None:
    replies: list[Message] = []
    requests.ask(Ping, replies.append, 1.0)
    wire.answer(1, Ack(1))
    assert replies == [Ack(1)]
    assert len(requests) == 0


def test_silence_of_a_peer_that_is_there_is_a_failure(
    wire: Wire, requests: PatientRequests
) -> None:
    replies: list[Message] = []
    requests.ask(Ping, replies.append, 1.0)
    wire.answer(1, FAILED)
    assert replies == [FAILED]


def test_what_is_asked_meanwhile_is_sent_when_the_peer_is_back(
    wire: Wire, requests: PatientRequests
) -> None:
    replies: list[Message] = []
    requests.gone()
    requests.ask(Ping, replies.append, 1.0)
    assert wire.sent == []
    requests.back()
    wire.answer(1, Ack(1))
    assert replies == [Ack(1)]


def test_what_was_asked_before_is_sent_again_and_answered_once(
    wire: Wire, requests: PatientRequests
) -> None:
    replies: list[Message] = []
    requests.ask(Ping, replies.append, 1.0)
    requests.ask(Ping, replies.append, 1.0)
    requests.gone()
    wire.answer(1, FAILED)  # Its time is over while the peer is away: it waits.
    assert replies == []
    requests.back()
    assert len(wire.sent) == 4
    assert list(wire.open) == [3, 4]
    wire.answer(4, Ack(4))
    wire.answer(3, Ack(3))
    assert replies == [Ack(4), Ack(3)]
    requests.back()
    assert len(wire.sent) == 4


def test_an_answer_may_still_come_from_a_peer_that_counts_as_away(
    wire: Wire, requests: PatientRequests
) -> None:
    replies: list[Message] = []
    requests.ask(Ping, replies.append, 1.0)
    requests.gone()
    wire.answer(1, Ack(1))
    assert replies == [Ack(1)]
    requests.back()
    assert len(wire.sent) == 1


def test_a_peer_that_does_not_come_back_fails_everything(
    wire: Wire, requests: PatientRequests
) -> None:
    replies: list[Message] = []
    requests.ask(Ping, replies.append, 1.0)
    requests.gone()
    requests.ask(Ping, replies.append, 1.0)
    requests.give_up("the head is gone")
    assert replies == [RequestFailed("RpcError", "the head is gone")] * 2
    assert wire.open == {}
