"""Borrowing: references that come and go between processes.

The shell around ownership/ledger.py: owns what happens when an ObjectRef is unpickled or pickled,
carries out the effects of the counts and sends what the ledger has to say. All rules are the
ledger's; values are objects.py's.
"""

from __future__ import annotations

import gc
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from mray.exception_texts import ending, place
from mray.exceptions import (
    OufOfBandObjectRefSerializationException,
    OwnerDiedError,
    RayError,
    ReferenceLostError,
)
from mray.object_ref import ObjectRef
from mray.ownership.entry import Entry
from mray.ownership.handover import Parcel
from mray.ownership.references import Free, Ready
from mray.rpc.pump import Timer
from mray.serialization.context import collector
from mray.serialization.failures import error_envelope
from mray.wire.messages import Address, Borrows, BorrowsHeard, ProcessDied, RefGroup, Returned

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime


class Found:
    """References unpickled one after the other by one thread, on their way to the loop in one
    note.

    The thread appends while the loop may already take. ``closed`` is set before the first is taken
    and looked at after each append: what the loop may have missed is announced again.
    """

    __slots__ = ("closed", "context", "entries")

    def __init__(self, context: Any) -> None:
        #: What carried them; see ``adopted``.
        self.context = context
        self.entries: deque[Entry] = deque()
        self.closed = False


class Known(dict[bytes, ObjectRef[Any]]):
    """References of one owner that are about to be unpickled, made beforehand in one go."""

    __slots__ = ("_adopt",)

    def __init__(self, adopt: Callable[[bytes], ObjectRef[Any]]) -> None:
        super().__init__()
        self._adopt = adopt

    def __missing__(self, object_id: bytes) -> ObjectRef[Any]:
        """One that was pickled out of band, inside the value."""
        return self._adopt(object_id)


class _Adopting(threading.local):
    """What the references unpickled by this thread belong to: the entry whose value is read, or
    the list of a task's arguments."""

    context: Any = None
    found: Found | None = None
    #: While a value full of references is read: them all, by owner.
    known: dict[bytes, Known] | None = None


adopting = _Adopting()


