"""F20 in a cluster: bytes are damaged on every line between its processes while it works.

Each damaged byte ends a connection, of daemons, workers or transfers. It is made again, and what
was lost with it is sent again: all results are right, every task ran once, every call came once and
in order, and nobody is taken for dead.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mray as ray
from mray.cluster_utils import Cluster
from tests.damage import Damage
from tests.waiting import eventually

pytestmark = pytest.mark.failure

MIB = 1 << 20


@ray.remote(max_retries=0)
def square(number: int, ran: str) -> int:
    with open(ran, "a") as file:
        file.write(f"{number}\n")
    return number * number


@ray.remote(max_retries=0)
def make(seed: int, size: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


@ray.remote(max_retries=0)
def checksum(array: Any) -> int:
    return zlib.crc32(array)


@ray.remote(max_restarts=0, max_task_retries=0)
class Counter:
    def __init__(self) -> None:
        self.seen: list[int] = []

    def add(self, number: int) -> int:
        self.seen.append(number)
        return len(self.seen)

    def all(self) -> list[int]:
        return self.seen


@pytest.fixture(scope="module")
def damage(tmp_path_factory: pytest.TempPathFactory) -> Damage:
    return Damage(tmp_path_factory.mktemp("damage"))


@pytest.fixture(scope="module")
def cluster(damage: Damage) -> Iterator[Cluster]:
    """The head's node without CPUs, and two nodes with two; all talk over bad lines."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in damage.environ.items():
            patch.setenv(name, value)
        settings = {"same_machine_ipc": False}
        made = Cluster(True, head_node_args={"num_cpus": 0, "_system_config": settings})
        made.connect(log_to_driver=False)
        for name in ("left", "right"):
            made.add_node(num_cpus=2, resources={name: 10})
        yield made
        damage.chance = 0.0
        made.shutdown()


def test_tasks_calls_and_transfers_are_exact_while_bytes_are_damaged(
    cluster: Cluster, damage: Damage, tmp_path: Path
) -> None:
    ran = str(tmp_path / "ran")
    counters = [Counter.options(resources={name: 1}).remote() for name in ("left", "right")]
    ray.get([counter.add.remote(0) for counter in counters])
    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    number, calls, size = 0, 1, 8 * MIB
    transfers: dict[int, Any] = {}
    while damage.flips < 10:
        # What a damaged chunk held up is asked for again after seconds: two of those are enough.
        moving = len(transfers) < 2
        damage.chance = 0.004 if moving else 0.02
        if moving:
            array = make.options(resources={"left": 1}).remote(len(transfers), size)
            transfers[len(transfers)] = checksum.options(resources={"right": 1}).remote(array)
        tasks = {each: square.remote(each, ran) for each in range(number, number + 200)}
        number += len(tasks)
        answers = [counter.add.remote(calls + i) for counter in counters for i in range(50)]
        assert ray.get(list(tasks.values()), timeout=60) == [each * each for each in tasks]
        assert ray.get(answers, timeout=60) == 2 * [calls + i + 1 for i in range(50)]
        calls += 50
    damage.chance = 0.0
    for seed, there in transfers.items():
        expected = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
        assert ray.get(there, timeout=60) == zlib.crc32(expected)
    for counter in counters:
        assert ray.get(counter.all.remote(), timeout=60) == list(range(calls))
    assert sorted(map(int, Path(ran).read_text().split())) == list(range(number))
    assert {node["NodeID"] for node in ray.nodes() if node["Alive"]} == alive
    eventually(lambda: ray.available_resources().get("CPU") == 2.0, 20, "free CPUs")
