"""Nodes that run short of memory: who is ended, in which order, what runs again, what the errors
say. See conftest.py for where the programs run."""

from __future__ import annotations

import pytest

from mray.units import MIB

from .conftest import HEARS, RunShort

pytestmark = pytest.mark.failure

LAST_TASK = HEARS + """
import ray


@ray.remote(max_retries=-1)
def leaks_memory():
    chunks = []
    elements_per_chunk = 1024 * 1024  # 8 MiB
    while True:
        chunks.append([0] * elements_per_chunk)


try:
    ray.get(leaks_memory.remote())
except ray.exceptions.OutOfMemoryError as ex:
    print("failed with OutOfMemoryError:", ex.retry_decision)
    assert ex.used > ex.threshold > 0
    (victim,) = ex.victims
    assert victim.name == "leaks_memory" and victim.used_bytes > 100 << 20, victim
    assert len(ex.attempts) == 1
    assert len(str(ex).splitlines()) <= 12
heard("killed due to memory pressure")
"""


def test_the_last_task_of_an_owner_fails_though_it_may_be_retried_for_ever(
    run_short: RunShort,
) -> None:
    lines = run_short(LAST_TASK, as_ray=True, RAY_event_stats_print_interval_ms="1000")
    assert (
        "failed with OutOfMemoryError: not retried: last task of its owner on this node" in lines
    )
    (summary,) = [line for line in lines if "killed due to memory pressure" in line]
    assert summary.startswith("(raylet) 1 Workers (tasks / actors) killed due to memory pressure")
    assert "`mray logs raylet.out -ip " in summary


TWO_ACTORS = """
from math import ceil
import ray
from ray._private.utils import get_system_memory
from ray._private.utils import get_used_memory


# estimates what is missing until this share of the memory is used
def get_additional_bytes_to_reach_memory_usage_pct(pct: float) -> int:
    used = get_used_memory()
    total = get_system_memory()
    bytes_needed = int(total * pct) - used
    assert bytes_needed > 0, "more than that is used already"
    return bytes_needed


@ray.remote
class MemoryHogger:
    def __init__(self):
        self.allocations = []

    def allocate(self, bytes_to_allocate: float) -> None:
        # each element of the list takes 8 bytes; one by one, as this is little memory
        new_list = [0 for _ in range(ceil(bytes_to_allocate / 8))]
        self.allocations.append(new_list)


first_actor = MemoryHogger.options(
    max_restarts=1, max_task_retries=1, name="first_actor"
).remote()
second_actor = MemoryHogger.options(
    max_restarts=0, max_task_retries=0, name="second_actor"
).remote()

# each asks for 0.3 of the memory where the threshold is 0.4
allocate_bytes = get_additional_bytes_to_reach_memory_usage_pct(0.3)

first_actor_task = first_actor.allocate.remote(allocate_bytes)
second_actor_task = second_actor.allocate.remote(allocate_bytes)

error_thrown = False
try:
    ray.get(first_actor_task)
except ray.exceptions.OutOfMemoryError as ex:
    error_thrown = True
    print("the first actor, which is retriable, was killed")
assert error_thrown

ray.get(second_actor_task)
print("the second actor, which is not, finished")
"""


def test_a_retriable_actor_dies_first_and_the_other_finishes(run_short: RunShort) -> None:
    lines = run_short(TWO_ACTORS, limit=800 * MIB, threshold=0.4, as_ray=True, needs_limit=True)
    assert [line for line in lines if line.startswith("the ")] == [
        "the first actor, which is retriable, was killed",
        "the second actor, which is not, finished",
    ]


TWO_OWNERS = """
import os, sys, time
import mray as ray

ray.init(num_cpus=8)

@ray.remote(num_cpus=1)
def holds(name, path):
    data = bytearray(24 << 20)
    with open(f"{path}/{name}", "w") as file:
        file.write(str(os.getpid()))
    time.sleep(60)

@ray.remote(num_cpus=0, max_retries=0)
def owns(name, path):
    refs = []
    for number in range(1, 5):
        refs.append(holds.remote(f"{name}{number}", path))
        while not os.path.exists(f"{path}/{name}{number}"):
            time.sleep(0.01)
    open(f"{path}/{name}.started", "w").close()
    ray.get(refs)

path = sys.argv[0] + ".pids"
os.mkdir(path)
owners = []
for name in "AB":
    owners.append(owns.remote(name, path))
    while not os.path.exists(f"{path}/{name}.started"):
        time.sleep(0.01)

def runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

pids = {f"{name}{n}": open(f"{path}/{name}{n}").read() for name in "AB" for n in range(1, 5)}
held, order = [], []
while len(order) < 4:
    if len(held) < 200:
        held.append(bytearray(2 << 20))
    time.sleep(0.04)
    for name in [name for name in pids if not runs(pids[name])]:
        del pids[name]
        order.append(name)
print("order:", *order)
del held
"""


@pytest.mark.parametrize(
    ("by_group", "order"), [("1", "order: B4 A4 B3 A3"), ("0", "order: B4 B3 B2 B1")]
)
def test_tasks_of_two_owners_end_in_the_order_of_the_policy(
    run_short: RunShort, by_group: str, order: str
) -> None:
    lines = run_short(
        TWO_OWNERS, 290 * MIB, RAY_task_oom_retry_delay_base_ms="60000",
        RAY_worker_killing_policy_by_group=by_group,
    )  # fmt: skip
    assert order in lines


