"""Where tasks of a cluster of three nodes run: the driver's node, the others, those they name."""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import mray
from mray.util.placement_group import placement_group, remove_placement_group
from mray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from ...waiting import eventually
from .conftest import Gate, Three

pytestmark = pytest.mark.integration
PATIENCE_S = 30


@mray.remote
def where() -> str:
    return str(mray.get_runtime_context().get_node_id())


@mray.remote
def hold(folder: str) -> str:
    with open(f"{folder}/at-{os.getpid()}", "w"):
        pass
    while not os.path.exists(f"{folder}/open"):
        time.sleep(0.005)
    return str(mray.get_runtime_context().get_node_id())


@mray.remote
class Place:
    def where(self) -> str:
        return str(mray.get_runtime_context().get_node_id())

    def ask(self, other: Any) -> str:
        return str(mray.get(other.where.remote(), timeout=PATIENCE_S))

    def start(self, strategy: Any) -> list[str]:
        refs = [where.options(scheduling_strategy=strategy).remote() for _ in range(3)]
        return [str(place) for place in mray.get(refs, timeout=PATIENCE_S)]


def get(ref: Any) -> Any:
    return mray.get(ref, timeout=PATIENCE_S)


def test_work_fills_all_nodes_at_once(three: Three, gate: Gate) -> None:
    refs = [hold.remote(gate.path) for _ in range(5)]
    eventually(lambda: gate.arrived() == 5)
    gate.open()
    assert Counter(get(refs)) == {three.head.node_id: 1, three.left.node_id: 2,
                                  three.right.node_id: 2}  # fmt: skip
    eventually(lambda: mray.available_resources().get("CPU", 0) == 5)


def test_what_only_one_node_has_is_used_there(three: Three) -> None:
    tasks = [where.options(resources={"right": 1}).remote() for _ in range(20)]
    assert set(get(tasks)) == {three.right.node_id}


def test_more_than_such_a_node_can_do_at_once_waits_for_it(three: Three, gate: Gate) -> None:
    tasks = [hold.options(num_cpus=0, resources={"left": 2}).remote(gate.path) for _ in range(5)]
    eventually(lambda: gate.arrived() == 2)
    gate.open()
    assert set(get(tasks)) == {three.left.node_id}


def test_spread_takes_nodes_in_turn(three: Three, tmp_path: Path) -> None:
    spread = hold.options(scheduling_strategy="SPREAD")
    folders = itertools.count()

    def spread_over_all() -> bool:
        """Nodes that are still held by leases of before are passed over, so not at once."""
        gate = Gate(tmp_path / str(next(folders)))
        gate.folder.mkdir()
        refs = [spread.remote(gate.path) for _ in range(3)]
        eventually(lambda: gate.arrived() == 3)
        gate.open()
        return set(get(refs)) == set(three.ids())

    eventually(spread_over_all, 20)


def test_affinity_to_a_node_holds_on_all_of_them(three: Three) -> None:
    for node_id in three.ids():
        strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
        refs = [where.options(scheduling_strategy=strategy).remote() for _ in range(3)]
        assert set(get(refs)) == {node_id}


def test_affinity_to_no_node_of_the_cluster_fails_unless_soft(three: Three) -> None:
    nowhere = "ab" * 28
    hard = NodeAffinitySchedulingStrategy(nowhere, soft=False)
    with pytest.raises(mray.exceptions.TaskUnschedulableError, match="not in the cluster"):
        get(where.options(scheduling_strategy=hard).remote())
    soft = NodeAffinitySchedulingStrategy(nowhere, soft=True)
    assert get(where.options(scheduling_strategy=soft).remote()) in three.ids()


def test_soft_affinity_prefers_the_node(three: Three) -> None:
    soft = NodeAffinitySchedulingStrategy(three.right.node_id, soft=True)
    assert get(where.options(scheduling_strategy=soft).remote()) == three.right.node_id


def test_labels_choose_among_all_nodes(three: Three) -> None:
    assert get(where.options(label_selector={"zone": "b"}).remote()) == three.right.node_id
    assert get(where.options(label_selector={"zone": "in(a,c)"}).remote()) == three.left.node_id
    assert get(where.options(label_selector={"zone": "!b", "disk": "ssd"}).remote()) == (
        three.left.node_id
    )
    hard = NodeLabelSchedulingStrategy(hard={"zone": mray.util.scheduling_strategies.In("b")})
    assert get(where.options(scheduling_strategy=hard).remote()) == three.right.node_id


