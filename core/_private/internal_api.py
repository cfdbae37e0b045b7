"""``ray._private.internal_api``: the memory report as text, freeing by hand, collecting garbage.

Only what mray does as it is named is here.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from mray import current
from mray.memory_collect import of_address, of_runtime
from mray.memory_summary import summary
from mray.object_ref import ObjectRef

__all__ = ["free", "global_gc", "memory_summary"]


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


def free(object_refs: ObjectRef[Any] | Sequence[ObjectRef[Any]], local_only: bool = False) -> None:
    """Free the values of objects although references to them are left.

    Whoever reads one afterwards gets ObjectFreedError, or ObjectLostError where the place of the
    value was known before. A value that is being made is freed when it is there. Values that are
    read in place stay until their last reader lets go.

    Raises TypeError for anything but references, ValueError for ``local_only``: mray keeps no
    second copy that could be freed alone; RpcError when an owner does not answer.
    """
    refs = [object_refs] if isinstance(object_refs, ObjectRef) else object_refs
    if not isinstance(refs, (list, tuple)) or not all(type(ref) is ObjectRef for ref in refs):
        raise TypeError(f"free() takes an ObjectRef or a list of ObjectRefs, not {object_refs!r}")
    if local_only:
        raise ValueError("free(local_only=True): there is one copy of an object, its owner's")
    current.get().freeing.free(refs)


def global_gc() -> None:
    """Have every process of the cluster run ``gc.collect()`` soon; does not wait until it has."""
    current.get().freeing.collect_everywhere()
