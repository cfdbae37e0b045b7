"""Scheduling over the nodes of a cluster: resources, affinity, labels, groups, nodes that go."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.conformance
PATIENCE_S = 60


@pytest.fixture(scope="module")
def cluster(engine: ModuleType) -> Iterator[Any]:
    """Three nodes: the head's, where the driver is, and two that have something of their own."""
    kind = importlib.import_module(f"{engine.__name__}.cluster_utils").Cluster
    made = kind(initialize_head=True, head_node_args={"num_cpus": 2})
    made.add_node(num_cpus=2, resources={"left": 2, "side": 1}, labels={"zone": "a"})
    made.add_node(num_cpus=2, resources={"right": 2, "side": 1}, labels={"zone": "b"})
    made.wait_for_nodes()
    engine.init(address=made.address, log_to_driver=False)
    yield made
    engine.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def ray(engine: ModuleType, cluster: Any) -> ModuleType:
    return engine


@pytest.fixture(scope="module")
def where(ray: ModuleType) -> Any:
    def where() -> str:
        import sys

        module = sys.modules.get("mray") or sys.modules["ray"]
        return str(module.get_runtime_context().get_node_id())

    return ray.remote(where)


def node_with(ray: ModuleType, resource: str) -> str:
    [found] = [n["NodeID"] for n in ray.nodes() if n["Alive"] and resource in n["Resources"]]
    return str(found)


def until_idle(ray: ModuleType) -> None:
    """Until no worker holds a CPU any more that was lent for a task before."""
    give_up_at = time.monotonic() + PATIENCE_S
    while ray.available_resources().get("CPU", 0) < 6:
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def test_the_cluster_is_the_sum_of_its_nodes(ray: ModuleType) -> None:
    assert len([n for n in ray.nodes() if n["Alive"]]) == 3
    total = ray.cluster_resources()
    assert (total["CPU"], total["left"], total["side"]) == (6, 2, 2)


def test_a_resource_of_one_node_is_used_there(ray: ModuleType, where: Any) -> None:
    for resource in ("left", "right"):
        refs = [where.options(resources={resource: 1}).remote() for _ in range(4)]
        assert set(ray.get(refs, timeout=PATIENCE_S)) == {node_with(ray, resource)}


def test_affinity_to_a_node(ray: ModuleType, where: Any) -> None:
    strategies = ray.util.scheduling_strategies
    for node in ray.nodes():
        for soft in (False, True):
            strategy = strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=soft)
            ref = where.options(scheduling_strategy=strategy).remote()
            assert ray.get(ref, timeout=PATIENCE_S) == node["NodeID"]


def test_affinity_to_a_node_that_is_not_there(ray: ModuleType, where: Any) -> None:
    strategies = ray.util.scheduling_strategies
    nowhere = "ab" * 28
    soft = strategies.NodeAffinitySchedulingStrategy(nowhere, soft=True)
    assert ray.get(where.options(scheduling_strategy=soft).remote(), timeout=PATIENCE_S)
    hard = strategies.NodeAffinitySchedulingStrategy(nowhere, soft=False)
    with pytest.raises(ray.exceptions.TaskUnschedulableError):
        ray.get(where.options(scheduling_strategy=hard).remote(), timeout=PATIENCE_S)


def test_labels_of_nodes(ray: ModuleType, where: Any) -> None:
    for zone, resource in (("a", "left"), ("b", "right")):
        ref = where.options(label_selector={"zone": zone}).remote()
        assert ray.get(ref, timeout=PATIENCE_S) == node_with(ray, resource)


def test_spread_uses_more_than_one_node(ray: ModuleType) -> None:
    def work() -> str:
        import sys
        import time

        time.sleep(0.3)
        module = sys.modules.get("mray") or sys.modules["ray"]
        return str(module.get_runtime_context().get_node_id())

    task = ray.remote(work).options(scheduling_strategy="SPREAD")
    assert len(set(ray.get([task.remote() for _ in range(12)], timeout=PATIENCE_S))) > 1


