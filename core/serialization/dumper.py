"""Picks the pickler for a value: C pickle where it will do, cloudpickle where it will not.

Owns that choice and the collecting of references. Knows no envelope.

C pickle is 5 to 50 times faster than cloudpickle on plain objects but pickles functions and classes
by name only. A name is worthless to another process when it points into ``__main__`` or into a
module registered for pickling by value; such a name stands in the pickle as text, so the text is
searched (0.3 ns per byte). A chance match merely costs the slower pickler. In the same way a pickle
that mentions numpy's function for arrays inside the pickle is made again with those arrays out of
band (arrays.py); where torch is loaded, its tensors are sent out of band from the start.
"""

from __future__ import annotations

import functools
import io
import os
import pickle
import sys
from collections import ChainMap
from collections.abc import Callable
from pickle import PickleBuffer
from typing import Any, Protocol

import cloudpickle
from cloudpickle import cloudpickle as implementation

from mray.serialization import custom
from mray.serialization.context import collector

PROTOCOL = 5

# The live set: its public accessor copies it at each call. A test holds the two together.
_modules_by_value: set[str] = implementation._PICKLE_BY_VALUE_MODULES
_reducers = custom.reducers
_modules = sys.modules
#: In the names of both functions that numpy unpickles in-band arrays with.
_IN_BAND_ARRAY = b"reconstruct"
_c_dumps = pickle.dumps

BufferCallback = Callable[[PickleBuffer], Any]


class ValuePickler(cloudpickle.CloudPickler):  # type: ignore[misc]  # cloudpickle has no types
    """cloudpickle's C-based pickler, with users' serializers."""

    # Read when a pickler is made; a chain over the live table, so registering acts at once.
    dispatch_table = ChainMap(custom.reducers, *cloudpickle.CloudPickler.dispatch_table.maps)


class _InPlace:
    """Sends what numpy and torch would copy into the pickle out of band. Before a pickler."""

    dispatch_table: Any
    _tensors: dict[int, Any]

    def reducer_override(self, obj: Any) -> Any:
        """See pickle. Cheap for what is neither array nor tensor."""
        cls = type(obj)
        numpy = _modules.get("numpy")
        if numpy is not None and isinstance(obj, numpy.ndarray):
            if cls in self.dispatch_table:
                return NotImplemented
            from mray.serialization.arrays import reduce_array

            return reduce_array(obj)
        if _is_tensor(cls) and cls not in self.dispatch_table:
            from mray.serialization.tensors import reduce_tensor

            return reduce_tensor(self.__dict__.setdefault("_tensors", {}), obj)
        return super().reducer_override(obj)  # type: ignore[misc]  # the pickler's that follows


class _NothingOverridden:
    def reducer_override(self, obj: Any) -> Any:
        return NotImplemented


class _InPlaceCPickler(_InPlace, _NothingOverridden, pickle.Pickler):
    """C pickle with all buffers out of band."""


class _InPlaceValuePickler(_InPlace, ValuePickler):
    """cloudpickle with all buffers out of band."""


def _is_tensor(cls: type) -> bool:
    return cls.__name__ == "Tensor" and cls.__module__ == "torch"


class TraceablePickler(pickle._Pickler):
    """The same in pure Python, so that a debugger can step through it. Very slow."""

    dispatch_table: Any = ValuePickler.dispatch_table
    # cloudpickle's C-based class keeps these as plain functions of (self, object).
    reducer_override = cloudpickle.CloudPickler.reducer_override
    _function_reduce = cloudpickle.CloudPickler._function_reduce
    _dynamic_function_reduce = cloudpickle.CloudPickler._dynamic_function_reduce
    _function_getnewargs = cloudpickle.CloudPickler._function_getnewargs

    def __init__(
        self, file: Writer, protocol: int, buffer_callback: BufferCallback | None = None
    ) -> None:
        super().__init__(file, protocol, buffer_callback=buffer_callback)
        #: cloudpickle's: id of a function's globals -> the globals it gets when unpickled.
        self.globals_ref: dict[int, dict[str, Any]] = {}


