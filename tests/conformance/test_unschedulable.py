"""What no node can run: which of it fails, and which waits."""

from __future__ import annotations

import importlib

import pytest

pytestmark = pytest.mark.conformance

TIMEOUT_S = 60


@pytest.fixture(scope="module")
def ray(engine):
    engine.init(
        address="local",
        num_cpus=4,
        resources={"accelerator_type:T4": 1},
        labels={"zone": "b"},
        log_to_driver=False,
    )
    yield engine
    engine.shutdown()


@pytest.fixture(scope="module")
def one(ray):
    @ray.remote
    def one():
        return 1

    return one


@pytest.fixture(scope="module")
def actor(ray):
    @ray.remote
    class Actor:
        def one(self):
            return 1

        def holds(self):
            return ray.get_runtime_context().get_assigned_resources()

    return Actor


@pytest.fixture(params=["task", "actor"])
def run(request, ray, one, actor):
    """Runs with options, as a task or in an actor: a reference of 1."""
    if request.param == "task":
        return lambda **options: one.options(**options).remote()
    return lambda **options: actor.options(**options).remote().one.remote()


@pytest.fixture
def unschedulable(request, ray):
    """The error of the kind that is run."""
    kind = request.node.callspec.params["run"].capitalize()
    return getattr(ray.exceptions, f"{kind}UnschedulableError")


@pytest.fixture
def on(engine, ray):
    """A strategy: on this node; or on one that is not there."""
    strategies = importlib.import_module(f"{engine.__name__}.util.scheduling_strategies")
    own = ray.get_runtime_context().get_node_id()

    def make(there=True, soft=False):
        node_id = own if there else "ab" * (len(own) // 2)
        return strategies.NodeAffinitySchedulingStrategy(node_id, soft=soft)

    return make


def test_what_has_to_be_on_a_node_that_is_not_there_fails(ray, run, on, unschedulable):
    with pytest.raises(unschedulable):
        ray.get(run(scheduling_strategy=on(there=False)), timeout=TIMEOUT_S)


def test_what_would_rather_be_on_a_node_that_is_not_there_runs_elsewhere(ray, run, on):
    assert ray.get(run(scheduling_strategy=on(there=False, soft=True)), timeout=TIMEOUT_S) == 1


def test_what_has_to_be_on_a_node_that_is_too_small_fails(ray, run, on, unschedulable):
    with pytest.raises(unschedulable):
        ray.get(run(scheduling_strategy=on(), num_cpus=100), timeout=TIMEOUT_S)


def test_what_may_be_anywhere_waits_for_a_node_that_is_big_enough(ray, run, on):
    for options in ({}, {"scheduling_strategy": on(soft=True)}):
        with pytest.raises(ray.exceptions.GetTimeoutError):
            ray.get(run(num_cpus=100, **options), timeout=0.5)


@pytest.mark.parametrize(
    ("first", "fallbacks"),
    [
        ({"zone": "a"}, [{"zone": "b"}]),
        ({"zone": "a"}, [{"zone": "c"}, {"zone": "in(b, d)"}]),
        ({"zone": "b"}, [{"zone": "a"}]),
        ({}, [{"zone": "a"}]),
        ({"zone": "b"}, []),
    ],
)
def test_labels_that_no_node_has_give_way_to_the_next(ray, run, first, fallbacks):
    strategy = [{"label_selector": labels} for labels in fallbacks]
    ref = run(label_selector=first, fallback_strategy=strategy)
    assert ray.get(ref, timeout=TIMEOUT_S) == 1


def test_labels_wait_where_no_choice_is_met(ray, run):
    ref = run(label_selector={"zone": "a"}, fallback_strategy=[{"label_selector": {"zone": "!b"}}])
    with pytest.raises(ray.exceptions.GetTimeoutError):
        ray.get(ref, timeout=0.5)


@pytest.mark.parametrize(
    "value", [{}, [{}], [1], [{"memory": 1}], [{"label_selector": ["zone"]}]]
)
def test_a_fallback_is_a_label_selector(ray, run, value):
    with pytest.raises((TypeError, ValueError)):
        run(label_selector={"zone": "a"}, fallback_strategy=value)


def test_an_accelerator_type_is_a_resource_of_the_node(ray, run):
    assert ray.get(run(accelerator_type="T4"), timeout=TIMEOUT_S) == 1
    with pytest.raises(ray.exceptions.GetTimeoutError):
        ray.get(run(accelerator_type="H100"), timeout=0.5)


@pytest.mark.parametrize(
    ("options", "held"),
    [
        ({}, {}),
        ({"memory": 2**20}, {"memory": 2**20}),
        ({"num_cpus": 0}, {}),
        ({"num_cpus": 2}, {"CPU": 2}),
        ({"accelerator_type": "T4"}, {"CPU": 1, "accelerator_type:T4": 0.001}),
        ({"num_cpus": 0, "accelerator_type": "T4"}, {"accelerator_type:T4": 0.001}),
        ({"num_gpus": 0}, {"CPU": 1}),
    ],
)
def test_an_actor_holds_a_cpu_if_it_names_a_resource(ray, actor, options, held):
    ref = actor.options(**options).remote().holds.remote()
    assert ray.get(ref, timeout=TIMEOUT_S) == pytest.approx(held)


def test_tasks_have_no_object_store_memory(ray, one):
    with pytest.raises(ValueError):
        one.options(object_store_memory=1).remote()


def test_labels_of_a_task_are_strings(ray, run):
    assert ray.get(run(_labels={"a": "b"}), timeout=TIMEOUT_S) == 1
    with pytest.raises((TypeError, ValueError)):
        run(_labels={1: 2})
