"""Values and references of a process: put, get, wait, and the dialogues between owner and borrower.

Owns reading and writing values (inline or in the node's store), waits, watching objects of other
owners, registering as a borrower. What keeps an object alive is ownership/references.py's.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from mray.exceptions import (
    GetTimeoutError,
    ObjectLostError,
    OufOfBandObjectRefSerializationException,
    OwnerDiedError,
    RayError,
    RaySystemError,
    RayTaskError,
    ReferenceLostError,
)
from mray.object_ref import ObjectRef
from mray.ownership.references import Entry, Free, Ready, Unborrow
from mray.runtime.mailbox import Waiter, Watcher
from mray.serialization.context import collector
from mray.serialization.envelope import NONE
from mray.serialization.failures import error_envelope
from mray.serialization.inspection import unpicklable_error
from mray.serialization.pickler import Serialized, deserialize, is_error, pack
from mray.wire.messages import (
    Ack,
    AddBorrower,
    Address,
    DropBorrower,
    ExplainObjects,
    Located,
    Message,
    ObjectReady,
    ObjectsExplained,
    ProcessDied,
    RefGroup,
    WatchObject,
)

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime

log = logging.getLogger("mray.runtime")

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


class ObjectsPart:
    """See the module."""

    def __init__(self, runtime: Runtime) -> None:
        self.rt = runtime
        self.references = runtime.references
        self.entries = runtime.references.entries
        self.inline_max = runtime.config.object_store.max_direct_call_object_size
        #: Set by a worker: called around a wait of a thread that runs a task.
        self.before_wait: Callable[[], None] | None = None
        self.after_wait: Callable[[], None] | None = None
        self._batches: dict[bytes, _Batch] = {}
        self._waiting: dict[int, Waiter] = {}
        self._warned: set[str] = set()
        self._futures: SimpleQueue[Any] | None = None
        pump = runtime.pump
        pump.on(WatchObject, self._watch)
        pump.on(ObjectReady, self._object_ready)
        pump.on(AddBorrower, self._add_borrower)
        pump.on(DropBorrower, self._drop_borrower)
        pump.on(ExplainObjects, self._explain)

    # ------------------------------------------------------------------------ any thread: values

    def put(self, value: Any) -> ObjectRef[Any]:
        """Store a value; the reference is owned by this process."""
        rt = self.rt
        try:
            packed = pack(value)
        except Exception as error:
            raise unpicklable_error(value, "the value given to put()", error) from error
        entry = Entry(rt.ids.put(), None, rt.mailbox, 1)
        entry.name = "put"
        self.store_value(entry, packed)
        self.entries[entry.object_id] = entry
        ref: ObjectRef[Any] = ObjectRef(entry)
        if isinstance(packed, Serialized) and packed.refs:
            inner = list(packed.refs)
            rt.post(lambda: self._nest_own(entry, inner))
        return ref

    def store_value(self, entry: Entry, packed: bytes | Serialized) -> None:
        """Give a fresh owned entry its value, inline or in the store."""
        if type(packed) is bytes:
            if len(packed) <= self.inline_max:
                entry.data = packed
                entry.ready = True
                return
            packed_bytes = packed
            size = len(packed)

            def write(view: memoryview) -> None:
                self.rt.store.copy(view[:size], memoryview(packed_bytes))
        else:
            assert isinstance(packed, Serialized)
            size = packed.total_bytes
            if size <= self.inline_max:
                entry.data = packed.to_bytes()
                entry.ready = True
                return
            parts = packed

            def write(view: memoryview) -> None:
                parts.write_into(view, self.rt.store.copy)

        self.rt.store.put(entry.object_id, self.rt.process_id, size, write, adopt=True)
        entry.located = Located(self.rt.node.node_id, size)
        entry.ready = True

    def _nest_own(self, entry: Entry, refs: list[ObjectRef[Any]]) -> None:
        self.references.nest(entry, RefGroup(self.rt.address, []), [ref._entry for ref in refs])
        for ref in refs:
            inner = ref._entry
            if self.references.unregistered(inner):
                self._register(inner, None)
        self.references.settle(entry)

    def get(self, refs: Sequence[ObjectRef[Any]], timeout_s: float | None) -> list[Any]:
        """The values, in order. Raises the first error among them, GetTimeoutError in time."""
        entries = [ref._entry for ref in refs]
        pending = [entry for entry in entries if not entry.ready]
        if pending:
            self.wait_for(pending, timeout_s)
        load = self.load
        return [load(entry) for entry in entries]

    def load(self, entry: Entry) -> Any:
        """The value of a ready entry; raises the error it holds."""
        data: bytes | memoryview | None = entry.data
        if data is None:
            if entry.located is None:
                data = NONE
            else:
                data = self._read_store(entry)
        adopting.context = entry
        value = deserialize(data)
        if data[0] == 69 and is_error(data):
            raise self._raised(value)
        return value

    @staticmethod
    def _raised(value: Any) -> BaseException:
        if isinstance(value, RayTaskError):
            return value.as_instanceof_cause()
        assert isinstance(value, BaseException)
        return value

    def _read_store(self, entry: Entry) -> memoryview:
        view = self.rt.store.get(entry.object_id)
        if view is None:
            raise ObjectLostError(
                entry.object_id.hex(),
                task_name=entry.name,
                reason=f"it is not in the store of node {self.rt.node.node_id.hex()[:8]} any more",
            )
        return view

    def wait_for(self, pending: list[Entry], timeout_s: float | None) -> None:
        waiter = Waiter(len(pending), fail_fast=True)
        done = self._block(waiter, pending, timeout_s)
        if done:
            return
        # It may have become ready, or failed, between the end of the wait and now.
        if all(entry.ready for entry in pending):
            return
        if any(entry.data is not None and is_error(entry.data) for entry in pending):
            return
        raise GetTimeoutError(
            pending=[
                (entry.object_id.hex(), entry.name, reason)
                for entry, reason in self.explain([e for e in pending if not e.ready])
            ],
            timeout_s=timeout_s,
        )

    def _block(self, waiter: Waiter, pending: list[Entry], timeout_s: float | None) -> bool:
        rt = self.rt
        if rt.closed:
            raise RaySystemError("this process is no longer connected to a cluster")
        self._waiting[id(waiter)] = waiter
        rt.post(lambda: self._begin_wait(waiter, pending))
        before = self.before_wait
        if before is not None:
            before()
        try:
            done = waiter.wait(timeout_s)
        finally:
            self._waiting.pop(id(waiter), None)
            if before is not None:
                assert self.after_wait is not None
                self.after_wait()
        if rt.is_closed() and not all(entry.ready for entry in pending):
            raise RaySystemError("the cluster went away while get() waited; see `mray logs`")
        if not done:
            rt.post(lambda: self._end_wait(waiter, pending))
        return done

    def _begin_wait(self, waiter: Any, pending: list[Entry]) -> None:
        for entry in pending:
            if entry.ready:
                waiter.fire(entry)
            else:
                if entry.waiters is None:
                    entry.waiters = []
                entry.waiters.append(waiter)
                if entry.owner is not None and not entry.watching:
                    self._ask_owner(entry)

    def _end_wait(self, waiter: Any, pending: list[Entry]) -> None:
        for entry in pending:
            if entry.waiters is not None and waiter in entry.waiters:
                entry.waiters = [other for other in entry.waiters if other is not waiter]

    def wait(
        self, refs: list[ObjectRef[Any]], num_returns: int, timeout_s: float | None
    ) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
        """Split into the first ``num_returns`` ready ones and the rest, order kept."""
        pending = [ref._entry for ref in refs if not ref._entry.ready]
        ready_count = len(refs) - len(pending)
        if ready_count < num_returns and (timeout_s is None or timeout_s > 0):
            waiter = Waiter(num_returns - ready_count, fail_fast=False)
            self._block(waiter, pending, timeout_s)
        elif ready_count < num_returns:
            # An object of another owner becomes ready here only if somebody asked for it.
            waiter = Waiter(len(pending) + 1, fail_fast=False)
            self.rt.post(lambda: self._begin_wait(waiter, pending))
            self.rt.post(lambda: self._end_wait(waiter, pending))
        ready: list[ObjectRef[Any]] = []
        rest: list[ObjectRef[Any]] = []
        for position, ref in enumerate(refs):
            if ref._entry.ready:
                ready.append(ref)
                if len(ready) == num_returns:
                    rest += refs[position + 1 :]
                    break
            else:
                rest.append(ref)
        return ready, rest

    def future(self, ref: ObjectRef[Any]) -> concurrent.futures.Future[Any]:
        """A future of the value. Cancelling it does not cancel the task."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        entry = ref._entry

        def fulfil(entry: Entry, keep: Any = ref) -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                value = self.load(entry)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(value)

        def arrived(entry: Entry) -> None:
            if entry.located is not None:
                self._in_background(lambda: fulfil(entry))
            else:
                fulfil(entry)

        if entry.ready and entry.located is None:
            fulfil(entry)
        else:
            self.rt.post(lambda: self._begin_wait(Watcher(arrived), [entry]))
        return future

    def _in_background(self, call: Callable[[], None]) -> None:
        """Run what asks the store: the event loop may not wait for itself."""
        if self._futures is None:
            self._futures = SimpleQueue()
            threading.Thread(target=self._background, name="mray-futures", daemon=True).start()
        self._futures.put(call)

    def _background(self) -> None:
        assert self._futures is not None
        while (call := self._futures.get()) is not None:
            call()

    def release_all(self) -> None:
        """The process is disconnected: whoever waits is woken, to get an error."""
        for waiter in list(self._waiting.values()):
            waiter.release()
        if self._futures is not None:
            self._futures.put(None)

    # -------------------------------------------------------------------- any thread: references

    def adopt_ref(self, object_id: bytes, owner: Address) -> ObjectRef[Any]:
        """The reference unpickled in this process."""
        rt = self.rt
        entry = self.entries.get(object_id)
        if entry is None:
            mine = owner.process_id == rt.process_id
            entry = Entry(object_id, None if mine else owner, rt.mailbox, 0)
            if mine:
                # It was freed: only an untracked reference can bring it back.
                entry.data = error_envelope(_vanished(object_id))
                entry.ready = True
            entry = self.entries.setdefault(object_id, entry)
        rt.mailbox.posts.append((entry, adopting.context))
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
            self.rt.post(lambda: self.references.hold(entry))

    def explain(self, entries: list[Entry]) -> list[tuple[Entry, str]]:
        """Why each is not ready, from its owner where that is another process."""
        rt = self.rt
        lock = threading.Lock()
        lock.acquire()
        reasons: dict[bytes, str] = {}

        def look() -> None:
            for entry in entries:
                if entry.owner is None:
                    reasons[entry.object_id] = self.reason(entry)
            lock.release()

        rt.post(look)
        lock.acquire(timeout=1.0)
        theirs: dict[bytes, tuple[Address, list[bytes]]] = {}
        for entry in entries:
            if entry.owner is not None:
                ids = theirs.setdefault(entry.owner.process_id, (entry.owner, []))[1]
                ids.append(entry.object_id)
        for owner, ids in theirs.values():
            answer = rt.ask_any(owner, partial(_explain, ids), 1.0)
            if isinstance(answer, ObjectsExplained):
                reasons.update(zip(ids, answer.reasons, strict=True))
        return [
            (entry, reasons.get(entry.object_id) or "its owner does not answer")
            for entry in entries
        ]

    # ------------------------------------------------------------------------ the loop: adopting

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
            self._register(entry, context)

    def _register(self, entry: Entry, outer: Entry | None) -> None:
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
        self.rt.pump.door.dial(owner, self.rt.node.node_id)
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
                        self.rt.pump.send(watcher, self._readiness(entry))
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
        """The entry of a reference that arrived in a message."""
        entry = self.entries.get(object_id)
        if entry is None:
            mine = owner.process_id == self.rt.process_id
            entry = Entry(object_id, None if mine else owner, self.rt.mailbox, 0)
            if mine:
                entry.data = error_envelope(_vanished(object_id))
                entry.ready = True
            entry = self.entries.setdefault(object_id, entry)
        return entry

    def receive_refs(self, outer: Entry, groups: list[RefGroup]) -> None:
        """The value of ``outer`` came with these references inside."""
        for group in groups:
            entries = [self.entry_for(oid, group.owner) for oid in group.object_ids]
            self.references.nest(outer, group, entries)

    # ----------------------------------------------------------------------- the loop: dialogues

    def _ask_owner(self, entry: Entry) -> None:
        assert entry.owner is not None
        entry.watching = True
        dead = self.rt.dead_processes.get(entry.owner.process_id)
        if dead is not None or not self.rt.tell(entry.owner, WatchObject(entry.object_id)):
            self.references.fill(entry, error_envelope(self._owner_died(entry.object_id)), None)

    def watch_for(self, entry: Entry) -> None:
        """Have a borrowed entry filled when its owner has the value."""
        if entry.owner is not None and not entry.watching and not entry.ready:
            self._ask_owner(entry)

    def _watch(self, sender: bytes, message: WatchObject) -> None:
        entry = self.entries.get(message.object_id)
        if entry is None or entry.owner is not None:
            self.rt.pump.send(sender, ObjectReady(message.object_id, 1))
        elif self.references.watch(entry, sender):
            self.rt.pump.send(sender, self._readiness(entry))

    @staticmethod
    def _readiness(entry: Entry) -> Message:
        data = entry.data
        if data is None and entry.located is None:
            data = NONE
        return ObjectReady(entry.object_id, 0, data, entry.located)

    def _object_ready(self, sender: bytes, message: ObjectReady) -> None:
        entry = self.entries.get(message.object_id)
        if entry is None or entry.owner is None or entry.ready:
            return
        entry.watching = False
        if message.status == 0:
            self.references.fill(entry, message.data, message.located)
        else:
            self.references.fill(entry, error_envelope(_vanished(message.object_id)), None)

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

    def _explain(self, sender: bytes, message: ExplainObjects) -> None:
        reasons = []
        for object_id in message.object_ids:
            entry = self.entries.get(object_id)
            reasons.append(self.reason(entry) if entry is not None else "unknown to its owner")
        self.rt.pump.send(sender, ObjectsExplained(message.rid, reasons))

    def reason(self, entry: Entry) -> str:
        """Why an entry of ours is not ready."""
        if entry.ready:
            return "ready"
        return self.rt.tasks.explain(entry) or self.rt.actors.explain(entry) or "being made"

    def process_died(self, message: ProcessDied) -> None:
        """Borrows of the dead end; what it owned is lost."""
        lost = error_envelope(self._owner_died(b"", message))
        self.references.process_died(message.process_id, lost)

    def _owner_died(self, object_id: bytes, message: ProcessDied | None = None) -> RayError:
        cause = message.cause.text if message is not None else ""
        return OwnerDiedError(object_id.hex(), reason=cause)


def _explain(object_ids: list[bytes], rid: int) -> Message:
    return ExplainObjects(rid, object_ids)


def _vanished(object_id: bytes) -> RayError:
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
