"""Where in the arena each object lies, and which pages of the arena hold memory.

Owns: byte ranges in use, free ranges, which free ranges still hold pages ("warm") and which hold
none ("cold"). Does not know objects, owners or files: it says which ranges to punch, the arena
punches them.

Ranges are whole pages. The store holds values above 100 KiB, so rounding costs 2 % on average, and
in return no page has two objects: a page is claimed by one writer, mapped copy-on-write without
its neighbours, and given back the moment its object goes.

Address-ordered first fit reuses low, warm pages. Copying into a warm page runs at memory speed;
the first touch of a cold one runs at a tenth of it (1-2 GB/s against 20 here, 0.9-1.3 against 5.2
on a slower machine). Only bytes in use count against the capacity and the address space is a
multiple of it, so holes between objects cost addresses, not room. Random sizes (128 KiB to 1 GiB)
reached 2.1 times the capacity, an adversary who doubles sizes and leaves every other object 6.0
times; ADDRESS_MULTIPLE lies above both, and addresses are free.

Pages in use plus warm free pages never exceed the capacity once ``excess_bytes`` has been cooled:
without that rule a store on a small /dev/shm could fill it with its own free pages.

    cold free --allocate--> in use, unsettled --settle--> in use --free--> warm free --cool--> cold
                            in use, unsettled --free--> doubtful --cool--> cold free

Unsettled: the writer was told to claim the cold part and has not said that it did. If it never
does, nobody knows which of those pages exist; they are doubtful and punched before anyone gets
them, since a writer that finds a page missing dies of SIGBUS.
"""

from __future__ import annotations

from collections import deque

from mray.machine import InvariantError
from mray.node.objects.ranges import Range, RangeSet

#: Length of the arena in units of its capacity.
ADDRESS_MULTIPLE = 16


