"""Many nodes on one machine: twenty that idle; Ray's long-running programs on ten: for `--soak`.

Each program repeats what it does for minutes; at the end an iteration takes what it took at the
beginning (the last tenth against the first), and the daemons have not grown. ``SOAK_SECONDS`` says
for how long (900).
"""

from __future__ import annotations

import contextlib
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psutil
import pytest

import mray
from mray.cluster_utils import Cluster
from mray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..quiescent_outside import count_descriptors
from .conftest import Timed

pytestmark = [pytest.mark.load, pytest.mark.soak, pytest.mark.timeout(1200)]

SECONDS = float(os.environ.get("SOAK_SECONDS", "900"))
STORE_BYTES = 100 << 20
DRIVER = """
import mray, sys
mray.init(sys.argv[1], log_to_driver=False)
@mray.remote
def double(number):
    return 2 * number
assert mray.get([double.remote(n) for n in range(10)]) == list(range(0, 20, 2))
print("well")
"""


@pytest.fixture
def many() -> Iterator[Callable[[int, int], Cluster]]:
    """``many(nodes, cpus)``: a cluster with a driver in this process."""
    made: list[Cluster] = []

    def make(nodes: int, cpus: int) -> Cluster:
        arguments = {"num_cpus": cpus, "object_store_memory": STORE_BYTES}
        cluster = Cluster(True, head_node_args=arguments)
        made.append(cluster)
        for _ in range(nodes - 1):
            cluster.add_node(wait=False, **arguments)
        cluster.wait_for_nodes(60)
        cluster.connect(log_to_driver=False)
        return cluster

    yield make
    for cluster in made:
        cluster.shutdown()


class Figures:
    """Memory and descriptors of the daemons of a cluster that live from now on, and of us."""

    def __init__(self, cluster: Cluster) -> None:
        named = {
            pid: f"{kind} {node.node_id[:8]}"
            for node in cluster.list_all_nodes()
            for kind, pid in node.pids.items()
        }
        self.names = {**named, os.getpid(): "driver"}
        self.before = {psutil.Process(pid): self._of(pid) for pid in self.names}

    @staticmethod
    def _of(pid: int) -> tuple[int, int, int]:
        process = psutil.Process(pid)
        return process.memory_info().rss, count_descriptors(pid), process.num_threads()

    def check(self) -> None:
        """AssertionError: one that still runs has grown."""
        grown = {}
        for process, (rss, fds, threads) in self.before.items():
            if not process.is_running():
                continue
            now = self._of(process.pid)
            grown[process] = now[0] - rss
            assert now[0] < rss + (32 << 20), (self.names[process.pid], rss, now)
            assert now[1] < fds + 60, (self.names[process.pid], fds, now)
            assert now[2] < threads + 10, (self.names[process.pid], threads, now)
        most = max(grown, key=lambda process: grown[process])
        print(
            f"{len(grown)} processes: {grown[most] / 2**20:.1f} MiB more at most "
            f"({self.names[most.pid]}), {sum(grown.values()) / 2**20:.1f} in all"
        )


