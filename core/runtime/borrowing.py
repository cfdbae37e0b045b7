"""Borrowing: references that come and go between processes.

Owns what happens when an ObjectRef is unpickled or pickled, registering with owners, and the
effects of the reference counts. The counts and rules are ownership/references.py's; values are
objects.py's.
"""

from __future__ import annotations

import threading
import traceback
import warnings
from collections.abc import Callable
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
from mray.ownership.references import Entry, Free, Ready, Unborrow
from mray.serialization.context import collector
from mray.serialization.failures import error_envelope
from mray.wire.messages import (
    Ack,
    AddBorrower,
    Address,
    DropBorrower,
    ProcessDied,
    RefGroup,
)

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime

_REGISTER_TIMEOUT_S = 30.0


class _Adopting(threading.local):
    """What the references unpickled by this thread belong to: the entry whose value is read, or
    the list of a task's arguments."""

    context: Any = None


adopting = _Adopting()


class _Batch:
    """References to be registered with one owner in one message."""

    __slots__ = ("holds", "object_ids", "owner", "then", "token")

    def __init__(self, owner: Address, token: int) -> None:
        self.owner = owner
        self.token = token
        self.object_ids: list[bytes] = []
        #: Entries whose values carried the references, held until the owner knows us.
        self.holds: list[Entry] = []


class BorrowingPart:
    """See the module."""

    def __init__(self, runtime: Runtime) -> None:
        self.rt = runtime
        self.references = runtime.references
        self.entries = runtime.references.entries
        self._batches: dict[bytes, _Batch] = {}
        self._warned: set[str] = set()
        runtime.pump.on(AddBorrower, self._add_borrower)
        runtime.pump.on(DropBorrower, self._drop_borrower)

    # -- any thread

    def adopt_ref(self, object_id: bytes, owner: Address) -> ObjectRef[Any]:
        """The reference unpickled in this process."""
        entry = self.entry_for(object_id, owner)
        mailbox = self.rt.mailbox
        mailbox.posts.append((entry, adopting.context))
        if len(mailbox.posts) == 1:
            # Later notes rely on the first to have woken the loop, those of finalizers too.
            mailbox.wake()
        return ObjectRef(entry)

    def pickled_out_of_band(self, entry: Entry) -> None:
        """User code pickled a reference by itself: warn or raise, and pin it for cloudpickle."""
        mode = self.rt.config.serialization.allow_out_of_band_object_ref_serialization
        by_cloudpickle = collector.by_cloudpickle
        if mode != "allow":
            frame = _user_frame()
            what = (
                f"ObjectRef({entry.object_id.hex()}) is pickled out of band at {frame}, "
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
                warnings.warn(what, stacklevel=3)
        if by_cloudpickle:
            self.rt.post(lambda: self.references.pin(entry))

    # -- the loop

    def adopted(self, entry: Entry, context: Any) -> None:
        """An ObjectRef of ``entry`` was made by unpickling. ``context`` is the entry whose value
        carried it, the list of a running task's arguments (registered at the task's end), or None.
        """
        self.references.add_local(entry)
        if entry.owner is None:
            return
        if type(context) is list:
            context.append(entry)
        elif self.references.unregistered(entry):
            self.register(entry, context)

    def register(self, entry: Entry, outer: Entry | None) -> None:
        assert entry.owner is not None
        batch = self._batches.get(entry.owner.process_id)
        if batch is None:
            batch = _Batch(entry.owner, self.references.token())
            self._batches[entry.owner.process_id] = batch
        entry.tokens = [batch.token]
        batch.object_ids.append(entry.object_id)
        if outer is not None:
            self.references.hold(outer)
            batch.holds.append(outer)

    def register_for(
        self,
        owner: Address,
        object_ids: list[bytes],
        borrower: Address,
        token: int,
        then: Callable[[], None],
    ) -> None:
        """Tell the owner who holds its objects; ``then`` when it knows (or is dead)."""
        self.rt.reach(owner)
        self.rt.pump.request(
            owner.process_id,
            lambda rid: AddBorrower(rid, object_ids, borrower, token),
            lambda reply: then(),
            _REGISTER_TIMEOUT_S,
        )

    def perform(self) -> None:
        """Carry out the effects of the references."""
        drops: dict[bytes, tuple[Address, list[tuple[bytes, list[int]]]]] = {}
        freed: list[bytes] = []
        for effect in self.references.take():
            match effect:
                case Free(entry):
                    if entry.is_actor:
                        self.rt.actors.out_of_scope(entry)
                    else:
                        freed.append(entry.object_id)
                case Unborrow(owner, object_id, tokens):
                    drops.setdefault(owner.process_id, (owner, []))[1].append((object_id, tokens))
                case Ready(entry, watchers):
                    for watcher in watchers:
                        self.rt.pump.send(watcher, self.rt.objects.readiness(entry))
        if freed:
            self.rt.store.free_many(freed)
        for owner, dropped in drops.values():
            self.rt.tell(owner, DropBorrower(self.rt.process_id, dropped))

    def flush_registrations(self) -> None:
        """Send the registrations collected in this round."""
        batches, self._batches = self._batches, {}
        for batch in batches.values():
            holds = batch.holds

            def done(holds: list[Entry] = holds) -> None:
                for entry in holds:
                    self.references.release(entry)

            self.register_for(batch.owner, batch.object_ids, self.rt.address, batch.token, done)

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
            self.references.nest(outer, group, entries)

    def _add_borrower(self, sender: bytes, message: AddBorrower) -> None:
        for object_id in message.object_ids:
            entry = self.entries.get(object_id)
            if entry is not None and entry.owner is None:
                self.references.add_borrower(entry, message.borrower.process_id, message.token)
        self.rt.pump.send(sender, Ack(message.rid))

    def _drop_borrower(self, sender: bytes, message: DropBorrower) -> None:
        for object_id, tokens in message.drops:
            entry = self.entries.get(object_id)
            if entry is not None and entry.owner is None:
                self.references.drop_borrower(entry, message.borrower_id, tokens)

    def process_died(self, message: ProcessDied) -> None:
        """Borrows of the dead end; what it owned is lost."""
        self.references.process_died(
            message.process_id, lambda object_id: error_envelope(owner_died(object_id, message))
        )


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


def _user_frame() -> str:
    """Where user code is, for a message: the innermost frame outside of mray and picklers."""
    for frame in reversed(traceback.extract_stack()):
        name = frame.filename.replace("\\", "/")
        if "/cloudpickle/" in name or name.endswith("/pickle.py"):
            continue
        if any(
            part in name
            for part in (
                "/mray/",
                "/core/runtime/",
                "/core/object_ref.py",
                "/core/serialization/",
                "/core/cloudpickle.py",
            )
        ):
            continue
        return f"{frame.filename}:{frame.lineno}"
    return "an unknown place"
