"""F25, F31 to F33, F39: programs that run out of what a machine has, or end in the middle of it.

Each is a program of its own, for limits are inherited. The fixture looks for leftovers.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..waiting import eventually

pytestmark = pytest.mark.failure

PIDS = Path("/sys/fs/cgroup/pids")
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="namespaces and groups need root")


def run(
    program: str, *before: str, timeout_s: float = 60, prepare: Callable[[], None] | None = None
) -> list[str]:
    """Run a program to its end, by way of the command ``before``; the lines it printed."""
    done = subprocess.run(
        [*before, sys.executable, "-c", program],
        capture_output=True, text=True, timeout=timeout_s, preexec_fn=prepare,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout.splitlines()


# -- F31: too many tasks, too many processes

TREE = """
import os, time, mray
mray.init(num_cpus=2, log_to_driver=False)

@mray.remote(num_cpus=1)
def tree(depth):
    if depth == 0:
        return 1
    return sum(mray.get([tree.remote(depth - 1) for _ in range(2)]))

print(mray.get(tree.remote(6), timeout=50))

@mray.remote
def bomb(depth, folder):
    open(f'{folder}/{os.getpid()}-{time.monotonic_ns()}', 'w').close()
    if depth:
        return mray.get([bomb.remote(depth - 1, folder) for _ in range(2)])
    while True:
        time.sleep(0.01)

import tempfile
with tempfile.TemporaryDirectory() as folder:
    root = bomb.remote(10, folder)
    while len(os.listdir(folder)) < 12:  # ten that wait for others, two that never end
        time.sleep(0.01)
    mray.cancel(root, recursive=True)
    give_up_at = time.monotonic() + 30
    while mray.available_resources().get('CPU') != 2 and time.monotonic() < give_up_at:
        time.sleep(0.05)
    print('stopped', mray.available_resources().get('CPU'))
print(mray.get(tree.remote(2), timeout=30))
mray.shutdown()
"""


def test_a_flood_of_tasks_ends_with_its_root() -> None:
    assert run(TREE) == ["64", "stopped 2.0", "4"]


@pytest.fixture
def pids_group() -> Iterator[Path]:
    """A group that allows few processes and threads."""
    group = PIDS / f"mray-test-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no group of processes can be made here: {error}")
    yield group
    eventually(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


def test_work_goes_on_where_no_more_processes_can_be_made(pids_group: Path) -> None:
    (pids_group / "pids.max").write_text("45")

    def join() -> None:
        (pids_group / "cgroup.procs").write_text(str(os.getpid()))

    program = """
import time, mray
mray.init(num_cpus=32, log_to_driver=False)

@mray.remote
def work(x):
    time.sleep(0.05)
    return x

print(mray.get([work.remote(i) for i in range(200)], timeout=50) == list(range(200)))
mray.shutdown()
"""
    assert run(program, prepare=join) == ["True"]


# -- F32: too few descriptors


def test_a_low_soft_limit_of_descriptors_is_raised_and_who_leaks_them_harms_itself() -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (150, 1000))

    program = """
import os, time, numpy, mray
mray.init(num_cpus=4, log_to_driver=False)

@mray.remote(num_cpus=0)
class Actor:
    def call(self, x):
        return x

actors = [Actor.remote() for _ in range(40)]
print(mray.get([actor.call.remote(i) for i, actor in enumerate(actors)], timeout=50))

@mray.remote(max_calls=1)
def leaks():
    try:
        return [os.open('/dev/null', os.O_RDONLY) for _ in range(100_000)] and False
    except OSError as error:
        return error.errno

print(mray.get(leaks.remote(), timeout=30))
print(mray.get([actor.call.remote(1) for actor in actors], timeout=30) == [1] * 40)
mray.shutdown()
"""
    lines = run(program, prepare=few)
    assert lines == [str(list(range(40))), str(errno.EMFILE), "True"]


def test_a_start_with_too_few_descriptors_is_refused_with_the_number_it_takes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import mray; mray.init()"],
        capture_output=True, text=True, timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128)),
    )  # fmt: skip
    assert done.returncode == 1
    assert "may open 128 files here and needs 256 at least" in done.stderr


# -- F33: clocks


@needs_root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_a_machine_whose_clock_begins_elsewhere_works_the_same() -> None:
    program = """
import time, mray
assert time.monotonic() > 3_000_000
mray.init(num_cpus=2, log_to_driver=False)
task = mray.remote(lambda x: x)
print(mray.get([task.remote(i) for i in range(100)], timeout=30) == list(range(100)))
try:
    mray.get(mray.remote(lambda: time.sleep(60)).remote(), timeout=0.3)
except mray.exceptions.GetTimeoutError:
    print('in time')
mray.shutdown()
"""
    lines = run(program, "unshare", "--time", "--monotonic", "3000000", "--fork")
    assert lines == ["True", "in time"]


# -- F39: ends in the middle of something

END = """
import os, signal, threading, time, numpy, mray
mray.init(num_cpus=2, log_to_driver=False, object_store_memory=80 << 20)

@mray.remote
def work(x):
    return x

def busy():
    while True:
        mray.get([work.remote(i) for i in range(10)])

def full():
    kept = []
    while True:
        kept.append(mray.put(numpy.ones(2 << 20, 'uint8')))

for _ in range(2):
    threading.Thread(target={what}, daemon=True).start()
time.sleep(0.5)
print('at it', flush=True)
{end}
"""


@pytest.mark.parametrize(
    ("what", "end", "code"),
    [
        ("busy", "raise SystemExit(3)", 3),
        ("full", "mray.shutdown()", 0),
        ("busy", "mray.shutdown()", 0),
        ("full", "signal.raise_signal(signal.SIGTERM)", -signal.SIGTERM),
        ("busy", "signal.raise_signal(signal.SIGINT)", None),
    ],
    ids=["exit", "shutdown while spilling", "shutdown", "terminate", "interrupt"],
)
def test_a_driver_ends_whatever_its_threads_are_at(what: str, end: str, code: int | None) -> None:
    done = subprocess.run(
        [sys.executable, "-c", END.replace("{what}", what).replace("{end}", end)],
        capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert done.stdout == "at it\n"
    if code is None:
        assert "KeyboardInterrupt" in done.stderr
    else:
        assert done.returncode == code, done.stderr
        lines = [line for line in done.stderr.splitlines() if "Fatal" in line]
        assert not lines, done.stderr
