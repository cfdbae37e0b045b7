"""The addresses of a store: the arena, and above it the overflow file on disk.

Owns which of the two an address belongs to. Offsets below ``base`` lie in the arena, those from
``base`` on in the overflow file, ``base`` less. Decides nothing about who gets what: store.py does.

The overflow file takes what the arena cannot: objects larger than all of it, and those that find it
full of objects in use. It has no capacity of its own; its disk ends it. Nothing in it stays warm.
"""

from __future__ import annotations

from mray.node.objects.allocator import Allocator
from mray.node.objects.ranges import Range


class Space:
    """The arena's allocator and, with ``overflow_bytes``, a second one above its addresses."""

    __slots__ = ("arena", "base", "overflow", "overflow_stale")

    def __init__(self, arena: Allocator, overflow_bytes: int = 0) -> None:
        self.arena = arena
        #: Where the addresses of the overflow file begin.
        self.base = arena.virtual_bytes
        page = arena.page_bytes
        length = overflow_bytes - overflow_bytes % page
        self.overflow = Allocator(length, length, page) if length else None
        #: The overflow file has ranges to punch.
        self.overflow_stale = False

    @property
    def overflow_bytes(self) -> int:
        """What objects take in the overflow file."""
        return self.overflow.used_bytes if self.overflow is not None else 0

    def rounded(self, size: int) -> int:
        """What an object of ``size`` bytes takes."""
        return self.arena.rounded(size)

    def allocate_overflow(self, size: int) -> int | None:
        """A place in the overflow file; None without one, or when its addresses are used up."""
        if self.overflow is None:
            return None
        place = self.overflow.allocate(size)
        return None if place is None else self.base + place[0]

    def cold_parts(self, offset: int) -> list[Range]:
        """What the writer of an unsettled range has to claim."""
        if offset < self.base or self.overflow is None:
            return self.arena.cold_parts(offset)
        parts = self.overflow.cold_parts(offset - self.base)
        return [(self.base + start, length) for start, length in parts]

    def settle(self, offset: int) -> None:
        """Every page of a range has been claimed. Raises KeyError for no range in use."""
        if offset < self.base or self.overflow is None:
            self.arena.settle(offset)
        else:
            self.overflow.settle(offset - self.base)

    def free(self, offset: int) -> None:
        """Take a range back. Raises KeyError for no range in use."""
        if offset < self.base or self.overflow is None:
            self.arena.free(offset)
        else:
            self.overflow.free(offset - self.base)
            self.overflow_stale = True

    def cool_overflow(self) -> list[Range]:
        """What to punch out of the overflow file now: all that is free and not cold."""
        overflow = self.overflow
        self.overflow_stale = False
        if overflow is None or not (overflow.warm_bytes or overflow.doubtful_bytes):
            return []
        ranges = overflow.cool(0, overflow.virtual_bytes)
        return [(self.base + start, length) for start, length in ranges]

    def check(self) -> None:
        """Raise InvariantError if an allocator contradicts itself."""
        self.arena.check()
        if self.overflow is not None:
            self.overflow.check()
