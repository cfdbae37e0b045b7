"""One copy of an object in the store, and what becomes of it.

Owns the states of a copy and its pins. Does not own places, tables or queues: store.py does.

    created --seal--> sealed --dropped, no pins--> gone
       |                 +-----dropped, pinned---> leaving --last unpin--> gone
       +--abort, writer died--> gone
       +--dropped--> unwanted --seal, abort, writer died--> gone

    sealed --chosen--> spilling --written, no pins--> spilled --wanted--> restoring --read--> sealed
                          +--failed, or pinned meanwhile--> sealed            +--failed--> gone

A further copy is one of an object whose primary copy is on another node: nothing is lost with it.
So it is never spilled; unused, it is the first to make room.

Dropped: freed by its owner, its owner died, or a retry of its task writes a new copy. A copy that
somebody writes or reads keeps its range whatever happens to the object. A copy keeps its place on
disk once it has one, so that to make room again costs nothing.
"""

from __future__ import annotations

from mray.machine import InvariantError
from mray.node.objects.files import Slot
from mray.wire.messages import Address


class Copy:
    """One object's bytes: a range of the arena, a place on disk, or both."""

    __slots__ = (
        "ask_after", "ask_wait_s", "asked", "by_place", "dropped", "further", "group", "object_id",
        "offset", "owner_id", "pins", "restoring", "sealed", "size", "slot", "spilling", "writer",
    )  # fmt: skip

    def __init__(
        self, object_id: bytes, offset: int, size: int, owner_id: bytes, writer: bytes
    ) -> None:
        self.object_id = object_id
        #: Where its range begins (space.py says in which file), -1 while it is only on disk.
        self.offset = offset
        #: Bytes asked for; the range is rounded up to pages.
        self.size = size
        #: The process whose reference counts keep the object.
        self.owner_id = owner_id
        #: The process that fills the range.
        self.writer = writer
        #: The bytes are final; readers may map them.
        self.sealed = False
        #: Nobody new may pin it.
        self.dropped = False
        #: Pins by client. Empty until sealed; counts are positive.
        self.pins: dict[bytes, int] = {}
        #: Its owner wrote it and may read it by its place, without a pin: its range may not move
        #: before the owner has said that it forgot the place.
        self.by_place = writer == owner_id
        #: Where its bytes are on disk.
        self.slot: Slot | None = None
        #: A file is being written from its range.
        self.spilling = False
        #: Its range is being filled from its slot, or about to be.
        self.restoring = False
        #: Its owner has been asked to forget its place and has not answered.
        self.asked = False
        #: Not to be asked again before (monotonic seconds).
        self.ask_after = 0.0
        #: How long it was left alone after it was asked last: longer each time.
        self.ask_wait_s = 0.0
        #: Of a further copy: the owner, to be told when it goes. None for the primary copy.
        self.further: Address | None = None
        #: The table of copies.py that lists it as one that may make room.
        self.group: dict[bytes, Copy] | None = None

    @property
    def state(self) -> str:
        """created, unwanted, sealed, copy (a further one), leaving, spilling, spilled or
        restoring."""
        if not self.sealed:
            return "unwanted" if self.dropped else "created"
        if self.dropped:
            return "leaving"
        if self.restoring:
            return "restoring"
        if self.offset < 0:
            return "spilled"
        if self.further is not None:
            return "copy"
        return "spilling" if self.spilling else "sealed"

    @property
    def pin_count(self) -> int:
        """Pins of all clients."""
        return sum(self.pins.values())

    @property
    def here(self) -> bool:
        """Its bytes are in its range: a reader may be told where."""
        return self.sealed and self.offset >= 0 and not self.restoring

    @property
    def in_use(self) -> bool:
        """Somebody writes or reads it: its range must stay."""
        return not self.sealed or bool(self.pins) or self.restoring

    def pin(self, client: bytes) -> None:
        """Count one reader more."""
        self.pins[client] = self.pins.get(client, 0) + 1

    def unpin(self, client: bytes, count: int) -> int:
        """Give up to ``count`` pins of ``client`` back; returns how many there were to give."""
        held = self.pins.get(client, 0)
        if held <= count:
            self.pins.pop(client, None)
            return held
        self.pins[client] = held - count
        return count

    def check(self) -> None:
        """Raise InvariantError if the copy contradicts itself."""
        name = self.object_id.hex()
        if self.pins and not self.here:
            raise InvariantError(f"{name} is pinned and not readable ({self.state})")
        if any(count <= 0 for count in self.pins.values()):
            raise InvariantError(f"{name} has an empty pin: {self.pins}")
        if self.offset < 0 and (self.slot is None or self.restoring or not self.sealed):
            raise InvariantError(f"{name} has neither a range nor a place on disk")
        if self.further is not None and (self.slot is not None or self.spilling or self.by_place):
            raise InvariantError(f"{name} is a further copy and goes to disk")
        if self.by_place and (self.offset < 0 or self.slot is not None or self.spilling):
            raise InvariantError(f"{name} moves while its owner reads it by its place")
        if self.restoring and (self.slot is None or self.offset < 0 or self.spilling):
            raise InvariantError(f"{name} is restored from nowhere, or to nowhere")
