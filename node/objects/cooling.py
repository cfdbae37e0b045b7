"""When free warm pages go back to the system, and how many.

Owns the policy only: the allocator picks the ranges, the arena punches them.

Freed pages stay warm because the next put into them is ten times as fast. They go:
  at once      doubtful ranges, pages beyond the capacity, everything when memory is short;
  linger       what lies above the warm mark, once it has lain there for a second, so that a loop
               of put and free over a value bigger than the mark stays warm while it runs;
  idle         down to the low mark, when nothing was created for a while.
"""

from __future__ import annotations

import msgspec

from mray.node.objects.allocator import Allocator
from mray.units import MIB


class CoolingRules(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how much."""

    #: Warm free bytes kept while the store is in use.
    warm_bytes: int
    #: Warm free bytes kept when it is idle.
    idle_warm_bytes: int = 64 * MIB
    #: How long warm bytes may exceed the warm mark.
    linger_s: float = 1.0
    #: How long without a create the store counts as idle.
    idle_s: float = 30.0
    #: Punched in one go. 32 MiB takes 4-5 ms here; a loop must not stall for 20.
    punch_bytes_max: int = 32 * MIB


class Cooling:
    """What is due to be cooled, given the allocator's figures."""

    __slots__ = ("_last_create_at", "_over_since", "_rules", "pressed")

    def __init__(self, rules: CoolingRules) -> None:
        self._rules = rules
        self._last_create_at = float("-inf")
        #: Since when warm bytes exceed the mark by a page, None while they do not.
        self._over_since: float | None = None
        #: Memory is short: everything free goes, and creates wait until it has.
        self.pressed = False

    def note_create(self, now: float) -> None:
        """A range was given out."""
        self._last_create_at = now

    def watch(self, allocator: Allocator, now: float) -> None:
        """Called after every change of the warm bytes."""
        if allocator.warm_bytes < self._rules.warm_bytes + allocator.page_bytes:
            self._over_since = None
        elif self._over_since is None:
            self._over_since = now
        if not allocator.warm_bytes and not allocator.doubtful_bytes:
            self.pressed = False

    def due(self, allocator: Allocator, now: float) -> tuple[float, int] | None:
        """When the next cooling is due and how many warm bytes it leaves; None if never.

        ``now`` stands for "at once".
        """
        warm = allocator.warm_bytes
        if self.pressed:
            return now, 0
        if allocator.doubtful_bytes or allocator.excess_bytes:
            return now, warm - min(warm, allocator.excess_bytes)
        page = allocator.page_bytes
        rules = self._rules
        if self._over_since is not None:
            return max(now, self._over_since + rules.linger_s), rules.warm_bytes
        if warm >= rules.idle_warm_bytes + page:
            return max(now, self._last_create_at + rules.idle_s), rules.idle_warm_bytes
        return None
