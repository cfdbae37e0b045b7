"""Room in a store: who gets it, who waits for it, and what is done to make some.

Owns the order (restores before creates), waiting and its end, the tables that this takes. Base of
the store machine, which adds the events: see store.py.
"""

from __future__ import annotations

import msgspec

from mray.node.objects.admission import Admission, Waiting
from mray.node.objects.allocator import Allocator
from mray.node.objects.cooling import Cooling, CoolingRules
from mray.node.objects.copies import Copies
from mray.node.objects.effects import (
    Created,
    Effect,
    Evicted,
    Full,
    Holder,
    OutOfDisk,
    Punch,
    Refuse,
)
from mray.node.objects.lifecycle import Copy
from mray.node.objects.readers import Readers
from mray.node.objects.space import Space
from mray.node.objects.spilling import Restore, Spilling, SpillRules
from mray.wire.messages import Address

_HOLDERS_SHOWN = 5


class StoreRules(msgspec.Struct, frozen=True, kw_only=True):
    """How the store behaves."""

    cooling: CoolingRules
    #: How long a create or restore waits for room, from when spilling last made some.
    full_grace_s: float = 2.0
    spill: SpillRules = SpillRules()
    #: Length of the overflow file's addresses; 0 for none.
    overflow_bytes: int = 0
    #: How long a pin waits for a writer to seal before it is told that the object is not here.
    seal_wait_s: float = 2.0


