"""One copy of an object in the store, and what becomes of it.

Owns the states of a copy and its pins. Does not own places, tables or queues: store.py does.

    created --seal--> sealed --dropped, no pins--> gone
       |                 +-----dropped, pinned---> leaving --last unpin--> gone
       +--abort, writer died--> gone
       +--dropped--> unwanted --seal, abort, writer died--> gone

Dropped: freed by its owner, its owner died, or a retry of its task writes a new copy. A copy that
somebody writes or reads keeps its range whatever happens to the object.
"""

from __future__ import annotations

from mray.machine import InvariantError


class Copy:
    """A range of the arena that holds, or will hold, one object's bytes."""

    __slots__ = ("dropped", "object_id", "offset", "owner_id", "pins", "sealed", "size", "writer")

    def __init__(
        self, object_id: bytes, offset: int, size: int, owner_id: bytes, writer: bytes
    ) -> None:
        self.object_id = object_id
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

    @property
    def state(self) -> str:
        """created, unwanted, sealed or leaving."""
        if self.sealed:
            return "leaving" if self.dropped else "sealed"
        return "unwanted" if self.dropped else "created"

    @property
    def pin_count(self) -> int:
        """Pins of all clients."""
        return sum(self.pins.values())

    @property
    def in_use(self) -> bool:
        """Somebody writes or reads it: its range must stay."""
        return not self.sealed or bool(self.pins)

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
        if self.pins and not self.sealed:
            raise InvariantError(f"{self.object_id.hex()} is pinned and not sealed")
        if any(count <= 0 for count in self.pins.values()):
            raise InvariantError(f"{self.object_id.hex()} has an empty pin: {self.pins}")