class BorrowingPart:
    """See the module."""

    def __init__(self, runtime: Runtime) -> None:
        self.rt = runtime
        self.ledger = runtime.ledger
        self.references = runtime.references
        self.entries = runtime.references.entries
        #: Set by a worker: takes what waited for owners to know of it. See ownership/handover.py.
        self.deliver: Callable[[Parcel], None] | None = None
        self._timer: Timer | None = None
        self._warned: set[tuple[str, int]] = set()
        runtime.pump.on(Borrows, self.ledger.hear)
        runtime.pump.on(BorrowsHeard, self.ledger.confirmed)

    # -- any thread

    def ref_maker(self, owner: Address) -> Callable[[bytes], ObjectRef[Any]]:
        """What makes the references of an owner, one pickle long."""
        known = adopting.known
        if known is not None:
            of_owner = known.get(owner.process_id)
            if of_owner is not None:
                return of_owner.__getitem__
        return partial(self._adopt_ref, owner)

    def _adopt_ref(self, owner: Address, object_id: bytes) -> ObjectRef[Any]:
        """The reference unpickled in this process."""
        entry = self.entries.get(object_id)
        if entry is None:
            entry = self.entry_for(object_id, owner)
        context, found = adopting.context, adopting.found
        if found is None or found.closed or found.context is not context:
            found = adopting.found = Found(context)
            self._announce(found)
        found.entries.append(entry)
        if found.closed:
            self._announce(found)
        return ObjectRef(entry)

    @contextmanager
    def reading(self, carrier: Entry) -> Iterator[None]:
        """Around the unpickling of a value with many references, which are made beforehand.

        The cyclic collector pauses meanwhile: it would go through all of them dozens of times, and
        take as long as the rest, to find that each is new.
        """
        nested = carrier.nested
        assert nested is not None
        found = Found(carrier)
        found.entries.extend(nested)
        self._announce(found)
        pause = gc.isenabled()
        if pause:
            gc.disable()
        try:
            known: dict[bytes, Known] = {}
            for entry in nested:
                owner = self.rt.address if entry.owner is None else entry.owner
                of_owner = known.get(owner.process_id)
                if of_owner is None:
                    adopt = partial(self._adopt_ref, owner)
                    of_owner = known[owner.process_id] = Known(adopt)
                of_owner[entry.object_id] = ObjectRef(entry)
            adopting.known = known
            yield
        finally:
            adopting.known = None
            if pause:
                gc.enable()

    def _announce(self, found: Found) -> None:
        mailbox = self.rt.mailbox
        mailbox.posts.append(found)
        if mailbox.asleep:
            mailbox.wake()

    def pickled_out_of_band(self, entry: Entry) -> None:
        """User code pickled a reference by itself: warn or raise, and pin it for cloudpickle."""
        mode = self.rt.config.serialization.allow_out_of_band_object_ref_serialization
        by_cloudpickle = collector.by_cloudpickle
        if mode != "allow":
            file, line = frame = _user_frame()
            what = (
                f"ObjectRef({entry.object_id.hex()}) is pickled out of band at {file}:{line}, "
                + (
                    "so its object stays until this process ends"
                    if by_cloudpickle
                    else "untracked: its object may be freed while the pickle is around"
                )
                + "; pass the reference as an argument, inside a value given to put(), or as a "
                "result instead"
            )
            if mode == "error":
                raise OufOfBandObjectRefSerializationException(
                    what + " (RAY_allow_out_of_band_object_ref_serialization=1 allows it)"
                )
            if frame not in self._warned:
                self._warned.add(frame)
                warnings.warn_explicit(what, UserWarning, file, line)
        if by_cloudpickle:
            self.rt.post(lambda: self.references.pin(entry))

    # -- the loop

    def adopted(self, found: Found) -> None:
        """ObjectRefs were made by unpickling. Their context is the entry whose value carried them,
        the list of a running task's arguments (registered at the task's end), or None."""
        found.closed = True
        references, entries, context = self.references, found.entries, found.context
        of_task = type(context) is list
        while entries:
            entry = entries.popleft()
            if entry.freed:
                references.add_local(entry)
            else:
                entry.local += 1
            if entry.owner is None:
                continue
            if of_task:
                context.append(entry)
            elif not entry.tokens and references.unregistered(entry):
                self.ledger.borrowing.register(entry, context)

    def settle_up(self) -> None:
        """Carry out what the events of this round have led to."""
        ledger = self.ledger
        ready = ledger.handover.ready
        if ready:
            ledger.handover.ready = []
            for parcel in ready:
                assert self.deliver is not None
                self.deliver(parcel)
                ledger.handover.left(parcel)
        if ledger.strangers:
            strangers, ledger.strangers = ledger.strangers, []
            for stranger in strangers:
                if not self.rt.reach(stranger):
                    ledger.died(stranger.process_id, _lost)
        if self.references.effects:
            self._perform()

    def _perform(self) -> None:
        freed: list[Entry] = []
        for effect in self.ledger.take():
            match effect:
                case Free(entry):
                    if entry.is_actor:
                        self.rt.actors.out_of_scope(entry)
                    else:
                        freed.append(entry)
                case Ready(entry, watchers):
                    for watcher in watchers:
                        self.rt.pump.send(watcher, self.rt.objects.readiness(entry))
        if freed:
            self.rt.recovering.copies.freed(freed)

    def flush(self, now: float) -> None:
        """Send what the ledger has to say. Once a round, after ``settle_up``."""
        ledger, rt = self.ledger, self.rt
        if not ledger.busy(now):
            return
        for outgoing in ledger.flush(now):
            peer, message = outgoing.peer, outgoing.message
            if isinstance(peer, bytes):
                # Not heard: then the peer sends again.
                rt.pump.send(peer, message)
            elif not (rt.tell(peer, message) or rt.tell(peer, message) or rt.reach(peer)):
                # It ended before this process was there to be told.
                ledger.died(peer.process_id, _lost)
                rt.mailbox.wake()
        self._arm()

    def _arm(self) -> None:
        deadline = self.ledger.deadline()
        if deadline is not None and self._timer is None:
            self._timer = self.rt.pump.at(deadline, self._due)

    def _due(self) -> None:
        # What is due leaves at the end of this round.
        self._timer = None
        if not self.ledger.busy(self.rt.pump.clock()):
            self._arm()

    def entry_for(self, object_id: bytes, owner: Address) -> Entry:
        """The entry of a reference that came from elsewhere; from any thread."""
        entry = self.entries.get(object_id)
        if entry is None:
            mine = owner.process_id == self.rt.process_id
            entry = Entry(object_id, None if mine else owner, self.rt.mailbox, 0)
            entry.born = monotonic()
            if mine:
                # It was freed: only an untracked reference can bring it back.
                entry.data = error_envelope(vanished(object_id))
                entry.ready = True
            entry = self.entries.setdefault(object_id, entry)
        return entry

    def receive_refs(self, outer: Entry, groups: list[RefGroup]) -> None:
        """The value of ``outer`` came with these references inside."""
        for group in groups:
            entries = [self.entry_for(oid, group.owner) for oid in group.object_ids]
            self.ledger.receive(outer, group, entries)

    def decline(self, returns: Iterable[Returned]) -> None:
        """Results that are thrown away: give back the references in them."""
        for returned in returns:
            if returned.refs:
                self.ledger.decline(returned.refs)

    def process_died(self, message: ProcessDied) -> None:
        """Borrows of the dead end; what it owned is lost."""
        self.ledger.died(
            message.process_id, lambda object_id: error_envelope(owner_died(object_id, message))
        )


def _lost(object_id: bytes) -> bytes:
    return error_envelope(owner_died(object_id))


def owner_died(object_id: bytes, message: ProcessDied | None = None) -> RayError:
    """The error of an object whose owner is dead."""
    if message is None:
        return OwnerDiedError(object_id.hex())
    cause = message.cause
    who = f"its owner, a {message.process_kind}{place(cause.pid, cause.node_id.hex()[:8])},"
    how = ending(cause.exit_code, cause.signal, cause.text, ())
    return OwnerDiedError(object_id.hex(), reason=f"{who} has ended: {how}")


def vanished(object_id: bytes) -> RayError:
    """The error of an object that its owner does not know."""
    return ReferenceLostError(
        object_id.hex(),
        reason="its owner does not know it any more: all tracked references were gone. A reference "
        "pickled out of band with plain pickle does not count as one",
    )


def _user_frame() -> tuple[str, int]:
    """File and line of the innermost frame of user code: not of mray, not of a pickler."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package not in ("mray", "cloudpickle", "pickle", "copyreg"):
            break
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno
