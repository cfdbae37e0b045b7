"""The object store of one node: which objects are here, who reads them, who waits for room.

Owns the events of one deterministic machine over copies, readers and room (room.py): each method
is an event, takes ``now`` (monotonic seconds) and returns effects, to be performed in order before
the next event. Does not touch memory, disks or sockets: arena.py, disks.py and server.py do.

A process that has died is remembered: what it sent before may be read from the socket after its
death was seen, and must not leave anything behind.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from mray.node.objects.admission import WAITING_MAX, Waiting
from mray.node.objects.allocator import Allocator
from mray.node.objects.effects import (
    AnswerPins,
    Complain,
    Effect,
    Full,
    Holder,
    OutOfDisk,
    OwnerGone,
    Refuse,
)
from mray.node.objects.files import DiskFailure
from mray.node.objects.lifecycle import Copy
from mray.node.objects.readers import NOWHERE, PinRequest
from mray.node.objects.room import Room, StoreRules
from mray.wire.messages import Address

__all__ = ["ObjectStore", "StoreRules"]

#: How often a restore is tried for which the system had no pages.
_RESTORES_MAX = 3
#: Dead processes remembered. Their last messages arrive within milliseconds.
_DEAD_KEPT = 4096


class ObjectStore(Room):
    """The machine. ``allocator`` is fresh and belongs to it from now on."""

    def __init__(self, allocator: Allocator, rules: StoreRules) -> None:
        super().__init__(allocator, rules)
        #: Processes that have died, oldest first.
        self._dead: OrderedDict[bytes, None] = OrderedDict()
        #: Objects on their way here from other nodes: who wants to read them waits.
        self._coming: dict[bytes, None] = {}

    # --------------------------------------------------------------------------------- writing

    def create(
        self, client: bytes, rid: int, object_id: bytes, size: int, owner_id: bytes, now: float,
        *, on_disk: bool = False,
    ) -> list[Effect]:  # fmt: skip
        """A client wants to write an object of ``size`` bytes; ``on_disk``: in the overflow file,
        where there is one, since the system has no pages for it elsewhere.

        Answered by Created or Refuse, at once or when there is room or patience ends. Repeating the
        request repeats the answer. An older copy of the object is dropped. Raises ValueError for a
        negative size.
        """
        if size < 0:
            raise ValueError(f"object {object_id.hex()} cannot have {size} bytes")
        if client in self._dead:
            return []
        self._now = now
        if owner_id in self._dead:
            return [Refuse(client, rid, OwnerGone(object_id, owner_id))]
        too_big = self._allocator.rounded(size) > self._allocator.capacity_bytes
        if (too_big and self.space.overflow is None) or len(self._admission) >= WAITING_MAX:
            return [Refuse(client, rid, self._full(object_id, size, 0.0, self._holders()))]
        waiting = self._admission.find(client, object_id)
        if waiting is not None:
            if waiting.size == size:
                waiting.rid = rid
                return []
            self._withdraw(waiting)
        copy = self._copies.written_by(client, object_id)
        if copy is not None:
            if copy.size == size and not copy.dropped:
                return [self._created(client, rid, copy)]
            # A process writes an object once at a time: it gave the former attempt up.
            self._copies.give_up(copy)
        older = self._copies.current(object_id)
        if older is not None:
            self._copies.drop(older)
        deadline = now + self._rules.full_grace_s
        waiting = Waiting(client, rid, object_id, size, owner_id, now, deadline)
        if too_big or (on_disk and self.space.overflow is not None):
            return self._admit(self._overflow(waiting))
        self._admission.append(waiting)
        return self._admit([])

    def seal(self, client: bytes, object_id: bytes, now: float) -> list[Effect]:
        """The writer is done: the bytes are final and every page of them was claimed."""
        if client in self._dead:
            return []
        self._now = now
        copy = self._copies.written_by(client, object_id)
        if copy is None or self._admission.find(client, object_id) is not None:
            return [Complain(client, f"sealed {object_id.hex()}, which it does not write")]
        self._copies.seal(copy)
        return self._admit(self._answer_readers(object_id))

    def abort(
        self, client: bytes, object_id: bytes, now: float, *, no_space: bool = False
    ) -> list[Effect]:
        """The writer gives up; nothing happens if it does not write the object.

        ``no_space``: the system had no pages for it, so all free pages of the store are given back,
        and as many of objects that can go to disk.
        """
        if client in self._dead:
            return []
        self._now = now
        waiting = self._admission.find(client, object_id)
        if waiting is not None:
            self._withdraw(waiting)
        copy = self._copies.written_by(client, object_id)
        if copy is not None:
            if no_space and copy.offset < self.space.base:
                self._no_pages(copy.size)
            self._copies.give_up(copy)
        return self._admit(self._answer_readers(object_id))

    # --------------------------------------------------------------------------------- reading

    def pin(self, client: bytes, rid: int, object_ids: Sequence[bytes], now: float) -> list[Effect]:
        """A client wants to read objects: each sealed one is pinned once per mention.

        Answered by AnswerPins, at once unless one of them is being written or has to come from
        disk, or by Refuse where there is no room for that. Repeating the request (same ``rid``)
        repeats the answer and pins nothing.
        """
        if client in self._dead or self._readers.waits(client, rid):
            return []
        self._now = now
        answered = self._readers.answered(client, rid)
        if answered is not None:
            return [answered]
        places: list[tuple[int, int]] = []
        missing: dict[bytes, None] = {}
        lost: dict[bytes, str] = {}
        for object_id in object_ids:
            copy = self._copies.current(object_id)
            if copy is not None and copy.here:
                places.append(self._copies.pin(copy, client))
                continue
            places.append(NOWHERE)
            if copy is not None:
                missing[object_id] = None
                if copy.sealed:
                    self.spilling.want(copy, now)
            elif object_id in self._coming:
                missing[object_id] = None
            elif object_id in self.spilling.lost:
                lost[object_id] = self.spilling.lost[object_id]
        deadline = now + self._rules.seal_wait_s
        request = PinRequest(client, rid, tuple(object_ids), places, missing, deadline)
        request.lost = lost
        if missing:
            self._readers.add(request)
            return self._admit([])
        return [self._answer(request)]

    def unpin(self, client: bytes, pins: Sequence[tuple[bytes, int]], now: float) -> list[Effect]:
        """A client gives pins back: (object, how many). Raises ValueError for a count below 1.

        It may name more than it holds: whoever stopped waiting for an answer does not know whether
        there was one. A pin that it still waits for is not taken any more.
        """
        for object_id, count in pins:
            if count < 1:
                raise ValueError(f"object {object_id.hex()} cannot be unpinned {count} times")
        if client in self._dead:
            return []
        self._now = now
        for object_id, count in pins:
            if self._copies.unpin(client, object_id, count) < count:
                self._readers.withdraw(client, object_id)
        return self._admit([])

    # --------------------------------------------------------------------------------- freeing

    def free(self, client: bytes, object_ids: Iterable[bytes], now: float) -> list[Effect]:
        """The owner's last references are gone. What is read or written goes after that."""
        self._now = now
        effects: list[Effect] = []
        for object_id in object_ids:
            copy = self._copies.current(object_id)
            if copy is None:
                continue
            if copy.owner_id != client:
                text = f"freed {object_id.hex()}, which {copy.owner_id.hex()} owns"
                effects.append(Complain(client, text))
                continue
            self._copies.drop(copy)
            effects += self._answer_readers(object_id)
        return self._admit(effects)

    def client_died(self, client: bytes, now: float) -> list[Effect]:
        """A process of this node is gone: its pins and what it was writing go with it.

        Its own objects stay until ``owner_died``. Only for a process that can write no more.
        """
        self._now = now
        self._remember_dead(client)
        for waiting in self._admission.of_client(client):
            self._withdraw(waiting)
        self._readers.forget_client(client)
        effects: list[Effect] = []
        for copy in self._copies.of_writer(client):
            self._copies.give_up(copy)
            effects += self._answer_readers(copy.object_id)
        self._copies.forget_client(client)
        return self._admit(effects)

    def owner_died(self, owner_id: bytes, now: float) -> list[Effect]:
        """A process anywhere is gone: the objects it owned are freed."""
        self._now = now
        self._remember_dead(owner_id)
        effects: list[Effect] = []
        for waiting in self._admission.of_owner(owner_id):
            self._withdraw(waiting)
            why = OwnerGone(waiting.object_id, owner_id)
            effects.append(Refuse(waiting.client, waiting.rid, why))
        for copy in self._copies.of_owner(owner_id):
            self._copies.drop(copy)
            effects += self._answer_readers(copy.object_id)
        return self._admit(effects)

    # ------------------------------------------------------------------------------ other nodes

    def has(self, object_id: bytes) -> bool:
        """Whether the object is here, on disk, or being written."""
        return self._copies.current(object_id) is not None

    def current(self, object_id: bytes) -> Copy | None:
        """The copy that new readers get, for looking."""
        return self._copies.current(object_id)

    def is_awaited(self, object_id: bytes) -> bool:
        """Whether anybody waits to read it."""
        return self._readers.has(object_id)

    def expect(self, object_id: bytes) -> None:
        """An object will come from another node: have readers wait until ``seal_further`` or
        ``not_coming``."""
        self._coming[object_id] = None

    def seal_further(
        self, client: bytes, object_id: bytes, owner: Address, now: float
    ) -> list[Effect]:
        """As ``seal``, of a copy of an object whose primary copy is elsewhere."""
        self._coming.pop(object_id, None)
        copy = self._copies.written_by(client, object_id)
        if copy is not None:
            copy.further = owner
        return self.seal(client, object_id, now)

    def hold(self, client: bytes, object_id: bytes) -> int | None:
        """Pin a copy that is here for whoever sends it to other nodes; where its bytes begin.
        None for one that is not here. It ends with ``unpin``."""
        copy = self._copies.current(object_id)
        if copy is None or not copy.here:
            return None
        return self._copies.pin(copy, client)[0]

    def has_room(self, size: int) -> bool:
        """Whether an object fits without a wait, and without anything written to disk."""
        wanted = self._allocator.rounded(size) - (self.capacity_bytes - self.used_bytes)
        if wanted <= 0:
            return True
        spare = self._copies.spare.values()
        return sum(self._allocator.rounded(copy.size) for copy in spare) >= wanted

    def owners(self) -> list[bytes]:
        """Who owns what is here."""
        return self._copies.owners()

    def not_coming(
        self, object_id: bytes, reason: str, why: Full | OutOfDisk | OwnerGone | None, now: float
    ) -> list[Effect]:
        """An object will not come: who waits hears ``reason``, or is refused because of ``why``."""
        self._now = now
        self._coming.pop(object_id, None)
        if self._copies.current(object_id) is not None:
            return self._admit(self._answer_readers(object_id))
        if why is not None:
            refused = self._readers.refused(object_id)
            return self._admit([Refuse(one.client, one.rid, why) for one in refused])
        effects: list[Effect] = []
        for request in self._readers.of_object(object_id):
            request.lost[object_id] = reason
            if not request.missing:
                effects.append(self._answer(request))
        return self._admit(effects)

    def promote(self, object_ids: Iterable[bytes], now: float) -> tuple[list[Effect], list[bytes]]:
        """Copies of these are the primary ones from now on; also returns those not here."""
        self._now = now
        missing = []
        for object_id in object_ids:
            copy = self._copies.current(object_id)
            if copy is None or not copy.sealed:
                missing.append(object_id)
            elif copy.further is not None:
                self._copies.promote(copy)
        return self._admit([]), missing

    # ------------------------------------------------------------------------------------ disk

    def places_given_up(
        self, owner: bytes, rid: int, object_ids: Iterable[bytes], now: float
    ) -> list[Effect]:
        """An owner has forgotten the places of these objects, of those that it was asked for."""
        self._now = now
        self.spilling.given_up(owner, rid, object_ids, now)
        return self._admit([])

    def spill_written(
        self, file: int, crcs: Sequence[int], took_s: float, now: float
    ) -> list[Effect]:
        """A WriteSpill is done; checksums in the order of its parts."""
        self._now = now
        if self.spilling.threshold_bytes < self.spilling.usual_threshold_bytes:
            self._cooling.pressed = True
        return self._admit(self.spilling.written(file, crcs, took_s, now))

    def spill_failed(self, file: int, failure: DiskFailure, now: float) -> list[Effect]:
        """A WriteSpill failed, and nothing of it is left."""
        self._now = now
        return self._admit(self.spilling.write_failed(file, failure, now))

    def spill_read(self, number: int, took_s: float, now: float) -> list[Effect]:
        """A ReadSpill is done, the checksum was right."""
        self._now = now
        return self._admit(self._answer_readers(self.spilling.read(number, took_s).object_id))

    def spill_read_failed(self, number: int, reason: str, now: float) -> list[Effect]:
        """The bytes of a ReadSpill are not to be had: the object is lost."""
        self._now = now
        copy, lost = self.spilling.read_failed(number, reason)
        return self._admit([*self._answer_readers(copy.object_id), *lost])

    def spill_read_no_space(self, number: int, now: float) -> list[Effect]:
        """The system had no pages for a ReadSpill."""
        self._now = now
        restore = self.spilling.read_no_space(number)
        effects: list[Effect] = []
        if not restore.copy.dropped:
            if not restore.in_overflow:
                self._no_pages(restore.copy.size)
            if restore.attempts >= _RESTORES_MAX or restore.in_overflow:
                effects += self._end_restore(restore)
        return self._admit(effects)

    # ------------------------------------------------------------------------------------ time

    def press(self, now: float, spill_bytes: int = 0) -> list[Effect]:
        """Memory is short: give every free page back, bit by bit, before anything new is made.

        ``spill_bytes``: have so much of what is used moved to disk as well, as far as it can be,
        and no more than what is then left be held in memory until ``relax``.
        """
        self._now = now
        self._cooling.pressed = True
        if spill_bytes > 0:
            for copy in list(self._copies.spare.values()):
                self._copies.evict(copy)
        if spill_bytes > 0 and self.spilling.enabled:
            for copy in list(self._copies.cached.values()):
                self._copies.vacate(copy)
            keep_bytes = max(0, self.used_bytes - spill_bytes)
            self.spilling.threshold_bytes = min(self.spilling.threshold_bytes, keep_bytes)
        return self._admit([])

    def relax(self, now: float) -> list[Effect]:
        """Memory is fine again: hold as much as the rules allow."""
        self._now = now
        self.spilling.threshold_bytes = self.spilling.usual_threshold_bytes
        return self._admit([])

    @property
    def is_giving_back(self) -> bool:
        """Whether memory is still on its way back to the system."""
        return self._cooling.pressed or self.spilling.coming_bytes > 0

    def tick(self, now: float) -> list[Effect]:
        """Time has passed: ends waits that were long enough, cools one bit of what is due."""
        self._now = now
        effects: list[Effect] = []
        self.spilling.tick(now)
        cooled = self._cool(effects)
        self._admit(effects, may_cool=not cooled)
        while (restore := self.spilling.head()) is not None and not restore.copy.restoring:
            if self._restore_patience(restore) > now:
                break
            effects += self._end_restore(restore)
            self._admit(effects, may_cool=False)
        holders: tuple[Holder, ...] | None = None
        while (head := self._admission.head) is not None and self._is_over(head.since):
            if head.copy is not None:
                break
            self._admission.remove(head)
            if self.space.overflow is not None and not self.spilling.files.full():
                effects += self._overflow(head)
            else:
                holders = self._holders() if holders is None else holders
                why = self._full(head.object_id, head.size, now - head.since, holders)
                effects.append(Refuse(head.client, head.rid, why))
            self._admit(effects, may_cool=False)
        effects += [
            self._answer(request) for request in self._readers.expired(now, self._is_coming)
        ]
        return effects

    def deadline(self) -> float | None:
        """When to call ``tick``: a time not after the last event means at once."""
        cooling = self._cooling.due(self._allocator, self._now)
        spilling = self.spilling
        times = [self._readers.deadline, cooling and cooling[0], spilling.deadline()]
        if self._admission.entries:
            head = self._admission.head
            if head is not None and head.copy is None:
                times.append(self._patience(head.since))
        if spilling.queue:
            restore = spilling.head()
            if restore is not None and not restore.copy.restoring:
                times.append(self._restore_patience(restore))
        return min((time for time in times if time is not None), default=None)

    # --------------------------------------------------------------------------------- looking

    @property
    def warm_bytes(self) -> int:
        """Free memory that the store still holds."""
        return self._allocator.warm_bytes

    def copies(self) -> list[Copy]:
        """All copies, for inspection only."""
        return self._copies.all()

    def copy_at(self, offset: int) -> Copy:
        """The copy whose range begins there. KeyError if there is none."""
        for copy in self._copies.all():
            if copy.offset == offset:
                return copy
        raise KeyError(offset)

    def check(self) -> None:
        """Raise InvariantError if the state contradicts itself."""
        self._copies.check()
        self._readers.check()
        self.spilling.check()

    # --------------------------------------------------------------------------------- private

    def _remember_dead(self, process: bytes) -> None:
        self._dead[process] = None
        if len(self._dead) > _DEAD_KEPT:
            self._dead.popitem(last=False)

    def _is_coming(self, object_id: bytes) -> bool:
        if object_id in self._coming:
            return True
        copy = self._copies.current(object_id)
        return copy is not None and copy.sealed and not copy.here

    def _answer_readers(self, object_id: bytes) -> list[Effect]:
        """If the object is sealed now, or will not be, tell those who waited for it."""
        copy = self._copies.current(object_id)
        # Of one that is on its way here they will hear in either case, with the reason.
        if not copy.here if copy is not None else object_id in self._coming:
            return []
        effects: list[Effect] = []
        for request in self._readers.of_object(object_id):
            if copy is None:
                if object_id in self.spilling.lost:
                    request.lost[object_id] = self.spilling.lost[object_id]
            else:
                for at, wanted in enumerate(request.object_ids):
                    if wanted == object_id:
                        request.places[at] = self._copies.pin(copy, request.client)
            if not request.missing:
                effects.append(self._answer(request))
        return effects

    def _answer(self, request: PinRequest) -> AnswerPins:
        answer = AnswerPins(request.client, request.rid, tuple(request.places), request.reasons)
        self._readers.note_answer(answer)
        return answer
