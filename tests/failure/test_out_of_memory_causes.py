"""Where memory goes, and who answers for it: children, file cache, the object store, drivers, idle
workers; what is told before an end, and kept after it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mray.units import MIB

from .conftest import HEARS, RunShort

pytestmark = pytest.mark.failure

GRANDCHILD = """
import os, subprocess, sys, time
import mray as ray

ray.init(num_cpus=2)

HOLDER = '''
import os, sys, time
if os.fork():
    os._exit(0)
os.setsid()
with open(sys.argv[1] + ".new", "w") as file:
    file.write(str(os.getpid()))
os.rename(sys.argv[1] + ".new", sys.argv[1])
chunks = []
while True:
    chunks.append(bytearray(4 << 20))
'''

@ray.remote(max_retries=0)
def forks(path):
    subprocess.run([sys.executable, "-c", HOLDER, path])
    time.sleep(60)

path = __file__ + ".pid"
try:
    ray.get(forks.remote(path))
except ray.exceptions.OutOfMemoryError as ex:
    assert ex.victims[0].used_bytes > 150 << 20, ex
    print("counted")
deadline = time.monotonic() + 10
pid = open(path).read()
while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
    time.sleep(0.02)
print("gone:", not os.path.exists(f"/proc/{pid}"))
"""


def test_what_a_grandchild_leaks_is_counted_and_ended_with_its_task(run_short: RunShort) -> None:
    lines = run_short(GRANDCHILD)
    assert "counted" in lines
    assert "gone: True" in lines


PAGE_CACHE = """
import os
import mray as ray
from mray._private.utils import get_used_memory
from mray.memory.usage import read_memory

ray.init(num_cpus=2)

@ray.remote(max_retries=0)
def fills(path):
    before = get_used_memory(), read_memory().cache_bytes
    with open(path, "wb") as file:
        for _ in range(300):
            file.write(bytes(1 << 20))
        file.flush()
        os.fsync(file.fileno())
    with open(path, "rb") as file:
        while file.read(1 << 20):
            pass
    after = get_used_memory(), read_memory().cache_bytes
    os.unlink(path)
    return after[0] - before[0], after[1] - before[1]

used, cached = ray.get(fills.remote(__file__ + ".data"))
assert cached > 250 << 20, cached
assert used < 20 << 20, used
print("no kill for file cache")
"""


def test_file_cache_is_no_reason_to_end_anybody(run_short: RunShort) -> None:
    # The cache alone is more than may be used.
    lines = run_short(PAGE_CACHE, 100 * MIB, limit=512 * MIB, needs_limit=True)
    assert "no kill for file cache" in lines


STORE = """
import os, time
import mray as ray
import numpy as np

ray.init(num_cpus=2)

@ray.remote
def needs_memory(path):
    with open(path, "a") as file:
        file.write("run ")
    chunks = []
    for _ in range(16):
        chunks.append(bytearray(6 << 20))
        time.sleep(0.02)
    time.sleep(1)
    return len(chunks)

refs = [ray.put(np.full(4 << 20, n, np.float64)) for n in range(6)]  # 32 MiB each
path = __file__ + ".runs"
assert ray.get(needs_memory.remote(path)) == 16
print("runs:", open(path).read())
from mray._private.internal_api import memory_summary
stats = memory_summary()
print("spilled:", "spilled 0 B" not in stats)
for n, ref in enumerate(refs):
    assert (ray.get(ref) == n).all()
print("all there")
"""


def test_the_store_spills_before_a_worker_is_ended(run_short: RunShort) -> None:
    lines = run_short(
        STORE, 240 * MIB, MRAY_object_store_memory="300MiB",
    )  # fmt: skip
    assert [line for line in lines if ": " in line and not line.startswith("(")] == [
        "runs: run ", "spilled: True",
    ]  # fmt: skip
    assert "all there" in lines


DRIVER = HEARS + """
import mray as ray

ray.init(num_cpus=1)

@ray.remote
def quick():
    return 1

ray.get(quick.remote())
held = []
for _ in range(36):
    held.append(bytearray(8 << 20))
    time.sleep(0.01)
heard("Drivers are never ended")
print("the driver lives")
"""


def test_a_driver_that_leaks_is_never_ended_but_named(run_short: RunShort) -> None:
    lines = run_short(DRIVER)
    assert "the driver lives" in lines
    (warning,) = [line for line in lines if "the driver pid" in line]
    assert warning.startswith("(raylet) memory is short")
    assert "Drivers are never ended" in warning


HOARD = """
import os, sys, time
import mray as ray

