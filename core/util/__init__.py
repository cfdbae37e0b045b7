"""``mray.util``: what users import beside the core API.

Names load when they are used: `import mray.util` stays cheap, and what needs a library that may be
missing (joblib, dask) says so only to who asks for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mray.serialization.inspection import inspect_serializability
    from mray.util.actor_pool import ActorPool
    from mray.util.completion import as_completed, map_unordered
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
    "get_node_ip_address": "mray.util.node_address",
    "inspect_serializability": "mray.serialization.inspection",
    "list_named_actors": "mray.util.named_actors",
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
        "actor_pool",
        "check_serialize",
        "dask",
        "iter",
        "joblib",
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
    raise AttributeError(f"module 'mray.util' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "ActorPool",
    "Executor",
    "as_completed",
    "deregister_serializer",
    "get_current_placement_group",
    "get_node_ip_address",
    "get_placement_group",
    "inspect_serializability",
    "list_named_actors",
    "map_unordered",
    "placement_group",
    "placement_group_table",
    "register_serializer",
    "remove_placement_group",
]
