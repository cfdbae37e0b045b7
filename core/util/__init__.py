"""``mray.util``: what users import beside the core API.

Names load when they are used: `import mray.util` stays cheap, and what needs a library that may be
missing (joblib, dask) says so only to who asks for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from mray.absent import refuse_attribute

if TYPE_CHECKING:
    from mray.serialization.inspection import inspect_serializability
    from mray.util.actor_pool import ActorPool
    from mray.util.completion import as_completed, map_unordered
    from mray.util.debug import disable_log_once_globally, enable_periodic_logging, log_once
    from mray.util.executor import Executor
    from mray.util.named_actors import list_named_actors
    from mray.util.node_address import get_node_ip_address
    from mray.util.placement_group import (
        get_current_placement_group,
        get_placement_group,
        placement_group,
        placement_group_table,
        remove_placement_group,
    )
    from mray.util.serialization import deregister_serializer, register_serializer

#: Public name -> the module that has it.
_NAMES = {
    "ActorPool": "mray.util.actor_pool",
    "Executor": "mray.util.executor",
    "as_completed": "mray.util.completion",
    "deregister_serializer": "mray.util.serialization",
    "disable_log_once_globally": "mray.util.debug",
    "enable_periodic_logging": "mray.util.debug",
    "get_node_ip_address": "mray.util.node_address",
    "inspect_serializability": "mray.serialization.inspection",
    "list_named_actors": "mray.util.named_actors",
    "log_once": "mray.util.debug",
    "get_current_placement_group": "mray.util.placement_group",
    "get_placement_group": "mray.util.placement_group",
    "map_unordered": "mray.util.completion",
    "placement_group": "mray.util.placement_group",
    "placement_group_table": "mray.util.placement_group",
    "register_serializer": "mray.util.serialization",
    "remove_placement_group": "mray.util.placement_group",
}
_MODULES = frozenset(
    (
        "accelerators",
        "actor_pool",
        "annotations",
        "check_serialize",
        "dask",
        "debug",
        "iter",
        "joblib",
        "metrics",
        "multiprocessing",
        "queue",
        "scheduling_strategies",
        "serialization",
        "state",
    )
)


def __getattr__(name: str) -> object:
    if name in _NAMES:
        value: object = getattr(import_module(_NAMES[name]), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return import_module(f"mray.util.{name}")
    refuse_attribute("util", name)


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "ActorPool",
    "Executor",
    "as_completed",
    "deregister_serializer",
    "disable_log_once_globally",
    "enable_periodic_logging",
    "get_current_placement_group",
    "get_node_ip_address",
    "get_placement_group",
    "inspect_serializability",
    "list_named_actors",
    "log_once",
    "map_unordered",
    "placement_group",
    "placement_group_table",
    "register_serializer",
    "remove_placement_group",
]