NEIGHBOURS = """
import os, time
import mray as ray

ray.init(num_cpus=4)

@ray.remote(max_retries=0)
def neighbour(gate):
    while not os.path.exists(gate):
        time.sleep(0.02)
    return os.getpid()

@ray.remote(max_retries=3)
def leaks():
    chunks = []
    while True:
        chunks.append(bytearray(8 << 20))

gate = __file__ + ".gate"
quiet = [neighbour.remote(gate) for n in range(3)]
try:
    ray.get(leaks.remote())
except ray.exceptions.OutOfMemoryError as ex:
    print("ended:", ex.victims[0].name)
open(gate, "w").close()
print("untouched:", len(set(ray.get(quiet))))
"""


def test_neighbours_of_a_leaking_task_are_untouched(run_short: RunShort) -> None:
    lines = run_short(NEIGHBOURS)
    assert "ended: leaks" in lines
    assert "untouched: 3" in lines


GREEDY = HEARS + """
import mray as ray

ray.init(num_cpus=4)

@ray.remote
def greedy(number):
    data = bytearray(80 << 20)
    time.sleep(0.3)
    return number

numbers = ray.get([greedy.remote(n) for n in range(8)], timeout=80)
assert numbers == list(range(8))
print("all finished")

from mray.util.state import list_tasks

attempts = {}
for row in list_tasks(detail=True, limit=1000):
    attempts[row["task_id"], row["attempt_number"]] = row
retried = [(task_id, number) for task_id, number in attempts if (task_id, number + 1) in attempts]
for task_id, number in retried:
    peak = attempts[task_id, number]["peak_memory_bytes"]
    asked = attempts[task_id, number + 1]["required_resources"]["memory"]
    assert asked >= peak * 1.5 > 0, (asked, peak)
    assert attempts[task_id, number]["error_type"] == "OUT_OF_MEMORY"
print("retried:", len(retried) > 0)
heard("killed due to memory pressure")
"""


def test_tasks_that_need_four_tenths_of_the_room_all_finish_with_few_kills(
    run_short: RunShort,
) -> None:
    lines = run_short(
        GREEDY, RAY_event_stats_print_interval_ms="1000", RAY_task_oom_retry_delay_base_ms="200"
    )
    assert "all finished" in lines
    assert "retried: True" in lines
    killed = [line.split()[1] for line in lines if "killed due to memory pressure" in line]
    assert 1 <= sum(int(count) for count in killed) <= 12


OWN_LIMIT = """
import time
import mray as ray

ray.init(num_cpus=2)

@ray.remote
def hold(size):
    data = bytearray(size)
    time.sleep(2)
    return size

fine = hold.options(memory=100 << 20).remote(20 << 20)
try:
    ray.get(hold.options(memory=40 << 20).remote(100 << 20))
except ray.exceptions.OutOfMemoryError as ex:
    print(ex.kind, ex.retry_decision, ex.victims[0].name)
    assert ex.used < ex.threshold
print(ray.get(fine) >> 20)
"""


def test_a_task_above_its_own_limit_is_ended_where_that_is_enforced(run_short: RunShort) -> None:
    lines = run_short(OWN_LIMIT, 400 * MIB, MRAY_enforce_memory="kill")
    assert "task_limit not retried: it used more than the memory it declared hold" in lines
    assert "20" in lines


OOM_RESTARTS = """
import os
import mray as ray

ray.init(num_cpus=2)

@ray.remote(max_restarts=0, max_oom_restarts=1, max_task_retries=1)
class Leaky:
    def work(self, path):
        if os.path.exists(path):
            return "done in its second life"
        open(path, "w").close()
        chunks = []
        while True:
            chunks.append(bytearray(8 << 20))

leaky = Leaky.remote()
print(ray.get(leaky.work.remote(__file__ + ".once")))
"""


def test_an_actor_is_restarted_within_max_oom_restarts(run_short: RunShort) -> None:
    assert "done in its second life" in run_short(OOM_RESTARTS)


KERNEL = """
import mray as ray

ray.init(num_cpus=2)

@ray.remote
def huge():
    data = bytearray(600 << 20)

@ray.remote
def small():
    return "the node lives"

try:
    ray.get(huge.remote(), timeout=45)
except ray.exceptions.OutOfMemoryError as ex:
    print(ex.kind, len(ex.attempts), ex.retry_decision)
print(ray.get(small.remote()))
"""


def test_a_kill_by_the_kernel_is_told_as_such_and_retried_by_the_same_rule(
    run_short: RunShort,
) -> None:
    lines = run_short(
        KERNEL, limit=320 * MIB, needs_limit=True, RAY_memory_monitor_refresh_ms="0",
        RAY_task_oom_retries="1", RAY_task_oom_retry_delay_base_ms="100",
    )  # fmt: skip
    assert "kernel 2 not retried: its 1 retries for want of memory are up" in lines
    assert "the node lives" in lines