def test_actors_go_where_their_resources_are_and_call_each_other(ray: ModuleType) -> None:
    class Place:
        def where(self) -> str:
            import sys

            module = sys.modules.get("mray") or sys.modules["ray"]
            return str(module.get_runtime_context().get_node_id())

        def ask(self, other: Any) -> str:
            import sys

            module = sys.modules.get("mray") or sys.modules["ray"]
            return str(module.get(other.where.remote()))

    actor = ray.remote(Place)
    left = actor.options(resources={"left": 1}, name="left").remote()
    right = actor.options(resources={"right": 1}).remote()
    assert ray.get(right.ask.remote(left), timeout=PATIENCE_S) == node_with(ray, "left")
    assert ray.get(right.where.remote(), timeout=PATIENCE_S) == node_with(ray, "right")
    found = ray.get_actor("left")
    assert ray.get(found.where.remote(), timeout=PATIENCE_S) == node_with(ray, "left")
    ray.kill(left)
    ray.kill(right)


@pytest.mark.parametrize(
    ("strategy", "count"), [("STRICT_PACK", 1), ("STRICT_SPREAD", 2), ("PACK", 1), ("SPREAD", 2)]
)
def test_strategies_of_placement_groups(
    ray: ModuleType, where: Any, strategy: str, count: int
) -> None:
    until_idle(ray)
    group = ray.util.placement_group([{"CPU": 1}] * 2, strategy=strategy)
    ray.get(group.ready(), timeout=PATIENCE_S)
    places = set()
    for index in range(2):
        bundle = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(group, index)
        ref = where.options(num_cpus=1, scheduling_strategy=bundle).remote()
        places.add(ray.get(ref, timeout=PATIENCE_S))
    assert len(places) == count
    ray.util.remove_placement_group(group)


def test_what_no_node_has_waits_for_one_that_joins(
    ray: ModuleType, cluster: Any, where: Any
) -> None:
    ref = where.options(num_cpus=0, resources={"late": 1}).remote()
    assert ray.wait([ref], timeout=0.5) == ([], [ref])
    node = cluster.add_node(num_cpus=1, resources={"late": 1})
    assert ray.get(ref, timeout=PATIENCE_S) == node_with(ray, "late")
    cluster.remove_node(node)


@pytest.mark.parametrize("graceful", [False, True])
def test_an_actor_begins_anew_on_another_node(
    ray: ModuleType, cluster: Any, graceful: bool
) -> None:
    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def add(self) -> int:
            self.count += 1
            return self.count

    first = cluster.add_node(num_cpus=1, resources={"moves": 1})
    options = {"num_cpus": 0, "resources": {"moves": 1}, "max_restarts": 1, "max_task_retries": -1}
    actor = ray.remote(Counter).options(**options).remote()
    assert ray.get([actor.add.remote(), actor.add.remote()], timeout=PATIENCE_S) == [1, 2]
    second = cluster.add_node(num_cpus=1, resources={"moves": 1})
    cluster.remove_node(first, allow_graceful=graceful)
    # Ray's workers serve on until they notice that their node is gone.
    while ray.get(actor.add.remote(), timeout=PATIENCE_S) != 1:
        continue
    cluster.remove_node(second, allow_graceful=False)

    def until_it_fails() -> None:
        while True:
            ray.get(actor.add.remote(), timeout=PATIENCE_S)

    with pytest.raises(ray.exceptions.ActorDiedError):
        until_it_fails()


def test_a_value_whose_owner_was_on_a_dead_node_is_an_error(
    ray: ModuleType, cluster: Any
) -> None:
    class Maker:
        def make(self) -> list[Any]:
            import sys

            module = sys.modules.get("mray") or sys.modules["ray"]
            return [module.put("x" * 10)]

    node = cluster.add_node(num_cpus=1, resources={"dies": 1})
    maker = ray.remote(Maker).options(num_cpus=0, resources={"dies": 1}).remote()
    [ref] = ray.get(maker.make.remote(), timeout=PATIENCE_S)
    cluster.remove_node(node, allow_graceful=False)
    with pytest.raises(ray.exceptions.OwnerDiedError):
        ray.get(ref, timeout=PATIENCE_S)