ray.init(num_cpus=1)
kept = []

@ray.remote
def hoard(size):
    import builtins
    builtins.kept = bytearray(size)
    return os.getpid()

@ray.remote
def pid():
    return os.getpid()

@ray.remote(max_calls=1)
def once():
    return os.getpid()

first = ray.get(hoard.remote(150 << 20))
deadline = time.monotonic() + 20
while os.path.exists(f"/proc/{first}") and time.monotonic() < deadline:
    time.sleep(0.05)
print("replaced:", ray.get(pid.remote()) != first)
pids = [ray.get(once.remote()) for _ in range(3)]
print("max_calls:", len(set(pids)))
while any(os.path.exists(f"/proc/{p}") for p in pids) and time.monotonic() < deadline:
    time.sleep(0.02)
print("exited:", not any(os.path.exists(f"/proc/{p}") for p in pids))
"""


@pytest.mark.parametrize(
    ("room_mib", "child_limit"), [(150, "-1"), (600, "100MiB")], ids=["while short", "above limit"]
)
def test_an_idle_worker_that_keeps_memory_is_replaced_and_max_calls_exits(
    run_short: RunShort, room_mib: int, child_limit: str
) -> None:
    # 150 MiB of 150 are above the soft mark.
    lines = run_short(
        HOARD, room_mib * MIB, MRAY_worker_max_memory_per_child=child_limit
    )
    assert [
        line for line in lines if not line.startswith("(")
    ] == ["replaced: True", "max_calls: 3", "exited: True"]


CALLBACK = """
import time
import mray as ray

heard = []
ray.on_memory_pressure(heard.append)
ray.init(num_cpus=1)

@ray.remote(max_retries=0)
def leaks(path):
    def save(pressure):
        assert pressure.soft_mark_bytes < pressure.used_bytes
        time.sleep(0.5)  # Far longer than it takes to fill the rest.
        with open(path, "w") as file:
            file.write("saved")
    ray.on_memory_pressure(save)
    chunks = []
    while True:
        chunks.append(bytearray(4 << 20))
        time.sleep(0.01)

path = __file__ + ".saved"
try:
    ray.get(leaks.remote(path))
except ray.exceptions.OutOfMemoryError:
    print(open(path).read(), len(heard))
"""


def test_callbacks_run_before_the_end_and_in_the_driver(run_short: RunShort) -> None:
    lines = run_short(CALLBACK)
    assert "saved 1" in lines
    assert any("Memory begins to be short" in line for line in lines)


PEAKS = """
import time
import mray as ray
from mray import current
from mray.wire.messages import GetPeaks, Peaks

ray.init(num_cpus=1)

@ray.remote
def uses(size):
    data = bytearray(size)
    # Memory that is fine is read once a second: the first look may come while this grows.
    time.sleep(2.5)
    return ray.get_runtime_context().get_task_id()

task_id = bytes.fromhex(ray.get(uses.remote(120 << 20)))
ray.get(uses.remote(1))
rt = current.get()
told = rt.ask(rt.node.address, lambda rid: GetPeaks(rid, [task_id]), Peaks)
(peak,) = told.peaks
assert (peak.task_id, peak.attempt) == (task_id, 0)
assert 120 << 20 < peak.peak_bytes < 132 << 20, peak.peak_bytes >> 20
(function,) = [f for f in told.functions if f.name.endswith("uses")]
assert function.max_bytes == peak.peak_bytes
print("peaks are right")
"""


def test_the_peak_of_an_attempt_is_kept_within_a_tenth(run_short: RunShort) -> None:
    assert "peaks are right" in run_short(PEAKS, 600 * MIB)


def test_start_and_status_say_where_the_monitor_is_off(tmp_path: Path) -> None:
    mray = [sys.executable, "-m", "mray.cli"]
    environment = {**os.environ, "RAY_memory_monitor_refresh_ms": "0", "HOME": str(tmp_path)}
    said = ""
    try:
        for words in (["start", "--head", "--num-cpus", "1", "--port", "0"], ["status"]):
            said += subprocess.run(
                [*mray, *words], env=environment, text=True, capture_output=True, timeout=60,
                check=True,
            ).stdout  # fmt: skip
    finally:
        subprocess.run([*mray, "stop", "--all"], env=environment, capture_output=True, timeout=60)
    off = [line.split() for line in said.splitlines() if "(memory_monitor_refresh_ms=0)" in line]
    assert [" ".join(words).lower().replace(":", "") for words in off] == [
        "memory monitor off (memory_monitor_refresh_ms=0)"
    ] * 2
