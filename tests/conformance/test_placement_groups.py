"""Placement groups and scheduling strategies: reserving, running in bundles, ending, labels."""

from __future__ import annotations

import importlib
import pickle
import time

import pytest

pytestmark = pytest.mark.conformance

UNKNOWN_NODE = "ab" * 28


@pytest.fixture
def groups(ray):
    """The module of placement groups; what a test makes is removed after it."""
    module = importlib.import_module(f"{ray.__name__}.util.placement_group")
    yield module
    for text, facts in module.placement_group_table().items():
        if facts["state"] != "REMOVED":
            module.remove_placement_group(handle(module, text))
    until(lambda: ray.available_resources().get("CPU") == ray.cluster_resources()["CPU"])


@pytest.fixture
def strategies(ray):
    return importlib.import_module(f"{ray.__name__}.util.scheduling_strategies")


def handle(module, text):
    any_id = module.PlacementGroup.empty().id
    return module.PlacementGroup(type(any_id)(bytes.fromhex(text)))


def until(condition, patience_s=30):
    """Wait for what is told with a delay (resources are, on both engines)."""
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def made(groups, *args, **kwargs):
    group = groups.placement_group(*args, **kwargs)
    assert group.wait(30)
    return group


@pytest.mark.parametrize(
    "bundles", [[], [{}], [{"CPU": 0}], {"CPU": 1}, [{"CPU": "1"}], [{1: 1}]], ids=str
)
def test_bundles_that_are_none_are_refused(groups, bundles):
    with pytest.raises(ValueError, match=r"(?i)bundle"):
        groups.placement_group(bundles)


def test_wrong_strategy_and_lifetime_are_refused(groups):
    with pytest.raises(ValueError, match="FOO"):
        groups.placement_group([{"CPU": 1}], strategy="FOO")
    with pytest.raises(ValueError, match="foo"):
        groups.placement_group([{"CPU": 1}], lifetime="foo")
    with pytest.raises(TypeError):
        groups.placement_group([{"CPU": 1}], name=5)


def test_a_group_is_ready_and_its_handle_knows_its_bundles(ray, groups):
    group = groups.placement_group([{"CPU": 1}, {"CPU": 2}])
    assert ray.get(group.ready(), timeout=30) == group
    assert group.wait(1)
    assert group.bundle_specs == [{"CPU": 1.0}, {"CPU": 2.0}]
    assert group.bundle_count == 2
    assert not group.is_empty
    assert len(group.id.hex()) == 36
    assert pickle.loads(pickle.dumps(group)) == group


@pytest.mark.parametrize("strategy", ["PACK", "SPREAD", "STRICT_PACK"])
def test_the_table_tells_of_a_group(ray, groups, strategy):
    group = made(groups, [{"CPU": 1}, {"CPU": 1}], strategy=strategy, name="told")
    facts = groups.placement_group_table(group)
    node = ray.nodes()[0]["NodeID"]
    assert facts["placement_group_id"] == group.id.hex()
    assert (facts["name"], facts["strategy"], facts["state"]) == ("told", strategy, "CREATED")
    assert facts["bundles"] == {0: {"CPU": 1.0}, 1: {"CPU": 1.0}}
    assert facts["bundles_to_node_id"] == {0: node, 1: node}
    assert facts["stats"]["scheduling_state"] == "FINISHED"
    assert group.id.hex() in groups.placement_group_table()


def test_a_group_is_found_by_its_name_and_the_name_is_its_own(ray, groups):
    group = made(groups, [{"CPU": 1}], name="mine")
    assert groups.get_placement_group("mine") == group
    with pytest.raises(ray.exceptions.RaySystemError):
        groups.placement_group([{"CPU": 1}], name="mine")
    with pytest.raises(ValueError, match="other"):
        groups.get_placement_group("other")
    with pytest.raises(ValueError, match="get_placement_group"):
        groups.get_placement_group("")


def test_what_a_group_takes_comes_back_when_it_is_removed(ray, groups):
    before = ray.available_resources()
    group = made(groups, [{"CPU": 1}, {"CPU": 2}])
    until(lambda: ray.available_resources().get("CPU") == before["CPU"] - 3)
    groups.remove_placement_group(group)
    groups.remove_placement_group(group)
    until(lambda: ray.available_resources() == before)


