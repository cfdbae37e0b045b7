"""One question to many processes: asked once, answered once, by those that can."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mray.node.workers.asking import Asking
from mray.rpc.pump import RequestFailed
from mray.wire.messages import Ack, GetReferences, Refused

ASKER = b"asker"


class FakePump:
    """Keeps what is asked; ``answer`` plays a process."""

    def __init__(self) -> None:
        self.asked: dict[bytes, tuple[Any, Any, float]] = {}
        self.now = 0.0

    def clock(self):
        return self.now

    def request(self, process_id, make, on_reply, timeout_s):
        assert process_id not in self.asked
        self.asked[process_id] = make(len(self.asked) + 100), on_reply, timeout_s

    def answer(self, process_id, reply):
        self.asked[process_id][1](reply)


@pytest.fixture
def pump():
    return FakePump()


@pytest.fixture
def asking(pump):
    return Asking(pump)


PEERS: Any = [SimpleNamespace(process_id=name, pid=pid) for name, pid in ((b"a", 1), (b"b", 2))]


def ask(asking, peers=PEERS, rid=5, wait_s=3.0):
    """What came of a question, as it comes."""
    told = []
    asking.ask(
        ASKER, rid, peers, GetReferences(0, 7), wait_s, lambda *answers: told.append(answers)
    )
    return told


def test_everybody_is_asked_under_a_number_of_its_own(pump, asking):
    ask(asking)
    assert [q for q, _, _ in pump.asked.values()] == [GetReferences(100, 7), GetReferences(101, 7)]


def test_the_end_comes_with_the_last_answer(pump, asking):
    told = ask(asking)
    pump.answer(b"b", Ack(2))
    assert told == []
    pump.answer(b"a", Ack(1))
    assert told == [({b"b": Ack(2), b"a": Ack(1)}, [])]


def test_with_nobody_to_ask_the_end_comes_at_once(pump, asking):
    assert ask(asking, []) == [({}, [])]
    assert pump.asked == {}


def test_who_lets_the_time_run_out_is_named(pump, asking):
    told = ask(asking)
    pump.answer(b"b", Ack(2))
    pump.now = 3.0
    late = RequestFailed("RpcError", "no answer in time")
    pump.answer(b"a", late)
    assert told == [({b"b": Ack(2), b"a": late}, [1])]


def test_who_has_ended_is_not_silent(pump, asking):
    told = ask(asking)
    gone, refused = RequestFailed("RpcError", "the peer is gone"), Refused(1, "RuntimeError", "no")
    pump.answer(b"a", gone)
    pump.answer(b"b", refused)
    assert told == [({b"a": gone, b"b": refused}, [])]


def test_the_same_request_is_not_begun_again_while_it_is_open(pump, asking):
    ask(asking)
    assert ask(asking) == []
    pump.answer(b"a", Ack(1))
    pump.answer(b"b", Ack(1))
    pump.asked.clear()
    told = ask(asking)
    assert len(pump.asked) == 2
    assert told == []


@pytest.mark.parametrize(("asked", "given"), [(-1.0, 0.0), (1e9, 30.0), (4.0, 4.0)])
def test_the_wait_is_bounded(pump, asking, asked, given):
    ask(asking, wait_s=asked)
    assert {timeout for _, _, timeout in pump.asked.values()} == {given}
