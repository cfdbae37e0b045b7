"""Nodes short of memory: which worker ends first, and what its caller gets.

A cluster of its own for each test, whose threshold is a little above what is used at its start. For
mray in a memory group of its own where one can be made, so that nothing else on the machine counts;
Ray sees no limit of a group below the root.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

pytestmark = pytest.mark.conformance

ENGINE = os.environ.get("MRAY_CONFORMANCE_ENGINE", "mray")
MIB = 1 << 20
#: What daemons and workers take before a program does anything, and what it may take then.
BASE = 110 * MIB if ENGINE == "mray" else 500 * MIB
ROOM = 240 * MIB
LIMIT = 1024 * MIB


def host_memory():
    """(used, total) of the machine, in bytes."""
    with open("/proc/meminfo") as file:
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in file}
    return sizes["MemTotal"] - sizes["MemAvailable"], sizes["MemTotal"]

PRELUDE = f"""
import json, os, sys, time
import {ENGINE} as ray

ray.init(address="local", num_cpus=8, log_to_driver=False, object_store_memory=100 << 20)


def runs(pid):
    try:
        with open(f"/proc/{{pid}}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def tell(value):
    print("RESULT", json.dumps(value))


"""


@pytest.fixture
def run(tmp_path):
    """Run a program after PRELUDE, in which ``path`` is a folder; what it gave to ``tell``."""
    group = Path(f"/sys/fs/cgroup/memory/mray-conformance-{uuid.uuid4().hex[:8]}")
    join = None
    if ENGINE == "mray":
        with contextlib.suppress(OSError):  # Else the machine's memory is what counts.
            group.mkdir()
            (group / "memory.limit_in_bytes").write_text(str(LIMIT))
            join = lambda: (group / "cgroup.procs").write_text(str(os.getpid()))  # noqa: E731

    def start(program, **settings):
        used, limit = (0, LIMIT) if join is not None else host_memory()
        path = tmp_path / "program.py"
        path.write_text(f"{PRELUDE}path = {str(tmp_path)!r}\n{program}")
        done = subprocess.run(
            [sys.executable, str(path)],
            env={
                **os.environ,
                "RAY_memory_usage_threshold": str((used + BASE + ROOM) / limit),
                "RAY_memory_monitor_refresh_ms": "50",
                **settings,
            },
            preexec_fn=join, text=True, capture_output=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        return json.loads(line.removeprefix("RESULT "))

    yield start
    if join is None:
        return
    for _ in range(500):
        try:
            group.rmdir()
        except OSError:
            subprocess.run(["sleep", "0.02"], check=True)
        else:
            return
    pytest.fail(f"processes are left in {group}")


LEAK = """
def leak(chunks):
    while len(chunks) < 300:
        chunks.append(bytearray(4 << 20))
        time.sleep(0.005)
    time.sleep(60)
"""


def test_a_task_without_retries_fails_with_out_of_memory_error(run):
    names = run(LEAK + """
@ray.remote(max_retries=0)
def leaks():
    leak([])

try:
    ray.get(leaks.remote(), timeout=60)
except ray.exceptions.RayError as error:
    tell([type(error).__name__, isinstance(error, ray.exceptions.RayTaskError)])
""")
    assert names == ["OutOfMemoryError", False]


def test_an_actor_without_restarts_fails_with_out_of_memory_error(run):
    names = run(LEAK + """
@ray.remote
class Leaks:
    def work(self):
        leak([])

actor = Leaks.remote()
names = []
for _ in range(2):
    try:
        ray.get(actor.work.remote(), timeout=60)
    except ray.exceptions.RayError as error:
        names.append(type(error).__name__)
tell(names)
""")
    assert names[0] == "OutOfMemoryError"


HOLD = """
@ray.remote
def hold(name, size):
    data = bytearray(size)
    with open(f"{path}/{name}.new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(f"{path}/{name}.new", f"{path}/{name}")
    time.sleep(100)

pids = {}

def start(name, size=30 << 20, **options):
    ref = hold.options(**options).remote(name, size)
    until(lambda: os.path.exists(f"{path}/{name}"))
    pids[name] = int(open(f"{path}/{name}").read())
    return ref

def first_to_end(count):
    held, order = [], []
    deadline = time.monotonic() + 60
    while len(order) < count:
        assert time.monotonic() < deadline
        if len(held) * (4 << 20) < 500 << 20:
            held.append(bytearray(4 << 20))
        time.sleep(0.05)
        for name in [name for name in pids if not runs(pids[name])]:
            del pids[name]
            order.append(name)
    return order
"""


@pytest.mark.mray_only("it goes by the whole machine's memory, which other programs change")
def test_what_may_be_retried_ends_before_what_may_not(run):
    order = run(HOLD + """
refs = [start("retriable", max_retries=1), start("final", max_retries=0)]
tell(first_to_end(1))
""")
    assert order == ["retriable"]


@pytest.mark.mray_only("it goes by the whole machine's memory, which other programs change")
def test_of_one_owners_tasks_the_newest_ends_first(run):
    order = run(HOLD + """
refs = [start(f"task{n}", max_retries=-1) for n in range(4)]
tell(first_to_end(2))
""", RAY_task_oom_retry_delay_base_ms="60000")  # fmt: skip
    assert order == ["task3", "task2"]


def test_a_driver_is_never_ended(run):
    assert run("""
held = []
for _ in range(90):
    held.append(bytearray(4 << 20))
    time.sleep(0.01)
time.sleep(0.5)
tell("lives")
""") == "lives"  # fmt: skip
