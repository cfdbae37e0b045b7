"""Work goes on while workers and whole nodes are killed and stopped at random, over several nodes.

Ray's long-running workloads in small: many tasks with large values between them, actors with
calls that are logged, references inside values. Exact results, no acknowledged call lost, rest
afterwards, and rounds that take no longer at the end. For `scripts/test --soak`; what every change
has of it is test_chaos_soak.py.
"""

from __future__ import annotations

import gc
import os
import resource
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import mray
from mray.cluster_utils import Cluster, ClusterNode
from mray.session_files import Session

from .. import nemesis_history as checks
from ..nemesis import Nemesis, Target, workers_of
from ..nemesis_history import WRITER, History
from ..nemesis_work import Work
from ..quiescent import Watch, assert_quiescent
from ..quiescent_view import look
from ..waiting import eventually

pytestmark = [pytest.mark.failure, pytest.mark.integration, pytest.mark.soak]

SETTINGS = {
    "same_machine_ipc": False,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 3000,
    "health_check_failure_threshold": 3,
}
NODES = 3
STORE_BYTES = 100 << 20


class Nodes:
    """The head's node, where the driver is, and others that may be replaced."""

    def __init__(self) -> None:
        self.cluster = Cluster(
            True,
            head_node_args={"num_cpus": 1, "_system_config": SETTINGS,
                            "object_store_memory": STORE_BYTES},
        )  # fmt: skip
        self.cluster.connect(log_to_driver=False)
        assert self.cluster.head_node is not None
        self._sessions = [self.cluster.head_node.address]
        self.slots: dict[str, ClusterNode] = {}
        for number in range(NODES):
            self.add(f"node{number}")

    def add(self, slot: str) -> None:
        self.slots[slot] = self.cluster.add_node(
            num_cpus=2, resources={"away": 10}, object_store_memory=STORE_BYTES
        )
        self._sessions.append(self.slots[slot].address)

    def replace(self, slot: str) -> None:
        self.cluster.remove_node(self.slots[slot], allow_graceful=False)
        self.add(slot)

    def targets(self) -> list[Target]:
        return [self._target(slot) for slot in self.slots]

    def _target(self, slot: str) -> Target:
        return Target(
            slot,
            lambda: workers_of(self.slots[slot].raylet_pid),
            replace_node=lambda: self.replace(slot),
            node_pid=lambda: self.slots[slot].raylet_pid,
        )

    def sessions(self) -> list[Session]:
        return [Session(path) for path in self._sessions if os.path.isdir(path)]

    def look(self, keep_actors: bool) -> dict[str, Any]:
        return look(keep_actors)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    made = Nodes()
    yield made
    made.cluster.shutdown()


def run(
    nodes: Nodes, log: Path, seed: int, rounds: int, every: int, longest_s: float
) -> list[float]:
    """``rounds`` of work with a harm every so many; how long each took."""
    history = History()
    work = Work(str(log), WRITER)
    work.warm_up([node.node_id for node in nodes.cluster.list_all_nodes()])
    work.begin(0)
    work.end()
    watch = Watch(nodes)
    nemesis = Nemesis(nodes.targets(), history, seed, longest_s)
    took = []
    try:
        for number in range(1, rounds + 1):
            began = time.monotonic()
            work.begin(number)
            if number % every == 0:
                nemesis.step()
            work.end()
            took.append(time.monotonic() - began)
        nemesis.heal()
        checks.check_work(log, work.acknowledged)
    except BaseException as error:
        raise AssertionError(f"{error}\n{history}") from error
    finally:
        nemesis.heal()
    del work
    gc.collect()
    eventually(
        lambda: sum(node["Alive"] for node in mray.nodes()) == NODES + 1, 30, "all nodes live"
    )
    assert_quiescent(watch, 60)
    return took


@pytest.mark.parametrize("seed", range(10))
def test_an_hour_of_faults_changes_no_result_and_costs_no_speed(
    nodes: Nodes, tmp_path: Path, seed: int
) -> None:
    daemons = [psutil.Process(nodes.cluster.head_node.pids["head"])]  # type: ignore[union-attr]
    began = [process.memory_info().rss for process in daemons]
    took = run(nodes, tmp_path / "calls", seed, rounds=400, every=4, longest_s=15.0)
    tenth = len(took) // 10
    calm = [each for number, each in enumerate(took, 1) if number % 4 == 3]
    assert statistics.median(calm[-tenth:]) < 1.3 * statistics.median(calm[:tenth]) + 0.2
    for process, before in zip(daemons, began, strict=True):
        assert process.memory_info().rss < before + (64 << 20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1 << 21
