"""Nodes that run short of memory all at once, for long, or while their daemon is held up."""

from __future__ import annotations

import pytest

from mray.units import MIB

from .conftest import RunShort

pytestmark = pytest.mark.failure

BURST = """
import os, time
import mray as ray

ray.init(num_cpus=4)

@ray.remote(max_retries=0)
def burst(path, number):
    open(f"{path}.{number}", "w").close()
    while not os.path.exists(path):
        time.sleep(0.001)
    chunks = []
    for _ in range(50):
        chunks.append(bytearray(4 << 20))
    while not os.path.exists(path + ".one_ended"):
        time.sleep(0.01)
    return len(chunks)

@ray.remote
def small():
    return "the node lives"

path = __file__ + ".go"
refs = [burst.remote(path, number) for number in range(4)]
while not all(os.path.exists(f"{path}.{number}") for number in range(4)):
    time.sleep(0.01)
open(path, "w").close()
ray.wait(refs)  # They keep what they have until then, so it is one that was ended.
open(path + ".one_ended", "w").close()
fine = ended = 0
for ref in refs:
    try:
        assert ray.get(ref) == 50
        fine += 1
    except ray.exceptions.OutOfMemoryError as ex:
        assert ex.retry_decision
        ended += 1
print("ended some:", ended >= 1, "counted all:", fine + ended == 4)
print(ray.get(small.remote()))
"""


def test_a_burst_of_four_ends_in_typed_errors_and_the_node_lives(run_short: RunShort) -> None:
    lines = run_short(BURST, 400 * MIB, limit=800 * MIB)
    assert "ended some: True counted all: True" in lines
    assert "the node lives" in lines


BLOCKED = """
import os, signal, time
import mray as ray
from mray import current

ray.init(num_cpus=2)

@ray.remote(max_retries=0)
def leaks(path):
    with open(path + ".pid", "w") as file:
        file.write(str(os.getpid()))
    while not os.path.exists(path):
        time.sleep(0.01)
    chunks = []
    while True:
        chunks.append(bytearray(4 << 20))

@ray.remote(max_retries=0)
def blocks_the_daemon(path):
    # Its node reads a dead worker's last words: of a FIFO, until somebody has written to it.
    words = os.readlink("/proc/self/fd/2")
    with open(path + ".fifo", "w") as file:
        file.write(words)
    os.unlink(words)
    os.mkfifo(words)
    os.kill(os.getpid(), signal.SIGKILL)

def runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

path = __file__ + ".go"
leak = leaks.remote(path)
while not (os.path.exists(path + ".pid") and open(path + ".pid").read()):
    time.sleep(0.01)
leaking = int(open(path + ".pid").read())
blocker = blocks_the_daemon.remote(path)
while not os.path.exists(path + ".fifo"):
    time.sleep(0.01)
node = current.get().node
def await_block():
    # It stays in the open of the FIFO. A signal, such as the end of a child, wakes it for a moment.
    deadline, where = time.monotonic() + 20, ""
    while "fifo" not in where and "wait_for_partner" not in where:
        assert time.monotonic() < deadline, f"the daemon is not blocked, it is in {where}"
        time.sleep(0.01)
        with open(f"/proc/{node.pid}/wchan") as file:
            where = file.read()

await_block()
open(path, "w").close()
while runs(leaking):
    time.sleep(0.01)
await_block()
print("ended while the daemon was blocked")
words = open(path + ".fifo").read()
os.rename(words, path + ".words")
open(words, "w").close()  # For whoever opens it from now on.
# The daemon's open comes back; whether it reads what one writes is not sure.
os.close(os.open(path + ".words", os.O_WRONLY))
try:
    ray.get(leak)
except ray.exceptions.OutOfMemoryError:
    print("typed")
try:
    ray.get(blocker)
except ray.exceptions.WorkerCrashedError as ex:
    print("all told")
"""


def test_a_daemon_whose_loop_is_blocked_still_ends_who_leaks(run_short: RunShort) -> None:
    lines = run_short(BLOCKED)
    assert "ended while the daemon was blocked" in lines
    assert "typed" in lines
    assert "all told" in lines


HALVES = """
import time
import mray as ray

ray.init(num_cpus=4)

@ray.remote
def half(number):
    data = bytearray(48 << 20)
    time.sleep(0.05)
    return number

begin = time.monotonic()
numbers = ray.get([half.remote(n) for n in range(32)], timeout=85)
assert numbers == list(range(32))
print("all finished")
print(f"took {time.monotonic() - begin:.1f} s")
"""


def test_many_tasks_that_need_half_of_the_room_each_all_finish(run_short: RunShort) -> None:
    lines = run_short(HALVES, 96 * MIB, RAY_task_oom_retry_delay_base_ms="100")
    assert "all finished" in lines
