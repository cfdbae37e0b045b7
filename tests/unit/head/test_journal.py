"""The journal: nothing leaves before it is written, and what happens when that cannot be."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mray.node.head.journal import WAIT_S, Journal
from mray.node.head.storage.store import Fenced, StorageError, Tables, Writes
from mray.rpc.pump import Pump
from mray.wire.messages import Ack, GetNodes, Heartbeat, KvPut, KvPutDone, Message, Nodes, Refused

CLI, NODE = b"c" * 28, b"n" * 28


class Disk:
    """A storage that fails when told to."""

    text = "the test's storage"

    def __init__(self) -> None:
        self.rows: dict[tuple[str, bytes], bytes | None] = {}
        self.failure: StorageError | None = None
        self.commits = 0

    def load(self) -> Tables:
        return {}

    def take_over(self, writes: Writes) -> int:
        return 1

    def commit(self, writes: Writes) -> None:
        self.commits += 1
        if self.failure is not None:
            raise self.failure
        self.rows.update(writes)

    def close(self) -> None:
        return


class Loop:
    """What a journal needs of a pump."""

    def __init__(self) -> None:
        self.now = 0.0
        self.hooks: list[Callable[[], None]] = []
        self.sent: list[tuple[bytes, Message]] = []
        self.due: list[tuple[float, Callable[[], None]]] = []

    def clock(self) -> float:
        return self.now

    def send(self, to: bytes, message: Message) -> bool:
        self.sent.append((to, message))
        return True

    def every(self, period_s: float, call: Callable[[], None]) -> None:
        self.regular = call

    def at(self, when: float, call: Callable[[], None]) -> None:
        self.due.append((when, call))

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        self.at(self.now + delay_s, call)

    def call_soon(self, call: Callable[[], None]) -> None:
        self.at(self.now, call)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        due = [call for when, call in self.due if when <= self.now]
        self.due = [(when, call) for when, call in self.due if when > self.now]
        for call in due:
            call()
        self.turn()

    def turn(self) -> None:
        for hook in self.hooks:
            hook()

    def take(self) -> list[tuple[bytes, Message]]:
        sent, self.sent = self.sent, []
        return sent


class Bench:
    def __init__(self) -> None:
        self.loop, self.disk = Loop(), Disk()
        self.fenced: list[str] = []
        pump: Pump = self.loop  # type: ignore[assignment]
        self.journal = Journal(pump, self.disk, self.fenced.append)

    def put(self, rid: int = 1, value: bytes = b"v") -> None:
        """A request that writes a row and is answered."""

        def go() -> None:
            self.journal.persist("kv", b"k%d" % rid, value)
            self.journal.send(CLI, KvPutDone(rid, True))

        self.journal.handle(CLI, KvPut(rid, "space", b"k", b"v"), go)

    def look(self, rid: int = 9) -> None:
        """A request that only reads."""
        answer = Nodes(rid, "c", None, [])  # type: ignore[arg-type]
        self.journal.handle(CLI, GetNodes(rid), lambda: self.journal.send(CLI, answer))

    def beat(self) -> None:
        """What a node tells, and an order that follows from it."""

        def go() -> None:
            self.journal.persist("actors", b"a", b"placed")
            self.journal.send(NODE, Ack(0))

        self.journal.handle(NODE, Heartbeat(NODE, {}, [], 0, 0), go)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_answers_leave_after_one_commit_a_round(bench: Bench) -> None:
    bench.put(1)
    bench.put(2)
    bench.beat()
    assert bench.loop.take() == []
    bench.loop.turn()
    assert bench.disk.commits == 1
    assert set(bench.disk.rows) == {("kv", b"k1"), ("kv", b"k2"), ("actors", b"a")}
    assert [message for _, message in bench.loop.take()] == [
        KvPutDone(1, True), KvPutDone(2, True), Ack(0)
    ]  # fmt: skip


def test_a_round_that_changes_nothing_commits_nothing(bench: Bench) -> None:
    bench.look()
    bench.loop.turn()
    assert bench.disk.commits == 0
    assert len(bench.loop.take()) == 1


def test_a_short_trouble_is_waited_out(bench: Bench) -> None:
    bench.disk.failure = StorageError("no space")
    bench.put(1)
    bench.beat()
    bench.loop.turn()
    bench.put(2)  # Not begun: it would change what is known.
    bench.loop.turn()
    assert bench.loop.take() == []
    bench.disk.failure = None
    bench.loop.pass_time(0.3)
    assert [message for _, message in bench.loop.take()] == [KvPutDone(1, True), Ack(0)]
    bench.loop.pass_time(0.0)
    assert [message for _, message in bench.loop.take()] == [KvPutDone(2, True)]
    assert bench.journal.trouble == ""
    assert ("kv", b"k2") in bench.disk.rows


def test_requests_are_refused_after_a_while_and_reads_go_on(bench: Bench) -> None:
    bench.disk.failure = StorageError("the storage cannot be written: no space")
    bench.put(1)
    bench.beat()
    bench.loop.turn()
    bench.put(2)
    bench.look(9)
    assert [type(message) for _, message in bench.loop.take()] == [Nodes]
    bench.loop.pass_time(WAIT_S)
    answers = [message for _, message in bench.loop.take()]
    assert [(type(each), each.rid) for each in answers] == [(Refused, 1), (Refused, 2)]  # type: ignore[attr-defined]
    assert "no space" in answers[0].text  # type: ignore[attr-defined]
    bench.put(3)
    bench.look(10)
    assert [type(message) for _, message in bench.loop.take()] == [Nodes]
    bench.loop.pass_time(0.5)
    assert [type(message) for _, message in bench.loop.take()] == [Refused]
    # What nodes told is not lost, and orders leave once that is written.
    bench.disk.failure = None
    bench.loop.pass_time(1.0)
    assert bench.loop.take() == [(NODE, Ack(0))]
    assert ("actors", b"a") in bench.disk.rows
    assert ("kv", b"k3") not in bench.disk.rows
    bench.put(4)
    bench.loop.turn()
    assert bench.loop.take() == [(CLI, KvPutDone(4, True))]


def test_a_trouble_is_not_tried_again_in_every_round(bench: Bench) -> None:
    bench.disk.failure = StorageError("no space")
    bench.put(1)
    for _ in range(100):
        bench.loop.turn()
    assert bench.disk.commits == 1


def test_from_a_head_that_was_overtaken_nothing_leaves(bench: Bench) -> None:
    bench.disk.failure = Fenced("the storage", 1, 2)
    bench.put(1)
    bench.beat()
    bench.loop.turn()
    bench.loop.pass_time(10.0)
    assert bench.loop.take() == []
    (text,) = bench.fenced
    assert "epoch is 2" in text


def test_the_end_of_the_cluster_is_written_and_nothing_after_it(bench: Bench) -> None:
    bench.put(1)
    bench.journal.end({("nodes", b"n"): None})
    assert bench.loop.take() == [(CLI, KvPutDone(1, True))]
    assert bench.disk.rows[("nodes", b"n")] is None
    bench.put(2)
    bench.loop.turn()
    assert bench.loop.take() == [(CLI, KvPutDone(2, True))]
    assert ("kv", b"k2") not in bench.disk.rows


def test_a_head_without_work_finds_out_that_it_was_overtaken(bench: Bench) -> None:
    bench.loop.regular()
    assert bench.disk.commits == 1
    bench.put(1)
    bench.loop.turn()
    bench.loop.regular()
    assert bench.disk.commits == 2  # It has just written: nothing to look for.
    bench.disk.failure = Fenced("the storage", 1, 2)
    bench.loop.regular()
    assert len(bench.fenced) == 1


def test_a_head_without_work_finds_out_that_it_cannot_write(bench: Bench) -> None:
    bench.disk.failure = StorageError("no space")
    bench.loop.regular()
    bench.put(1)
    assert bench.loop.take() == []
    bench.disk.failure = None
    bench.loop.pass_time(0.3)
    bench.loop.pass_time(0.0)
    assert bench.loop.take() == [(CLI, KvPutDone(1, True))]


def test_a_request_after_a_long_trouble_is_served_if_it_is_over(bench: Bench) -> None:
    bench.disk.failure = StorageError("no space")
    bench.beat()
    bench.loop.turn()
    bench.loop.pass_time(100.0)
    bench.disk.failure = None
    bench.put(1)
    bench.loop.pass_time(0.3)
    bench.loop.pass_time(0.0)
    assert [message for _, message in bench.loop.take()] == [Ack(0), KvPutDone(1, True)]
