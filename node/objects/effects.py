"""What the object store machine asks its shell to do, and the facts it gives with a refusal.

Plain values. An effect names its client (a process id) and the request it answers.
"""

from __future__ import annotations

import msgspec

from mray.node.objects.ranges import Range


class Holder(msgspec.Struct, frozen=True):
    """A copy that takes room."""

    object_id: bytes
    size_bytes: int
    state: str
    pin_count: int
    owner_id: bytes


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
    why: Full | OwnerGone


class AnswerPins(msgspec.Struct, frozen=True):
    """Tell the reader where its objects are: (offset, size), offset -1 for what is not here."""

    client: bytes
    rid: int
    places: tuple[tuple[int, int], ...]


class Punch(msgspec.Struct, frozen=True):
    """Give the pages of these ranges back to the system, before the next effect and event."""

    ranges: tuple[Range, ...]


class Complain(msgspec.Struct, frozen=True):
    """A client broke the protocol; nothing was changed. For the log."""

    client: bytes
    text: str


Effect = Created | Refuse | AnswerPins | Punch | Complain
