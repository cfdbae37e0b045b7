"""Metrics of a real node: recorded in processes, summed by the node, shown; and ends of workers."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import mray
from mray.cli.main import main
from mray.util import state
from mray.util.metrics import Counter, Gauge, Histogram

from ..waiting import eventually

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number: int = taken.getsockname()[1]
    return number


@pytest.fixture(scope="module", autouse=True)
def cluster(port: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MRAY_METRICS_EXPORT_PORT", str(port))
        # Long: what comes sooner came because its process ended.
        patch.setenv("MRAY_METRICS_REPORT_INTERVAL_MS", "3600000")
        mray.init(num_cpus=2, log_to_driver=False)
    yield
    mray.shutdown()


@pytest.fixture
def figures(capsys: pytest.CaptureFixture[str]) -> Callable[[], dict[tuple[str, ...], Any]]:
    def read() -> dict[tuple[str, ...], Any]:
        capsys.readouterr()
        assert main(["metrics", "--json"]) == 0
        (node,) = json.loads(capsys.readouterr().out)
        return {
            (family["name"], *point["tags"].values()): point.get("value", point.get("buckets"))
            for family in node["metrics"]
            for point in family["points"]
        }

    return read


def flush() -> None:
    """Have this process report now."""
    from mray import current

    current.get().post(current.get().metrics.flush)


@mray.remote
class Worker:
    def __init__(self) -> None:
        self.counter = Counter("it_done", "Things done.", tag_keys=("by",))
        self.gauge = Gauge("it_depth")
        self.sizes = Histogram("it_size", boundaries=[1, 10])

    def work(self, count: int) -> int:
        for _ in range(count):
            self.counter.inc(1, {"by": "actor"})
            self.sizes.observe(5)
        self.gauge.set(count)
        return os.getpid()

    def tell(self) -> None:
        flush()

    def leave(self) -> None:
        mray.actor.exit_actor()


def test_what_processes_count_adds_up_and_what_the_dead_counted_stays(
    figures: Callable[[], dict[tuple[str, ...], Any]],
) -> None:
    worker, other = Worker.remote(), Worker.remote()
    mray.get([worker.work.remote(3), other.work.remote(4)])
    mray.get([worker.tell.remote(), other.tell.remote()])
    eventually(lambda: figures().get(("ray_it_depth",)) == 7)
    told = figures()
    assert told["ray_it_done_total", "actor"] == 7
    assert told["ray_it_size",] == [0, 7, 0]
    assert told["ray_it_depth",] == 7
    # Its last batch leaves at its end.
    mray.get(worker.work.remote(10))
    worker.leave.remote()
    eventually(lambda: figures()["ray_it_done_total", "actor"] == 17)
    eventually(lambda: figures()["ray_it_depth",] == 4)
    assert figures()["ray_it_size",] == [0, 17, 0]
    mray.kill(other)
    eventually(lambda: ("ray_it_depth",) not in figures())
    assert figures()["ray_it_done_total", "actor"] == 17


def test_what_a_process_counted_is_there_when_it_is_killed_a_little_later(
    figures: Callable[[], dict[tuple[str, ...], Any]]
) -> None:
    """Long before the setting, an hour here, would have it told."""

    @mray.remote(max_retries=0)
    def counts() -> None:
        from mray import current
        from mray.metrics_recorder import recorder

        counter = Counter("it_killed")
        for _ in range(5):
            counter.inc()
        while recorder._dirty:  # A report leaves by itself, whatever runs here.
            time.sleep(0.01)
        current.get().flush()
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(mray.exceptions.WorkerCrashedError):
        mray.get(counts.remote())
    eventually(lambda: figures().get(("ray_it_killed_total",)) == 5)


def test_the_driver_and_its_tasks_report_too(
    figures: Callable[[], dict[tuple[str, ...], Any]],
) -> None:
    counter = Counter("it_driver")
    counter.inc(2)

    @mray.remote(max_calls=1)
    def task() -> None:
        counter.inc(40)

    mray.get(task.remote())
    flush()
    eventually(lambda: figures().get(("ray_it_driver_total",)) == 42)


def test_the_node_tells_of_itself(figures: Callable[[], dict[tuple[str, ...], Any]]) -> None:
    told = figures()
    assert told["ray_resources", "CPU", "AVAILABLE"] + told["ray_resources", "CPU", "USED"] == 2
    assert told["mray_object_store_capacity_bytes",] > 0
    assert 0 < told["ray_node_mem_used",] < told["ray_node_mem_total",]
    assert told["mray_metrics_refused_total",] == 0


def test_the_page_is_what_the_command_prints(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    def names(text: str) -> set[str]:
        # Not the labels: workers come to be in other states meanwhile.
        return {line.split(" ")[0].split("{")[0] for line in text.splitlines()}

    def are_the_same() -> bool:
        """Metrics that come between the two readings are in one of them only."""
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            page = answer.read().decode()
        capsys.readouterr()
        assert main(["metrics"]) == 0
        assert 'NodeAddress="127.0.0.1"' in page
        return names(page) == names(capsys.readouterr().out)

    eventually(are_the_same)


def test_workers_that_ended_are_listed_with_their_cause(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pids = {}
    for how in ("kill", "leave", "signal", "scope"):
        actor = Worker.remote()
        pids[how] = mray.get(actor.work.remote(1))
        if how == "kill":
            mray.kill(actor)
        elif how == "leave":
            actor.leave.remote()
        elif how == "signal":
            os.kill(pids[how], signal.SIGKILL)
        del actor

    def dead() -> dict[int, state.WorkerState]:
        found = state.list_workers(filters=[("is_alive", "=", False)], limit=1000)
        return {worker.pid: worker for worker in found}

    eventually(lambda: dead().keys() >= set(pids.values()))
    types = {how: dead()[pid].exit_type for how, pid in pids.items()}
    assert types == {
        "kill": "INTENDED_SYSTEM_EXIT",
        "leave": "INTENDED_USER_EXIT",
        "signal": "SYSTEM_ERROR",
        "scope": "INTENDED_SYSTEM_EXIT",
    }
    worker = dead()[pids["signal"]]
    assert (worker.worker_type, worker.state) == ("WORKER", "dead")
    assert "SIGKILL" in str(worker.exit_detail)
    assert state.get_worker(worker.worker_id) == worker
    capsys.readouterr()
    assert main(["list", "workers", "-f", f"pid={pids['leave']}", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["exit_type"] == "INTENDED_USER_EXIT"
    assert "exit_actor" in told["exit_detail"]
