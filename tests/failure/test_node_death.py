"""A node daemon that is killed: nothing of it lives on, and nobody waits for it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import mray
from mray import current
from mray.exceptions import RayError
from mray.session_files import Session

from ..waiting import eventually

pytestmark = pytest.mark.failure


@mray.remote
class Actor:
    def pid(self) -> int:
        return os.getpid()


@mray.remote
def sleeps() -> None:
    time.sleep(1000)


@pytest.fixture
def cluster() -> Iterator[None]:
    mray.init(num_cpus=2)
    yield
    mray.shutdown()


def daemon(kind: str) -> psutil.Process:
    """The head or the node daemon of the cluster we are connected to."""
    session = Session(current.get().node.session_dir)
    (pid,) = [each.pid for each in session.processes() if each.kind == kind and each.alive]
    return psutil.Process(pid)


def error_of(call: Callable[[], object], timeout_s: float = 10.0) -> BaseException:
    begun = time.monotonic()
    with pytest.raises(Exception) as caught:  # noqa: PT011 (which one is the caller's question)
        call()
    assert time.monotonic() - begun < timeout_s
    return caught.value


def test_a_killed_node_daemon_leaves_no_workers(cluster: None) -> None:
    actor = Actor.remote()
    mray.get(actor.pid.remote())
    tasks = [sleeps.remote() for _ in range(2)]
    node = daemon("node")
    workers = eventually(lambda: (c := node.children(recursive=True)) and len(c) >= 3 and c)
    node.kill()
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert alive == []
    del tasks


def test_nobody_waits_for_a_killed_node_daemon(cluster: None) -> None:
    actor = Actor.remote()
    mray.get(actor.pid.remote())
    task = sleeps.remote()
    daemon("node").kill()
    for call in (
        lambda: mray.get(task, timeout=30),
        lambda: mray.get(actor.pid.remote(), timeout=30),
        lambda: mray.get(sleeps.remote(), timeout=30),
        lambda: mray.put(b"x" * 1_000_000),
    ):
        error = error_of(call)
        assert isinstance(error, RayError), repr(error)
        assert not isinstance(error, mray.exceptions.GetTimeoutError), error


def test_a_killed_head_takes_the_cluster_with_it(cluster: None) -> None:
    actor = Actor.remote()
    mray.get(actor.pid.remote())
    node = daemon("node")
    processes = [node, *node.children(recursive=True)]
    task = sleeps.remote()
    daemon("head").kill()
    _, alive = psutil.wait_procs(processes, timeout=8)
    assert alive == []
    assert isinstance(error_of(lambda: mray.get(task, timeout=30)), RayError)


def test_shutdown_after_the_daemons_were_killed_is_quick_and_clean() -> None:
    mray.init(num_cpus=1)
    assert mray.get(mray.remote(lambda: 1).remote()) == 1
    session = Session(current.get().node.session_dir)
    for kind in ("node", "head"):
        daemon(kind).kill()
    begun = time.monotonic()
    mray.shutdown()
    assert time.monotonic() - begun < 8
    assert list(Path("/dev/shm").glob(f"mray-{os.getuid()}-{session.key}-*")) == []
    mray.init(num_cpus=1)
    assert mray.get(mray.remote(lambda: 2).remote()) == 2
    mray.shutdown()


def test_status_of_a_killed_cluster_says_so(tmp_path: Path) -> None:
    cli = [sys.executable, "-m", "mray.cli"]
    start = [*cli, "start", "--head", "--num-cpus=1", "--port=0"]
    done = subprocess.run(start, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    try:
        mray.init("auto")
        processes = [daemon("node"), daemon("head")]
        mray.shutdown()
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, timeout=5)
        status = subprocess.run(
            [*cli, "status"], capture_output=True, text=True, timeout=30, check=False
        )
        assert status.returncode != 0
        assert "Traceback" not in status.stderr
    finally:
        subprocess.run([*cli, "stop"], capture_output=True, timeout=30, check=True)