def test_tasks_and_actors_run_in_bundles_and_know_their_group(ray, groups, strategies):
    group = made(groups, [{"CPU": 1}, {"CPU": 1}])

    @ray.remote
    def look():
        context = ray.get_runtime_context()
        return context.get_assigned_resources(), context.get_placement_group_id()

    @ray.remote(num_cpus=1)
    class Looker:
        def look(self):
            context = ray.get_runtime_context()
            return context.get_assigned_resources(), context.get_placement_group_id()

    here = ({"CPU": 1.0}, group.id.hex())
    for index in (-1, 0, 1):
        strategy = strategies.PlacementGroupSchedulingStrategy(group, index)
        assert ray.get(look.options(scheduling_strategy=strategy).remote(), timeout=30) == here
    actor = Looker.options(
        scheduling_strategy=strategies.PlacementGroupSchedulingStrategy(group, 1)
    ).remote()
    assert ray.get(actor.look.remote(), timeout=30) == here
    older = look.options(placement_group=group, placement_group_bundle_index=0)
    assert ray.get(older.remote(), timeout=30) == here
    assert ray.get(look.remote(), timeout=30) == ({"CPU": 1.0}, None)


def test_a_bundle_holds_no_more_than_it_has(ray, groups, strategies):
    group = made(groups, [{"CPU": 1}])

    @ray.remote(num_cpus=1)
    class Holder:
        def ping(self):
            return 1

    strategy = strategies.PlacementGroupSchedulingStrategy(group)
    first = Holder.options(scheduling_strategy=strategy).remote()
    assert ray.get(first.ping.remote(), timeout=30) == 1
    second = Holder.options(scheduling_strategy=strategy).remote()
    answer = second.ping.remote()
    assert ray.wait([answer], timeout=0.3)[0] == []
    ray.kill(first)
    assert ray.get(answer, timeout=30) == 1


def test_children_are_captured_only_where_that_is_asked(ray, groups, strategies):
    group = made(groups, [{"CPU": 2}])

    @ray.remote
    def where():
        return ray.get_runtime_context().get_placement_group_id()

    @ray.remote(num_cpus=0)
    def parent():
        return ray.get(where.remote())

    def run(captures):
        strategy = strategies.PlacementGroupSchedulingStrategy(group, 0, captures)
        return ray.get(parent.options(scheduling_strategy=strategy).remote(), timeout=30)

    assert run(None) is None
    assert run(True) == group.id.hex()
    assert run(False) is None


def test_needs_that_no_bundle_has_are_refused_at_once(ray, groups, strategies):
    group = made(groups, [{"CPU": 1}])
    task = ray.remote(lambda: 1)
    strategy = strategies.PlacementGroupSchedulingStrategy
    with pytest.raises(ValueError, match="index"):
        task.options(scheduling_strategy=strategy(group, 1)).remote()
    with pytest.raises(ValueError, match="index"):
        task.options(scheduling_strategy=strategy(group, -2)).remote()
    with pytest.raises(ValueError, match="fit"):
        task.options(num_cpus=2, scheduling_strategy=strategy(group)).remote()
    with pytest.raises(ValueError, match="index"):
        task.options(placement_group_bundle_index=0).remote()
    with pytest.raises(ValueError, match="FOO"):
        task.options(scheduling_strategy="FOO").remote()
    with pytest.raises(TypeError):
        task.options(scheduling_strategy=5).remote()


def test_a_group_waits_for_room_as_a_whole(ray, groups):
    first = made(groups, [{"CPU": 3}])
    second = groups.placement_group([{"CPU": 1}, {"CPU": 1}])
    assert not second.wait(0.3)
    facts = groups.placement_group_table(second)
    assert facts["state"] == "PENDING"
    assert facts["bundles_to_node_id"] == {0: "", 1: ""}
    groups.remove_placement_group(first)
    assert second.wait(30)


