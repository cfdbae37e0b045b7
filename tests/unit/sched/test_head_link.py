"""A node's dialogue with a head that goes and comes back, and with one that is not its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mray.config import Config
from mray.node.daemon import Daemon
from mray.node.sched.head_link import HeadLink
from mray.rpc.pump import RequestFailed
from mray.wire.messages import (
    Ack,
    Address,
    DeathCause,
    GetHeadState,
    GetJobInfo,
    HeadAway,
    HeadBack,
    HeadState,
    Heartbeat,
    JobInfoReply,
    Message,
    NodeContents,
    NodeInfo,
    NodeRegistered,
    Ping,
    ProcessDied,
    Refused,
    RegisterAgain,
    RegisterNode,
)

HEAD, NODE, WORKER = b"h" * 28, b"n" * 28, b"w" * 28
ADDRESS = Address(HEAD, NODE, "/here/gcs")
INFO = NodeInfo(NODE, Address(NODE, NODE), "", "", 1, {}, {}, "", "", "", 0, True, "1", "3")
CONTENTS = NodeContents([], [], [WORKER], [], [])
DIED = ProcessDied(b"p" * 28, "worker", b"job1", DeathCause("signal", signal=9))
SILENT = RequestFailed("RpcError", "no answer in time")


class Loop:
    """What a link needs of a pump; requests are answered by the test."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sent: list[tuple[bytes, Message]] = []
        self.asked: list[tuple[Message, Callable[[Message], None]]] = []
        self.timers: list[tuple[float, Any]] = []
        self.handlers: dict[type, Callable[[bytes, Any], None]] = {}
        self.door = SimpleNamespace(dial=lambda address, own: None)
        self.on_reset: Callable[[bytes], None] = lambda process_id: None

    def clock(self) -> float:
        return self.now

    def on(self, kind: type, handler: Callable[[bytes, Any], None]) -> None:
        self.handlers[kind] = handler

    def send(self, to: bytes, message: Message) -> bool:
        self.sent.append((to, message))
        return True

    def request(
        self, to: bytes, make: Callable[[int], Message], on_reply: Callable[[Message], None],
        timeout_s: float,
    ) -> int:  # fmt: skip
        self.asked.append((make(len(self.asked) + 1), on_reply))
        return len(self.asked)

    def forget_request(self, rid: int) -> None:
        return

    def at(self, when: float, call: Callable[[], None]) -> Any:
        timer = SimpleNamespace(call=call, cancel=lambda: setattr(timer, "call", None))
        self.timers.append((when, timer))
        return timer

    def after(self, delay_s: float, call: Callable[[], None]) -> Any:
        return self.at(self.now + delay_s, call)

    def every(self, period_s: float, call: Callable[[], None]) -> None:
        return

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for when, timer in self.timers if when <= self.now]
        self.timers = [(when, timer) for when, timer in self.timers if when > self.now]
        for timer in due:
            if timer.call is not None:
                timer.call()

    def answer(self, kind: type[Message], reply: Message) -> None:
        """Answer the last open request of a kind."""
        for place in reversed(range(len(self.asked))):
            if isinstance(self.asked[place][0], kind):
                self.asked.pop(place)[1](reply)
                return
        raise AssertionError(f"nobody asks {kind.__name__}")

    def told(self, to: bytes, kind: type) -> list[Any]:
        return [
            message for other, message in self.sent if other == to and isinstance(message, kind)
        ]


class Bench:
    def __init__(self, owner_pid: int = 0, head_pid: int = 7) -> None:
        self.loop = Loop()
        self.stops: list[tuple[str, int]] = []
        self.joined = 0
        params = SimpleNamespace(
            head=ADDRESS, process_id=NODE, head_pid=head_pid, head_start_time=1, cluster_id="c1",
            owner_pid=owner_pid,
        )  # fmt: skip
        self.daemon: Any = SimpleNamespace(
            pump=self.loop, params=params, config=Config(), was_ready=True, stopping=False,
            ready=lambda: None, log=logging.getLogger("test"),
            stop=lambda reason, grace_s, code=0: self.stops.append((reason, code)),
            watch_pid=self.watch, session=SimpleNamespace(processes=list),
        )  # fmt: skip
        self.head_ended: Callable[[], None] = lambda: None
        self.daemon.head_moved = self.moved
        #: What was dialled anew: which process, where.
        self.redialled: list[tuple[bytes, str]] = []
        self.loop.door.redial = lambda process_id, tcp: self.redialled.append((process_id, tcp))
        daemon: Daemon = self.daemon
        self.link = HeadLink(daemon, lambda: Heartbeat(NODE, {}, [], 0, 0, epoch=self.link.epoch))
        self.link.join(INFO, self.count, lambda: CONTENTS, lambda: [WORKER])
        self.loop.answer(RegisterNode, registered(1))

    def watch(self, pid: int, start_time: int, ended: Callable[[], None]) -> None:
        self.head_ended = ended

    def moved(self, tcp: str) -> Address:
        params = self.daemon.params
        params.head, params.head_pid = Address(HEAD, NODE, "", tcp), 0
        return params.head

    def count(self, reply: NodeRegistered) -> None:
        self.joined += 1


