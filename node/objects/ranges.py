"""A set of integers kept as disjoint ranges, ordered by address.

Owns: adding with coalescing, cutting, first fit. Knows nothing of memory or objects.

The ranges lie in blocks of at most a few hundred, each with its longest range noted, so that every
operation looks at one block and first fit skips whole blocks: 5 us with 10,000 ranges. A balanced
tree is O(log n) on paper and slower in Python, where a C loop over 200 integers costs 2 us.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from mray.machine import InvariantError

#: (start, length), both in bytes here. The length is never 0.
Range = tuple[int, int]

#: A block that grows past this is halved.
_BLOCK_RANGES_MAX = 256


class RangeSet:
    """Disjoint ranges that never touch: neighbours become one."""

    __slots__ = ("_firsts", "_lengths", "_longest", "_starts", "total")

    def __init__(self) -> None:
        #: Starts of the ranges, ascending, block by block; no block is empty.
        self._starts: list[list[int]] = []
        #: Their lengths, in the same shape.
        self._lengths: list[list[int]] = []
        #: The first start of each block.
        self._firsts: list[int] = []
        #: The longest length in each block.
        self._longest: list[int] = []
        #: Sum of all lengths.
        self.total = 0

    def __len__(self) -> int:
        return sum(map(len, self._starts))

    def __iter__(self) -> Iterator[Range]:
        for starts, lengths in zip(self._starts, self._lengths, strict=True):
            yield from zip(starts, lengths, strict=True)

    def first_fit(self, length: int) -> int:
        """The start of the lowest range of at least ``length``, or -1."""
        for block, longest in enumerate(self._longest):
            if longest >= length:
                lengths = self._lengths[block]
                at = next(i for i, have in enumerate(lengths) if have >= length)
                return self._starts[block][at]
        return -1

    def last(self) -> Range | None:
        """The highest range."""
        if not self._starts:
            return None
        return self._starts[-1][-1], self._lengths[-1][-1]

    def add(self, start: int, length: int) -> None:
        """Add a range that overlaps none. Raises ValueError if it does, or if it is empty."""
        end = start + length
        if length <= 0 or start < 0:
            raise ValueError(f"no range: start {start}, length {length}")
        if not self._starts:
            self._insert_block(0, [start], [length])
            self.total += length
            return
        block, at = self._find(start)
        before = (block, at) if at >= 0 else None
        after = self._next(block, at)
        if before is not None:
            low = self._starts[block][at]
            low_end = low + self._lengths[block][at]
            if low_end > start:
                raise ValueError(f"[{start}, {end}) overlaps [{low}, {low_end})")
            if low_end < start:
                before = None
        if after is not None:
            high = self._starts[after[0]][after[1]]
            if high < end:
                raise ValueError(f"[{start}, {end}) overlaps the range from {high}")
            if high > end:
                after = None
        self.total += length
        if after is not None:
            length += self._lengths[after[0]][after[1]]
            if before is None:
                self._replace(*after, start, length)
                return
            self._delete(*after)
        if before is not None:
            self._replace(block, at, self._starts[block][at], self._lengths[block][at] + length)
            return
        self._insert(block, at + 1, start, length)

    def cut(self, start: int, length: int) -> list[Range]:
        """Take out whatever of [start, start+length) is in the set; returns it, ascending."""
        end = start + length
        pieces: list[Range] = []
        while self._starts:
            block, at = self._find(start)
            if at < 0 or self._starts[block][at] + self._lengths[block][at] <= start:
                following = self._next(block, at)
                if following is None:
                    break
                block, at = following
            low = self._starts[block][at]
            high = low + self._lengths[block][at]
            if low >= end:
                break
            cut_low = max(low, start)
            cut_high = min(high, end)
            pieces.append((cut_low, cut_high - cut_low))
            if cut_low == low and cut_high == high:
                self._delete(block, at)
            elif cut_low == low:
                self._replace(block, at, cut_high, high - cut_high)
            else:
                self._replace(block, at, low, cut_low - low)
                if cut_high < high:
                    self._insert(block, at + 1, cut_high, high - cut_high)
            self.total -= cut_high - cut_low
        return pieces

    def check(self) -> None:
        """Raise InvariantError unless ranges ascend with gaps and every summary is true."""
        end = -1
        total = 0
        for start, length in self:
            if length <= 0 or start <= end:
                raise InvariantError(f"range ({start}, {length}) after one that ends at {end}")
            end = start + length
            total += length
        if total != self.total:
            raise InvariantError(f"total is {self.total}, the ranges add up to {total}")
        if self._firsts != [starts[0] for starts in self._starts]:
            raise InvariantError("the first starts of blocks are not noted right")
        if self._longest != [max(lengths) for lengths in self._lengths]:
            raise InvariantError("the longest ranges of blocks are not noted right")

    def _find(self, address: int) -> tuple[int, int]:
        """Block and index of the last range that starts at or before ``address``.

        (0, -1) if there is none. The set is not empty.
        """
        block = bisect_right(self._firsts, address) - 1
        if block < 0:
            return 0, -1
        return block, bisect_right(self._starts[block], address) - 1

    def _next(self, block: int, at: int) -> tuple[int, int] | None:
        if at + 1 < len(self._starts[block]):
            return block, at + 1
        if block + 1 < len(self._starts):
            return block + 1, 0
        return None

    def _replace(self, block: int, at: int, start: int, length: int) -> None:
        lengths = self._lengths[block]
        old = lengths[at]
        lengths[at] = length
        self._starts[block][at] = start
        if at == 0:
            self._firsts[block] = start
        if length >= self._longest[block]:
            self._longest[block] = length
        elif old == self._longest[block]:
            self._longest[block] = max(lengths)

    def _insert(self, block: int, at: int, start: int, length: int) -> None:
        starts = self._starts[block]
        starts.insert(at, start)
        self._lengths[block].insert(at, length)
        if at == 0:
            self._firsts[block] = start
        if length > self._longest[block]:
            self._longest[block] = length
        if len(starts) > _BLOCK_RANGES_MAX:
            half = len(starts) // 2
            lengths = self._lengths[block]
            upper, upper_lengths = starts[half:], lengths[half:]
            del starts[half:], lengths[half:]
            self._longest[block] = max(lengths)
            self._insert_block(block + 1, upper, upper_lengths)

    def _insert_block(self, block: int, starts: list[int], lengths: list[int]) -> None:
        self._starts.insert(block, starts)
        self._lengths.insert(block, lengths)
        self._firsts.insert(block, starts[0])
        self._longest.insert(block, max(lengths))

    def _delete(self, block: int, at: int) -> None:
        starts = self._starts[block]
        lengths = self._lengths[block]
        del starts[at]
        old = lengths.pop(at)
        if not starts:
            del self._starts[block], self._lengths[block]
            del self._firsts[block], self._longest[block]
            return
        if at == 0:
            self._firsts[block] = starts[0]
        if old == self._longest[block]:
            self._longest[block] = max(lengths)