def test_nested_tasks_are_leased_where_their_caller_is_and_beyond(three: Three) -> None:
    actor = Place.options(num_cpus=0, resources={"left": 1}).remote()
    for node_id in three.ids():
        hard = NodeAffinitySchedulingStrategy(node_id, soft=False)
        assert get(actor.start.remote(hard)) == [node_id] * 3
    mray.kill(actor)


def test_actors_are_reached_from_everywhere_and_by_name(three: Three) -> None:
    one = Place.options(num_cpus=0, resources={"left": 1}, name="one").remote()
    two = Place.options(num_cpus=0, resources={"right": 1}).remote()
    assert get([one.where.remote(), two.where.remote()]) == [three.left.node_id,
                                                             three.right.node_id]  # fmt: skip
    assert get(two.ask.remote(one)) == three.left.node_id

    @mray.remote(num_cpus=0, resources={"right": 1})
    def by_name() -> str:
        return str(mray.get(mray.get_actor("one").where.remote(), timeout=PATIENCE_S))

    assert get(by_name.remote()) == three.left.node_id
    mray.kill(one)
    mray.kill(two)


def test_bundles_go_over_nodes_and_tasks_and_actors_into_them(three: Three) -> None:
    group = placement_group([{"CPU": 1}] * 3, strategy="STRICT_SPREAD")
    assert group.wait(PATIENCE_S)
    tasks, actors = [], []
    for index in range(3):
        strategy = PlacementGroupSchedulingStrategy(group, index)
        tasks.append(get(where.options(scheduling_strategy=strategy, num_cpus=1).remote()))
        actor = Place.options(scheduling_strategy=strategy, num_cpus=1).remote()
        actors.append(get(actor.where.remote()))
        mray.kill(actor)
    assert set(tasks) == set(three.ids())
    assert actors == tasks
    anywhere = PlacementGroupSchedulingStrategy(group)
    refs = [where.options(scheduling_strategy=anywhere).remote() for _ in range(30)]
    assert set(get(refs)) <= set(three.ids())
    remove_placement_group(group)
    with pytest.raises(mray.exceptions.TaskPlacementGroupRemoved):
        get(where.options(scheduling_strategy=anywhere).remote())
    eventually(lambda: mray.available_resources().get("CPU", 0) == 5)


def test_pack_stays_on_one_node_where_it_can(three: Three) -> None:
    group = placement_group([{"CPU": 1}] * 2, strategy="PACK")
    assert group.wait(PATIENCE_S)
    places = set()
    for index in range(2):
        strategy = PlacementGroupSchedulingStrategy(group, index)
        places.add(get(where.options(scheduling_strategy=strategy).remote()))
    assert len(places) == 1
    assert places < {three.left.node_id, three.right.node_id}
    remove_placement_group(group)


def test_references_and_their_owners_work_over_nodes(three: Three) -> None:
    far = where.options(num_cpus=0, resources={"left": 1})

    @mray.remote(num_cpus=0, resources={"right": 1})
    def wrap(refs: list[Any]) -> list[Any]:
        return [mray.get(refs[0], timeout=PATIENCE_S), mray.put("made on the right")]

    place, made = get(wrap.remote([far.remote()]))
    assert place == three.left.node_id
    assert get(made) == "made on the right"


def test_errors_of_environments_come_from_other_nodes(three: Three) -> None:
    far = where.options(
        num_cpus=0, resources={"right": 1}, runtime_env={"working_dir": "/no/such.zip"}
    )
    with pytest.raises((mray.exceptions.RuntimeEnvSetupError, ValueError)):
        get(far.remote())
    env = {"env_vars": {"SIDE": "right"}}

    @mray.remote(num_cpus=0, resources={"right": 1}, runtime_env=env)
    def side() -> str:
        return os.environ["SIDE"]

    assert get(side.remote()) == "right"


@pytest.mark.parametrize("force", [False, True])
def test_a_task_on_another_node_is_cancelled(three: Three, gate: Gate, force: bool) -> None:
    task = hold.options(num_cpus=0, resources={"right": 4}, max_retries=0).remote(gate.path)
    eventually(lambda: gate.arrived() == 1)
    mray.cancel(task, force=force)
    with pytest.raises((mray.exceptions.TaskCancelledError, mray.exceptions.WorkerCrashedError)):
        get(task)
    eventually(lambda: mray.available_resources().get("right", 0) == 4)


def test_blocked_tasks_on_other_nodes_give_their_cpus_back(three: Three) -> None:
    @mray.remote(num_cpus=1)
    def fib(n: int) -> int:
        if n < 2:
            return n
        return sum(mray.get([fib.remote(n - 1), fib.remote(n - 2)]))

    assert get(fib.remote(7)) == 13
    eventually(lambda: mray.available_resources().get("CPU", 0) == 5)
