"""What the object store machine asks its shell to do, and the facts it gives with a refusal.

Plain values. An effect names its client (a process id) and the request it answers.
"""

from __future__ import annotations

import msgspec

from mray.node.objects.ranges import Range
from mray.wire.messages import Address


class Holder(msgspec.Struct, frozen=True):
    """A copy that takes room."""

    object_id: bytes
    size_bytes: int
    state: str
    pin_count: int
    owner_id: bytes
    #: Its owner was asked to forget its place and has not.
    by_place: bool = False


class Full(msgspec.Struct, frozen=True, kw_only=True):
    """Why there was no room for an object, with every number used."""

    object_id: bytes
    requested_bytes: int
    capacity_bytes: int
    used_bytes: int
    object_count: int
    #: How long the create waited; 0 when waiting could not have helped.
    waited_s: float
    #: The biggest copies, biggest first.
    holders: tuple[Holder, ...]
    #: What is wrong with disks that should make room.
    troubles: tuple[str, ...] = ()
    #: The object is on disk and was to come back.
    spilled: bool = False


class OutOfDisk(msgspec.Struct, frozen=True, kw_only=True):
    """No room in memory for an object, and none on the disks that would make some."""

    object_id: bytes
    requested_bytes: int
    capacity_bytes: int
    used_bytes: int
    spilled_bytes: int
    waited_s: float
    #: What each disk said.
    disks: tuple[str, ...]
    #: It is on disk, and was to be read.
    spilled: bool = False


class OwnerGone(msgspec.Struct, frozen=True):
    """An object of a dead owner would never be freed, so it is not made."""

    object_id: bytes
    owner_id: bytes


class Created(msgspec.Struct, frozen=True):
    """Tell the writer its place and the parts of it to claim."""

    client: bytes
    rid: int
    offset: int
    cold: tuple[Range, ...]


class Refuse(msgspec.Struct, frozen=True):
    """Tell the client why not."""

    client: bytes
    rid: int
    why: Full | OutOfDisk | OwnerGone


class AnswerPins(msgspec.Struct, frozen=True):
    """Tell the reader where its objects are: (offset, size), offset -1 for what is not here."""

    client: bytes
    rid: int
    places: tuple[tuple[int, int], ...]
    #: Why an object is not here, "" where that is not known; empty when none has a reason.
    reasons: tuple[str, ...] = ()


class Punch(msgspec.Struct, frozen=True):
    """Give the pages of these ranges back to the system, before the next effect and event."""

    ranges: tuple[Range, ...]


class Complain(msgspec.Struct, frozen=True):
    """A client broke the protocol; nothing was changed. For the log."""

    client: bytes
    text: str


class WriteSpill(msgspec.Struct, frozen=True):
    """Write (range begins, size, where in the file) parts into a new file; answer ``written`` or
    ``write_failed``. What a failed write leaves is taken away."""

    file: int
    disk: int
    parts: tuple[tuple[int, int, int], ...]


class ReadSpill(msgspec.Struct, frozen=True):
    """Fill the range at ``offset`` from a file, which must have this checksum; answer ``read``,
    ``read_failed`` or ``read_no_space``."""

    number: int
    disk: int
    file: int
    at: int
    size: int
    crc: int
    offset: int


class DeleteSpill(msgspec.Struct, frozen=True):
    """Nothing in a file is needed any more."""

    disk: int
    file: int


class PunchSpill(msgspec.Struct, frozen=True):
    """A part of a file is needed no more."""

    disk: int
    file: int
    at: int
    size: int


class AskPlaces(msgspec.Struct, frozen=True):
    """Ask an owner to forget the places of objects that it reads without pins."""

    owner: bytes
    rid: int
    object_ids: tuple[bytes, ...]


class Evicted(msgspec.Struct, frozen=True):
    """Tell an owner that further copies of its objects have made room."""

    owner: Address
    object_ids: tuple[bytes, ...]


class TellLost(msgspec.Struct, frozen=True):
    """Tell an owner that its object is lost here, so that it is made again before anybody asks."""

    owner: bytes
    object_id: bytes
    reason: str


class Tell(msgspec.Struct, frozen=True):
    """A disk has changed its state. For the log."""

    is_warning: bool
    text: str


Effect = (
    Created | Refuse | AnswerPins | Punch | Complain
    | WriteSpill | ReadSpill | DeleteSpill | PunchSpill | AskPlaces | Evicted | TellLost
    | Tell
)  # fmt: skip
