"""F1, F3: a worker is killed or stopped, whatever it is at: nothing is lost, nothing is left."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy
import psutil
import pytest

import mray
from mray import current
from mray.session_files import Session
from mray.wire.messages import GetStoreStats, StoreStats

from ..quiescent import Watch
from ..waiting import eventually

pytestmark = [pytest.mark.failure, pytest.mark.usefixtures("at_rest")]


@mray.remote
def whoami() -> int:
    return os.getpid()


def node_daemon(session: Session) -> psutil.Process:
    (pid,) = [each.pid for each in session.processes() if each.kind == "node" and each.alive]
    return psutil.Process(pid)


def test_an_idle_worker_that_is_killed_is_replaced(watch: Watch) -> None:
    pids = {worker["pid"] for seen in watch.cluster.look(True)["workers"].values()
            for worker in seen}  # fmt: skip
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    begun = time.monotonic()
    after = set(mray.get([whoami.remote() for _ in range(20)], timeout=20))
    assert time.monotonic() - begun < 10
    assert not after & pids


def test_a_worker_that_is_killed_before_its_first_task_is_replaced(
    watch: Watch, session: Session, tmp_path: Path
) -> None:
    daemon = node_daemon(session)
    before = {child.pid for child in daemon.children(recursive=True)}

    @mray.remote(runtime_env={"env_vars": {"PYTHONUTF8": "1"}})  # an interpreter of its own
    def count(folder: str) -> int:
        Path(folder, str(os.getpid())).touch()
        return len(os.listdir(folder))

    ref = count.remote(str(tmp_path))
    (born, *_) = eventually(
        lambda: [c.pid for c in daemon.children() if c.pid not in before], what="a new worker"
    )
    os.kill(born, signal.SIGKILL)
    assert mray.get(ref, timeout=20) == 1
    assert not Path(tmp_path, str(born)).exists()


def test_a_worker_that_is_killed_while_it_writes_a_large_result_leaves_no_part_of_it(
    watch: Watch, tmp_path: Path
) -> None:
    size = 300 << 20

    @mray.remote
    def large(folder: str) -> Any:
        Path(folder, str(os.getpid())).touch()
        return numpy.full(size, len(os.listdir(folder)), "uint8")

    rt = current.get()

    def unsealed() -> bool:
        told = rt.ask(rt.node.address, lambda rid: GetStoreStats(rid, True), StoreStats)
        return any(row[1] >= size and row[2] == "created" for row in told.objects)

    ref = large.remote(str(tmp_path))
    eventually(unsealed, what="the result is being written")
    (first,) = os.listdir(tmp_path)
    os.kill(int(first), signal.SIGKILL)
    value = mray.get(ref, timeout=30)
    assert (value.nbytes, int(value[0]), int(value[-1])) == (size, 2, 2)
    assert value.min() == 2


@mray.remote
class Keeper:
    def keep(self, refs: list[Any]) -> int:
        self.refs = refs
        return os.getpid()


def test_what_a_killed_worker_had_borrowed_goes_with_it(watch: Watch) -> None:
    ref = mray.put(numpy.zeros(2 << 20, "uint8"))
    keeper = Keeper.remote()
    pid = mray.get(keeper.keep.remote([ref]), timeout=20)
    del ref
    rt = current.get()

    def used() -> int:
        return rt.ask(rt.node.address, GetStoreStats, StoreStats).used_bytes

    assert used() >= 2 << 20
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: used() == 0, 10, "the borrower's death gives the object up")


def test_a_stopped_worker_keeps_its_task_and_disturbs_nobody(
    watch: Watch, tmp_path: Path
) -> None:
    @mray.remote
    def counts_to_the_end(folder: str) -> int:
        Path(folder, f"{os.getpid()}").touch()
        while not Path(folder, "end").exists():
            time.sleep(0.01)
        return len(os.listdir(folder))

    ref = counts_to_the_end.remote(str(tmp_path))
    (name,) = eventually(lambda: os.listdir(tmp_path))
    os.kill(int(name), signal.SIGSTOP)
    try:
        assert len(mray.get([whoami.remote() for _ in range(200)], timeout=20)) == 200
        seen = watch.cluster.look(True)
        assert [node["state"] for node in seen["nodes"]] == ["ALIVE"]
        assert any("counts_to_the_end" in line and "RUNNING" in line for line in seen["tasks"])
        assert mray.wait([ref], timeout=0)[0] == []
    finally:
        os.kill(int(name), signal.SIGCONT)
    Path(tmp_path, "end").touch()
    assert mray.get(ref, timeout=20) == 2  # one attempt, and the file that ended it
