"""What the machines of transfers ask their shell to do. Plain values."""

from __future__ import annotations

import msgspec

from mray.node.objects.effects import Full, OutOfDisk, OwnerGone
from mray.wire.messages import Address


class Ask(msgspec.Struct, frozen=True):
    """Ask a node for chunks, by number. ``owed`` and ``tried``: see AskChunks."""

    node_id: bytes
    pull: int
    object_id: bytes
    chunks: tuple[int, ...]
    owed: int
    tried: tuple[bytes, ...] = ()


class End(msgspec.Struct, frozen=True):
    """Tell a node that no more of a pull is wanted."""

    node_id: bytes
    pull: int


class Place(msgspec.Struct, frozen=True):
    """Have the store make a place for a copy; answer ``placed`` or ``no_place``."""

    object_id: bytes
    pull: int
    size: int
    owner: Address


class Seal(msgspec.Struct, frozen=True):
    """All bytes of a copy are there."""

    object_id: bytes
    pull: int
    owner: Address


class Drop(msgspec.Struct, frozen=True):
    """Take the place of a pull back; it begins anew under another number."""

    object_id: bytes
    pull: int


class Fail(msgspec.Struct, frozen=True):
    """A pull has ended without a copy: take its place back and tell who waits. ``why``: the
    store's own reason, where it had no room."""

    object_id: bytes
    pull: int
    reason: str
    why: Full | OutOfDisk | OwnerGone | None = None


class Verify(msgspec.Struct, frozen=True):
    """Compare the checksum of a copy; answer ``verified``."""

    object_id: bytes
    pull: int
    crc: int


class AskOwner(msgspec.Struct, frozen=True):
    """Ask an owner who has an object; answer ``located``."""

    object_id: bytes
    owner: Address


class SendChunk(msgspec.Struct, frozen=True):
    """Send a chunk of an object."""

    node_id: bytes
    pull: int
    object_id: bytes
    chunk: int


class Refuse(msgspec.Struct, frozen=True):
    """Tell a puller to ask these nodes, or why nobody."""

    node_id: bytes
    pull: int
    node_ids: tuple[bytes, ...]
    text: str


class Release(msgspec.Struct, frozen=True):
    """Nobody is sent this object any more: let go of the copy."""

    object_id: bytes


PullEffect = Ask | End | Place | Seal | Drop | Fail | Verify | AskOwner
PushEffect = SendChunk | Refuse | Release
