"""What a node tells of its memory: its store, and every process by name, answering or not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mray.node.objects.report import MemoryReports
from mray.rpc.pump import RequestFailed
from mray.wire.messages import (
    Ack,
    CollectGarbage,
    GetMemory,
    GetReferences,
    MemoryReport,
    ReferenceViews,
    StoredView,
    StoreStats,
)

ASKER, DRIVER, WORKER, CLI = (bytes([number]) * 28 for number in range(1, 5))
STATS = StoreStats(5, 100, 60, 0, 2)


class FakePump:
    """Keeps what is asked and sent; ``answer`` plays a process."""

    def __init__(self) -> None:
        self.asked: dict[bytes, tuple[Any, Any, float]] = {}
        self.sent: list[tuple[bytes, Any]] = []
        self.now = 0.0

    def clock(self):
        return self.now

    def request(self, process_id, make, on_reply, timeout_s):
        self.asked[process_id] = make(9), on_reply, timeout_s

    def send(self, process_id, message):
        self.sent.append((process_id, message))

    def answer(self, process_id, reply):
        self.asked[process_id][1](reply)


def peer(process_id: bytes, kind: str, pid: int) -> Any:
    return SimpleNamespace(process_id=process_id, kind=kind, pid=pid, job_id=b"job1")


def copy(object_id: bytes, size: int, pins: dict[bytes, int]) -> Any:
    return SimpleNamespace(
        object_id=object_id, owner_id=DRIVER, size=size, state="sealed", pins=pins
    )


def str_of(process_id: bytes) -> str:
    """No worker has said what it runs."""
    return ""


@pytest.fixture
def pump():
    return FakePump()


@pytest.fixture
def reports(pump):
    store = SimpleNamespace(
        stats=lambda rid, objects: STATS,
        store=SimpleNamespace(copies=lambda: [copy(b"a", 20, {}), copy(b"b", 40, {WORKER: 2})]),
    )
    peers = [peer(DRIVER, "driver", 10), peer(WORKER, "worker", 11), peer(CLI, "client", 12)]
    spec = SimpleNamespace(class_name="Keeper", actor_id=b"actor")
    hold = SimpleNamespace(actor=SimpleNamespace(spec=spec))
    workers = {WORKER: SimpleNamespace(key=SimpleNamespace(job_id=b"job2"))}
    return MemoryReports(
        pump, store, peers, workers, SimpleNamespace(by_worker={WORKER: hold}), str_of
    )  # type: ignore[arg-type]


def views(title: str = "") -> ReferenceViews:
    return ReferenceViews(9, title, 0, [], {}, [])


def test_the_answer_waits_for_every_process_and_names_the_silent(reports, pump):
    reports.get_memory(ASKER, GetMemory(5, limit=10, wait_s=1.5))
    assert set(pump.asked) == {DRIVER, WORKER}
    assert pump.asked[DRIVER][0] == GetReferences(9, 10)
    assert pump.asked[DRIVER][2] == 1.5
    pump.answer(DRIVER, views())
    assert not pump.sent
    pump.answer(WORKER, RequestFailed("RpcError", "no answer in time"))
    ((to, answer),) = pump.sent
    assert to == ASKER
    assert isinstance(answer, MemoryReport)
    assert answer.store == STATS
    driver, worker = answer.processes
    assert (driver.pid, driver.kind, driver.job_id, driver.views) == (
        10,
        "driver",
        b"job1",
        views(),
    )
    assert (worker.title, worker.actor_id, worker.job_id) == ("Keeper", b"actor", b"job2")
    assert worker.views is None


def test_a_process_says_itself_what_it_runs(reports, pump):
    reports.get_memory(ASKER, GetMemory(5, limit=10))
    pump.answer(DRIVER, views())
    pump.answer(WORKER, views("Keeper.keep"))
    assert pump.sent[0][1].processes[1].title == "Keeper.keep"


def test_the_biggest_stored_objects_come_first_with_who_reads_them(reports, pump):
    reports.get_memory(ASKER, GetMemory(5, limit=1))
    pump.answer(DRIVER, views())
    pump.answer(WORKER, views())
    assert pump.sent[0][1].stored == [StoredView(b"b", DRIVER, 40, "sealed", [(WORKER, 2)])]


def test_a_question_that_comes_twice_is_answered_once(reports, pump):
    reports.get_memory(ASKER, GetMemory(5, limit=1))
    first = dict(pump.asked)
    reports.get_memory(ASKER, GetMemory(5, limit=1))
    assert pump.asked == first
    pump.answer(DRIVER, views())
    pump.answer(WORKER, views())
    assert len(pump.sent) == 1


def test_what_is_asked_is_bounded(reports, pump):
    reports.get_memory(ASKER, GetMemory(5, limit=10**9, wait_s=10**9))
    assert pump.asked[DRIVER][0].limit == 20_000
    assert pump.asked[DRIVER][2] == 30.0


def test_a_node_without_processes_answers_at_once(pump):
    store = SimpleNamespace(stats=lambda rid, objects: STATS, store=SimpleNamespace(copies=list))
    reports = MemoryReports(pump, store, [], {}, SimpleNamespace(by_worker={}), str_of)  # type: ignore[arg-type]
    reports.get_memory(ASKER, GetMemory(5, limit=1))
    assert pump.sent == [(ASKER, MemoryReport(5, STATS, [], []))]


def test_garbage_is_collected_by_all_processes(reports, pump):
    question = CollectGarbage(5)
    reports.collect_garbage(ASKER, question)
    assert pump.sent == [(DRIVER, question), (WORKER, question), (ASKER, Ack(5))]
