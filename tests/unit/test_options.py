"""Options are checked once, by name."""

from __future__ import annotations

from typing import Any

import pytest

from mray import options
from mray.options import (
    ACTOR_OPTIONS,
    METHOD_OPTIONS,
    TASK_OPTIONS,
    actor_resources_of,
    backpressure_of,
    refuse_decorators,
    refuse_store_memory,
    resources_of,
    returns_of,
    validate,
)

ALL = TASK_OPTIONS | ACTOR_OPTIONS | METHOD_OPTIONS


def test_every_option_has_a_check() -> None:
    assert set(options._CHECKS) == ALL


@pytest.mark.parametrize("name", sorted(ALL))
def test_none_means_not_given(name: str) -> None:
    validate({name: None}, ALL, "f")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_cpus", 0.5), ("num_cpus", 0), ("num_gpus", 1), ("memory", 10**9),
        ("resources", {"a": 0.5}), ("num_returns", 0), ("max_retries", -1), ("max_restarts", -1),
        ("max_calls", 0), ("max_concurrency", 1), ("retry_exceptions", True),
        ("retry_exceptions", [ValueError, KeyError]), ("runtime_env", {"env_vars": {"A": "1"}}),
        ("runtime_env", {"working_dir": "."}), ("name", "n"), ("lifetime", "detached"),
        ("get_if_exists", True), ("scheduling_strategy", "SPREAD"), ("num_returns", "dynamic"),
        ("num_returns", "streaming"), ("_generator_backpressure_num_objects", 3),
        ("_generator_backpressure_num_objects", -1), ("num_gpus", 2.0), ("num_gpus", 0.25),
        ("concurrency_groups", {"io": 2, "": 1}), ("concurrency_groups", {}),
        ("concurrency_group", "io"), ("concurrency_group", ""), ("accelerator_type", "T4"),
        ("allow_out_of_order_execution", False), ("object_store_memory", 0),
        ("_actor_generator_backpressure_num_objects", -1), ("_labels", {"a": "b"}),
        ("_actor_generator_backpressure_num_objects", 1), ("fallback_strategy", []),
        ("fallback_strategy", [{"label_selector": {"zone": "in(a,b)"}}]),
    ],
)  # fmt: skip
def test_good_values_pass(name: str, value: Any) -> None:
    validate({name: value}, ALL, "f")


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("num_cpus", -1, ValueError), ("num_cpus", True, TypeError), ("num_cpus", "1", TypeError),
        ("num_cpus", float("nan"), ValueError), ("memory", float("inf"), ValueError),
        ("resources", ["a"], TypeError), ("resources", {"CPU": 1}, ValueError),
        ("resources", {"a": -1}, ValueError), ("resources", {1: 1}, TypeError),
        ("resources", {"": 1}, TypeError), ("num_returns", -1, ValueError),
        ("num_returns", 1.0, TypeError), ("num_returns", "all", TypeError),
        ("max_retries", -2, ValueError), ("max_retries", True, TypeError),
        ("max_concurrency", 0, ValueError), ("retry_exceptions", [1], TypeError),
        ("retry_exceptions", ValueError, TypeError), ("runtime_env", {"conda": "x"}, ValueError),
        ("runtime_env", {"env_vars": {"A": 1}}, TypeError), ("runtime_env", "x", TypeError),
        ("name", "", ValueError), ("name", 1, TypeError), ("lifetime", "long", ValueError),
        ("get_if_exists", 1, TypeError), ("scheduling_strategy", "PACK", ValueError),
        ("_generator_backpressure_num_objects", 0, ValueError),
        ("_generator_backpressure_num_objects", True, TypeError),
        ("_generator_backpressure_num_objects", "1", TypeError),
        ("num_gpus", 1.5, ValueError), ("accelerator_type", 1, TypeError),
        ("concurrency_groups", {"io": 0}, ValueError), ("concurrency_groups", ["io"], TypeError),
        ("concurrency_groups", {"io": 1.5}, TypeError), ("concurrency_groups", {1: 1}, TypeError),
        ("concurrency_groups", {"io": True}, TypeError), ("concurrency_group", 1, TypeError),
        ("allow_out_of_order_execution", 1, TypeError), ("object_store_memory", -1, ValueError),
        ("_actor_generator_backpressure_num_objects", 0, ValueError),
        ("_actor_generator_backpressure_num_objects", -2, ValueError),
        ("_labels", 1, TypeError), ("_labels", {1: "a"}, ValueError),
        ("fallback_strategy", {}, TypeError), ("fallback_strategy", [{}], ValueError),
        ("fallback_strategy", [1], ValueError), ("fallback_strategy", [{"memory": 1}], ValueError),
        ("fallback_strategy", [{"label_selector": ["a"]}], TypeError),
        ("fallback_strategy", [{"label_selector": {"a": 1}}], ValueError),
    ],
)  # fmt: skip
def test_bad_values_are_refused(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=name):
        validate({name: value}, ALL, "f")


