"""The cloudpickle package as users know it from Ray (``mray.cloudpickle``).

Owns the marking of out-of-band pickling: while user code dumps through here, an ObjectRef inside
knows that cloudpickle does it, and pins its object instead of losing it (serialization/context.py).
mray's own serialization never comes through here.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import cloudpickle as _package

from mray.serialization.context import collector
from mray.serialization.dumper import (
    PROTOCOL,
    BufferCallback,
    TraceablePickler,
    ValuePickler,
    Writer,
    verbosity,
)
from mray.serialization.inspection import unpicklable_error

__all__ = [
    "CloudPickler",
    "Pickler",
    "__version__",
    "dump",
    "dumps",
    "list_registry_pickle_by_value",
    "load",
    "loads",
    "register_pickle_by_value",
    "unregister_pickle_by_value",
]

__version__: str = _package.__version__
load = pickle.load
loads = pickle.loads
register_pickle_by_value = _package.register_pickle_by_value
unregister_pickle_by_value = _package.unregister_pickle_by_value
list_registry_pickle_by_value = _package.cloudpickle.list_registry_pickle_by_value


class CloudPickler(ValuePickler):
    """cloudpickle's pickler with users' serializers; marks what it pickles as out of band."""

    def __init__(
        self,
        file: Writer,
        protocol: int | None = None,
        buffer_callback: BufferCallback | None = None,
    ) -> None:
        super().__init__(file, PROTOCOL if protocol is None else protocol, buffer_callback)

    def dump(self, obj: Any) -> None:
        """Pickle ``obj``. Raises what cloudpickle raises."""
        outer = collector.by_cloudpickle
        collector.by_cloudpickle = True
        try:
            super().dump(obj)
        finally:
            collector.by_cloudpickle = outer


Pickler = CloudPickler


def dump(
    obj: Any,
    file: Writer,
    protocol: int | None = None,
    buffer_callback: BufferCallback | None = None,
) -> None:
    """Pickle ``obj`` into ``file``.

    Raises what cloudpickle raises; with RAY_PICKLE_VERBOSE_DEBUG set, a TypeError that names the
    culprits.
    """
    if not verbosity():
        CloudPickler(file, protocol, buffer_callback).dump(obj)
        return
    try:
        if verbosity() >= 2:
            _dump_traceably(obj, file, protocol, buffer_callback)
        else:
            CloudPickler(file, protocol, buffer_callback).dump(obj)
    except Exception as error:
        raise unpicklable_error(obj, type(obj).__name__, error) from error


def dumps(
    obj: Any, protocol: int | None = None, buffer_callback: BufferCallback | None = None
) -> bytes:
    """Pickle ``obj`` to bytes; see ``dump``."""
    file = io.BytesIO()
    dump(obj, file, protocol, buffer_callback)
    return file.getvalue()


def _dump_traceably(
    obj: Any, file: Writer, protocol: int | None, buffer_callback: BufferCallback | None
) -> None:
    pickler = TraceablePickler(file, PROTOCOL if protocol is None else protocol, buffer_callback)
    outer = collector.by_cloudpickle
    collector.by_cloudpickle = True
    try:
        pickler.dump(obj)
    finally:
        collector.by_cloudpickle = outer


def __getattr__(name: str) -> Any:
    """Everything else that the package offers."""
    try:
        return getattr(_package, name)
    except AttributeError:
        return getattr(_package.cloudpickle, name)
