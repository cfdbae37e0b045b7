"""A process's way to the object store of its node.

Owns what this process writes, reads and owns in the store, and the pins behind its zero-copy
buffers. Does not own connections: the runtime lends ``ask`` and ``post``, and delivers what goes
through them to the node in one order.

A value read from the store is a memoryview over one array per object. Everything made of it
(slices, numpy arrays, tensors) keeps that array alive, so a weak reference to the array tells when
the last buffer has died; several gets of an object share the array, and with it the pin. The
finalizer runs at any point in any thread, even within a method here: it appends to a queue and has
``drain`` called, which takes no lock that it would have to wait for.

The owner of an object that it wrote itself needs no pin: it alone frees the object, after its last
buffer, and the node moves the object only after it has asked (GiveUpPlaces) and the owner has
forgotten the place. So a place is remembered before the node can know of the object, and once it is
forgotten it stays forgotten: the next get pins.
"""

from __future__ import annotations

import errno
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mray import exceptions
from mray.store.abort import NO_SPACE
from mray.store.copying import CopyPool
from mray.store.mapping import ArenaMap
from mray.store.refusals import refused, unexpected
from mray.units import format_bytes
from mray.wire.messages import (
    AbortObject,
    Address,
    CreateObject,
    FreeObjects,
    GiveUpPlaces,
    Message,
    ObjectCreated,
    ObjectsPinned,
    PinObjects,
    PlacesGivenUp,
    Refused,
    SealObject,
    Source,
    UnpinObjects,
)

if TYPE_CHECKING:
    from mray.store.mapping import Bytes

Ask = Callable[[Callable[[int], Message], float], Message]
Post = Callable[[Message], None]
Schedule = Callable[[Callable[[], None]], None]

#: The node ends every wait itself: for room after two seconds without progress, for the disk when
#: that has answered. A long line in front of a slow disk takes its time.
_CREATE_TIMEOUT_S = 600.0
_PIN_TIMEOUT_S = 600.0
#: Reasons remembered of objects that were not there, and places of objects on other nodes.
_REASONS_KEPT = 1000
_ELSEWHERE_KEPT = 10_000
#: Of an object that is on this node or nowhere.
NO_SOURCE = Source(Address(b"", b""), -1, [])
#: A file system that is full, by space or by quota.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class _Pin(weakref.ref[Any]):
    """Refers to the array over an object; its death ends what the pin stands for."""

    __slots__ = ("asked", "client", "counted", "free", "object_id")

    object_id: bytes
    client: StoreClient
    #: The node counts it, and is told of its end.
    counted: bool
    #: This process has freed the object, and the node is told when the pin ends.
    free: bool
    #: The node wants the object's place, and is told when the pin ends.
    asked: bool


def _at_once(call: Callable[[], None]) -> None:
    call()


