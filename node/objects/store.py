"""The object store of one node: which objects are here, who reads them, who waits for room.

Owns copies, admission, readers and cooling as one deterministic machine (mray.machine): each method
is an event, takes ``now`` (monotonic seconds) and returns effects, to be performed in order before
the next event. Does not touch memory or sockets: arena.py and server.py do.

A process that has died is remembered: what it sent before may be read from the socket after its
death was seen, and must not leave anything behind.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import msgspec

from mray.node.objects.admission import WAITING_MAX, Admission, Waiting
from mray.node.objects.allocator import Allocator
from mray.node.objects.cooling import Cooling, CoolingRules
from mray.node.objects.copies import Copies
from mray.node.objects.effects import (
    AnswerPins,
    Complain,
    Created,
    Effect,
    Full,
    Holder,
    OwnerGone,
    Punch,
    Refuse,
)
from mray.node.objects.lifecycle import Copy
from mray.node.objects.readers import NOWHERE, PinRequest, Readers

_HOLDERS_SHOWN = 5
#: Dead processes remembered. Their last messages arrive within milliseconds.
_DEAD_KEPT = 4096


class StoreRules(msgspec.Struct, frozen=True, kw_only=True):
    """How the store behaves."""

    cooling: CoolingRules
    #: How long a create waits for room before it is refused.
    full_grace_s: float = 2.0
    #: How long a pin waits for a writer to seal before it is told that the object is not here.
    seal_wait_s: float = 2.0


class ObjectStore:
    """The machine. ``allocator`` is fresh and belongs to it from now on."""

    def __init__(self, allocator: Allocator, rules: StoreRules) -> None:
        self._allocator = allocator
        self._rules = rules
        self._copies = Copies(allocator)
        self._cooling = Cooling(rules.cooling)
        self._admission = Admission()
        self._readers = Readers()
        #: Processes that have died, oldest first.
        self._dead: OrderedDict[bytes, None] = OrderedDict()
        #: When the last event came.
        self._now = 0.0

    # --------------------------------------------------------------------------------- writing

    def create(
        self, client: bytes, rid: int, object_id: bytes, size: int, owner_id: bytes, now: float
    ) -> list[Effect]:
        """A client wants to write an object of ``size`` bytes.

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
        if too_big or len(self._admission) >= WAITING_MAX:
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
        self._admission.append(Waiting(client, rid, object_id, size, owner_id, now, deadline))
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

        ``no_space``: the system had no pages for it, so all free pages of the store are given back.
        """
        if client in self._dead:
            return []
        self._now = now
        waiting = self._admission.find(client, object_id)
        if waiting is not None:
            self._withdraw(waiting)
        copy = self._copies.written_by(client, object_id)
        if copy is not None:
            self._copies.give_up(copy)
        if no_space:
            self._cooling.pressed = True
        return self._admit(self._answer_readers(object_id))

    # --------------------------------------------------------------------------------- reading

    def pin(self, client: bytes, rid: int, object_ids: Sequence[bytes], now: float) -> list[Effect]:
        """A client wants to read objects: each sealed one is pinned once per mention.

        Answered by AnswerPins, at once unless one of them is being written. Repeating the request
        (same ``rid``) repeats the answer and pins nothing.
        """
        if client in self._dead or self._readers.waits(client, rid):
            return []
        self._now = now
        answered = self._readers.answered(client, rid)
        if answered is not None:
            return [AnswerPins(client, rid, answered)]
        places: list[tuple[int, int]] = []
        missing: dict[bytes, None] = {}
        for object_id in object_ids:
            copy = self._copies.current(object_id)
            if copy is not None and copy.sealed:
                places.append(self._copies.pin(copy, client))
                continue
            places.append(NOWHERE)
            if copy is not None:
                missing[object_id] = None
        deadline = now + self._rules.seal_wait_s
        request = PinRequest(client, rid, tuple(object_ids), places, missing, deadline)
        if missing:
            self._readers.add(request)
            return []
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

    # ------------------------------------------------------------------------------------ time

    def press(self, now: float) -> list[Effect]:
        """Memory is short: give every free page back, bit by bit, before anything new is made."""
        self._now = now
        self._cooling.pressed = True
        return self._admit([])

    def tick(self, now: float) -> list[Effect]:
        """Time has passed: ends waits that were long enough, cools one bit of what is due."""
        self._now = now
        effects: list[Effect] = []
        cooled = self._cool(effects)
        self._admit(effects, may_cool=not cooled)
        holders: tuple[Holder, ...] | None = None
        while (head := self._admission.head) is not None:
            if head.copy is not None or head.deadline > now:
                break
            holders = self._holders() if holders is None else holders
            self._admission.remove(head)
            why = self._full(head.object_id, head.size, now - head.since, holders)
            effects.append(Refuse(head.client, head.rid, why))
            self._admit(effects, may_cool=False)
        effects += [self._answer(request) for request in self._readers.expired(now)]
        return effects

    def deadline(self) -> float | None:
        """When to call ``tick``: a time not after the last event means at once."""
        cooling = self._cooling.due(self._allocator, self._now)
        times = [self._admission.deadline, self._readers.deadline, cooling and cooling[0]]
        return min((time for time in times if time is not None), default=None)

    # --------------------------------------------------------------------------------- looking

    @property
    def capacity_bytes(self) -> int:
        """The most that objects may take."""
        return self._allocator.capacity_bytes

    @property
    def used_bytes(self) -> int:
        """What objects take, in whole pages."""
        return self._allocator.used_bytes

    @property
    def warm_bytes(self) -> int:
        """Free memory that the store still holds."""
        return self._allocator.warm_bytes

    @property
    def object_count(self) -> int:
        """Objects here, sealed or being written."""
        return len(self._copies)

    def copies(self) -> list[Copy]:
        """All copies, for inspection only."""
        return self._copies.all()

    def check(self) -> None:
        """Raise InvariantError if the state contradicts itself."""
        self._copies.check()
        self._readers.check()

    # --------------------------------------------------------------------------------- private

    def _remember_dead(self, process: bytes) -> None:
        self._dead[process] = None
        if len(self._dead) > _DEAD_KEPT:
            self._dead.popitem(last=False)

    def _admit(self, effects: list[Effect], *, may_cool: bool = True) -> list[Effect]:
        """Give waiting creates their places, in order, as far as there is room.

        Ends every event that frees or takes room; adds to ``effects`` and returns it.
        """
        self._cooling.watch(self._allocator, self._now)
        while (head := self._admission.head) is not None:
            # Without a place now, ranges that are yet to be punched may give it one: see tick.
            copy = head.copy or self._place(head)
            if copy is None:
                break
            if self._allocator.excess_bytes and may_cool:
                self._cool(effects)
                may_cool = False
            if self._allocator.excess_bytes:
                break
            self._admission.remove(head)
            effects.append(self._created(head.client, head.rid, copy))
        return effects

    def _place(self, waiting: Waiting) -> Copy | None:
        if self._cooling.pressed:
            return None
        place = self._allocator.allocate(waiting.size)
        if place is None:
            return None
        self._cooling.note_create(self._now)
        self._cooling.watch(self._allocator, self._now)
        waiting.copy = self._copies.add(
            waiting.object_id, place[0], waiting.size, waiting.owner_id, waiting.client
        )
        return waiting.copy

    def _created(self, client: bytes, rid: int, copy: Copy) -> Created:
        return Created(client, rid, copy.offset, tuple(self._allocator.cold_parts(copy.offset)))

    def _withdraw(self, waiting: Waiting) -> None:
        self._admission.remove(waiting)
        if waiting.copy is not None:
            self._copies.give_up(waiting.copy)

    def _answer_readers(self, object_id: bytes) -> list[Effect]:
        """If the object is sealed now, or will not be, tell those who waited for it."""
        copy = self._copies.current(object_id)
        if copy is not None and not copy.sealed:
            return []
        effects: list[Effect] = []
        for request in self._readers.of_object(object_id):
            if copy is not None:
                for at, wanted in enumerate(request.object_ids):
                    if wanted == object_id:
                        request.places[at] = self._copies.pin(copy, request.client)
            if not request.missing:
                effects.append(self._answer(request))
        return effects

    def _answer(self, request: PinRequest) -> AnswerPins:
        places = tuple(request.places)
        self._readers.note_answer(request.client, request.rid, places)
        return AnswerPins(request.client, request.rid, places)

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
        self, object_id: bytes, size: int, waited_s: float, holders: tuple[Holder, ...]
    ) -> Full:
        return Full(
            object_id=object_id,
            requested_bytes=size,
            capacity_bytes=self.capacity_bytes,
            used_bytes=self.used_bytes,
            object_count=self.object_count,
            waited_s=waited_s,
            holders=holders,
        )

    def _holders(self) -> tuple[Holder, ...]:
        return self._copies.biggest(_HOLDERS_SHOWN)
