"""Nodes that die with work on them: what runs again, what fails, with which cause, how soon."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

import mray
from mray import current
from mray.cluster_utils import Cluster, ClusterNode
from mray.wire.messages import GetNodes, Nodes

from ...waiting import eventually
from .conftest import SETTINGS, Gate

pytestmark = pytest.mark.integration
PATIENCE_S = 30


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """The head's node, with one CPU and this driver; tests add what they kill."""
    made = Cluster(True, head_node_args={"_system_config": dict(SETTINGS)})
    made.connect(log_to_driver=False)
    yield made
    made.shutdown()


@pytest.fixture
def node(cluster: Cluster) -> Iterator[ClusterNode]:
    made = cluster.add_node(num_cpus=2, resources={"far": 4})
    yield made
    if made in cluster.worker_nodes:
        cluster.remove_node(made, allow_graceful=False)


@mray.remote(num_cpus=0, resources={"far": 1})
def hold(folder: str) -> int:
    with open(f"{folder}/at-{os.getpid()}", "w"):
        pass
    while not os.path.exists(f"{folder}/open"):
        time.sleep(0.005)
    return os.getpid()


@mray.remote(num_cpus=0, resources={"far": 1})
class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self) -> tuple[int, str]:
        self.count += 1
        return self.count, mray.get_runtime_context().get_node_id()

    def make(self) -> list[Any]:
        return [mray.put(self.count)]


def get(ref: Any) -> Any:
    return mray.get(ref, timeout=PATIENCE_S)


def test_tasks_run_again_on_another_node(cluster: Cluster, node: ClusterNode, gate: Gate) -> None:
    refs = [hold.remote(gate.path) for _ in range(3)]
    eventually(lambda: gate.arrived() == 3)
    other = cluster.add_node(num_cpus=2, resources={"far": 4})
    cluster.remove_node(node, allow_graceful=False)
    eventually(lambda: gate.arrived() == 6, 20)
    gate.open()
    assert len(set(get(refs))) == 3
    cluster.remove_node(other)


def test_what_may_not_run_again_fails_with_the_nodes_death(
    cluster: Cluster, node: ClusterNode, gate: Gate
) -> None:
    ref = hold.options(max_retries=0).remote(gate.path)
    eventually(lambda: gate.arrived() == 1)
    cluster.remove_node(node, allow_graceful=False)
    with pytest.raises((mray.exceptions.WorkerCrashedError, mray.exceptions.NodeDiedError)) as e:
        get(ref)
    assert node.node_id[:10] in str(e.value)


def test_queued_tasks_of_a_dead_node_wait_for_the_next(
    cluster: Cluster, node: ClusterNode, gate: Gate
) -> None:
    cluster.remove_node(node, allow_graceful=False)
    ref = hold.remote(gate.path)
    gate.open()
    ready, _ = mray.wait([ref], timeout=0.5)
    assert not ready
    other = cluster.add_node(num_cpus=2, resources={"far": 4})
    assert get(ref) > 0
    cluster.remove_node(other)


def test_actors_begin_anew_on_another_node(cluster: Cluster, node: ClusterNode) -> None:
    actor = Counter.options(max_restarts=1, max_task_retries=-1).remote()
    assert get(actor.add.remote()) == (1, node.node_id)
    other = cluster.add_node(num_cpus=2, resources={"far": 4})
    cluster.remove_node(node, allow_graceful=False)
    assert get(actor.add.remote()) == (1, other.node_id)
    cluster.remove_node(other, allow_graceful=False)
    with pytest.raises(mray.exceptions.ActorDiedError):
        get(actor.add.remote())


def test_what_a_dead_node_owned_is_an_error_at_once(cluster: Cluster, node: ClusterNode) -> None:
    actor = Counter.remote()
    [made] = get(actor.make.remote())
    assert get(made) == 0
    [unread] = get(actor.make.remote())
    cluster.remove_node(node, allow_graceful=False)
    with pytest.raises(mray.exceptions.OwnerDiedError):
        mray.get(unread, timeout=PATIENCE_S)
    with pytest.raises(mray.exceptions.OwnerDiedError):
        get(_read.remote([unread]))


@mray.remote
def _read(refs: list[Any]) -> Any:
    return mray.get(refs[0], timeout=PATIENCE_S)


def test_resources_that_a_dead_nodes_processes_held_elsewhere_come_back(
    cluster: Cluster, node: ClusterNode, gate: Gate
) -> None:
    @mray.remote(num_cpus=0)
    def on_the_head(folder: str) -> int:
        return int(mray.get(_hold_a_cpu.remote(folder)))

    other = cluster.add_node(num_cpus=1, resources={"third": 1})
    ref = on_the_head.options(resources={"far": 1}, max_retries=0).remote(gate.path)
    eventually(lambda: gate.arrived() == 1)
    cluster.remove_node(node, allow_graceful=False)
    with pytest.raises((mray.exceptions.WorkerCrashedError, mray.exceptions.NodeDiedError)):
        get(ref)
    eventually(lambda: mray.available_resources().get("third", 0) == 1)
    cluster.remove_node(other)


@mray.remote(num_cpus=0, resources={"third": 1}, max_retries=0)
def _hold_a_cpu(folder: str) -> int:
    with open(f"{folder}/at-{os.getpid()}", "w"):
        pass
    while not os.path.exists(f"{folder}/open"):
        time.sleep(0.005)
    return 1


def test_objects_that_a_dead_nodes_processes_owned_elsewhere_go(
    cluster: Cluster, node: ClusterNode
) -> None:
    other = cluster.add_node(num_cpus=1, resources={"third": 1})

    @mray.remote(num_cpus=0, resources={"third": 1})
    def big() -> bytes:
        return bytes(2 << 20)

    @mray.remote(num_cpus=0, resources={"far": 1})
    class Owner:
        def own(self) -> None:
            self.ref = big.remote()
            mray.wait([self.ref], timeout=PATIENCE_S, fetch_local=False)

    owner = Owner.remote()
    get(owner.own.remote())

    def stored() -> int:
        runtime = current.runtime
        assert runtime is not None
        views = runtime.ask(runtime.head, GetNodes, Nodes).nodes
        return sum(v.store_used_bytes for v in views if v.node.node_id.hex() == other.node_id)

    eventually(lambda: stored() >= 2 << 20)
    cluster.remove_node(node, allow_graceful=False)
    eventually(lambda: stored() == 0)
    cluster.remove_node(other)


def test_a_node_that_was_stopped_too_long_ends_itself_and_its_workers_first(
    cluster: Cluster, node: ClusterNode, gate: Gate
) -> None:
    ref = hold.options(max_retries=0).remote(gate.path)
    eventually(lambda: gate.arrived() == 1)
    worker = psutil.Process(int(next(gate.folder.glob("at-*")).name.removeprefix("at-")))
    node.signal(signal.SIGSTOP)
    with pytest.raises((mray.exceptions.WorkerCrashedError, mray.exceptions.NodeDiedError)):
        get(ref)
    node.signal(signal.SIGCONT)
    eventually(lambda: not worker.is_running())
    eventually(lambda: not node.any_processes_alive())


def test_a_node_that_leaves_in_order_is_known_at_once(cluster: Cluster, node: ClusterNode) -> None:
    actor = Counter.options(max_restarts=-1, max_task_retries=-1).remote()
    assert get(actor.add.remote())[1] == node.node_id
    other = cluster.add_node(num_cpus=2, resources={"far": 4})
    cluster.remove_node(node)
    assert get(actor.add.remote())[1] == other.node_id
    mray.kill(actor)
    cluster.remove_node(other)