class Moment:
    """What was done and used until now."""

    def __init__(self, iterations: int) -> None:
        self.iterations = iterations
        self.at = time.monotonic()
        us = psutil.Process()
        self.cpu_s = 0.0
        for process in [us, *us.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                self.cpu_s += sum(process.cpu_times()[:4])  # With that of ended children.
        machine = psutil.cpu_times()
        # Of what guests have, user and nice tell as well.
        unused = machine.idle + machine.iowait + machine.guest + machine.guest_nice
        self.machine_s = sum(machine) - unused


def repeat(name: str, step: Callable[[int], int]) -> None:
    """For SECONDS, and tell how it went: ``step(n)`` returns how many calls it made.

    Where others keep the machine busy an iteration takes longer for their sake; then what it costs
    is compared: CPU-seconds of all our processes.
    """
    step(0)
    took, count, began = [], 0, Moment(0)
    moments = [began]
    while (now := time.monotonic()) < began.at + SECONDS:
        if now > began.at + SECONDS * (0.1, 0.9, 2)[len(moments) - 1]:
            moments.append(Moment(len(took)))
        count += step(len(took) + 1)
        took.append(time.monotonic() - now)
    moments.append(Moment(len(took)))
    tenth = max(1, len(took) // 10)
    first, last = statistics.median(took[:tenth]), statistics.median(took[-tenth:])
    cpu_s = []
    for begin, end in (moments[:2], moments[-2:]):
        cpu_s.append((end.cpu_s - begin.cpu_s) / max(1, end.iterations - begin.iterations))
    end = moments[-1]
    others = (end.machine_s - began.machine_s) - (end.cpu_s - began.cpu_s)
    others /= (end.at - began.at) * (os.cpu_count() or 1)
    print(
        f"{name}: {len(took)} iterations, {count / sum(took):.0f} calls/s; "
        f"first tenth {first:.3f} s and {cpu_s[0]:.3f} CPU-s, "
        f"last tenth {last:.3f} s and {cpu_s[1]:.3f} CPU-s; "
        f"others had {others:.0%} of the machine"
    )
    assert last < 1.3 * first + 0.2 or others > 0.2
    if tenth >= 10:  # Fewer are no measure: what killed nodes had used is not known at once.
        assert cpu_s[1] < 1.3 * cpu_s[0] + 0.1


def test_twenty_nodes_register_and_the_head_idles(
    many: Callable[[int, int], Cluster], timed: Timed
) -> None:
    began = Moment(0)
    cluster = many(20, 1)
    there = Moment(1)
    took, cpu_s = there.at - began.at, (there.cpu_s - began.cpu_s) / 20
    assert took < 20

    @mray.remote
    def where() -> str:
        return mray.get_runtime_context().get_node_id()

    ids = [node.node_id for node in cluster.list_all_nodes()]
    with timed("a task on each of 20 nodes"):
        places = [NodeAffinitySchedulingStrategy(each, soft=False) for each in ids]
        refs = [where.options(scheduling_strategy=place).remote() for place in places]
        assert mray.get(refs, timeout=60) == ids
    assert cluster.head_node is not None
    head = psutil.Process(cluster.head_node.pids["head"])
    nodes = [psutil.Process(node.raylet_pid) for node in cluster.list_all_nodes()]
    head.cpu_percent()
    for node in nodes:
        node.cpu_percent()
    time.sleep(10)  # What an idle cluster takes is measured over a time.
    idle = head.cpu_percent()
    of_nodes = [node.cpu_percent() for node in nodes]
    rss = head.memory_info().rss
    print(
        f"20 nodes in {took:.1f} s, {cpu_s:.2f} CPU-s each; "
        f"idle: head {idle:.1f} % of a core and {rss / 2**20:.0f} MiB, "
        f"nodes {sum(of_nodes):.1f} % together, "
        f"{sum(node.memory_info().rss for node in nodes) / 2**20:.0f} MiB"
    )
    assert idle < 10
    assert rss < 200 << 20


def test_many_tasks(many: Callable[[int, int], Cluster]) -> None:
    """Tasks of 100 KB each in chains of stages."""
    figures = Figures(many(10, 2))

    @mray.remote(scheduling_strategy="SPREAD")
    def stage(*values: Any) -> np.ndarray:
        return np.full(12_000, sum(int(value[0]) for value in values) + 1)

    def step(number: int) -> int:
        refs = [mray.put(np.zeros(12_000, int))] * 20
        for _ in range(10):
            refs = [stage.remote(ref) for ref in refs]
        assert [int(value[-1]) for value in mray.get(refs, timeout=120)] == [10] * 20
        return 200

    repeat("many_tasks", step)
    figures.check()


def test_many_actor_tasks(many: Callable[[int, int], Cluster]) -> None:
    """50 actors, each of which calls all others of its five."""
    figures = Figures(many(10, 2))

    @mray.remote(num_cpus=0.2)
    class Member:
        def __init__(self) -> None:
            self.value = 0

        def add(self, amount: int) -> int:
            self.value += amount
            return self.value

        def ask(self, others: list[Any], number: int) -> list[int]:
            return mray.get([other.add.remote(number) for other in others])

    members = [Member.remote() for _ in range(50)]
    groups = [members[n : n + 5] for n in range(0, 50, 5)]
    total = 0

    def step(number: int) -> int:
        nonlocal total
        refs = [group[0].ask.remote(group[1:], number) for group in groups for _ in range(4)]
        got = mray.get(refs, timeout=120)
        assert all(got)
        total += 4 * number
        assert got[-1] == [total] * 4
        return len(refs) * 5

    repeat("many_actor_tasks", step)
    for member in members:
        mray.kill(member)
    figures.check()


def test_actor_deaths(many: Callable[[int, int], Cluster]) -> None:
    """Parents whose children are killed and made again, and now and then a parent."""
    figures = Figures(many(10, 2))
    seeds = random.Random(1)

    @mray.remote(num_cpus=0)
    class Child:
        def ping(self, number: int) -> int:
            return number

    @mray.remote(num_cpus=0)
    class Parent:
        def __init__(self) -> None:
            self.children = [Child.remote() for _ in range(3)]

        def ping(self, number: int) -> int:
            return sum(mray.get([child.ping.remote(number) for child in self.children]))

        def lose(self, which: int) -> None:
            mray.kill(self.children[which])
            self.children[which] = Child.remote()

    parents = [Parent.remote() for _ in range(5)]

    def step(number: int) -> int:
        if number % 10 == 0:
            which = seeds.randrange(5)
            mray.kill(parents[which])
            parents[which] = Parent.remote()
        mray.get([parent.lose.remote(seeds.randrange(3)) for parent in parents], timeout=60)
        got = mray.get([parent.ping.remote(number) for parent in parents], timeout=60)
        assert got == [3 * number] * 5
        return 25

    repeat("actor_deaths", step)
    for parent in parents:
        mray.kill(parent)
    figures.check()


def test_node_failures(many: Callable[[int, int], Cluster]) -> None:
    """In each iteration the oldest node is killed, and another comes."""
    cluster = many(10, 2)
    figures = Figures(cluster)

    @mray.remote(max_retries=-1, scheduling_strategy="SPREAD")
    def square(values: Any) -> Any:
        return values * values

    def step(number: int) -> int:
        refs = [square.remote(np.full(30_000, n % 5)) for n in range(50)]
        for _ in range(3):
            refs = [square.remote(ref) for ref in refs]
            if number:
                break
        cluster.remove_node(cluster.worker_nodes[0], allow_graceful=False)
        cluster.add_node(num_cpus=2, object_store_memory=STORE_BYTES)
        wanted = [(n % 5) ** (4 if number else 16) for n in range(50)]
        assert [int(v[0]) for v in mray.get(refs, timeout=120)] == wanted
        return 100

    repeat("node_failures", step)
    figures.check()


def test_many_drivers(many: Callable[[int, int], Cluster]) -> None:
    """Four drivers at once, again and again, on different nodes."""
    cluster = many(10, 2)
    figures = Figures(cluster)
    places = [node.address for node in cluster.list_all_nodes()]

    def drive(number: int) -> str:
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, places[number % len(places)]],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        return done.stdout + done.stderr

    with ThreadPoolExecutor(4) as pool:

        def step(number: int) -> int:
            said = list(pool.map(drive, range(4 * number, 4 * number + 4)))
            assert said == ["well\n"] * 4
            return 4

        repeat("many_drivers", step)
    figures.check()
