"""Turns values into envelopes and back.

Owns the fast paths and the writing of envelopes. The layout is envelope.py's, the choice of pickler
dumper.py's, exceptions are failures.py's. Shared memory is unknown here: ``Serialized.write_into``
fills any buffer, and ``deserialize`` reads any; a value keeps alive, through its buffers, whatever
object exports the memory it was read from.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from mray.serialization import failures
from mray.serialization.dumper import dump
from mray.serialization.envelope import (
    ERROR_PREFIX,
    KIND_ERROR,
    KIND_PICKLE,
    KIND_RAW,
    KIND_VECTORED,
    NONE,
    PREFIX_BYTES,
    RAW_PREFIX,
    EnvelopeError,
    is_error,
    split_vectored,
    unknown_kind,
    vectored_head,
    wants_private_memory,
)

__all__ = [
    "NONE",
    "Copy",
    "EnvelopeError",
    "Serialized",
    "deserialize",
    "is_error",
    "pack",
    "serialize",
    "wants_private_memory",
]

#: Copies the second buffer into the first; both are flat views of bytes of one length.
Copy = Callable[[memoryview, memoryview], None]

_dumps: Callable[[Any, int], bytes] = pickle.dumps
_loads = pickle.loads

#: Types whose values hold no reference, no buffer and no name: pickled without further ado.
_PLAIN = frozenset({type(None), bool, int, float, str})
#: Longest tuple or dict, and depth, searched for plain items; beyond, the search costs more than
#: it saves. Two levels are the (args, kwargs) of a call.
_PLAIN_ITEMS_MAX = 8
_PLAIN_DEPTH_MAX = 2
#: `bytes` up to this size are joined with their prefix at once; longer ones are copied only when
#: written.
_RAW_JOIN_BYTES_MAX = 4096


class Serialized:
    """A value in parts, ready to be laid out once, where it is wanted.

    ``buffers`` are views of the value's own memory: write the value before it may change.
    """

    __slots__ = ("_head", "_offsets", "buffers", "inband", "refs", "total_bytes")

    #: The pickle, or the payload of a `bytes` value.
    inband: bytes
    #: Out-of-band buffers, flat views of bytes.
    buffers: Sequence[memoryview]
    #: The ObjectRefs inside the value, in the order met; one met twice may be listed once.
    refs: Sequence[Any]
    #: Size of the whole envelope.
    total_bytes: int

    def __init__(
        self,
        prefix: bytes,
        inband: bytes,
        buffers: Sequence[memoryview] = (),
        refs: Sequence[Any] = (),
        private: Collection[int] = (),
    ) -> None:
        self.inband = inband
        self.buffers = buffers
        self.refs = refs
        self._head = prefix
        self._offsets: Sequence[int] = ()
        if buffers:
            lengths = [len(buffer) for buffer in buffers]
            self._head, self._offsets, self.total_bytes = vectored_head(
                len(inband), lengths, private
            )
        else:
            self.total_bytes = len(prefix) + len(inband)

    def __len__(self) -> int:
        """The same as ``total_bytes``: what ``pack`` returns has a length, whatever its type."""
        return self.total_bytes

    def to_bytes(self) -> bytes:
        """The envelope as one bytes object; copies each buffer once."""
        parts: list[bytes | memoryview] = [self._head, self.inband]
        end = len(self._head) + len(self.inband)
        for offset, buffer in zip(self._offsets, self.buffers, strict=True):
            parts += (bytes(offset - end), buffer)
            end = offset + len(buffer)
        return b"".join(parts)

    def write_into(self, view: memoryview, copy: Copy | None = None) -> None:
        """Write the envelope to the start of ``view``, a flat writable view of bytes.

        ``copy`` moves the pickle and the buffers (a store passes one that uses several threads);
        by default a slice is assigned. Raises ValueError if the view is too short.
        """
        if len(view) < self.total_bytes:
            raise ValueError(
                f"a value of {self.total_bytes} bytes does not fit into {len(view)} bytes"
            )
        move = _copy_slice if copy is None else copy
        start = len(self._head)
        end = start + len(self.inband)
        view[:start] = self._head
        if end > start:
            move(view[start:end], memoryview(self.inband))
        for offset, buffer in zip(self._offsets, self.buffers, strict=True):
            view[end:offset] = bytes(offset - end)
            end = offset + len(buffer)
            if end > offset:
                move(view[offset:end], buffer)


def pack(value: Any) -> bytes | Serialized:
    """Serialize with as little ado as possible.

    Returns the finished envelope as bytes when the value has neither buffers nor references, else
    (or for long `bytes`) a Serialized. ``len()`` of either is the envelope's size. Raises what the
    pickler raises; ``inspection.unpicklable_error`` turns that into a helpful TypeError.
    """
    if value is None:
        return NONE
    cls = type(value)
    if cls in _PLAIN:
        return _dumps(value, 5)
    if cls is tuple:
        if len(value) <= _PLAIN_ITEMS_MAX and _all_plain(value, _PLAIN_DEPTH_MAX):
            return _dumps(value, 5)
    elif cls is bytes:
        raw: bytes = value
        if len(raw) <= _RAW_JOIN_BYTES_MAX:
            return RAW_PREFIX + raw
        return Serialized(RAW_PREFIX, raw)
    inband, buffers, refs = dump(value)
    if buffers:
        views = [buffer.raw() for buffer in buffers]
        return Serialized(b"", inband, views, refs, _private(views))
    if refs:
        return Serialized(b"", inband, (), refs)
    return inband


def serialize(value: Any) -> Serialized:
    """Serialize to parts; see ``pack`` for errors. The result always is a Serialized."""
    packed = pack(value)
    if type(packed) is bytes:
        if packed[0] == KIND_RAW:
            return Serialized(RAW_PREFIX, value)
        return Serialized(b"", packed)
    assert isinstance(packed, Serialized)
    return packed


def deserialize(data: bytes | memoryview, *, writable: bool = False) -> Any:
    """The value of an envelope; for one of kind ERROR, an exception instance (ask ``is_error``).

    Buffers come out as views over ``data``, read-only unless ``writable`` is set and ``data`` is
    writable memory. Those of tensors always can be written to: where ``wants_private_memory``,
    give writable ``data`` that is the reader's own, else they are copied. Raises EnvelopeError for
    damaged bytes, and whatever unpickling raises (e.g. ModuleNotFoundError for a class that this
    process cannot import).
    """
    try:
        kind = data[0]
    except IndexError:
        raise EnvelopeError("a value of no bytes: it was never written") from None
    if kind == KIND_PICKLE:
        return _loads(data)
    if kind == KIND_RAW and data[:PREFIX_BYTES] == RAW_PREFIX:
        return bytes(data[PREFIX_BYTES:])
    if kind == KIND_VECTORED:
        inband, buffers = split_vectored(memoryview(data), writable=writable)
        return _loads(inband, buffers=buffers)
    if kind == KIND_ERROR and data[:PREFIX_BYTES] == ERROR_PREFIX:
        return failures.load_error(memoryview(data)[PREFIX_BYTES:])
    raise unknown_kind(data)


def _all_plain(items: Iterable[Any], depth: int) -> bool:
    """Whether all items are plain, or tuples and dicts of plain items; bounded, so it may miss."""
    for item in items:
        cls = type(item)
        if cls in _PLAIN:
            continue
        if cls is tuple or cls is dict:
            if not item:
                continue
            if depth == 1 or len(item) > _PLAIN_ITEMS_MAX or not _all_plain(item, depth - 1):
                return False
            if cls is dict and not _all_plain(item.values(), depth - 1):
                return False
        else:
            return False
    return True


def _private(views: Sequence[memoryview]) -> Sequence[int]:
    """Which buffers are tensors' (see tensors.py)."""
    tensors = sys.modules.get("mray.serialization.tensors")
    if tensors is None:
        return ()
    kind = tensors.PrivateBytes
    return [index for index, view in enumerate(views) if type(view.obj) is kind]


def _copy_slice(target: memoryview, source: memoryview) -> None:
    target[:] = source
