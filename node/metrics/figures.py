"""The node's own figures, from what its parts know anyway.

Names are Ray's where Ray has the figure, and begin with mray_ where it has not. Tags are few and
known: never a task, an object or a worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mray.resources import UNIT
from mray.wire.messages import MetricFamily, MetricPoint, StoreStats

#: Kind and meaning of each, by name.
ABOUT: Final[dict[str, tuple[str, str]]] = {
    "ray_resources": (
        "gauge", "What there is of each logical resource: State is USED or AVAILABLE.",
    ),
    "ray_object_store_used_memory": ("gauge", "Bytes of the object store that objects take."),
    "ray_object_store_available_memory": ("gauge", "Bytes of the object store that are free."),
    "ray_object_store_num_local_objects": ("gauge", "Objects in this node's store."),
    "mray_object_store_capacity_bytes": ("gauge", "How much the object store may hold."),
    "mray_object_store_warm_bytes": ("gauge", "Freed memory that the store keeps for reuse."),
    "mray_object_store_spilled_bytes": ("gauge", "What objects take on disk now."),
    "mray_object_store_spilled_bytes_total": ("counter", "What was written to disk so far."),
    "mray_object_store_restored_bytes_total": ("counter", "What was read back so far."),
    "ray_node_mem_used": ("gauge", "Bytes of memory in use, without the file cache."),
    "ray_node_mem_total": ("gauge", "Bytes of memory that this node may use."),
    "mray_node_mem_threshold_bytes": (
        "gauge", "Where the memory monitor begins to end workers; 0: it is off.",
    ),
    "ray_memory_manager_worker_eviction_total": (
        "counter", "Workers ended for want of memory: Type is who ended them, monitor or kernel.",
    ),
    "mray_workers": ("gauge", "Worker processes by State."),
    "mray_workers_ended_total": ("counter", "Worker processes that have ended, by Cause."),
    "mray_leases_pending": ("gauge", "Workers that tasks and actors of this node wait for."),
    "mray_metrics_refused_total": ("counter", "Records of metrics that were left out."),
    "mray_metrics_series": ("gauge", "Series of users' metrics that the node keeps."),
}  # fmt: skip


def node_figures(
    *,
    total: Mapping[str, int],
    free: Mapping[str, int],
    pending: int,
    store: StoreStats,
    used_bytes: int,
    limit_bytes: int,
    threshold_bytes: int,
    workers: Mapping[str, int],
    ended: Mapping[str, int],
    evicted: Mapping[str, int],
    refused: int,
    series: int,
) -> list[MetricFamily]:
    """By name. ``total`` and ``free`` are fixed point; ``workers`` by state, ``ended`` by the kind
    of their DeathCause, ``evicted`` by who ended them."""
    rows: dict[str, list[MetricPoint]] = {name: [] for name in ABOUT}

    def tell(name: str, value: float, **tags: str) -> None:
        rows[name].append(MetricPoint(tags, [value]))

    for name, amount in sorted(total.items()):
        available = free.get(name, 0)
        tell("ray_resources", (amount - available) / UNIT, Name=name, State="USED")
        tell("ray_resources", available / UNIT, Name=name, State="AVAILABLE")
    tell("ray_object_store_used_memory", store.used_bytes)
    tell("ray_object_store_available_memory", max(0, store.capacity_bytes - store.used_bytes))
    tell("ray_object_store_num_local_objects", store.object_count)
    tell("mray_object_store_capacity_bytes", store.capacity_bytes)
    tell("mray_object_store_warm_bytes", store.warm_bytes)
    tell("mray_object_store_spilled_bytes", store.spilled_bytes + store.overflow_bytes)
    tell("mray_object_store_spilled_bytes_total", store.spilled_bytes_total)
    tell("mray_object_store_restored_bytes_total", store.restored_bytes_total)
    tell("ray_node_mem_used", used_bytes)
    tell("ray_node_mem_total", limit_bytes)
    tell("mray_node_mem_threshold_bytes", threshold_bytes)
    for who, count in sorted(evicted.items()):
        tell("ray_memory_manager_worker_eviction_total", count, Type=who)
    for state, count in sorted(workers.items()):
        tell("mray_workers", count, State=state)
    for cause, count in sorted(ended.items()):
        tell("mray_workers_ended_total", count, Cause=cause)
    tell("mray_leases_pending", pending)
    tell("mray_metrics_refused_total", refused)
    tell("mray_metrics_series", series)
    return [
        MetricFamily(name, kind, about, [], rows[name])
        for name, (kind, about) in ABOUT.items()
        if rows[name]
    ]
