"""What goes over bulk connections beside messages: chunks; and who is who there.

Owns the layout of a chunk's frame: a head that no message begins with, then its bytes. A message's
first byte is the version of the protocol (mray.wire.codec).
"""

from __future__ import annotations

import struct

import msgspec

#: kind, pull, chunk, size of the whole object, its checksum or -1
_HEAD = struct.Struct("<BQIQq")
_KIND = 2
HEAD_BYTES = _HEAD.size
#: First byte of the name of a node's bulk socket: the rest is its node id's, whose first byte is m.
_NAME, _NODE = b"b", b"m"


class Head(msgspec.Struct, frozen=True):
    """What a chunk is. ``crc`` is the checksum of the whole object, -1 where it is not known."""

    pull: int
    chunk: int
    size: int
    crc: int


def new_frame(head: Head, length: int) -> bytearray:
    """A frame for a chunk of ``length`` bytes, which are to be put from HEAD_BYTES on."""
    frame = bytearray(HEAD_BYTES + length)
    _HEAD.pack_into(frame, 0, _KIND, head.pull, head.chunk, head.size, head.crc)
    return frame


def read_head(frame: bytes | bytearray | memoryview) -> Head | None:
    """The head of a chunk's frame; None if it is none."""
    if len(frame) < HEAD_BYTES or frame[0] != _KIND:
        return None
    _, pull, chunk, size, crc = _HEAD.unpack_from(frame)
    return Head(pull, chunk, size, crc)


def bulk_name(node_id: bytes) -> bytes:
    """What a node's bulk socket is called among sockets."""
    return _NAME + node_id[1:]


def node_of(name: bytes) -> bytes:
    """The node whose bulk socket is called so."""
    return _NODE + name[1:]
