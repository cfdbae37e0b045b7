"""Byte layout of a stored value.

Owns kinds, offsets and alignment. Pickles nothing and copies nothing.

The first two bytes name kind and format version. A plain pickle needs no prefix of its own: every
protocol-5 pickle begins with 0x80 0x05, which are taken as kind and version, so that the commonest
value is stored and read without a slice.

=========  ==========  =============================================================
first      kind        then
=========  ==========  =============================================================
80 05      PICKLE      the pickle, whole
'B' 01     RAW         the bytes of a ``bytes`` value
'V' 01     VECTORED    u16 flags, u32 count, u64 pickle length; per buffer u64 offset
                       and u64 length; the pickle; the buffers
'E' 01     ERROR       pickle of an exception (failures.py)
=========  ==========  =============================================================

Numbers are little-endian. A buffer whose offset has bit 0 set is to be read in private writable
memory (tensors.py); flag 1 says that there are such. Buffers start at multiples of 64 bytes from
the start of the envelope (a cache line, and what AVX-512 loads want); an envelope in shared memory
starts at one itself. All buffers lie outside the pickle, small ones too: keeping those below 1 KiB
inside was measured at under 6 % of the cost of an array, and would give writable arrays where all
others are read-only.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence

ALIGNMENT = 64

KIND_PICKLE = 0x80
KIND_RAW = 0x42
KIND_VECTORED = 0x56
KIND_ERROR = 0x45

PREFIX_BYTES = 2
RAW_PREFIX = b"B\x01"
ERROR_PREFIX = b"E\x01"
_VECTORED_VERSION = 1
#: Flag: there are private buffers. Also the bit in the offset of each.
_PRIVATE = 1

#: The envelope of None, the commonest return value.
NONE = b"\x80\x05N."

_HEAD = struct.Struct("<BBHIQ")


class EnvelopeError(ValueError):
    """The bytes are not an envelope that this version of mray wrote."""


def is_error(data: bytes | memoryview) -> bool:
    """Whether an envelope holds an exception. Does not unpickle."""
    return data[0] == KIND_ERROR


def wants_private_memory(data: bytes | memoryview) -> bool:
    """Whether a value has buffers that its reader may write to. Does not unpickle."""
    return data[0] == KIND_VECTORED and data[2] == _PRIVATE


def vectored_head(
    inband_bytes: int, lengths: Sequence[int], private: Collection[int] = ()
) -> tuple[bytes, list[int], int]:
    """Lay out a pickle with out-of-band buffers; ``private`` are the indices of private ones.

    Returns the head (prefix and table; the pickle follows at once), the offset of each buffer, and
    the size of the whole envelope in bytes. The gaps before the buffers are zeros.
    """
    count = len(lengths)
    end = _HEAD.size + 16 * count + inband_bytes
    offsets = []
    table: list[int] = []
    for length in lengths:
        start = -(-end // ALIGNMENT) * ALIGNMENT
        offsets.append(start)
        table += (start, length)
        end = start + length
    for index in private:
        table[2 * index] |= _PRIVATE
    flags = _PRIVATE if private else 0
    head = _HEAD.pack(KIND_VECTORED, _VECTORED_VERSION, flags, count, inband_bytes)
    return head + struct.pack(f"<{2 * count}Q", *table), offsets, end


def split_vectored(
    view: memoryview, *, writable: bool = False
) -> tuple[memoryview, list[memoryview | bytearray]]:
    """The pickle and the buffers of a VECTORED envelope, as slices of ``view``.

    They are read-only unless ``writable`` is set, but for private ones: those are writable slices
    of a writable ``view``, which must be the reader's own, and copies of a read-only one.

    Raises EnvelopeError when the bytes are cut short or of another version.
    """
    size = len(view)
    if size < _HEAD.size:
        raise EnvelopeError(f"a value of {size} bytes is too short for its kind: it was cut off")
    _, version, flags, count, inband_bytes = _HEAD.unpack_from(view)
    if version != _VECTORED_VERSION:
        raise unknown_kind(view)
    start = _HEAD.size + 16 * count
    end = start + inband_bytes
    if end > size:
        raise EnvelopeError(f"a value was cut off: its pickle ends at byte {end} of {size}")
    table = struct.unpack_from(f"<{2 * count}Q", view, _HEAD.size)
    buffers: list[memoryview | bytearray] = []
    shown = view if writable or view.readonly else view.toreadonly()
    for i in range(0, 2 * count, 2):
        private = flags and table[i] & _PRIVATE
        low = table[i] - private
        high = low + table[i + 1]
        if high > size:
            raise EnvelopeError(f"a value was cut off: buffer {i // 2} ends at {high} of {size}")
        if not private:
            buffers.append(shown[low:high])
        elif view.readonly:
            buffers.append(bytearray(view[low:high]))
        else:
            buffers.append(view[low:high])
    return shown[start:end], buffers


def unknown_kind(data: bytes | memoryview) -> EnvelopeError:
    """The error to raise for bytes of no known kind and version."""
    begin = bytes(data[:PREFIX_BYTES])
    return EnvelopeError(
        f"a value of {len(data)} bytes begins with {begin!r}, which is no kind and version known "
        "here: it is damaged, or another version of mray wrote it"
    )