class Writer(Protocol):
    """What a pickler writes to."""

    def write(self, data: bytes, /) -> Any:
        """Take the next bytes of the pickle."""


@functools.cache
def verbosity() -> int:
    """RAY_PICKLE_VERBOSE_DEBUG: 1 explains failures in full, 2 also pickles in pure Python.

    Read at first use, once. A value that is no number counts as 0, as in Ray's default.
    """
    text = os.environ.get("RAY_PICKLE_VERBOSE_DEBUG", "0").strip()
    return int(text) if text.isdecimal() else 0


def new_cloud_pickler(
    file: Writer, buffer_callback: BufferCallback | None = None
) -> ValuePickler | TraceablePickler:
    """The pickler that can do everything, writing to ``file``."""
    if verbosity() >= 2:
        return TraceablePickler(file, PROTOCOL, buffer_callback)
    if buffer_callback is None:
        return ValuePickler(file, PROTOCOL)
    return _InPlaceValuePickler(file, PROTOCOL, buffer_callback)


def dump(value: Any, *, out_of_band: bool = True) -> tuple[bytes, list[PickleBuffer], list[Any]]:
    """Pickle a value: the pickle, its out-of-band buffers, the references it contains.

    With ``out_of_band`` false the buffers stay in the pickle and the list is empty. Raises what the
    pickler raises (TypeError, PicklingError, or an error of the value's own ``__reduce__``) when
    cloudpickle cannot do it either.
    """
    outer = collector.refs
    refs: list[Any] = []
    collector.refs = refs
    buffers: list[PickleBuffer] = []
    callback = buffers.append if out_of_band else None
    try:
        if verbosity() < 2:
            try:
                if _reducers or "torch" in _modules:
                    data = _dump_with_table(value, callback)
                else:
                    data = _c_dumps(value, 5, buffer_callback=callback)
                if _IN_BAND_ARRAY in data and out_of_band:
                    refs.clear()
                    buffers.clear()
                    data = _dump_in_place(value, buffers.append)
            except Exception:
                # Whatever it was, cloudpickle is asked next, and its error is the one to report.
                pass
            else:
                if not (b"__main__" in data or (_modules_by_value and _names_by_value(data))):
                    return data, buffers, refs
            refs.clear()
            buffers.clear()
        file = io.BytesIO()
        new_cloud_pickler(file, callback).dump(value)
        return file.getvalue(), buffers, refs
    finally:
        collector.refs = outer


def _dump_with_table(value: Any, buffer_callback: BufferCallback | None) -> bytes:
    file = io.BytesIO()
    pickler = pickle.Pickler(file, PROTOCOL, buffer_callback=buffer_callback)
    pickler.dispatch_table = _table(with_tensors=buffer_callback is not None)
    pickler.dump(value)
    return file.getvalue()


def _dump_in_place(value: Any, buffer_callback: BufferCallback) -> bytes:
    file = io.BytesIO()
    pickler = _InPlaceCPickler(file, PROTOCOL, buffer_callback=buffer_callback)
    pickler.dispatch_table = custom.merged_table()
    pickler.dump(value)
    return file.getvalue()


def _table(with_tensors: bool) -> dict[Any, Any]:
    table = custom.merged_table()
    torch = _modules.get("torch")
    # A module that is being imported, by this or another thread, has no tensors yet.
    tensor = getattr(torch, "Tensor", None)
    if with_tensors and tensor is not None and tensor not in table:
        from mray.serialization.tensors import reduce_tensor

        table[tensor] = functools.partial(reduce_tensor, {})
    return table


def _names_by_value(data: bytes) -> bool:
    """Whether a pickle mentions a module that is registered for pickling by value."""
    return any(name.encode() in data for name in tuple(_modules_by_value))
