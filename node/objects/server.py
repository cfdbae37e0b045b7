"""The store's place in the node daemon: messages in, machine, effects out.

Owns the machine and the arena of one node. Does not own sockets or the loop: the daemon calls
``handle`` for every message, ``tick`` when ``deadline`` has come, and the two deaths.

The daemon reads what a dead process has sent before it reports the death, else the last SealObject
of a worker that finished and exited is lost with the object it sealed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, assert_never

from mray.node.objects.allocator import Allocator
from mray.node.objects.arena import PAGE_BYTES, Arena
from mray.node.objects.cooling import CoolingRules
from mray.node.objects.effects import (
    AnswerPins,
    AskPlaces,
    Complain,
    Created,
    DeleteSpill,
    Effect,
    Evicted,
    Full,
    OutOfDisk,
    OwnerGone,
    Punch,
    PunchSpill,
    ReadSpill,
    Refuse,
    Tell,
    TellLost,
    WriteSpill,
)
from mray.node.objects.files import DiskFailure
from mray.node.objects.overflow import Overflow
from mray.node.objects.ranges import Range
from mray.node.objects.refusal import refusal
from mray.node.objects.spill_pool import ReadPart, SpillPool
from mray.node.objects.spilling import SpillRules
from mray.node.objects.store import ObjectStore, StoreRules
from mray.store.abort import NO_SPACE
from mray.units import GIB
from mray.wire.messages import (
    AbortObject,
    Address,
    CopyGone,
    CopyMade,
    CreateObject,
    FreeObjects,
    GetStoreStats,
    GiveUpPlaces,
    Message,
    ObjectCreated,
    ObjectsPinned,
    PinObjects,
    PlacesGivenUp,
    Refused,
    SealObject,
    SpillFigures,
    StoreStats,
    UnpinObjects,
)

if TYPE_CHECKING:
    from mray.node.transfer.service import Transfer

log = logging.getLogger(__name__)

#: Readers' pulls: mray.node.transfer.pulls.GET.
_GET = 0
_WARM_BYTES_MAX = 2 * GIB

Send = Callable[[bytes, Message], object]


class StoreServer:
    """The object store of a node.

    ``send`` delivers a message to a process; what it returns is ignored (a peer that is gone will
    be reported dead). ``warm_bytes``: free memory kept for reuse, default half the capacity but at
    most 2 GiB. ``full_grace_s``: how long a create waits for room. ``pool`` moves what ``spill``
    says to disk; ``overflow`` takes what the arena cannot. Both belong to the server from now on.
    """

    def __init__(
        self,
        arena: Arena,
        send: Send,
        *,
        warm_bytes: int | None = None,
        full_grace_s: float = 2.0,
        spill: SpillRules | None = None,
        pool: SpillPool | None = None,
        overflow: Overflow | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if warm_bytes is None:
            warm_bytes = min(arena.capacity_bytes // 2, _WARM_BYTES_MAX)
        allocator = Allocator(arena.capacity_bytes, arena.virtual_bytes, PAGE_BYTES)
        rules = StoreRules(
            cooling=CoolingRules(warm_bytes=warm_bytes),
            full_grace_s=full_grace_s,
            spill=spill or SpillRules(),
            overflow_bytes=overflow.length if overflow is not None else 0,
        )
        self.arena = arena
        self._overflow = overflow
        self._pool = pool
        if pool is not None:
            pool.listener = self
        self.store = ObjectStore(allocator, rules)
        #: The store's deadline, and whether something has happened to the store since.
        self._due: float | None = None
        self._has_changed = False
        self._send = send
        self._clock = clock
        #: What brings objects from other nodes; it writes under the id of this node.
        self.transfer: Transfer | None = None
        self.own_id = b""
        #: How owners on other nodes are reached, of what is stored here.
        self.owners: dict[bytes, Address] = {}
        #: What to do with each kind of message: for the daemon's table of handlers.
        self.handlers: dict[type[Message], Callable[[bytes, Any], None]] = {
            CreateObject: self.create_object,
            SealObject: self.seal_object,
            AbortObject: self.abort_object,
            PinObjects: self.pin_objects,
            UnpinObjects: self.unpin_objects,
            FreeObjects: self.free_objects,
            PlacesGivenUp: self.places_given_up,
            GetStoreStats: self.get_store_stats,
        }

    @property
    def used_bytes(self) -> int:
        """What objects take, for the heartbeat."""
        return self.store.used_bytes

    @property
    def held_bytes(self) -> int:
        """What the arena has of the machine's memory: objects, and free pages kept for reuse."""
        return self.store.used_bytes + self.store.warm_bytes

    @property
    def spilled_bytes(self) -> int:
        """What objects take on disk, for the heartbeat."""
        return self.store.spilling.files.bytes + self.store.space.overflow_bytes

    def spill_figures(self) -> SpillFigures:
        """How the disks are used, for the heartbeat."""
        files, totals = self.store.spilling.files, self.store.spilling.totals
        return SpillFigures(
            files.objects,
            totals.spilled_bytes,
            totals.spilled_objects,
            totals.restored_bytes,
            totals.restored_objects,
            list(files.troubles()),
        )

    def handle(self, sender: bytes, message: Message) -> bool:
        """Take a message of the process ``sender``; False if it is not one for the store."""
        handler = self.handlers.get(type(message))
        if handler is None:
            return False
        handler(sender, message)
        return True

    def create_object(self, sender: bytes, message: CreateObject) -> None:
        """Answered by ObjectCreated, or Refused (ObjectStoreFullError, OwnerDiedError)."""
        if message.owner is not None:
            self.owners[message.owner_id] = message.owner
        try:
            effects = self.store.create(
                sender, message.rid, message.object_id, message.size_bytes, message.owner_id,
                self._clock(), on_disk=message.on_disk,
            )  # fmt: skip
        except ValueError as error:
            self._send(sender, Refused(message.rid, "ValueError", str(error)))
            return
        self._perform(effects)

    def seal_object(self, sender: bytes, message: SealObject) -> None:
        """No answer."""
        self._perform(self.store.seal(sender, message.object_id, self._clock()))
        if self.transfer is not None:
            self.transfer.serving.made_here(message.object_id, whole=True)

    def abort_object(self, sender: bytes, message: AbortObject) -> None:
        """No answer."""
        no_space = message.reason == NO_SPACE
        now = self._clock()
        self._perform(self.store.abort(sender, message.object_id, now, no_space=no_space))
        if self.transfer is not None:
            self.transfer.serving.made_here(message.object_id, whole=False)

    def pin_objects(self, sender: bytes, message: PinObjects) -> None:
        """Answered by ObjectsPinned; what is not here is pulled first."""
        transfer = self.transfer
        absent = transfer.expect(message) if message.sources and transfer is not None else ()
        self._perform(self.store.pin(sender, message.rid, message.object_ids, self._clock()))
        if absent and transfer is not None:
            transfer.want(absent, _GET)

    def unpin_objects(self, sender: bytes, message: UnpinObjects) -> None:
        """No answer."""
        try:
            effects = self.store.unpin(sender, message.pins, self._clock())
        except ValueError as error:
            log.warning("process %s: %s", sender.hex()[:8], error)
            return
        self._perform(effects)
        if self.transfer is not None:
            self.transfer.readers_left(object_id for object_id, _ in message.pins)

    def free_objects(self, sender: bytes, message: FreeObjects) -> None:
        """No answer."""
        self._perform(self.store.free(sender, message.object_ids, self._clock()))
        if self.transfer is not None:
            self.transfer.freed(message.object_ids)

    def get_store_stats(self, sender: bytes, message: GetStoreStats) -> None:
        """Answered by StoreStats."""
        self._send(sender, self.stats(message.rid, objects=message.objects))

    def stats(self, rid: int, *, objects: bool) -> StoreStats:
        """The store in figures, with its objects if asked for."""
        store = self.store
        files, totals = store.spilling.files, store.spilling.totals
        listed = [
            (copy.object_id, copy.size, copy.state, copy.pin_count, copy.owner_id)
            for copy in (store.copies() if objects else ())
        ]
        return StoreStats(
            rid, store.capacity_bytes, store.used_bytes, store.warm_bytes, store.object_count,
            listed,
            spilled_bytes=files.bytes,
            spilled_objects=files.objects,
            overflow_bytes=store.space.overflow_bytes,
            spilled_bytes_total=totals.spilled_bytes,
            spilled_objects_total=totals.spilled_objects,
            spill_s=totals.spill_s,
            restored_bytes_total=totals.restored_bytes,
            restored_objects_total=totals.restored_objects,
            restore_s=totals.restore_s,
            spill_directories=[disk.path for disk in files.disks],
            spill_troubles=list(files.troubles()),
            pulled_bytes_total=self.transfer.pulled_bytes_total if self.transfer else 0,
            sent_bytes_total=self.transfer.serving.sent_bytes_total if self.transfer else 0,
        )  # fmt: skip

    def places_given_up(self, sender: bytes, message: PlacesGivenUp) -> None:
        """No answer."""
        now = self._clock()
        effects = self.store.places_given_up(sender, message.rid, message.object_ids, now)
        self._perform(effects)

    # -- results of the pool

    def spill_written(self, file: int, crcs: Sequence[int], took_s: float) -> None:
        """A file is complete."""
        self._perform(self.store.spill_written(file, crcs, took_s, self._clock()))

    def spill_failed(self, file: int, failure: DiskFailure) -> None:
        """A file could not be written."""
        self._perform(self.store.spill_failed(file, failure, self._clock()))

    def spill_read(self, number: int, took_s: float) -> None:
        """A range has its bytes."""
        self._perform(self.store.spill_read(number, took_s, self._clock()))

    def spill_read_failed(self, number: int, reason: str) -> None:
        """A range's bytes are not to be had."""
        log.error("an object is lost: %s", reason)
        self._perform(self.store.spill_read_failed(number, reason, self._clock()))

    def spill_read_no_space(self, number: int) -> None:
        """There were no pages for a range."""
        self._perform(self.store.spill_read_no_space(number, self._clock()))

    def client_died(self, process_id: bytes) -> None:
        """A process of this node has ended and can write no more. What it made for others may be
        known to nobody: its last words may be lost. Their owners are told, and free it if need be.
        """
        self._perform(self.store.client_died(process_id, self._clock()))
        made: dict[bytes, list[bytes]] = {}
        for copy in self.store.copies():
            if copy.writer == process_id != copy.owner_id and copy.sealed and not copy.dropped:
                made.setdefault(copy.owner_id, []).append(copy.object_id)
        for owner, object_ids in made.items():
            self._tell_owner(owner, CopyMade(object_ids, self.own_id))
        if self.transfer is not None:
            self.transfer.client_died(process_id)

    def owner_died(self, process_id: bytes) -> None:
        """A process of any node has ended: what it owned is freed."""
        self.owners.pop(process_id, None)
        self._perform(self.store.owner_died(process_id, self._clock()))
        if self.transfer is not None:
            self.transfer.owner_died(process_id)

    # -- copies of other nodes' objects

    def create_further(self, rid: int, object_id: bytes, size: int, owner_id: bytes) -> None:
        """Make a place for one; answered by ``created`` or ``refused`` of the transfer."""
        now = self._clock()
        self._perform(self.store.create(self.own_id, rid, object_id, size, owner_id, now))

    def seal_further(self, object_id: bytes, owner: Address) -> bool:
        """It is complete; False if it was freed meanwhile, and is not kept."""
        self._perform(self.store.seal_further(self.own_id, object_id, owner, self._clock()))
        copy = self.store.current(object_id)
        return copy is not None and copy.sealed and copy.further is not None

    def abort_further(self, object_id: bytes) -> None:
        """It will not be complete."""
        self._perform(self.store.abort(self.own_id, object_id, self._clock()))

    def not_coming(
        self, object_id: bytes, reason: str, why: Full | OutOfDisk | OwnerGone | None
    ) -> None:
        """An object that readers wait for cannot be had."""
        self._perform(self.store.not_coming(object_id, reason, why, self._clock()))

    def promote(self, object_ids: Sequence[bytes]) -> list[bytes]:
        """The copies here are the primary ones from now on; returns those that are not here."""
        effects, missing = self.store.promote(object_ids, self._clock())
        self._perform(effects)
        return missing

    def unhold(self, object_id: bytes) -> None:
        """End what ``store.hold`` began."""
        self._perform(self.store.unpin(self.own_id, [(object_id, 1)], self._clock()))

    def read_part(self, job: ReadPart) -> None:
        """Read a part of a spill file in a thread."""
        assert self._pool is not None
        self._pool.submit(job)

    def press(self, spill_bytes: int = 0) -> None:
        """The node is short of memory: give all free pages back, and have ``tick`` do so; spill at
        least ``spill_bytes`` if there is so much to spill."""
        self._perform(self.store.press(self._clock(), spill_bytes))

    def relax(self) -> None:
        """The node's memory is fine again."""
        self._perform(self.store.relax(self._clock()))

    @property
    def is_giving_back(self) -> bool:
        """Whether what ``press`` asked for is still under way."""
        return self.store.is_giving_back

    def tick(self, now: float) -> None:
        """``deadline`` has come. Takes a few milliseconds at most, however much is to be done."""
        self._perform(self.store.tick(now))

    def deadline(self) -> float | None:
        """When to call ``tick`` (monotonic seconds), None if never; a past time means at once."""
        if self._has_changed:
            self._has_changed = False
            self._due = self.store.deadline()
        return self._due

    def close(self) -> None:
        """Take the arena and what was spilled away. Who still maps the arena keeps what he sees."""
        if self._overflow is not None:
            self._overflow.close()
        if self._pool is not None:
            self._pool.close()
        self.arena.close()

    def _perform(self, effects: list[Effect]) -> None:
        """What comes of each event of the store, even where that is nothing."""
        self._has_changed = True
        for effect in effects:
            match effect:
                case Created(client, rid, offset, cold):
                    if offset >= self.arena.virtual_bytes and not self._disk_has_room(effect):
                        continue
                    if client == self.own_id and self.transfer is not None:
                        self.transfer.created(effect)
                    else:
                        self._send(client, ObjectCreated(rid, offset, list(cold)))
                case AnswerPins(client, rid, places, reasons):
                    self._send(client, ObjectsPinned(rid, list(places), list(reasons)))
                case Punch(ranges):
                    self._punch(ranges)
                case WriteSpill() | ReadSpill() | DeleteSpill() | PunchSpill():
                    assert self._pool is not None
                    self._pool.submit(effect)
                case AskPlaces(owner, rid, object_ids):
                    self._send(owner, GiveUpPlaces(rid, list(object_ids)))
                case Tell(is_warning, text):
                    log.log(logging.WARNING if is_warning else logging.INFO, "%s", text)
                case TellLost(owner, object_id, reason):
                    self._tell_owner(owner, CopyGone([object_id], self.own_id, reason))
                case Evicted(owner, object_ids):
                    if self.transfer is not None:
                        self.transfer.evicted(owner, object_ids)
                case Refuse(client, _, _) if client == self.own_id and self.transfer is not None:
                    self.transfer.refused(effect)
                case Refuse(client, rid, why):
                    kind, text = refusal(why, self.arena.path)
                    self._send(client, Refused(rid, kind, text))
                case Complain(client, text):
                    log.warning("process %s %s; ignored", client.hex()[:8], text)
                case _:
                    assert_never(effect)

    def _tell_owner(self, owner: bytes, message: CopyMade | CopyGone) -> None:
        address = self.owners.get(owner)
        if address is not None and self.transfer is not None:
            self.transfer.tell_owner(address, message)
        else:
            self._send(owner, message)

    def _punch(self, ranges: Sequence[Range]) -> None:
        base = self.arena.virtual_bytes
        if self._overflow is None or all(start < base for start, _ in ranges):
            self.arena.punch(ranges)
        else:
            self._overflow.punch((start - base, length) for start, length in ranges)

    def _disk_has_room(self, created: Created) -> bool:
        """Whether the overflow file may take an object; if not, its create is refused."""
        copy = self.store.copy_at(created.offset)
        assert self._overflow is not None
        wrong = self._overflow.disk.room_failure(copy.size)
        if not wrong:
            return True
        store, now = self.store, self._clock()
        why = OutOfDisk(
            object_id=copy.object_id,
            requested_bytes=copy.size,
            capacity_bytes=store.capacity_bytes,
            used_bytes=store.used_bytes,
            spilled_bytes=self.spilled_bytes,
            waited_s=0.0,
            disks=(wrong,),
        )
        self._perform(self.store.abort(created.client, copy.object_id, now))
        self._perform([Refuse(created.client, created.rid, why)])
        return False
