"""Many drivers on one cluster, one after the other and at once, and many submitted jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from ..waiting import eventually
from .conftest import Size, Timed

pytestmark = [pytest.mark.load, pytest.mark.timeout(900)]

MRAY = [sys.executable, "-m", "mray.cli"]
DRIVER = """
import mray
mray.init("auto", log_to_driver=False)
@mray.remote
def double(number):
    return 2 * number
class Holder:
    def __init__(self):
        self.value = mray.put(bytes(300_000))
    def size(self):
        return len(mray.get(self.value))
holder = mray.remote(Holder).options(num_cpus=0).remote()
assert mray.get([double.remote(n) for n in range(20)]) == list(range(0, 40, 2))
assert mray.get(holder.size.remote()) == 300_000
print("well")
"""
JOB = """
import sys
import mray
mray.init()
print("number", mray.get(mray.remote(lambda n: n).remote(int(sys.argv[1]))))
sys.exit(int(sys.argv[1]) % 2)
"""


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, env=dict(os.environ), capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module", autouse=True)
def started(nothing_left_behind: None) -> Iterator[None]:
    """A cluster of two CPUs that drivers come to."""
    done = _run(*MRAY, "start", "--head", "--port", "0", "--num-cpus", "2")
    assert done.returncode == 0, done.stderr
    try:
        yield
    finally:
        done = _run(*MRAY, "stop")
    assert done.returncode == 0, done.stderr


def _daemons() -> dict[str, psutil.Process]:
    """Head and node of the cluster in MRAY_TMPDIR."""
    found = {}
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "mray.node" in words[:5] and process.environ().get("MRAY_TMPDIR") == os.environ.get(
            "MRAY_TMPDIR"
        ):
            found[words[-1]] = process
    assert sorted(found) == ["head", "node"]
    return found


def test_drivers_come_and_go_and_leave_nothing(size: Size, timed: Timed) -> None:
    count = size(10, 200)

    def drive(_: int) -> str:
        done = _run(sys.executable, "-c", DRIVER)
        return done.stdout + done.stderr

    assert drive(0) == "well\n"
    daemons = _daemons()
    before = {name: (p.memory_info().rss, p.num_fds()) for name, p in daemons.items()}
    with timed(f"{count} drivers, one after the other"):
        assert [drive(n) for n in range(count)] == ["well\n"] * count
    with timed("10 drivers at once"), ThreadPoolExecutor(10) as pool:
        assert list(pool.map(drive, range(10))) == ["well\n"] * 10
    for name, process in daemons.items():
        rss, fds = before[name]
        grown = process.memory_info().rss - rss
        print(f"{name}: {grown / (count + 10) / 1024:.1f} KiB a driver")
        assert grown < 4 * 2**20 + (count + 10) * 40 * 1024
        eventually(lambda p=process, n=fds: p.num_fds() <= n + 4, 30, f"descriptors of {name}")


def test_every_submitted_job_has_its_log_and_its_exit_code(
    tmp_path: Path, size: Size, timed: Timed
) -> None:
    count = size(5, 100)
    script = tmp_path / "job.py"
    script.write_text(JOB)

    def submit(number: int) -> subprocess.CompletedProcess[str]:
        return _run(*MRAY, "submit", "--submission-id", f"load-{number}", str(script), str(number))

    with timed(f"{count} jobs"), ThreadPoolExecutor(min(count, 10)) as pool:
        done = list(pool.map(submit, range(count)))
    for number, one in enumerate(done):
        assert one.returncode == number % 2, one.stdout + one.stderr
        assert f"number {number}" in one.stdout
    listed = json.loads(_run(*MRAY, "job", "list", "--json").stdout)
    states = {job["submission_id"]: job["status"] for job in listed if job.get("submission_id")}
    for number in range(count):
        wanted = "FAILED" if number % 2 else "SUCCEEDED"
        assert states[f"load-{number}"] == wanted
        assert f"number {number}" in _run(*MRAY, "job", "logs", f"load-{number}").stdout