class StoreClient:
    """The store of this node.

    ``path``: the arena, ``overflow_path``: the file on disk for what that cannot take.
    ``ask(make, timeout_s)`` sends ``make(rid)`` and blocks for its reply, and raises if there is
    none. ``post`` sends without a reply; it never blocks and may be called from a finalizer.
    ``schedule`` runs a call soon, under the same rules; without it ends of pins are posted one by
    one, with it they are batched.
    """

    def __init__(
        self,
        path: str,
        *,
        ask: Ask,
        post: Post,
        schedule: Schedule | None = None,
        overflow_path: str = "",
    ) -> None:
        self._ask = ask
        self._post = post
        self._schedule = _at_once if schedule is None else schedule
        self._pid = os.getpid()
        self._map = ArenaMap(path, overflow_path)
        self._pool = CopyPool()
        self._closed = False
        #: Guards the tables below; never held while waiting for the node. Reentrant, because a
        #: collection may run a user's finalizer, and with it a get, in the middle of a method.
        self._changed = threading.Condition()
        #: The pin of each object with buffers here, until it is seen to be dead.
        self._pins: dict[bytes, _Pin] = {}
        #: Objects that this process owns or keeps in place: (offset, size).
        self._places: dict[bytes, tuple[int, int]] = {}
        #: Objects that a thread is asking the node for. One at a time for each, so that a pin is
        #: never taken on a new copy while one on an old copy of the object is held.
        self._pinning: set[bytes] = set()
        #: Objects that a thread is writing.
        self._writing: set[bytes] = set()
        #: Pins that have ended and have not been looked at.
        self._ended: deque[_Pin] = deque()
        #: Pins that have ended and may still be in the table.
        self._stale: deque[_Pin] = deque()
        #: Why objects were not there, latest last, where the node said so.
        self._reasons: dict[bytes, str] = {}
        #: Where objects are of which this node may have no copy: told to it with the next question.
        self._elsewhere: dict[bytes, Source] = {}
        #: A drain is on its way.
        self._scheduled = False

    # --------------------------------------------------------------------------------- writing

    def put(
        self,
        object_id: bytes,
        owner_id: bytes,
        size: int,
        write: Callable[[memoryview], None],
        *,
        adopt: bool = False,
        owner: Address | None = None,
    ) -> None:
        """Store an object of ``size`` bytes that ``write`` fills, in place.

        ``write`` must not keep the view it is given. ``adopt``: remember the place, as by
        ``place``; only for what this process owns. ``owner``: its address, of one on another node.

        Raises ObjectStoreFullError when there is no room in the store or in its file system,
        OutOfDiskError when there is none on disk to make some,
        OwnerDiedError when the owner is dead, ValueError when another thread writes the object,
        and what ``ask`` and ``write`` raise; then nothing is stored.
        """
        self._check()
        with self._changed:
            if object_id in self._writing:
                raise ValueError(f"object {object_id.hex()} is being written by another thread")
            self._writing.add(object_id)
        try:
            offset = self._reserve(object_id, owner_id, size, owner)
            view = self._map.write(offset, size)
            write(view)
            view.release()
        except BaseException as error:
            self._post(AbortObject(object_id, type(error).__name__))
            raise
        finally:
            self._writing.discard(object_id)
        if adopt:
            # Before the node may ask for the place back, which it does after the seal.
            self.place(object_id, offset, size)
        self._post(SealObject(object_id))

    def copy(self, target: memoryview, source: memoryview) -> None:
        """Copy bytes, with several threads from 4 MiB on. For ``write`` functions.

        ``source`` is contiguous, ``target`` a view of bytes at least as long (else ValueError).
        """
        self._pool.copy(target, source)

    # --------------------------------------------------------------------------------- reading

    def get(self, object_id: bytes) -> memoryview | None:
        """The bytes of an object, read-only and not copied; None if it is not in this store.

        The object stays until the last buffer over them is gone. Raises what ``ask`` raises.
        """
        return self.get_many((object_id,))[0]

    def get_many(self, object_ids: Sequence[bytes]) -> list[memoryview | None]:
        """``get`` for several objects, in their order, with one question to the node."""
        bases = self._bases(object_ids)
        return [None if base is None else base.data for base in map(bases.get, object_ids)]

    def get_writable(self, object_id: bytes) -> memoryview | None:
        """The bytes of an object as a copy that may be written to; None if it is not here.

        Pages are shared with the store until they are written. The object stays until the last
        buffer over the copy is gone.
        """
        base = self._bases((object_id,))[object_id]
        return None if base is None else self._map.private_copy(base)

    def elsewhere(self, object_id: bytes, source: Source) -> None:
        """The next get of an object may have to bring it from there."""
        with self._changed:
            self._elsewhere[object_id] = source
            if len(self._elsewhere) > _ELSEWHERE_KEPT:
                del self._elsewhere[next(iter(self._elsewhere))]

    # ---------------------------------------------------------------------------------- owning

    def place(self, object_id: bytes, offset: int, size: int) -> None:
        """Remember where an object of this process is: it is read without asking the node.

        Only while this process keeps it there, by owning it.
        """
        with self._changed:
            self._places[object_id] = (offset, size)

    def forget(self, object_id: bytes) -> bool:
        """Forget a place; the next get asks the node. False if buffers over it are in use here."""
        with self._changed:
            self._places.pop(object_id, None)
            return self._alive(object_id) is None

    def give_up(self, object_ids: Iterable[bytes]) -> list[bytes]:
        """Forget places, but for those with buffers over them; returns the ids forgotten.

        The others are forgotten when the buffers die, and the node is told then.
        """
        given = []
        with self._changed:
            for object_id in object_ids:
                pin = self._pins.get(object_id)
                if pin is None or pin.counted or pin() is None:
                    self._places.pop(object_id, None)
                    given.append(object_id)
                else:
                    pin.asked = True
        return given

    def give_up_places(self, sender: bytes, message: GiveUpPlaces) -> None:
        """Handler: the node wants to move objects that this process reads by place."""
        self._post(PlacesGivenUp(message.rid, self.give_up(message.object_ids)))

    def why_missing(self, object_id: bytes) -> str:
        """Why the last get of an object found nothing; "" where the node did not say."""
        return self._reasons.get(object_id, "")

    def free(self, object_id: bytes) -> None:
        """The owner, this process, needs the object no more; see ``free_many``."""
        self.free_many((object_id,))

    def free_many(self, object_ids: Iterable[bytes]) -> None:
        """The owner, this process, needs the objects no more.

        The node is told once no buffer here lies over them. Not for finalizers: it may wait for
        another thread, though not for the node.
        """
        now = []
        with self._changed:
            self._sweep()
            for object_id in object_ids:
                self._places.pop(object_id, None)
                pin = self._pins.get(object_id)
                base = None if pin is None else pin()
                # Held in ``base`` while ``free`` is set, so the end of the pin comes after it.
                if pin is None or base is None or pin.counted:
                    now.append(object_id)
                else:
                    pin.free = True
                del base
        if now:
            self._post(FreeObjects(now))

    # -------------------------------------------------------------------------------- lifetime

    def drain(self) -> None:
        """Tell the node which pins have ended. Blocks for nothing; from any thread."""
        self._scheduled = False
        unpinned: dict[bytes, int] = {}
        freed = []
        asked = []
        while True:
            try:
                pin = self._ended.popleft()
            except IndexError:
                break
            if pin.counted:
                unpinned[pin.object_id] = unpinned.get(pin.object_id, 0) + 1
            if pin.free:
                freed.append(pin.object_id)
            elif pin.asked:
                asked.append(pin.object_id)
            self._stale.append(pin)
        if unpinned:
            self._post(UnpinObjects(list(unpinned.items())))
        if freed:
            self._post(FreeObjects(freed))
        if self._changed.acquire(blocking=False):
            try:
                self._sweep()
                # Not in the middle of a get: one that has read a place is about to use it.
                given = self.give_up(asked) if asked and self._schedule is not _at_once else ()
            finally:
                self._changed.release()
            if given:
                self._post(PlacesGivenUp(0, given))

    @property
    def pinned_count(self) -> int:
        """Objects with buffers in this process."""
        with self._changed:
            self._sweep()
            return sum(pin() is not None for pin in self._pins.values())

    def in_place(self) -> list[tuple[bytes, int]]:
        """The objects with buffers in this process, and how many bytes each has."""
        with self._changed:
            self._sweep()
            alive = [(pin.object_id, pin()) for pin in self._pins.values()]
        return [(object_id, base.nbytes) for object_id, base in alive if base is not None]

    def close(self) -> None:
        """End the helper threads and let go of the arena; buffers in use stay readable.

        Pins are not given back: the node does that when the process ends.
        """
        if self._closed:
            return
        self._closed = True
        self._pool.close()
        self._map.close()

    # --------------------------------------------------------------------------------- private

    def _check(self) -> None:
        if self._closed:
            raise RuntimeError("the object store of this process is closed")
        if os.getpid() != self._pid:
            raise RuntimeError(
                "this process was forked from one that is connected to mray, and cannot use that "
                "connection; call init() here, or start processes by another way than fork"
            )

    def _reserve(self, object_id: bytes, owner_id: bytes, size: int, owner: Address | None) -> int:
        """Have a range given out and claim its pages; returns its offset."""
        failure: OSError | None = None
        overflow = False
        # Where the file system is full, the node first gives back its own free pages. If somebody
        # else takes those too, the object is made on disk.
        for on_disk in (False, False, True):
            created = self._ask(
                lambda rid, on_disk=on_disk: CreateObject(  # type: ignore[misc]
                    rid, object_id, size, owner_id, on_disk, owner
                ),
                _CREATE_TIMEOUT_S,
            )
            if isinstance(created, Refused):
                raise refused(created, object_id, size)
            if not isinstance(created, ObjectCreated):
                raise unexpected(created)
            try:
                self._map.claim(created.cold)
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                failure = error
                overflow = self._map.in_overflow(created.offset)
                self._post(AbortObject(object_id, NO_SPACE))
            else:
                return created.offset
        if overflow:
            raise exceptions.OutOfDiskError(
                f"object {object_id.hex()} ({format_bytes(size)}) does not fit into the object "
                "store's memory, and the disk of its overflow file has no room either: "
                f"{format_bytes(self._map.free_bytes(overflow=True))} are free there. Make room, "
                "or drop references",
                path=self._map.overflow_path,
            ) from failure
        raise exceptions.ObjectStoreFullError(
            f"the file system of the object store ({self._map.path}) has no room for object "
            f"{object_id.hex()} ({format_bytes(size)}): {format_bytes(self._map.free_bytes())} are "
            "free, though the store itself is not full. Something else takes its memory: make "
            "room there, or start with less object_store_memory",
            requested_bytes=size,
        ) from failure

    def _bases(self, object_ids: Sequence[bytes]) -> dict[bytes, Bytes | None]:
        """The array over each object, None for what is not here."""
        self._check()
        found: dict[bytes, Bytes | None] = {}
        wanted = dict.fromkeys(object_ids)
        while True:
            with self._changed:
                self._sweep()
                for object_id in list(wanted):
                    base = self._local(object_id)
                    if base is not None:
                        found[object_id] = base
                        del wanted[object_id]
                if not wanted:
                    return found
                mine = [object_id for object_id in wanted if object_id not in self._pinning]
                if not mine:
                    self._changed.wait()
                    continue
                self._pinning.update(mine)
            pinned: dict[bytes, Bytes | None] = {}
            try:
                pinned = self._pin(mine)
            finally:
                with self._changed:
                    self._pinning.difference_update(mine)
                    self._changed.notify_all()
            found.update(pinned)
            for object_id in mine:
                del wanted[object_id]

    def _pin(self, object_ids: list[bytes]) -> dict[bytes, Bytes | None]:
        """Ask the node for objects and pin them."""
        sources: list[Source] = []
        if self._elsewhere:
            known = [self._elsewhere.pop(object_id, NO_SOURCE) for object_id in object_ids]
            if any(source is not NO_SOURCE for source in known):
                sources = known
        try:
            reply = self._ask(lambda rid: PinObjects(rid, object_ids, sources), _PIN_TIMEOUT_S)
            if isinstance(reply, Refused):
                raise refused(reply)
            if not isinstance(reply, ObjectsPinned) or len(reply.places) != len(object_ids):
                raise unexpected(reply)
        except BaseException:
            # Whether the node has pinned them, or still will, is unknown: give back what there is.
            self._post(UnpinObjects([(object_id, 1) for object_id in object_ids]))
            raise
        for object_id, reason in zip(object_ids, reply.reasons, strict=False):
            if reason:
                self._reasons[object_id] = reason
                if len(self._reasons) > _REASONS_KEPT:
                    del self._reasons[next(iter(self._reasons))]
        with self._changed:
            return {
                object_id: self._show(object_id, offset, size, counted=True)
                if offset >= 0
                else None
                for object_id, (offset, size) in zip(object_ids, reply.places, strict=True)
            }

    def _local(self, object_id: bytes) -> Bytes | None:
        """The array over an object, as far as this process knows it."""
        base = self._alive(object_id)
        if base is None:
            place = self._places.get(object_id)
            if place is not None:
                return self._show(object_id, *place, counted=False)
        return base

    def _alive(self, object_id: bytes) -> Bytes | None:
        pin = self._pins.get(object_id)
        return None if pin is None else pin()

    def _show(self, object_id: bytes, offset: int, size: int, *, counted: bool) -> Bytes:
        base = self._map.read(offset, size)
        pin = _Pin(base, _ended)
        pin.object_id = object_id
        pin.client = self
        pin.counted = counted
        pin.free = False
        pin.asked = False
        self._pins[object_id] = pin
        return base

    def _sweep(self) -> None:
        """Drop dead pins from the table. Called with the lock held."""
        stale = self._stale
        while stale:
            pin = stale.popleft()
            if self._pins.get(pin.object_id) is pin:
                del self._pins[pin.object_id]


def _ended(pin: _Pin) -> None:
    """The last buffer over an object has died. Runs anywhere: see the module's docstring."""
    client = pin.client
    if client._closed or os.getpid() != client._pid:
        return
    client._ended.append(pin)
    if not client._scheduled:
        client._scheduled = True
        client._schedule(client.drain)