def test_each_bundle_on_its_own_node_needs_as_many_nodes(ray, groups):
    group = groups.placement_group([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_SPREAD")
    ready = group.ready()
    assert not group.wait(0.3)
    assert groups.placement_group_table(group)["stats"]["scheduling_state"] == "INFEASIBLE"
    groups.remove_placement_group(group)
    with pytest.raises(ray.exceptions.TaskPlacementGroupRemoved):
        ray.get(ready, timeout=30)


def test_removal_ends_the_actors_in_the_group(ray, groups, strategies):
    group = made(groups, [{"CPU": 1}])

    @ray.remote(num_cpus=1)
    class Holder:
        def ping(self):
            return 1

    strategy = strategies.PlacementGroupSchedulingStrategy(group)
    holder = Holder.options(scheduling_strategy=strategy).remote()
    assert ray.get(holder.ping.remote(), timeout=30) == 1
    groups.remove_placement_group(group)

    def is_dead():
        try:
            ray.get(holder.ping.remote(), timeout=30)
        except ray.exceptions.ActorDiedError:
            return True
        return False

    until(is_dead)
    with pytest.raises(Exception, match=group.id.hex()):
        group.wait(1)
    assert groups.placement_group_table(group)["state"] == "REMOVED"


@pytest.mark.mray_only("Ray lets them wait for ever")
def test_tasks_of_a_removed_group_fail(ray, groups, strategies):
    group = made(groups, [{"CPU": 1}])
    strategy = strategies.PlacementGroupSchedulingStrategy(group)
    task = ray.remote(lambda: time.sleep(1000)).options(scheduling_strategy=strategy)
    refs = [task.remote() for _ in range(3)]
    assert ray.wait(refs, timeout=0.2)[0] == []
    groups.remove_placement_group(group)
    for ref in [*refs, task.remote()]:
        with pytest.raises(ray.exceptions.TaskPlacementGroupRemoved):
            ray.get(ref, timeout=30)


@pytest.mark.mray_only("Ray lets its calls wait for ever")
def test_an_actor_of_a_removed_group_is_never_made(ray, groups, strategies):
    first = made(groups, [{"CPU": 3}])
    second = groups.placement_group([{"CPU": 3}])
    strategy = strategies.PlacementGroupSchedulingStrategy(second)
    holder = ray.remote(type("Holder", (), {"ping": lambda self: 1}))
    answer = holder.options(scheduling_strategy=strategy).remote().ping.remote()
    groups.remove_placement_group(second)
    with pytest.raises(ray.exceptions.ActorPlacementGroupRemoved):
        ray.get(answer, timeout=30)
    groups.remove_placement_group(first)


def test_affinity_to_a_node(ray, groups, strategies):
    affinity = strategies.NodeAffinitySchedulingStrategy
    own = ray.get_runtime_context().get_node_id()

    @ray.remote
    def where():
        return ray.get_runtime_context().get_node_id()

    def run(node, soft):
        task = where.options(scheduling_strategy=affinity(node, soft))
        return ray.get(task.remote(), timeout=30)

    assert run(own, False) == own
    assert run(UNKNOWN_NODE, True) == own
    with pytest.raises(ray.exceptions.TaskUnschedulableError):
        run(UNKNOWN_NODE, False)
    holder = ray.remote(type("Holder", (), {"ping": lambda self: 1}))
    actor = holder.options(scheduling_strategy=affinity(UNKNOWN_NODE, False)).remote()
    with pytest.raises(ray.exceptions.ActorUnschedulableError):
        ray.get(actor.ping.remote(), timeout=30)
    with pytest.raises(ValueError, match="zz"):
        where.options(scheduling_strategy=affinity("zz", False)).remote()


def test_labels_of_nodes(ray, groups, strategies):
    labels = strategies.NodeLabelSchedulingStrategy
    own = ray.get_runtime_context().get_node_id()
    key = "ray.io/node-id"
    task = ray.remote(lambda: 1)

    def run(**options):
        return ray.wait([task.options(**options).remote()], timeout=2)[0] != []

    assert run(scheduling_strategy=labels({key: strategies.In(own)}))
    assert run(scheduling_strategy=labels({"x": strategies.DoesNotExist()}))
    assert run(scheduling_strategy=labels({}, soft={"x": strategies.Exists()}))
    assert run(label_selector={key: own})
    assert run(label_selector={"x": "!a"})
    assert not run(scheduling_strategy=labels({"x": strategies.In("a")}))
    assert not run(label_selector={"x": "a"})
    with pytest.raises(ValueError, match="empty"):
        labels({})
    with pytest.raises(ValueError, match="str"):
        strategies.In(5)


def test_the_function_has_the_modules_name(ray):
    util = importlib.import_module(f"{ray.__name__}.util")
    importlib.import_module(f"{ray.__name__}.util.placement_group")
    group = util.placement_group([{"CPU": 1}])
    assert group.wait(30)
    util.remove_placement_group(group)