def registered(epoch: int) -> NodeRegistered:
    return NodeRegistered(1, "c1", b"", ADDRESS, [], epoch)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_head_that_comes_back_is_told_what_the_node_has_and_what_it_missed(
    bench: Bench,
) -> None:
    loop, link = bench.loop, bench.link
    link.tell(DIED)
    bench.head_ended()
    assert loop.told(WORKER, HeadAway) == [HeadAway(0.0, "the head (pid 7) has ended")]
    loop.sent.clear()
    replies: list[Message] = []
    link.ask(lambda rid: GetJobInfo(rid, b"job1"), replies.append, 1.0)
    link.tell(Heartbeat(NODE, {}, [], 0, 0))
    assert loop.sent == []
    loop.answer(Ping, SILENT)
    loop.pass_time(0.1)
    loop.answer(Ping, Ack(0))
    assert loop.told(HEAD, ProcessDied) == [DIED]
    (request,) = [message for message, _ in loop.asked if isinstance(message, RegisterNode)]
    assert (request.cluster_id, request.epoch, request.running) == ("c1", 1, CONTENTS)
    loop.answer(RegisterNode, registered(2))
    assert link.epoch == 2
    assert loop.told(WORKER, HeadBack) == [HeadBack(2)]
    assert [beat.epoch for beat in loop.told(HEAD, Heartbeat)] == [2]
    loop.answer(GetJobInfo, JobInfoReply(1, None))
    assert replies == [JobInfoReply(1, None)]
    loop.pass_time(1000.0)
    assert bench.stops == []
    assert bench.joined == 2


def test_what_ends_while_the_head_takes_the_node_back_is_told_behind_it(bench: Bench) -> None:
    """What the node has was told as it was before: an actor that dies then is there for the head,
    and would be for ever."""
    bench.head_ended()
    bench.loop.answer(Ping, Ack(2))
    bench.loop.sent.clear()
    bench.link.tell(Heartbeat(NODE, {}, [], 0, 0))
    assert bench.loop.sent == []
    bench.link.tell(DIED)
    assert bench.loop.sent == [(HEAD, DIED)]
    bench.loop.answer(RegisterNode, registered(2))
    assert bench.loop.told(HEAD, ProcessDied) == [DIED]


def test_a_head_of_a_lower_epoch_is_not_obeyed(bench: Bench) -> None:
    loop = bench.loop
    loop.handlers[RegisterAgain](HEAD, RegisterAgain(3))
    loop.answer(RegisterNode, registered(3))
    assert bench.link.epoch == 3
    loop.handlers[RegisterAgain](HEAD, RegisterAgain(2))
    assert not any(isinstance(message, RegisterNode) for message, _ in loop.asked)
    bench.head_ended()
    loop.answer(Ping, Ack(0))
    loop.answer(RegisterNode, registered(2))
    assert bench.link.epoch == 3
    assert loop.told(WORKER, HeadBack) == [HeadBack(3)]
    loop.pass_time(1.0)
    loop.answer(Ping, Ack(0))
    loop.answer(RegisterNode, registered(4))
    assert bench.link.epoch == 4


def test_only_the_head_may_ask_for_a_registration(bench: Bench) -> None:
    bench.loop.handlers[RegisterAgain](b"x" * 28, RegisterAgain(9))
    assert bench.loop.asked == []


def test_a_head_that_stays_away_is_the_end_of_the_node(bench: Bench) -> None:
    loop = bench.loop
    replies: list[Message] = []
    bench.head_ended()
    bench.link.ask(lambda rid: GetJobInfo(rid, b"job1"), replies.append, 1.0)
    loop.pass_time(30.0)
    loop.handlers[GetHeadState](b"cli", GetHeadState(5))
    (state,) = loop.told(b"cli", HeadState)
    why = "the head (pid 7) has ended"
    assert state == HeadState(5, True, 30.0, why, 30.0, 1)
    loop.pass_time(30.0)
    ((reason, code),) = bench.stops
    assert code == 1
    assert reason.startswith(f"{why} and did not come back within 1 min")
    assert loop.told(WORKER, HeadAway)[-1] == HeadAway(60.0, reason, final=True)
    assert isinstance(replies[0], RequestFailed)


def test_a_head_of_another_cluster_is_the_end_of_the_node(bench: Bench) -> None:
    bench.head_ended()
    bench.loop.answer(Ping, Ack(0))
    bench.loop.answer(RegisterNode, Refused(1, "RuntimeError", "belongs to cluster x"))
    ((reason, code),) = bench.stops
    assert "belongs to cluster x" in reason
    assert code == 1


def test_a_head_whose_storage_fails_is_asked_again(bench: Bench) -> None:
    bench.head_ended()
    bench.loop.answer(Ping, Ack(0))
    bench.loop.answer(RegisterNode, Refused(1, "OSError", "no space"))
    bench.loop.pass_time(1.0)
    bench.loop.answer(Ping, Ack(0))
    bench.loop.answer(RegisterNode, registered(2))
    assert bench.link.epoch == 2
    assert bench.stops == []


