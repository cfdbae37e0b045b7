"""numpy arrays whose memory numpy itself would copy into the pickle: sent out of band instead.

Owns how such arrays are taken apart and put together again; everything else about them is numpy's.
numpy sends contiguous arrays of plain types out of band by itself, and copies the rest into the
pickle: dates, non-contiguous arrays, subclasses, masked arrays. Those would be read by a copy and
come out writable where all others are views of the store. Here they are reduced to a flat buffer
and to what numpy's own unpickling would make of it: type, dtype, shape and order are the same.
Arrays of Python objects have no memory of their own, and a subclass that pickles itself does so.

Imports numpy, so it is imported only where an array was met.
"""

from __future__ import annotations

from pickle import PickleBuffer
from typing import Any

import numpy as np
from numpy import ma, ndarray

#: Kinds of dtypes whose elements are nothing but their bytes. Not object, not variable strings.
_KINDS = frozenset("biufcmMSUV")
_HOOKS = ("__reduce__", "__reduce_ex__", "__setstate__", "__getstate__")


def reduce_array(array: ndarray[Any, Any]) -> Any:
    """What a pickler's ``reducer_override`` returns for an array: NotImplemented if the usual
    way sends its memory out of band, or if it cannot be."""
    dtype = array.dtype
    if dtype.hasobject or not dtype.itemsize or dtype.kind not in _KINDS:
        return NotImplemented
    cls = type(array)
    if cls is ndarray:
        if _is_dense(array) and _is_exported(array):
            return NotImplemented
    elif isinstance(array, ma.MaskedArray):
        if not _has_hooks_of(cls, ma.MaskedArray):
            return NotImplemented
        return rebuild_masked_array, (
            cls, array.baseclass, array.view(ndarray), ma.getmaskarray(array),
            array._fill_value,  # type: ignore[attr-defined]  # None where it is the default
        )  # fmt: skip
    elif not _has_hooks_of(cls, ndarray):
        return NotImplemented
    flat, order = _flat(array)
    return rebuild_array, (cls, PickleBuffer(flat.data), dtype, array.shape, order)


def rebuild_array(
    cls: type[ndarray[Any, Any]], buffer: Any, dtype: Any, shape: tuple[int, ...], order: Any
) -> ndarray[Any, Any]:
    """An array of ``cls`` over ``buffer``, made without the class's ``__new__``, as numpy does."""
    return ndarray.__new__(cls, shape, dtype, buffer, 0, None, order)


def rebuild_masked_array(
    cls: Any, base_class: Any, data: ndarray[Any, Any], mask: ndarray[Any, Any], fill_value: Any
) -> Any:
    """A masked array over ``data`` and ``mask``, made as numpy's own unpickling makes it."""
    if base_class is not ndarray:
        data = data.view(base_class)
    array = cls.__new__(cls, data, mask=mask, dtype=data.dtype)
    array.fill_value = fill_value
    return array


def _flat(array: ndarray[Any, Any]) -> tuple[ndarray[Any, Any], str]:
    """The elements as flat bytes, and their order; a view where the array is contiguous."""
    plain = array.view(ndarray)
    order = "C"
    if plain.flags.fnc:
        plain, order = plain.T, "F"
    return np.ascontiguousarray(plain).reshape(-1).view(np.uint8), order


def _is_dense(array: ndarray[Any, Any]) -> bool:
    """Whether some order of its axes makes the array contiguous: numpy sends such a one as is."""
    if array.flags.forc:
        return True
    strides = array.strides
    axes = sorted(range(array.ndim), key=strides.__getitem__, reverse=True)
    return array.transpose(axes).flags.c_contiguous


def _is_exported(array: ndarray[Any, Any]) -> bool:
    """Whether numpy exports the memory: not of dates, nor of structures with dates inside."""
    try:
        array.data  # noqa: B018 (it raises where there is no such view)
    except ValueError:
        return False
    return True


def _has_hooks_of(cls: type, numpy_class: type) -> bool:
    return all(getattr(cls, name, None) is getattr(numpy_class, name, None) for name in _HOOKS)