def test_num_returns_goes_on_the_wire_as_a_number() -> None:
    assert returns_of({}, False, "f") == returns_of({"num_returns": 1}, True, "f") == 1
    assert returns_of({}, True, "f") == returns_of({"num_returns": "streaming"}, True, "f") == -1
    with pytest.warns(DeprecationWarning, match="streaming"):
        assert returns_of({"num_returns": "dynamic"}, True, "f") == -2
    with pytest.raises(ValueError, match="f: num_returns='streaming' is for generator functions"):
        returns_of({"num_returns": "streaming"}, False, "f")


def test_backpressure_is_for_streams() -> None:
    options = {"_generator_backpressure_num_objects": 3}
    assert [backpressure_of(options, returns) for returns in (-1, -2, 1)] == [3, 0, 0]
    assert backpressure_of({"_generator_backpressure_num_objects": -5}, -1) == 0
    assert backpressure_of({}, -1) == 0


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"f: there is no option 'num_cpu'.*'num_cpus'"):
        validate({"num_cpu": 1}, TASK_OPTIONS, "f")


@pytest.mark.parametrize(
    ("own", "shared", "limit"), [(None, 4, 4), (2, 4, 2), (9, 4, 4), (-1, 4, 4)]
)
def test_no_generator_alone_may_have_more_items_than_all_of_its_actor(
    own: int | None, shared: int, limit: int
) -> None:
    given = {"_generator_backpressure_num_objects": own, "actor_backpressure": shared}
    assert backpressure_of(given, -1) == limit


@pytest.mark.parametrize("name", ["max_calls", "concurrency_groups"])
def test_what_belongs_to_the_decorator_is_refused_by_options(name: str) -> None:
    with pytest.raises(ValueError, match=f"f: give '{name}' to the decorator"):
        refuse_decorators({name: 1}, "f")


def test_a_task_has_no_object_store_memory() -> None:
    refuse_store_memory({"object_store_memory": None}, "f")
    with pytest.raises(ValueError, match="f: tasks have no object_store_memory"):
        refuse_store_memory({"object_store_memory": 1}, "f")


def test_resources_of_options() -> None:
    assert resources_of({}, 1.0) == {"CPU": 10_000}
    assert resources_of({"num_cpus": 0}, 1.0) == {}
    given = {"num_gpus": 0.5, "memory": 3, "resources": {"a": 1}}
    assert resources_of(given, 0.0) == {"GPU": 5000, "memory": 30_000, "a": 10_000}
    assert given["resources"] == {"a": 1}


def test_an_accelerator_type_asks_for_a_little_of_a_resource_of_that_name() -> None:
    assert resources_of({"accelerator_type": "T4"}, 0.0) == {"accelerator_type:T4": 10}


@pytest.mark.parametrize(
    "given", [{}, {"memory": 3}, {"resources": {}}, {"object_store_memory": 1}]
)
def test_an_actor_that_names_no_cpu_nor_device_holds_no_cpu(given: dict[str, Any]) -> None:
    held, placement = actor_resources_of(given)
    assert (held.get("CPU"), placement["CPU"]) == (None, 10_000)


@pytest.mark.parametrize(
    ("given", "cpu"),
    [
        ({"num_cpus": 2}, 20_000), ({"num_cpus": 0}, None), ({"num_gpus": 1}, 10_000),
        ({"num_gpus": 0}, 10_000), ({"resources": {"a": 1}}, 10_000),
        ({"accelerator_type": "T4"}, 10_000), ({"num_cpus": 0, "num_gpus": 1}, None),
    ],
)  # fmt: skip
def test_an_actor_that_names_anything_holds_a_cpu_for_life(
    given: dict[str, Any], cpu: int | None
) -> None:
    held, placement = actor_resources_of(given)
    assert held == placement
    assert held.get("CPU") == cpu