@pytest.mark.parametrize(("waited_s", "told"), [(50.0, [DIED]), (70.0, [])])
def test_a_node_that_stood_still_says_again_what_it_said_before_the_former_head_was_last_heard(
    waited_s: float, told: list[Message]
) -> None:
    """That one may have kept it for nodes which it expected back, and have ended with it."""
    bench = Bench(head_pid=0)
    loop = bench.loop
    bench.link.tell(DIED)
    loop.pass_time(waited_s)
    loop.answer(Ping, Ack(0))
    loop.now += 100.0  # It stands still.
    loop.sent.clear()
    loop.on_reset(HEAD)
    assert loop.told(HEAD, ProcessDied) == told


@pytest.mark.parametrize("failure", [Refused(2, "OSError", "the disk is full"), SILENT])
def test_a_head_that_began_anew_unnoticed_is_told_of_the_node_until_it_confirms(
    bench: Bench, failure: Message
) -> None:
    bench.loop.on_reset(HEAD)  # It was away for so short that no ping was missed.
    bench.loop.answer(RegisterNode, failure)
    bench.loop.pass_time(0.5)
    bench.loop.answer(RegisterNode, registered(2))
    assert bench.link.epoch == 2
    assert bench.loop.told(WORKER, HeadBack) == [HeadBack(2)]


def test_a_cluster_that_ends_with_its_program_ends_with_its_head() -> None:
    bench = Bench(owner_pid=1)
    bench.head_ended()
    assert bench.stops == [("the head (pid 7) has ended, and the cluster with it", 0)]
    assert bench.loop.told(WORKER, HeadAway) == []


def test_a_process_that_comes_while_the_head_is_away_is_told(bench: Bench) -> None:
    bench.link.greet(b"new")
    bench.head_ended()
    bench.loop.pass_time(2.0)
    bench.link.greet(b"new")
    assert bench.loop.told(b"new", HeadAway) == [HeadAway(2.0, "the head (pid 7) has ended")]


# -- a head that begins anew in another place


ELSEWHERE = Address(HEAD, b"m" * 28, "/there/gcs", "10.0.0.9:6379")


def test_a_newer_head_in_another_place_is_followed_there(bench: Bench) -> None:
    loop = bench.loop
    loop.handlers[RegisterAgain](HEAD, RegisterAgain(2, ELSEWHERE))
    assert bench.redialled == [(HEAD, "10.0.0.9:6379")]
    loop.answer(RegisterNode, registered(2))
    # Processes here learn it with the news that the head is back, and are told once.
    assert loop.told(WORKER, HeadBack) == [HeadBack(2, bench.daemon.params.head)]
    loop.handlers[RegisterAgain](HEAD, RegisterAgain(3, ELSEWHERE))
    loop.answer(RegisterNode, registered(3))
    assert loop.told(WORKER, HeadBack)[1:] == [HeadBack(3)]
    assert len(bench.redialled) == 1


def test_the_end_of_the_process_that_it_left_behind_says_nothing(bench: Bench) -> None:
    loop = bench.loop
    loop.handlers[RegisterAgain](HEAD, RegisterAgain(2, ELSEWHERE))
    loop.answer(RegisterNode, registered(2))
    bench.head_ended()
    assert loop.told(WORKER, HeadAway) == []
    # As one on another machine, it has to answer.
    loop.answer(Ping, Ack(0))


def test_a_head_of_no_higher_epoch_moves_nobody(bench: Bench) -> None:
    bench.loop.handlers[RegisterAgain](HEAD, RegisterAgain(1, ELSEWHERE))
    bench.loop.handlers[RegisterAgain](b"x" * 28, RegisterAgain(9, ELSEWHERE))
    assert bench.redialled == []


def test_a_head_in_its_old_place_is_looked_for_where_it_was_found(bench: Bench) -> None:
    loop = bench.loop
    loop.handlers[RegisterAgain](HEAD, RegisterAgain(2, ELSEWHERE))
    # What it says of itself may not lead there from here.
    bench.daemon.params.head = Address(HEAD, NODE, "", "head.example:6379")
    loop.answer(RegisterNode, NodeRegistered(1, "c1", b"", ELSEWHERE, [], 2))
    loop.handlers[RegisterAgain](HEAD, RegisterAgain(3, ELSEWHERE))
    assert len(bench.redialled) == 1


def test_one_ping_is_under_way_at_a_time(bench: Bench) -> None:
    loop = bench.loop
    loop.handlers[RegisterAgain](HEAD, RegisterAgain(2, ELSEWHERE))
    loop.answer(RegisterNode, registered(2))
    loop.handlers[RegisterAgain](HEAD, RegisterAgain(3))
    loop.answer(RegisterNode, registered(3))
    assert sum(isinstance(message, Ping) for message, _ in loop.asked) == 1


def test_the_last_word_says_where_the_head_was_looked_for(bench: Bench) -> None:
    bench.head_ended()
    bench.loop.pass_time(60.0)
    ((reason, _),) = bench.stops
    assert "neither at /here/gcs nor, by its own word, in another place" in reason
