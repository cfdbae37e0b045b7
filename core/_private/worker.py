"""``ray._private.worker``: what programs ask of it, which is whether they run in a worker."""

from __future__ import annotations

from typing import Final

from mray import current

__all__ = ["LOCAL_MODE", "SCRIPT_MODE", "WORKER_MODE", "Worker", "global_worker"]

#: What ``global_worker.mode`` is in a driver and in a worker. LOCAL_MODE is never in force.
SCRIPT_MODE: Final = 0
WORKER_MODE: Final = 1
LOCAL_MODE: Final = 2

#: Programs set it so that Ray warns no more of a blocking get in an async actor. mray never does.
blocking_get_inside_async_warned = True


class Worker:
    """This process, as programs written for Ray ask about it."""

    @property
    def mode(self) -> int | None:
        """SCRIPT_MODE, WORKER_MODE, or None while not connected."""
        if current.runtime is None:
            return None
        return WORKER_MODE if current.runtime.mode == "worker" else SCRIPT_MODE

    @property
    def connected(self) -> bool:
        """Whether this process is connected to a cluster."""
        return current.runtime is not None and not current.runtime.closed


global_worker: Final = Worker()
