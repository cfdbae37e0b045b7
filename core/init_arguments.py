"""Arguments of init() beside the usual ones: which are taken, mean nothing, are refused.

Covers: reading them. init() itself (mray.api) acts on them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from mray import init_defaults

log = logging.getLogger("mray")

#: Arguments of Ray's init() that mean nothing here when they have these values, and are refused
#: with any other.
WITHOUT_MEANING: Final[dict[str, tuple[Any, ...]]] = {
    "local_mode": (False,),
    "include_dashboard": (None, False),
    "dashboard_host": (None, "127.0.0.1"),
    "dashboard_port": (None,),
    "job_config": (None,),
    "logging_config": (None,),
    "enable_resource_isolation": (False,),
    "system_reserved_cpu": (None,),
    "system_reserved_memory": (None,),
    "_enable_object_reconstruction": (None, False),
    "_plasma_directory": (None,),
    "_metrics_export_port": (None,),
    "_tracing_startup_hook": (None,),
    "_node_name": (None,),
    "_driver_object_store_memory": (None,),
    "cgroup_path": (None,),
    "proxy_server_url": (None,),
}
#: Arguments that init() takes beside those in its signature.
PRIVATE: Final = frozenset((
    "_memory", "_node_ip_address", "_skip_env_hook", "_system_config", "_temp_dir",
    "object_spilling_directory", "_object_spilling_directory",
))  # fmt: skip

#: Arguments that say how Ray reaches its Redis, whatever they are. Without one, Ray ignores them.
_FOR_REDIS: Final = frozenset(("_redis_username", "_redis_password"))


def settings(other: dict[str, Any]) -> dict[str, object]:
    """Take ``_system_config`` out of ``other``. TypeError where it is no dict."""
    given = other.pop("_system_config", None)
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(f"_system_config must be a dict, not {type(given).__name__}")
    return dict(given)


def check_rest(other: dict[str, Any]) -> None:
    """Take out of ``other`` what mray has no use for. RuntimeError for what init() never takes,
    ValueError for a value that asks for what mray does not have."""
    for name in list(other):
        if name in PRIVATE:
            continue
        value = other.pop(name)
        if name in _FOR_REDIS:
            if value:
                log.info("init(%s=...) changes nothing: there is no Redis to be reached", name)
            continue
        if name not in WITHOUT_MEANING:
            raise RuntimeError(f"init() got an unknown keyword argument: {name!r}")
        if value not in WITHOUT_MEANING[name]:
            raise ValueError(f"init({name}={value!r}) is not supported by this version of mray")


def node_amounts(
    num_cpus: float | None,
    num_gpus: float | None,
    resources: dict[str, float] | None,
    memory: float | None,
) -> dict[str, float]:
    """What the new node is to have, ``memory`` in bytes; ValueError for what is no amount."""
    defaults = init_defaults.values
    amounts = dict(resources or defaults.get("resources") or {})
    for name, value, key in (
        ("CPU", num_cpus, "num_cpus"),
        ("GPU", num_gpus, "num_gpus"),
        ("memory", memory, "memory"),
    ):
        if value is None:
            value = defaults.get(key)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
                raise ValueError(f"{key} must be a number of 0 or more, not {value!r}")
            amounts[name] = value
    return amounts
