"""Options are checked once, by name."""

from __future__ import annotations

from typing import Any

import pytest

from mray import options
from mray.options import (
    ACTOR_OPTIONS,
    LATER,
    METHOD_OPTIONS,
    TASK_OPTIONS,
    backpressure_of,
    resources_of,
    returns_of,
    validate,
)

ALL = TASK_OPTIONS | ACTOR_OPTIONS | METHOD_OPTIONS


def test_every_option_has_a_check_and_none_is_both_known_and_for_later() -> None:
    assert set(options._CHECKS) >= ALL
    assert not ALL & LATER


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
        ("_generator_backpressure_num_objects", -1),
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


def test_an_option_of_ray_that_is_not_here_yet_is_refused_and_not_ignored() -> None:
    with pytest.raises(ValueError, match="'accelerator_type' is not supported by this version"):
        validate({"accelerator_type": "T4"}, TASK_OPTIONS, "f")


def test_resources_of_options() -> None:
    assert resources_of({}, 1.0) == {"CPU": 10_000}
    assert resources_of({"num_cpus": 0}, 1.0) == {}
    given = {"num_gpus": 0.5, "memory": 3, "resources": {"a": 1}}
    assert resources_of(given, 0.0) == {"GPU": 5000, "memory": 30_000, "a": 10_000}
    assert given["resources"] == {"a": 1}