class Room:
    """See the module."""

    def __init__(self, allocator: Allocator, rules: StoreRules) -> None:
        self._allocator = allocator
        self._rules = rules
        self.space = Space(allocator, rules.overflow_bytes)
        self._copies = Copies(self.space)
        self.spilling = Spilling(rules.spill, self._copies, self.space)
        self._cooling = Cooling(rules.cooling)
        self._admission = Admission()
        self._readers = Readers()
        #: When the last event came.
        self._now = 0.0

    @property
    def capacity_bytes(self) -> int:
        """The most that objects may take."""
        return self._allocator.capacity_bytes

    @property
    def used_bytes(self) -> int:
        """What objects take, in whole pages."""
        return self._allocator.used_bytes

    @property
    def object_count(self) -> int:
        """Objects here, sealed or being written."""
        return len(self._copies)

    def _admit(self, effects: list[Effect], *, may_cool: bool = True) -> list[Effect]:
        """Give waiting creates their places, in order, as far as there is room.

        Ends every event that frees or takes room; adds to ``effects`` and returns it.
        """
        self._cooling.watch(self._allocator, self._now)
        spilling = self.spilling
        if (
            self._admission.entries
            or spilling.queue
            or spilling.shortage
            or self._allocator.used_bytes > spilling.threshold_bytes
        ):
            self._make_way(effects, may_cool=may_cool)
        if self._copies.slots_gone:
            effects += [spilling.files.release(slot) for slot in self._copies.slots_gone]
            self._copies.slots_gone.clear()
        if self._copies.evicted:
            by_owner: dict[Address, list[bytes]] = {}
            for copy in self._copies.evicted:
                assert copy.further is not None
                by_owner.setdefault(copy.further, []).append(copy.object_id)
            self._copies.evicted.clear()
            effects += [Evicted(owner, tuple(ids)) for owner, ids in by_owner.items()]
        if self.space.overflow_stale and (holes := self.space.cool_overflow()):
            effects.append(Punch(tuple(holes)))
        return effects

    def _make_way(self, effects: list[Effect], *, may_cool: bool) -> None:
        """Serve those who wait, and have room made, until neither gets any further."""
        spilling, arena = self.spilling, self._allocator
        while True:
            if self._place_restores(effects, may_cool=may_cool):
                self._place_creates(effects, may_cool=may_cool)
            wanted = self._wanted()
            if wanted <= 0 and arena.used_bytes <= spilling.threshold_bytes:
                return
            used = arena.used_bytes
            effects += spilling.make_room(wanted, self._now)
            self._cooling.watch(arena, self._now)
            if arena.used_bytes == used:
                if spilling.shortage and not spilling.coming_bytes:
                    spilling.shortage = 0  # There is nothing to take pages from.
                    continue
                return

    def _wanted(self) -> int:
        """What those who wait need beyond what is free, in bytes."""
        admission, spilling = self._admission, self.spilling
        waiting = spilling.queue_bytes
        restore = spilling.head() if waiting else None
        if restore is not None and restore.copy.restoring:
            waiting -= self._allocator.rounded(restore.copy.size)
        if admission.entries:
            waiting += admission.bytes + len(admission) * self._allocator.page_bytes
            head = admission.head
            if head is not None and head.copy is not None:
                waiting -= head.size + self._allocator.page_bytes
        if not waiting and not spilling.shortage:
            return 0
        free = self.capacity_bytes - self.used_bytes
        return max(0, min(waiting, self.capacity_bytes) - free) + spilling.shortage

    def _place_restores(self, effects: list[Effect], *, may_cool: bool) -> bool:
        """Give restores their places, in order; False if one is left that waits."""
        spilling = self.spilling
        while spilling.queue and (restore := spilling.head()) is not None:
            if not restore.copy.restoring:
                place = self._allocate(restore.copy.size)
                if place is None:
                    return False
                spilling.reserve(restore, place)
            if not self._has_pages(effects, may_cool=may_cool):
                return False
            effects.append(spilling.begin_read(restore))
        return True

    def _place_creates(self, effects: list[Effect], *, may_cool: bool) -> None:
        while (head := self._admission.head) is not None:
            # Without a place now, ranges that are yet to be punched may give it one: see tick.
            copy = head.copy or self._place(head)
            if copy is None or not self._has_pages(effects, may_cool=may_cool):
                break
            self._admission.remove(head)
            effects.append(self._created(head.client, head.rid, copy))

    def _has_pages(self, effects: list[Effect], *, may_cool: bool) -> bool:
        """Whether what was given out last may be claimed: pages never exceed the capacity."""
        if self._allocator.excess_bytes and may_cool:
            if any(type(effect) is Punch for effect in effects):
                return False  # One bit of cooling an event.
            self._cool(effects)
        return not self._allocator.excess_bytes

    def _allocate(self, size: int) -> int | None:
        if self._cooling.pressed or self.spilling.shortage:
            return None
        place = self._allocator.allocate(size)
        if place is None:
            return None
        self._cooling.note_create(self._now)
        self._cooling.watch(self._allocator, self._now)
        return place[0]

    def _no_pages(self, size: int) -> None:
        """The system had no pages for a range of ``size`` bytes."""
        arena = self._allocator
        self._cooling.pressed = True
        self.spilling.shortage = max(0, arena.rounded(size) - arena.warm_bytes)

    def _overflow(self, waiting: Waiting) -> list[Effect]:
        """Give a create that cannot have room in the arena a place on disk."""
        offset = self.space.allocate_overflow(waiting.size)
        if offset is None:
            why = self._full(
                waiting.object_id, waiting.size, self._now - waiting.since, self._holders()
            )
            return [Refuse(waiting.client, waiting.rid, why)]
        copy = self._copies.add(
            waiting.object_id, offset, waiting.size, waiting.owner_id, waiting.client
        )
        return [self._created(waiting.client, waiting.rid, copy)]

    def _end_restore(self, restore: Restore) -> list[Effect]:
        """A restore cannot have room in the arena: it gets a place on disk, or ends."""
        copy = restore.copy
        # Where the disk had no room for it already, there is no other place.
        offset = None if restore.in_overflow else self.space.allocate_overflow(copy.size)
        if offset is not None:
            self.spilling.reserve(restore, offset)
            return [self.spilling.begin_read(restore)]
        self.spilling.leave(copy)
        why = self._full(
            copy.object_id, copy.size, self._now - restore.since, self._holders(), spilled=True
        )
        return [
            Refuse(request.client, request.rid, why)
            for request in self._readers.refused(copy.object_id)
        ]

    def _patience(self, since: float) -> float:
        """Until when one waits for room who began ``since``."""
        until = max(since, self.spilling.progress_at) + self._rules.full_grace_s
        busy = self.spilling.busy_until(self._now)
        return until if busy is None else max(until, busy)

    def _restore_patience(self, restore: Restore) -> float:
        """Until when a restore waits for room in the arena. Not at all where nothing can be moved:
        all disks are full, or all that is there is in use, perhaps by the very reader who waits."""
        copies = self._copies
        movable = self.spilling.coming_bytes or copies.loose or copies.placed or copies.cached
        movable = movable or copies.spare
        if self.space.overflow is not None and (self.spilling.files.full() or not movable):
            return self._now
        return self._patience(restore.since)

    def _is_over(self, since: float) -> bool:
        return self._patience(since) <= self._now

    def _place(self, waiting: Waiting) -> Copy | None:
        offset = self._allocate(waiting.size)
        if offset is None:
            return None
        waiting.copy = self._copies.add(
            waiting.object_id, offset, waiting.size, waiting.owner_id, waiting.client
        )
        return waiting.copy

    def _created(self, client: bytes, rid: int, copy: Copy) -> Created:
        return Created(client, rid, copy.offset, tuple(self.space.cold_parts(copy.offset)))

    def _withdraw(self, waiting: Waiting) -> None:
        self._admission.remove(waiting)
        if waiting.copy is not None:
            self._copies.give_up(waiting.copy)

    def _cool(self, effects: list[Effect]) -> bool:
        due = self._cooling.due(self._allocator, self._now)
        if due is None or due[0] > self._now:
            return False
        ranges = self._allocator.cool(due[1], self._rules.cooling.punch_bytes_max)
        self._cooling.watch(self._allocator, self._now)
        if ranges:
            effects.append(Punch(tuple(ranges)))
        return bool(ranges)

    def _full(
        self, object_id: bytes, size: int, waited_s: float, holders: tuple[Holder, ...],
        *, spilled: bool = False,
    ) -> Full | OutOfDisk:  # fmt: skip
        files = self.spilling.files
        disks = files.full()
        if disks and waited_s:
            return OutOfDisk(
                object_id=object_id,
                requested_bytes=size,
                capacity_bytes=self.capacity_bytes,
                used_bytes=self.used_bytes,
                spilled_bytes=files.bytes,
                waited_s=waited_s,
                disks=disks,
                spilled=spilled,
            )
        return Full(
            object_id=object_id,
            requested_bytes=size,
            capacity_bytes=self.capacity_bytes,
            used_bytes=self.used_bytes,
            object_count=self.object_count,
            waited_s=waited_s,
            holders=holders,
            troubles=files.troubles(),
            spilled=spilled,
        )

    def _holders(self) -> tuple[Holder, ...]:
        return self._copies.biggest(_HOLDERS_SHOWN)
