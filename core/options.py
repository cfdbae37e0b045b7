"""Options of tasks and actors: validated once, at the edge.

Owns names, types, bounds and defaults of what ``@remote(...)`` and ``.options(...)`` take. An
option that is unknown is refused, never ignored.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from mray.placement import accelerator_resource
from mray.resources import Resources, to_fixed
from mray.runtime_env import checked
from mray.tasks.streams import DYNAMIC, STREAMING, WORDS

#: Where it is to run: see mray.scheduling.
_PLACING = frozenset({
    "scheduling_strategy", "label_selector", "fallback_strategy", "placement_group",
    "placement_group_bundle_index", "placement_group_capture_child_tasks",
})  # fmt: skip
#: What it needs.
_NEEDS = frozenset({
    "num_cpus", "num_gpus", "memory", "resources", "accelerator_type", "object_store_memory",
})  # fmt: skip
TASK_OPTIONS = _PLACING | _NEEDS | frozenset({
    "num_returns", "max_retries", "retry_exceptions", "max_calls", "runtime_env", "name",
    "writable_args", "_generator_backpressure_num_objects", "enable_task_events", "_labels",
})  # fmt: skip
ACTOR_OPTIONS = _PLACING | _NEEDS | frozenset({
    "max_restarts", "max_task_retries", "max_oom_restarts", "max_concurrency",
    "concurrency_groups", "allow_out_of_order_execution", "max_pending_calls", "name", "namespace",
    "lifetime", "get_if_exists", "runtime_env", "writable_args", "enable_task_events", "_labels",
    "_actor_generator_backpressure_num_objects",
})  # fmt: skip
METHOD_OPTIONS = frozenset({
    "num_returns", "name", "max_task_retries", "retry_exceptions", "concurrency_group",
    "writable_args", "enable_task_events", "_generator_backpressure_num_objects",
})  # fmt: skip
#: What belongs to the function or class, and so to its decorator: .options() refuses it.
DECORATOR_ONLY = frozenset({"max_calls", "concurrency_groups"})


def _number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}: {value!r}")
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a finite number, 0 or more, not {value!r}")


def _count(least: int) -> Callable[[str, Any], None]:
    def check(name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an int, not {type(value).__name__}: {value!r}")
        if value < least:
            raise ValueError(f"{name} must be {least} or more, not {value!r}")

    return check


def _text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {value!r}")
    if not value:
        raise ValueError(f"{name} must not be empty")


def _gpus(name: str, value: Any) -> None:
    _number(name, value)
    if value > 1 and value != int(value):
        raise ValueError(f"{name} above 1 must be a whole number of GPUs, not {value!r}")


def _accelerator_type(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {value!r}")


def _concurrency_groups(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict of names and limits, not {type(value).__name__}")
    for group, limit in value.items():
        if not isinstance(group, str):
            raise TypeError(f"{name}: names must be strings, not {group!r}")
        if isinstance(limit, bool) or not isinstance(limit, int):
            raise TypeError(f"{name}[{group!r}] must be an int, not {limit!r}")
        if limit < 1:
            raise ValueError(f"{name}[{group!r}] must be 1 or more, not {limit}")


def _concurrency_group(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be the name of a concurrency group, not {value!r}")


def _labels(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict of strings, not {value!r}")
    for key, text in value.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise ValueError(f"{name}: labels and their values must be strings: {key!r}={text!r}")


def _fallbacks(name: str, value: Any) -> None:
    from mray.scheduling import checked_fallbacks

    checked_fallbacks(name, value)


def _resources(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict, not {type(value).__name__}")
    for key, amount in value.items():
        if not isinstance(key, str) or not key:
            raise TypeError(f"{name}: names must be strings with something in them, not {key!r}")
        if key in ("CPU", "GPU", "memory"):
            plain = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}[key]
            raise ValueError(f"resources: use the {plain} option instead of {key!r}")
        _number(f"resources[{key!r}]", amount)


def _retry_exceptions(name: str, value: Any) -> None:
    if isinstance(value, bool):
        return
    if not isinstance(value, (list, tuple)) or not all(
        isinstance(item, type) and issubclass(item, BaseException) for item in value
    ):
        raise TypeError(f"{name} must be a bool or a list of exception classes, not {value!r}")


def _num_returns(name: str, value: Any) -> None:
    if isinstance(value, str) and value in WORDS:
        return
    _count(0)(name, value)


def _backpressure(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}: {value!r}")
    if value == 0:
        raise ValueError(f"{name} must be 1 or more, or -1 for no limit: with 0 nothing is yielded")


def _actor_backpressure(name: str, value: Any) -> None:
    _backpressure(name, value)
    if value < -1:
        raise ValueError(f"{name} must be 1 or more, or -1 for no limit, not {value}")


def _strategy(name: str, value: Any) -> None:
    if value not in ("DEFAULT", "SPREAD"):
        from mray.scheduling import check_strategy

        check_strategy(name, value)


def _group(name: str, value: Any) -> None:
    from mray.scheduling import check_group

    check_group(name, value)


def _selector(name: str, value: Any) -> None:
    from mray.scheduling import checked_selector

    checked_selector(name, value)


def _index(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}: {value!r}")


def _lifetime(name: str, value: Any) -> None:
    if value not in ("detached", "non_detached"):
        raise ValueError(f"{name} must be 'detached', 'non_detached' or None, not {value!r}")


def _bool(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, not {value!r}")


def _writable_args(name: str, value: Any) -> None:
    if isinstance(value, bool):
        return
    if not isinstance(value, (list, tuple)) or not all(
        isinstance(item, str) and item for item in value
    ):
        raise TypeError(f"{name} must be a bool or a list of names of parameters, not {value!r}")


def check_runtime_env(name: str, value: Any) -> None:
    """Raise unless ``value`` is an environment that mray can make."""
    checked(value, name)


_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "num_cpus": _number,
    "num_gpus": _gpus,
    "memory": _number,
    "resources": _resources,
    "accelerator_type": _accelerator_type,
    "object_store_memory": _count(0),
    "num_returns": _num_returns,
    "max_retries": _count(-1),
    "max_restarts": _count(-1),
    "max_oom_restarts": _count(-1),
    "max_task_retries": _count(-1),
    "max_calls": _count(0),
    "max_concurrency": _count(1),
    "concurrency_groups": _concurrency_groups,
    "concurrency_group": _concurrency_group,
    "allow_out_of_order_execution": _bool,
    "max_pending_calls": _count(-1),
    "retry_exceptions": _retry_exceptions,
    "runtime_env": check_runtime_env,
    "name": _text,
    "namespace": _text,
    "lifetime": _lifetime,
    "get_if_exists": _bool,
    "scheduling_strategy": _strategy,
    "label_selector": _selector,
    "fallback_strategy": _fallbacks,
    "_labels": _labels,
    "placement_group": _group,
    "placement_group_bundle_index": _index,
    "placement_group_capture_child_tasks": _bool,
    "writable_args": _writable_args,
    "enable_task_events": _bool,
    "_generator_backpressure_num_objects": _backpressure,
    "_actor_generator_backpressure_num_objects": _actor_backpressure,
}


def validate(options: Mapping[str, Any], known: frozenset[str], what: str) -> None:
    """Raise ValueError for an unknown option, ValueError or TypeError for a bad value.

    None means "not given" everywhere, as in Ray.
    """
    for name, value in options.items():
        if name not in known:
            import difflib

            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {sorted(known)}"
            raise ValueError(f"{what}: there is no option {name!r}{hint}")
        if value is not None:
            _CHECKS[name](name, value)


def refuse_decorators(options: Mapping[str, Any], what: str) -> None:
    """Raise ValueError if ``.options()`` is given what only the decorator takes."""
    for name in options:
        if name in DECORATOR_ONLY:
            raise ValueError(f"{what}: give {name!r} to the decorator: .options() cannot change it")


def refuse_store_memory(options: Mapping[str, Any], what: str) -> None:
    """Raise ValueError for a task's ``object_store_memory``: nothing could be reserved for it."""
    if options.get("object_store_memory") is not None:
        raise ValueError(f"{what}: tasks have no object_store_memory, only actors take the option")


