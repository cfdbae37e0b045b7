"""Drivers that die: what they started dies with them, and what they left is cleaned up."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from mray.session_files import Session

from ..waiting import eventually

pytestmark = pytest.mark.failure

Run = Callable[[str], "subprocess.Popen[str]"]

BUSY = """
import mray, os, time
mray.init(num_cpus=2)

@mray.remote
class Actor:
    def pid(self):
        return os.getpid()

@mray.remote
def sleeps():
    time.sleep(1000)

actor = Actor.remote()
mray.get(actor.pid.remote())
big = mray.put(b"x" * 3_000_000)
tasks = [sleeps.remote() for _ in range(5)]
rt = mray.current.runtime
print(rt.node.session_dir, flush=True)
mray.get(tasks)
"""


@pytest.fixture
def run() -> Iterator[Run]:
    """Start a driver; its ``args`` are the first line that it prints, its session's folder."""
    started: list[subprocess.Popen[str]] = []

    def begin(program: str) -> subprocess.Popen[str]:
        driver = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
        )
        started.append(driver)
        assert driver.stdout is not None
        driver.args = driver.stdout.readline().strip()
        return driver

    yield begin
    for driver in started:
        driver.kill()
        driver.wait()
        assert driver.stdout is not None
        driver.stdout.close()


def of_session(folder: str) -> list[psutil.Process]:
    """All processes of a session, by its record and their descent."""
    recorded = []
    for record in Session(folder).processes():
        try:
            if record.alive:
                recorded.append(psutil.Process(record.pid))
        except psutil.NoSuchProcess:
            continue
    found = {process.pid: process for process in recorded}
    for process in recorded:
        try:
            found.update({child.pid: child for child in process.children(recursive=True)})
        except psutil.NoSuchProcess:
            continue
    return list(found.values())


def left_of(folder: str) -> list[str]:
    """Sockets and stores of a session."""
    session = Session(folder)
    stores = Path("/dev/shm").glob(f"mray-{os.getuid()}-{session.key}-*")
    sockets = os.listdir(session.sockets) if os.path.isdir(session.sockets) else []
    return [*map(str, stores), *sockets]


def test_a_killed_driver_leaves_no_process_of_its_cluster(run: Run) -> None:
    driver = run(BUSY)
    processes = eventually(lambda: (p := of_session(str(driver.args))) and len(p) >= 4 and p)
    driver.kill()
    driver.wait()
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert alive == []
    folder = str(driver.args)
    assert [path for path in left_of(folder) if path.startswith("/dev/shm")] == []
    after = run(BUSY.replace("mray.get(tasks)", "mray.shutdown()"))
    assert after.wait(10) == 0
    assert left_of(folder) == []  # nor sockets and locks, once another cluster has begun


def test_a_driver_that_exits_without_shutdown_leaves_nothing(run: Run) -> None:
    driver = run(BUSY.replace("mray.get(tasks)", "raise SystemExit(3)"))
    processes = of_session(str(driver.args))
    assert driver.wait(10) == 3
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert alive == []
    assert left_of(str(driver.args)) == []


def test_a_driver_that_is_interrupted_leaves_nothing(run: Run) -> None:
    driver = run(BUSY)
    processes = of_session(str(driver.args))
    driver.send_signal(signal.SIGINT)
    assert driver.wait(10) != 0
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert alive == []
    assert left_of(str(driver.args)) == []


def test_a_start_after_everything_was_killed_cleans_up(run: Run) -> None:
    driver = run(BUSY)
    folder = str(driver.args)
    processes = eventually(lambda: (p := of_session(folder)) and len(p) >= 4 and p)
    for process in [psutil.Process(driver.pid), *processes]:
        # Stopped first, so that none of them sees another's end and cleans up. One between two
        # forks (a worker being made) may be gone by now.
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
    for process in [psutil.Process(driver.pid), *processes]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    driver.wait()
    psutil.wait_procs(processes, timeout=5)
    assert left_of(folder)
    after = run(BUSY.replace("mray.get(tasks)", "mray.shutdown()"))
    assert str(after.args) != folder
    assert after.wait(10) == 0
    assert left_of(folder) == []


def test_the_forks_of_a_driver_do_not_end_its_cluster(run: Run) -> None:
    program = BUSY.replace(
        "mray.get(tasks)",
        """
import sys
pid = os.fork()
if pid == 0:
    del actor, big, tasks
    sys.exit(0)
os.waitpid(pid, 0)
print(mray.get(actor.pid.remote(), timeout=10) > 0, len(mray.get(big)), flush=True)
mray.shutdown()
""",
    )
    driver = run(program)
    assert driver.stdout is not None
    assert driver.stdout.readline() == "True 3000000\n"
    assert driver.wait(10) == 0


SHARED = """
import mray, os
mray.init("auto")

@mray.remote
class Actor:
    def pid(self):
        return os.getpid()

actor = Actor.remote()
print(mray.get(actor.pid.remote()), flush=True)
big = mray.put(b"x" * 3_000_000)
print("up", flush=True)
import signal
signal.pause()
"""


def test_a_killed_driver_of_a_shared_cluster_takes_its_actors_and_objects_only(run: Run) -> None:
    import mray
    from mray import current
    from mray.wire.messages import GetStoreStats, StoreStats

    cli = [sys.executable, "-m", "mray.cli"]
    start = [*cli, "start", "--head", "--num-cpus=2", "--port=0"]
    done = subprocess.run(start, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    try:
        driver = run(SHARED)
        assert driver.stdout is not None
        actor = psutil.Process(int(str(driver.args)))
        assert driver.stdout.readline() == "up\n"
        mray.init("auto")
        rt = current.get()

        def used() -> int:
            return rt.ask(rt.node.address, GetStoreStats, StoreStats).used_bytes

        assert used() >= 3_000_000
        driver.kill()
        driver.wait()
        _, alive = psutil.wait_procs([actor], timeout=5)
        assert alive == []
        eventually(lambda: used() == 0, 5, "the objects of the dead driver are freed")
        sockets = Session(rt.node.session_dir).sockets
        mine = os.path.basename(rt.address.ipc)
        eventually(lambda: [each for each in os.listdir(sockets) if each[:2] == "d-"] == [mine])
        assert mray.get(mray.remote(lambda: 42).remote(), timeout=20) == 42
        mray.shutdown()
    finally:
        subprocess.run([*cli, "stop"], capture_output=True, timeout=30, check=True)
