"""Nodes that leave on request: nothing new, tasks end, actors move, and then the daemon ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

import mray
from mray.cluster_utils import Cluster, ClusterNode

from ...waiting import eventually
from .conftest import SETTINGS, Gate

pytestmark = pytest.mark.integration
PATIENCE_S = 30


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """The head's node, with this driver, and one that stays."""
    made = Cluster(True, head_node_args={"num_cpus": 0, "_system_config": dict(SETTINGS)})
    made.connect(log_to_driver=False)
    made.add_node(num_cpus=2, resources={"stays": 1})
    yield made
    made.shutdown()


@pytest.fixture
def leaving(cluster: Cluster) -> Iterator[ClusterNode]:
    made = cluster.add_node(num_cpus=2, resources={"leaves": 4})
    yield made
    if made in cluster.worker_nodes:
        cluster.remove_node(made, allow_graceful=False)


@mray.remote
def hold(folder: str) -> str:
    with open(f"{folder}/at-{os.getpid()}", "w"):
        pass
    while not os.path.exists(f"{folder}/open"):
        time.sleep(0.005)
    return str(mray.get_runtime_context().get_node_id())


@mray.remote(num_cpus=0)
class Place:
    def where(self) -> str:
        return str(mray.get_runtime_context().get_node_id())


def drain(cluster: Cluster, node: ClusterNode, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mray.cli", "drain", node.node_id[:16], *options]
    return subprocess.run(
        [*command, "--address", cluster.address],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def get(ref: Any) -> Any:
    return mray.get(ref, timeout=PATIENCE_S)


def draining(node: ClusterNode) -> bool:
    from mray import current
    from mray.wire.messages import GetNodes, Nodes

    assert current.runtime is not None
    views = current.runtime.ask(current.runtime.head, GetNodes, Nodes).nodes
    return any(view.draining and view.node.node_id.hex() == node.node_id for view in views)


def test_tasks_end_nothing_new_begins_and_the_daemon_ends_with_success(
    cluster: Cluster, leaving: ClusterNode, gate: Gate
) -> None:
    runs = hold.options(num_cpus=0, resources={"leaves": 1}, max_retries=0).remote(gate.path)
    eventually(lambda: gate.arrived() == 1)
    done = drain(cluster, leaving, "--no-wait", "--reason", "maintenance")
    assert done.returncode == 0, done.stderr
    eventually(lambda: draining(leaving))
    waits = hold.options(num_cpus=0, resources={"leaves": 1}).remote(gate.path)
    assert not mray.wait([waits], timeout=0.3)[0]
    assert gate.arrived() == 1
    gate.open()
    assert get(runs) == leaving.node_id
    eventually(lambda: not leaving.any_processes_alive(), 20)
    assert [spawned.reap() for spawned in leaving._started._spawned] == [0]
    other = cluster.add_node(num_cpus=1, resources={"leaves": 1})
    assert get(waits) == other.node_id
    cluster.remove_node(other)


def test_actors_move_and_their_restarts_are_not_counted(
    cluster: Cluster, leaving: ClusterNode
) -> None:
    actor = Place.options(
        resources={"leaves": 1}, max_restarts=1, max_task_retries=-1, name="moves"
    ).remote()
    assert get(actor.where.remote()) == leaving.node_id
    others = []
    for _ in range(2):
        others.append(cluster.add_node(num_cpus=1, resources={"leaves": 1}))
        place = get(actor.where.remote())
        here = next(node for node in cluster.list_all_nodes() if node.node_id == place)
        assert drain(cluster, here).returncode == 0
        assert get(actor.where.remote()) == others[-1].node_id
        cluster.remove_node(here)
    mray.kill(actor)
    cluster.remove_node(others[-1])


def test_what_is_late_ends_at_the_deadline_and_says_why(
    cluster: Cluster, leaving: ClusterNode, gate: Gate
) -> None:
    runs = hold.options(num_cpus=0, resources={"leaves": 1}, max_retries=0).remote(gate.path)
    eventually(lambda: gate.arrived() == 1)
    assert drain(cluster, leaving, "--deadline", "0", "--reason", "the rack burns").returncode == 0
    with pytest.raises(mray.exceptions.WorkerCrashedError, match="drained: the rack burns"):
        get(runs)


def test_a_task_that_a_drain_ends_runs_again_without_a_charge(
    cluster: Cluster, leaving: ClusterNode, gate: Gate
) -> None:
    runs = hold.options(num_cpus=0, resources={"leaves": 1}, max_retries=1).remote(gate.path)
    eventually(lambda: gate.arrived() == 1)
    node = leaving
    for arrived in (2, 3):
        other = cluster.add_node(num_cpus=1, resources={"leaves": 1})
        assert drain(cluster, node, "--deadline", "0").returncode == 0
        cluster.remove_node(node)
        eventually(lambda arrived=arrived: gate.arrived() == arrived)
        node = other
    gate.open()
    assert get(runs) == node.node_id
    cluster.remove_node(node)


def test_sigterm_drains_where_there_is_another_node(
    cluster: Cluster, leaving: ClusterNode, gate: Gate
) -> None:
    runs = hold.options(num_cpus=0, resources={"leaves": 1}, max_retries=0).remote(gate.path)
    eventually(lambda: gate.arrived() == 1)
    leaving.signal(signal.SIGTERM)
    eventually(lambda: draining(leaving))
    gate.open()
    assert get(runs) == leaving.node_id
    eventually(lambda: not leaving.any_processes_alive(), 20)


def test_an_unknown_node_and_the_heads_are_refused(cluster: Cluster) -> None:
    nobody = subprocess.run(
        [sys.executable, "-m", "mray.cli", "drain", "zz", "--address", cluster.address],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert nobody.returncode != 0
    assert "no living node has an id" in nobody.stderr
    assert cluster.head_node is not None
    refused = drain(cluster, cluster.head_node)
    assert refused.returncode != 0
    assert "is the head's" in refused.stderr
