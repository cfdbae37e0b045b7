"""What goes to disk and when, what comes back, and what an owner is asked first.

Owns writes and restores under way, the questions to owners, the totals. Decides only: effects go
to the shell, results come back as events. Does not answer clients: store.py does.

Room is made in this order: further copies of what other nodes keep go; what is on disk already just
leaves memory; what nobody reads by its place is written, longest unused first; then owners of what
they read by its place are asked to forget it. Only a copy that nobody uses is chosen. A pin or a
free that comes while it is written is served: a pinned copy stays in memory and has a place on disk
as well, a freed one is deleted.

The owner of an object that it wrote itself reads it by its place, without asking. So its bytes may
leave their range only after the owner has said that it forgot the place. From then on it pins as
everybody else does. An owner that is slow to answer, or refuses since it reads the bytes, is passed
over and asked again, ever later. What it says late, or unasked, counts all the same, for it never
takes a place back: an owner that refused says so as soon as it can.

Reads come before writes (one thread of the pool is kept for them), and restores take room before
creates do: who reads ends sooner and then frees something.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import msgspec

from mray.machine import InvariantError
from mray.node.objects.copies import Copies
from mray.node.objects.effects import AskPlaces, Effect, ReadSpill, TellLost, WriteSpill
from mray.node.objects.files import SLOT_ALIGNMENT, DiskFailure, Files, Slot
from mray.node.objects.lifecycle import Copy
from mray.node.objects.space import Space
from mray.units import MIB

#: Objects of this size have a file of their own.
_OWN_FILE_BYTES = MIB
#: Copies whose owners refused lately that one round looks at.
_PASSED_OVER_MAX = 256
#: How many lost objects are remembered, for what to say of them.
_LOST_KEPT = 4096


class SpillRules(msgspec.Struct, frozen=True, kw_only=True):
    """How objects are spilled. ``disks``: directories and URLs; none turns it off."""

    disks: tuple[str, ...] = ()
    #: Share of the capacity above which objects are written ahead of need.
    threshold: float = 0.8
    #: What is written in one go where there is as much, in bytes; an eighth of the store at most.
    batch_bytes: int = 100 * MIB
    file_bytes_max: int = 256 * MIB
    fused_max: int = 2000
    #: What all files may take together; None for no limit.
    bytes_max: int | None = None
    #: Threads of the pool.
    workers: int = 4
    #: How long an owner may take to answer, and how long it is left alone after a refusal: twice
    #: as long after each further one of the same object, up to the maximum.
    place_wait_s: float = 1.0
    place_wait_max_s: float = 30.0
    #: How long a disk is left alone after a failure.
    retry_s: float = 1.0
    #: A write that takes longer does not keep creates waiting.
    patience_s: float = 30.0


class Totals(msgspec.Struct):
    """Figures since the start. Seconds are those of all threads."""

    spilled_bytes: int = 0
    spilled_objects: int = 0
    spill_s: float = 0.0
    restored_bytes: int = 0
    restored_objects: int = 0
    restore_s: float = 0.0


class _Write:
    """A file being written."""

    __slots__ = ("bytes", "copies", "disk", "places", "rounded", "since")

    def __init__(self, disk: int, since: float) -> None:
        self.disk = disk
        self.since = since
        self.copies: list[Copy] = []
        #: Where each object begins in the file.
        self.places: list[int] = []
        self.bytes = 0
        #: The room that it makes.
        self.rounded = 0


class Restore:
    """A copy that is wanted back in memory."""

    __slots__ = ("attempts", "copy", "in_overflow", "since")

    def __init__(self, copy: Copy, since: float) -> None:
        self.copy = copy
        self.since = since
        #: How often the system had no pages for it, and whether that was on disk.
        self.attempts = 0
        self.in_overflow = False


class Spilling:
    """See the module."""

    def __init__(self, rules: SpillRules, copies: Copies, space: Space) -> None:
        self.rules = rules
        self._copies = copies
        copies.before_drop = self.leave
        self._space = space
        self.files = Files(rules.disks, rules.bytes_max)
        self.totals = Totals()
        #: Restores that wait for room, first come first served.
        self.queue: OrderedDict[bytes, Restore] = OrderedDict()
        #: What they take, in whole pages.
        self.queue_bytes = 0
        #: Pages that the system did not have: to be given back before anything new is made.
        self.shortage = 0
        #: Why objects of late are not to be had any more.
        self.lost: OrderedDict[bytes, str] = OrderedDict()
        #: When a write last ended well: whoever waits for room has reason to wait on.
        self.progress_at = float("-inf")
        capacity = space.arena.capacity_bytes
        #: Above it objects are moved to disk unasked; less than usual while memory is short.
        self.threshold_bytes = int(capacity * rules.threshold) if rules.disks else capacity
        self.usual_threshold_bytes = self.threshold_bytes
        self._batch_bytes = min(rules.batch_bytes, capacity // 8)
        self._writes: dict[int, _Write] = {}
        self._reads: dict[int, Restore] = {}
        self._numbers = 0
        #: Copies in question at each owner, by request: (owner, copies, deadline).
        self._asked: OrderedDict[int, tuple[bytes, dict[bytes, Copy], float]] = OrderedDict()
        #: What writes and answers under way will free.
        self.coming_bytes = 0
        #: When there may be more to choose from than now.
        self._again_at: float | None = None

    @property
    def enabled(self) -> bool:
        """Whether there is a place to spill to."""
        return bool(self.rules.disks)

    def busy_until(self, now: float) -> float | None:
        """Until when a write under way is worth waiting for; None without one."""
        if not self._writes:
            return None
        until = next(iter(self._writes.values())).since + self.rules.patience_s
        return until if until > now else None

    # ------------------------------------------------------------------------------------- room

    def make_room(self, wanted: int, now: float) -> list[Effect]:
        """Have ``wanted`` bytes of the arena come free, and what the threshold asks for.

        Some are free on return; others when writes and answers have come.
        """
        wanted = self._evict(wanted)
        for copy in list(self._copies.cached.values()) if wanted > 0 else ():
            if wanted <= 0:
                break
            length = self._space.rounded(copy.size)
            self._copies.vacate(copy)
            wanted -= length
            self.shortage = max(0, self.shortage - length)
        if not self.enabled:
            return []
        used = self._space.arena.used_bytes - self._copies.cached_bytes
        demand = max(wanted, used - self.threshold_bytes) - self.coming_bytes
        demand = self._evict(demand)
        self._again_at = None
        if demand <= 0:
            return []
        return self._start_writes(demand, now)

    def _evict(self, wanted: int) -> int:
        """Have further copies go; how much of ``wanted`` is left."""
        for copy in list(self._copies.spare.values()) if wanted > 0 else ():
            if wanted <= 0:
                break
            length = self._space.rounded(copy.size)
            self._copies.evict(copy)
            wanted -= length
            self.shortage = max(0, self.shortage - length)
        return wanted

    def _start_writes(self, demand: int, now: float) -> list[Effect]:
        effects: list[Effect] = []
        goal = max(demand, self._batch_bytes)
        files_max = max(1, self.rules.workers - 1)
        while goal > 0 and self._copies.loose and len(self._writes) < files_max:
            disk = self.files.choose(now)
            if disk is None:
                break
            write = self._compose(disk, goal, now)
            if write is None:
                # The limit: as if the disk were full.
                text = f"spill_max_bytes ({self.rules.bytes_max} bytes) is reached"
                for number in range(len(self.files.disks)):
                    failure = DiskFailure(True, text)
                    effects += self.files.failed(number, failure, now + self.rules.retry_s)
                break
            goal -= write.rounded
            file = self.files.new_file()
            self._writes[file] = write
            self.coming_bytes += write.rounded
            self.files.reserved += write.bytes
            parts = tuple(
                (copy.offset, copy.size, at)
                for copy, at in zip(write.copies, write.places, strict=True)
            )
            effects.append(WriteSpill(file, disk, parts))
            if self.files.disks[disk].failure is not None:
                break  # One try at a time where the last one failed.
        if self.files.choose(now) is None:
            self._again_at = self.files.retry_at()
        elif goal > 0 and not self._copies.loose and len(self._writes) < files_max:
            effects += self._ask(goal, now)
        return effects

    def _compose(self, disk: int, goal: int, now: float) -> _Write | None:
        """One file's objects; None when the limit leaves room for none."""
        write = _Write(disk, now)
        rules = self.rules
        for copy in self._copies.loose.values():
            alone = copy.size >= _OWN_FILE_BYTES
            at = -(-write.bytes // SLOT_ALIGNMENT) * SLOT_ALIGNMENT
            if write.copies and alone:
                continue
            if write.copies and at + copy.size > rules.file_bytes_max:
                break
            if not self.files.fits(write.bytes + copy.size):
                break
            write.copies.append(copy)
            write.places.append(at)
            write.bytes = at + copy.size
            write.rounded += self._space.rounded(copy.size)
            if alone or write.rounded >= goal or len(write.copies) >= rules.fused_max:
                break
        for copy in write.copies:
            copy.spilling = True
            self._copies.track(copy)
        return write if write.copies else None

    def _ask(self, goal: int, now: float) -> list[Effect]:
        """Have owners forget places until ``goal`` is met."""
        by_owner: dict[bytes, dict[bytes, Copy]] = {}
        passed_over = 0
        for copy in self._copies.placed.values():
            if goal <= 0:
                break
            if copy.ask_after > now:
                again = self._again_at
                self._again_at = copy.ask_after if again is None else min(again, copy.ask_after)
                passed_over += 1
                if passed_over >= _PASSED_OVER_MAX:
                    break
                continue
            by_owner.setdefault(copy.owner_id, {})[copy.object_id] = copy
            goal -= self._space.rounded(copy.size)
        effects: list[Effect] = []
        for owner, copies in by_owner.items():
            self._numbers += 1
            self._asked[self._numbers] = (owner, copies, now + self.rules.place_wait_s)
            for copy in copies.values():
                copy.asked = True
                self._copies.track(copy)
                self.coming_bytes += self._space.rounded(copy.size)
            effects.append(AskPlaces(owner, self._numbers, tuple(copies)))
        return effects

    # ----------------------------------------------------------------------------------- owners

    def given_up(self, owner: bytes, rid: int, object_ids: Iterable[bytes], now: float) -> None:
        """An owner has forgotten the places of these objects, and only of these."""
        for object_id in object_ids:
            copy = self._copies.current(object_id)
            if copy is not None and copy.sealed and copy.owner_id == owner:
                copy.by_place = False
                self._copies.track(copy)
        asked = self._asked.get(rid)
        if asked is not None and asked[0] == owner:
            del self._asked[rid]
            self._end_question(asked[1], now)

    def _end_question(self, copies: dict[bytes, Copy], now: float) -> None:
        for copy in copies.values():
            copy.asked = False
            longer = max(self.rules.place_wait_s, 2 * copy.ask_wait_s)
            copy.ask_wait_s = min(longer, self.rules.place_wait_max_s)
            copy.ask_after = now + copy.ask_wait_s
            self.coming_bytes -= self._space.rounded(copy.size)
            self._copies.track(copy)

    # ----------------------------------------------------------------------------------- writes

    def written(self, file: int, crcs: Iterable[int], took_s: float, now: float) -> list[Effect]:
        """A file is complete. KeyError for one that is not being written."""
        write = self._end_write(file)
        self.progress_at = now
        totals = self.totals
        totals.spill_s += took_s
        effects = self.files.worked(write.disk, now)
        for copy, at, crc in zip(write.copies, write.places, crcs, strict=True):
            slot = Slot(write.disk, file, at, copy.size, crc)
            self.files.add(slot)
            totals.spilled_bytes += copy.size
            totals.spilled_objects += 1
            copy.spilling = False
            if copy.dropped:
                # Readers that are left keep the range; nobody will ever need the slot.
                self._copies.slots_gone.append(slot)
                continue
            copy.slot = slot
            if not copy.in_use:
                self.shortage = max(0, self.shortage - self._space.rounded(copy.size))
                self._copies.vacate(copy)
        return effects

    def write_failed(self, file: int, failure: DiskFailure, now: float) -> list[Effect]:
        """A file could not be written; nothing of it is left. KeyError as in ``written``."""
        write = self._end_write(file)
        for copy in write.copies:
            copy.spilling = False
            self._copies.track(copy)
        return self.files.failed(write.disk, failure, now + self.rules.retry_s)

    def _end_write(self, file: int) -> _Write:
        write = self._writes.pop(file)
        self.coming_bytes -= write.rounded
        self.files.reserved -= write.bytes
        return write

    # --------------------------------------------------------------------------------- restores

    def want(self, copy: Copy, now: float) -> None:
        """Somebody reads a copy that is only on disk."""
        if copy.offset >= 0:
            return
        if copy.object_id not in self.queue:
            self.queue[copy.object_id] = Restore(copy, now)
            self.queue_bytes += self._space.rounded(copy.size)

    def head(self) -> Restore | None:
        """Whose turn it is to get room."""
        return next(iter(self.queue.values()), None)

    def leave(self, copy: Copy) -> None:
        """A copy waits no more for room, if it does: it goes, or there is none."""
        if self.queue.pop(copy.object_id, None) is not None:
            self.queue_bytes -= self._space.rounded(copy.size)
            if copy.restoring:
                self._copies.vacate(copy)

    def reserve(self, restore: Restore, offset: int) -> None:
        """A restore has a range."""
        restore.copy.offset = offset
        restore.copy.restoring = True

    def begin_read(self, restore: Restore) -> Effect:
        """A restore's range may be filled."""
        copy = restore.copy
        slot = copy.slot
        if slot is None:
            raise InvariantError(f"{copy.object_id.hex()} is restored from nowhere")
        del self.queue[copy.object_id]
        self.queue_bytes -= self._space.rounded(copy.size)
        self._numbers += 1
        self._reads[self._numbers] = restore
        return ReadSpill(
            self._numbers, slot.disk, slot.file, slot.at, slot.size, slot.crc, copy.offset
        )

    def read(self, number: int, took_s: float) -> Copy:
        """A range has its bytes. KeyError for a read that is not under way."""
        restore = self._reads.pop(number)
        self.totals.restored_bytes += restore.copy.size
        self.totals.restored_objects += 1
        self.totals.restore_s += took_s
        self._copies.settle(restore.copy)
        return restore.copy

    def read_failed(self, number: int, reason: str) -> tuple[Copy, list[Effect]]:
        """A copy's bytes are not on disk as they should be: it is lost."""
        copy = self._reads.pop(number).copy
        if copy.dropped:
            self._copies.settle(copy)
            return copy, []
        self.lost[copy.object_id] = reason
        if len(self.lost) > _LOST_KEPT:
            self.lost.popitem(last=False)
        self._copies.vacate(copy)
        self._copies.drop(copy)
        return copy, [TellLost(copy.owner_id, copy.object_id, reason)]

    def read_no_space(self, number: int) -> Restore:
        """The system had no pages for a range: the restore waits again, before all others."""
        restore = self._reads.pop(number)
        copy = restore.copy
        if copy.dropped:
            self._copies.settle(copy)
            return restore
        restore.attempts += 1
        restore.in_overflow = copy.offset >= self._space.base
        self._copies.vacate(copy)
        self.queue[copy.object_id] = restore
        self.queue_bytes += self._space.rounded(copy.size)
        self.queue.move_to_end(copy.object_id, last=False)
        return restore

    # ------------------------------------------------------------------------------------- time

    def tick(self, now: float) -> None:
        """Ends questions that an owner did not answer in time."""
        while self._asked:
            rid, (_, copies, deadline) = next(iter(self._asked.items()))
            if deadline > now:
                break
            del self._asked[rid]
            self._end_question(copies, now)
        if self._again_at is not None and self._again_at <= now:
            self._again_at = None

    def deadline(self) -> float | None:
        """When to call ``tick``."""
        if not self._asked:
            return self._again_at
        first = next(iter(self._asked.values()), None)
        times = [self._again_at, first[2] if first is not None else None]
        return min((time for time in times if time is not None), default=None)

    def check(self) -> None:
        """Raise InvariantError if what is under way is noted wrong."""
        coming = sum(write.rounded for write in self._writes.values())
        asked = [copy for _, copies, _ in self._asked.values() for copy in copies.values()]
        coming += sum(self._space.rounded(copy.size) for copy in asked)
        if coming != self.coming_bytes:
            raise InvariantError(f"{coming} bytes are to come free, {self.coming_bytes} noted")
        spilling = [copy for write in self._writes.values() for copy in write.copies]
        reading = [restore.copy for restore in self._reads.values()]
        reading += [one.copy for one in self.queue.values() if one.copy.restoring]
        slots = list(self._copies.slots_gone)
        for copy in self._copies.all():
            if copy.spilling != (copy in spilling) or copy.restoring != (copy in reading):
                raise InvariantError(f"{copy.object_id.hex()} is {copy.state}, and nobody does it")
            if copy.asked != (copy in asked):
                raise InvariantError(f"{copy.object_id.hex()} is asked for, and nobody asks")
            if copy.slot is not None:
                slots.append(copy.slot)
        self.files.check(slots)
        queued = sum(self._space.rounded(one.copy.size) for one in self.queue.values())
        if queued != self.queue_bytes:
            raise InvariantError(f"{queued} bytes wait to be restored, {self.queue_bytes} noted")
        for object_id, restore in self.queue.items():
            if self._copies.current(object_id) is not restore.copy:
                raise InvariantError(f"{object_id.hex()} waits to be restored, and is not known")