def yields(function: Any) -> bool:
    """Whether a call of the function makes a generator, plain or async."""
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def returns_of(options: Mapping[str, Any], is_generator: bool, what: str) -> int:
    """``num_returns`` as it goes on the wire: a number, STREAMING (the default of generators) or
    DYNAMIC. ValueError if a stream is asked of what is no generator function."""
    value = options.get("num_returns")
    if value is None:
        return STREAMING if is_generator else 1
    if not isinstance(value, str):
        return int(value)
    if not is_generator:
        raise ValueError(
            f"{what}: num_returns={value!r} is for generator functions, and this one has no yield"
        )
    if WORDS[value] == DYNAMIC:
        warnings.warn(
            f'{what}: num_returns="dynamic" is deprecated: use "streaming", which gives each item '
            "as soon as it is there",
            DeprecationWarning,
            stacklevel=4,
        )
    return WORDS[value]


def backpressure_of(options: Mapping[str, Any], returns: int) -> int:
    """After how many items that nobody has taken a generator pauses; 0: never."""
    if returns != STREAMING:
        return 0  # Nobody takes them before the end.
    limit = max(0, options.get("_generator_backpressure_num_objects") or 0)
    # All generators of the actor together have no more than that, so one alone has not either.
    shared: int = options.get("actor_backpressure", 0)
    return min(limit, shared) if limit and shared else limit or shared


def resources_of(options: Mapping[str, Any], default_cpus: float) -> Resources:
    """The fixed-point resource vector that options ask for."""
    amounts: dict[str, float] = dict(options.get("resources") or {})
    cpus = options.get("num_cpus")
    amounts["CPU"] = default_cpus if cpus is None else cpus
    if options.get("num_gpus"):
        amounts["GPU"] = options["num_gpus"]
    if options.get("memory"):
        amounts["memory"] = options["memory"]
    if options.get("accelerator_type") is not None:
        name, amount = accelerator_resource(options["accelerator_type"])
        amounts[name] = amount
    return to_fixed(amounts)


def actor_resources_of(options: Mapping[str, Any]) -> tuple[Resources, Resources]:
    """What an actor holds while it lives, and what it needs to be placed.

    One that names nothing, or memory only, needs a CPU to be placed and holds none; one that names
    anything holds a CPU for life, unless it says how many. That is Ray's rule.
    """
    named = ("num_cpus", "num_gpus", "accelerator_type")
    if options.get("resources") or any(options.get(name) is not None for name in named):
        held = resources_of(options, 1.0)
        return held, held
    return resources_of(options, 0.0), resources_of(options, 1.0)
