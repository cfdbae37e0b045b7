"""``ray._private.internal_api``: the memory report as text.

Only what mray does honestly is here.
"""

from __future__ import annotations

import time

from mray import current
from mray.memory_collect import of_address, of_runtime
from mray.memory_summary import summary

__all__ = ["memory_summary"]


def memory_summary(
    address: str | None = None,
    redis_password: str = "",
    group_by: str = "NODE_ADDRESS",
    sort_by: str = "OBJECT_SIZE",
    units: str = "B",
    line_wrap: bool = True,
    stats_only: bool = False,
    num_entries: int | None = None,
) -> str:
    """What every process of the cluster holds: one line a reference, and the stores' totals.

    ``address``: the cluster; None means the one this process is connected to, or else finds.
    ``group_by``: NODE_ADDRESS or STACK_TRACE. ``sort_by``: OBJECT_SIZE, PID or REFERENCE_TYPE.
    ``units``: B, KB, MB or GB. ``line_wrap``: break long call sites. ``num_entries``: so many
    references a group. ``redis_password`` must be empty: there is no Redis.

    Raises ValueError for other values, ConnectionError where no cluster answers.
    """
    if redis_password:
        raise ValueError("memory_summary(redis_password=...): mray has no Redis")
    rt = current.runtime
    memory = of_runtime(rt) if address is None and rt is not None else of_address(address)
    return summary(
        memory,
        made_at=time.strftime("%Y-%m-%d %H:%M:%S"),
        group_by=group_by,
        sort_by=sort_by,
        units=units,
        line_wrap=line_wrap,
        stats_only=stats_only,
        num_entries=num_entries,
    )
