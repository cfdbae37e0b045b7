"""Two jobs on one node: neither waits for the other's thousands of tasks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

pytestmark = [pytest.mark.load, pytest.mark.timeout(200)]

MRAY = [sys.executable, "-m", "mray.cli"]
#: Queues far more work than there is time for, says when it has begun, ends when told to.
GREEDY = """
import sys, time
import mray
mray.init("auto", log_to_driver=False)
@mray.remote
def work(seconds):
    time.sleep(seconds)
refs = [work.remote(float(sys.argv[1])) for _ in range(5_000)]
mray.wait(refs, num_returns=2)
print("begun", flush=True)
sys.stdin.readline()
"""
#: Comes later and wants both CPUs for a moment, again and again.
MODEST = """
import time
import mray
mray.init("auto", log_to_driver=False)
@mray.remote
def short():
    time.sleep(0.01)
    return 1
began_at = time.monotonic()
assert mray.get(short.remote(), timeout=60) == 1
first = time.monotonic() - began_at
assert mray.get([short.remote() for _ in range(20)], timeout=60) == [1] * 20
print(first, time.monotonic() - began_at)
"""


@pytest.fixture(scope="module", autouse=True)
def started(nothing_left_behind: None) -> Iterator[None]:
    subprocess.run(
        [*MRAY, "start", "--head", "--port", "0", "--num-cpus", "2"], check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        subprocess.run([*MRAY, "stop"], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("seconds", [0.001, 0.1, 0.5])
def test_a_job_gets_its_share_while_another_has_thousands_queued(seconds: float) -> None:
    greedy = subprocess.Popen(
        [sys.executable, "-c", GREEDY, str(seconds)], text=True, env=dict(os.environ),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert greedy.stdout is not None
        assert greedy.stdout.readline() == "begun\n"
        began_at = time.monotonic()
        modest = subprocess.run(
            [sys.executable, "-c", MODEST], capture_output=True, text=True, timeout=100, check=True
        )
        took = time.monotonic() - began_at
        first, all_of_it = map(float, modest.stdout.split())
        print(f"tasks of {seconds} s: first after {first:.2f} s, 20 after {all_of_it:.2f} s")
        assert greedy.poll() is None, "the other one is still at it"
        # A hundred times what it takes alone, and a small part of the other's 5,000 tasks.
        assert first < 5, modest.stdout
        assert took < 60
    finally:
        greedy.communicate("end\n", timeout=60)
