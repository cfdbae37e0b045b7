"""on_memory_pressure(): a last chance to save or free something before memory ends a process.

Owns the callbacks of this process and running them. When they run is the node daemon's decision
(node/memory/service.py); hearing of it is runtime/pressure.py's. Ray has nothing of the kind.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from mray import current

log = logging.getLogger("mray")


class MemoryPressure(msgspec.Struct, frozen=True, kw_only=True):
    """The node's memory when it passed the soft mark, in bytes."""

    used_bytes: int
    limit_bytes: int
    #: Above it workers are ended.
    threshold_bytes: int
    #: Above it no new tasks are started, and callbacks run.
    soft_mark_bytes: int


Callback = Callable[[MemoryPressure], object]

_lock = threading.Lock()
_callbacks: dict[object, Callback] = {}


def on_memory_pressure(callback: Callback) -> Callable[[], None]:
    """Have ``callback(pressure)`` called in this process when its node begins to run short of
    memory; returns a function without arguments that takes it back.

    It runs in a thread of its own, once each time the node's memory passes the soft mark
    (memory_soft_mark x memory_usage_threshold). The memory monitor does not end the process before
    all its callbacks have returned, for a second at most, and not at all where the limit would be
    reached meanwhile. An exception in it is logged. Works in workers and in drivers, before init()
    too; a worker keeps it for its later tasks unless it is taken back.
    Raises TypeError when ``callback`` cannot be called.
    """
    if not callable(callback):
        raise TypeError(f"on_memory_pressure() takes a function, not {type(callback).__name__}")
    key = object()
    with _lock:
        _callbacks[key] = callback
    _tell()

    def remove() -> None:
        with _lock:
            _callbacks.pop(key, None)
        _tell()

    return remove


def has_callbacks() -> bool:
    """Whether this process has any."""
    return bool(_callbacks)


def run_callbacks(pressure: MemoryPressure) -> None:
    """Call them all, in the order of their registration."""
    with _lock:
        callbacks = list(_callbacks.values())
    for callback in callbacks:
        try:
            callback(pressure)
        except Exception:
            log.exception("a callback of on_memory_pressure() failed")


def _tell() -> None:
    runtime: Any = current.runtime
    if runtime is not None:
        runtime.pressure.changed()