class Allocator:
    """Ranges of an arena of ``virtual_bytes`` of which at most ``capacity_bytes`` are in use.

    All three sizes in bytes; capacity and virtual length are multiples of ``page_bytes``.
    """

    __slots__ = (
        "_cold_parts", "_doubtful", "_doubtful_bytes", "_free", "_live", "_warm",
        "capacity_bytes", "page_bytes", "used_bytes", "virtual_bytes",
    )  # fmt: skip

    def __init__(self, capacity_bytes: int, virtual_bytes: int, page_bytes: int = 4096) -> None:
        if page_bytes <= 0 or capacity_bytes < page_bytes or virtual_bytes < capacity_bytes:
            raise ValueError(
                f"cannot lay out an arena of {virtual_bytes} bytes for {capacity_bytes} bytes "
                f"of objects in pages of {page_bytes}"
            )
        if capacity_bytes % page_bytes or virtual_bytes % page_bytes:
            raise ValueError(
                f"capacity {capacity_bytes} and length {virtual_bytes} must be whole pages "
                f"of {page_bytes}"
            )
        self.capacity_bytes = capacity_bytes
        self.virtual_bytes = virtual_bytes
        self.page_bytes = page_bytes
        #: Bytes in use or doubtful, in whole pages.
        self.used_bytes = 0
        #: Length of each range in use, by its offset.
        self._live: dict[int, int] = {}
        #: Unsettled ranges: what of them was cold when they were given out.
        self._cold_parts: dict[int, list[Range]] = {}
        #: Free ranges, warm and cold. Disjoint from _live and _doubtful; together they are all.
        self._free = RangeSet()
        self._free.add(0, virtual_bytes)
        #: The warm part of _free.
        self._warm = RangeSet()
        #: Ranges to punch before they are free.
        self._doubtful: deque[Range] = deque()
        self._doubtful_bytes = 0

    @property
    def warm_bytes(self) -> int:
        """Free bytes that hold pages."""
        return self._warm.total

    @property
    def doubtful_bytes(self) -> int:
        """Bytes to punch before they can be used again."""
        return self._doubtful_bytes

    @property
    def excess_bytes(self) -> int:
        """Pages beyond the capacity: cool so many warm bytes before a writer claims its range."""
        return max(0, self.used_bytes + self._warm.total - self.capacity_bytes)

    def rounded(self, size_bytes: int) -> int:
        """What an object of ``size_bytes`` takes: whole pages, at least one."""
        page = self.page_bytes
        return max(1, -(-size_bytes // page)) * page

    def allocate(self, size_bytes: int) -> tuple[int, list[Range]] | None:
        """Give out the lowest range that fits: its offset and the parts of it to claim.

        None when it does not fit beside what is in use (or no hole of the address space is long
        enough, which takes an adversary). Look at ``excess_bytes`` afterwards.
        """
        length = self.rounded(size_bytes)
        if self.used_bytes + length > self.capacity_bytes:
            return None
        offset = self._free.first_fit(length)
        if offset < 0:
            return None
        self._free.cut(offset, length)
        cold: list[Range] = []
        at = offset
        for start, warm_length in self._warm.cut(offset, length):
            if start > at:
                cold.append((at, start - at))
            at = start + warm_length
        if at < offset + length:
            cold.append((at, offset + length - at))
        self._live[offset] = length
        if cold:
            self._cold_parts[offset] = cold
        self.used_bytes += length
        return offset, cold

    def cold_parts(self, offset: int) -> list[Range]:
        """What the writer of an unsettled range has to claim; nothing once it is settled."""
        return self._cold_parts.get(offset, [])

    def settle(self, offset: int) -> None:
        """The writer has claimed every page of its range. Raises KeyError for no range in use."""
        if offset not in self._live:
            raise KeyError(offset)
        self._cold_parts.pop(offset, None)

    def free(self, offset: int) -> None:
        """Take a range back; it stays warm, or becomes doubtful as far as it is unsettled.

        Raises KeyError for no range in use.
        """
        length = self._live.pop(offset)
        at = offset
        for start, cold_length in self._cold_parts.pop(offset, ()):
            if start > at:
                self._release_warm(at, start - at)
            self._doubtful.append((start, cold_length))
            self._doubtful_bytes += cold_length
            at = start + cold_length
        if at < offset + length:
            self._release_warm(at, offset + length - at)

    def cool(self, down_to_bytes: int, bytes_max: int) -> list[Range]:
        """Make ranges cold: all doubtful ones, then warm ones until ``down_to_bytes`` are left.

        Highest addresses first; at most ``bytes_max`` in one call. The caller punches what is
        returned before it does anything else.
        """
        ranges: list[Range] = []
        room = bytes_max
        while self._doubtful and room > 0:
            start, length = self._doubtful.popleft()
            if length > room:
                self._doubtful.appendleft((start + room, length - room))
                length = room
            self._doubtful_bytes -= length
            self.used_bytes -= length
            self._free.add(start, length)
            ranges.append((start, length))
            room -= length
        room = min(room, self._warm.total - down_to_bytes)
        # Whole pages only: a mark may be any number of bytes.
        room -= room % self.page_bytes
        while room > 0 and (last := self._warm.last()) is not None:
            start, length = last
            if length > room:
                start, length = start + length - room, room
            self._warm.cut(start, length)
            ranges.append((start, length))
            room -= length
        return ranges

    def check(self) -> None:
        """Raise InvariantError unless live, doubtful and free ranges tile the arena."""
        self._free.check()
        self._warm.check()
        if sum(length for _, length in self._doubtful) != self._doubtful_bytes:
            raise InvariantError("doubtful bytes are counted wrong")
        taken = sum(self._live.values()) + self._doubtful_bytes
        if taken != self.used_bytes or taken > self.capacity_bytes:
            raise InvariantError(
                f"{taken} bytes are in use, {self.used_bytes} counted, of {self.capacity_bytes}"
            )
        tiles = sorted([*self._live.items(), *self._doubtful, *self._free])
        at = 0
        for start, length in tiles:
            if start != at or length <= 0 or length % self.page_bytes:
                raise InvariantError(f"range ({start}, {length}) where one should start at {at}")
            at = start + length
        if at != self.virtual_bytes:
            raise InvariantError(f"the ranges end at {at} of {self.virtual_bytes}")
        holes = iter(self._free)
        low, length = next(holes, (0, 0))
        for start, warm_length in self._warm:
            while low + length < start + warm_length:
                low, length = next(holes, (self.virtual_bytes, self.virtual_bytes))
            if start < low:
                raise InvariantError(f"warm range ({start}, {warm_length}) is not free")
        for offset, cold in self._cold_parts.items():
            end = offset + self._live[offset]
            if any(start < offset or start + length > end for start, length in cold):
                raise InvariantError(f"cold parts {cold} lie outside the range at {offset}")

    def _release_warm(self, start: int, length: int) -> None:
        self._free.add(start, length)
        self._warm.add(start, length)
        self.used_bytes -= length
