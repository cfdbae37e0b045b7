"""Values of a process: put, get, wait, and asking owners for what is theirs.

Owns reading and writing values (inline or in the node's store), waits, watching objects of other
owners. References are borrowing.py's.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any

from mray.call_sites import capture
from mray.exceptions import (
    GetTimeoutError,
    RaySystemError,
    RayTaskError,
)
from mray.former import refuse_former
from mray.object_ref import ObjectRef
from mray.ownership.references import Entry
from mray.runtime.borrowing import adopting, owner_died, vanished
from mray.runtime.inputs import own_memory
from mray.runtime.leftover import Leftover
from mray.runtime.mailbox import Waiter, Watcher
from mray.runtime.stored_values import StoredValues
from mray.serialization.envelope import NONE
from mray.serialization.failures import error_envelope
from mray.serialization.inspection import unpicklable_error
from mray.serialization.pickler import Serialized, deserialize, is_error, pack
from mray.store.ahead import ReadAhead
from mray.wire.messages import (
    Address,
    ExplainObjects,
    Located,
    Message,
    ObjectReady,
    ObjectsExplained,
    RefGroup,
    WatchObject,
)

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime

log = logging.getLogger("mray.runtime")

#: From so many references in a value on, they are made in one go.
_MANY_REFS = 100


class ObjectsPart:
    """See the module."""

    def __init__(self, runtime: Runtime) -> None:
        self.rt = runtime
        self.references = runtime.references
        self.entries = runtime.references.entries
        self.inline_max = runtime.config.object_store.max_direct_call_object_size
        self.records_sites = runtime.config.references.record_ref_creation_sites
        self.stored = StoredValues(runtime)
        #: Set by a worker: called around a wait of a thread that runs a task.
        self.before_wait: Callable[[], None] | None = None
        self.after_wait: Callable[[], None] | None = None
        self._waiting: dict[int, Waiter] = {}
        self.leftover = Leftover(runtime)
        self._futures: SimpleQueue[Any] | None = None
        pump = runtime.pump
        pump.on(WatchObject, self._watch)
        pump.on(ObjectReady, self._object_ready)
        pump.on(ExplainObjects, self._explain)

    # ------------------------------------------------------------------------ any thread: values

    def put(self, value: Any) -> ObjectRef[Any]:
        """Store a value; the reference is owned by this process."""
        rt = self.rt
        try:
            packed = pack(value)
        except Exception as error:
            raise unpicklable_error(value, "the value given to put()", error) from error
        site = capture(2) if self.records_sites else None
        entry = Entry(rt.ids.put(), None, rt.mailbox, 1, "put", site, monotonic())
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
                self.rt.ledger.borrowing.register(inner)
        self.references.settle(entry)

    def get(
        self, refs: Sequence[ObjectRef[Any]], timeout_s: float | None, writable: bool = False
    ) -> list[Any]:
        """The values, in order. Raises the first error among them, GetTimeoutError in time."""
        entries = [ref._entry for ref in refs]
        deadline = None if timeout_s is None else monotonic() + timeout_s
        pending = [entry for entry in entries if not entry.ready]
        if pending:
            self.wait_for(pending, timeout_s)
        if deadline is not None and self.rt.address.tcp:
            self.rt.fetching.bring(refs, deadline)
        load = self.load
        if len(entries) == 1:
            return [load(entries[0], writable, None, deadline)]
        ahead = ReadAhead(self.rt.store, self._row(entries))
        return [load(entry, writable, ahead, deadline) for entry in entries]

    def load(
        self,
        entry: Entry,
        writable: bool = False,
        ahead: ReadAhead | None = None,
        deadline: float | None = None,
    ) -> Any:
        """The value of a ready entry; raises the error it holds, and GetTimeoutError when it turns
        out to be lost and is not made again until ``deadline`` (monotonic seconds). ``writable``:
        as a private copy, of which only pages written to take memory."""
        # In this order: the loop may put an error in the place of a value that is lost.
        located = entry.located
        data: bytes | memoryview | None = entry.data
        if data is None:
            if located is None:
                data = NONE
            else:
                data = self.stored.read(entry, located, ahead, deadline)
                data = own_memory(self.rt.store, entry.object_id, data, writable)
        if writable and type(data) is bytes:
            data = own_memory(self.rt.store, entry.object_id, data, writable)
        adopting.context = entry
        if entry.nested is not None and len(entry.nested) >= _MANY_REFS:
            with self.rt.borrowing.reading(entry):
                value = deserialize(data, writable=writable)
        else:
            value = deserialize(data, writable=writable)
        if data[0] == 69 and is_error(data):
            error = self._raised(value)
            del value
            try:
                raise error
            finally:
                # Its traceback has this frame, which would keep it, and all frames of the caller's
                # with it, until the cyclic collector comes by.
                del error
        return value

    @staticmethod
    def _raised(value: Any) -> BaseException:
        if isinstance(value, RayTaskError):
            return value.as_instanceof_cause()
        assert isinstance(value, BaseException)
        return value

    def _row(self, entries: Iterable[Entry]) -> Iterator[tuple[bytes, int]]:
        """What of these is read from the store, and its size, as it is about to be read."""
        look_there = self.rt.fetching.look_there
        for entry in entries:
            located = entry.located
            if entry.data is None and located is not None:
                look_there(entry.object_id, entry.owner, located)
                yield entry.object_id, located.size_bytes

    def wait_for(self, pending: list[Entry], timeout_s: float | None) -> None:
        waiter = Waiter(len(pending), fail_fast=True)
        done = self.block(waiter, pending, timeout_s)
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

    def block(self, waiter: Waiter, pending: list[Entry], timeout_s: float | None) -> bool:
        """Wait until ``waiter`` is released; False if the time ran out first."""
        rt = self.rt
        if rt.closed:
            raise RaySystemError("this process is no longer connected to a cluster")
        refuse_former(pending, rt)
        self._waiting[id(waiter)] = waiter
        rt.post(lambda: self.begin_wait(waiter, pending))
        before = self.before_wait
        if before is not None:
            before()
        try:
            done = rt.block_on(waiter.lock, timeout_s)
        finally:
            self._waiting.pop(id(waiter), None)
            if before is not None:
                assert self.after_wait is not None
                self.after_wait()
        if rt.is_closed() and not all(entry.ready for entry in pending):
            raise RaySystemError("the cluster went away while get() waited; see `mray logs`")
        if not done:
            rt.post(lambda: self.end_wait(waiter, pending))
        return done

    def begin_wait(self, waiter: Any, pending: list[Entry]) -> None:
        """In the loop: fire ``waiter`` for each entry that is or becomes ready."""
        for entry in pending:
            if entry.ready:
                waiter.fire(entry)
            else:
                if entry.waiters is None:
                    entry.waiters = []
                entry.waiters.append(waiter)
                if entry.owner is not None and not entry.watching:
                    self._ask_owner(entry)

    def end_wait(self, waiter: Any, pending: list[Entry]) -> None:
        """In the loop: what becomes ready from now on is no matter."""
        for entry in pending:
            if entry.waiters is not None and waiter in entry.waiters:
                entry.waiters = [other for other in entry.waiters if other is not waiter]

    def wait(
        self, refs: list[ObjectRef[Any]], num_returns: int, timeout_s: float | None,
        fetch_local: bool = True,
    ) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:  # fmt: skip
        """Split into the first ``num_returns`` ready ones and the rest, order kept.
        ``fetch_local``: ready are those whose values are on this node."""
        if fetch_local and self.rt.address.tcp:
            return self.rt.fetching.wait(refs, num_returns, timeout_s)
        found = self.first_ready(refs, num_returns)
        if len(found[0]) == num_returns:
            return found
        pending = [ref._entry for ref in refs if not ref._entry.ready]
        missing = num_returns - (len(refs) - len(pending))
        if timeout_s is None or timeout_s > 0:
            if missing > 0:
                waiter = Waiter(missing, fail_fast=False)
                self.block(waiter, pending, timeout_s)
                if len(pending) > missing:
                    self.rt.post(lambda: self.end_wait(waiter, pending))
        elif missing > 0:
            # An object of another owner becomes ready here only if somebody asked for it.
            asking = Waiter(len(pending) + 1, fail_fast=False)
            self.rt.post(lambda: self.begin_wait(asking, pending))
            self.rt.post(lambda: self.end_wait(asking, pending))
        return self.first_ready(refs, num_returns)

    @staticmethod
    def first_ready(
        refs: list[ObjectRef[Any]], num_returns: int
    ) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
        """The first ready references, at most ``num_returns``, and all others."""
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

        def read(entry: Entry) -> None:
            self._in_background(lambda: fulfil(entry))

        def arrived(entry: Entry) -> None:
            if self.rt.fetching.is_away(entry):
                # Not in the background, where one would be brought after the other.
                self.rt.fetching.fetch(entry, Watcher(read))
            elif entry.located is not None:
                read(entry)
            else:
                fulfil(entry)

        if entry.ready and entry.located is None:
            fulfil(entry)
        else:
            self.rt.post(lambda: self.begin_wait(Watcher(arrived), [entry]))
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
            del call  # It holds the reference, and the next may be long in coming.

    def lose_all(self, error: bytes) -> None:
        """No owner can be asked any more: borrowed objects that are awaited are lost."""
        for entry in list(self.entries.values()):
            if entry.owner is not None and not entry.ready and entry.watching:
                self.references.fill(entry, error, None)

    def release_all(self) -> None:
        """The process is disconnected: whoever waits is woken, to get an error."""
        for waiter in list(self._waiting.values()):
            waiter.release()
        if self._futures is not None:
            self._futures.put(None)

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

    # ----------------------------------------------------------------------- the loop: dialogues

    def _ask_owner(self, entry: Entry) -> None:
        assert entry.owner is not None
        entry.watching = True
        if self.rt.lost:
            self.references.fill(entry, self.rt.lost, None)
            return
        dead = self.rt.dead_processes.get(entry.owner.process_id)
        if dead is not None or not self.rt.tell(entry.owner, WatchObject(entry.object_id)):
            self.references.fill(entry, error_envelope(owner_died(entry.object_id)), None)

    def watch_for(self, entry: Entry) -> None:
        """Have a borrowed entry filled when its owner has the value."""
        if entry.owner is not None and not entry.watching and not entry.ready:
            self._ask_owner(entry)

    def _watch(self, sender: bytes, message: WatchObject) -> None:
        entry = self.entries.get(message.object_id)
        if entry is None or entry.owner is not None:
            self.rt.pump.send(sender, ObjectReady(message.object_id, 1))
        elif self.references.watch(entry, sender):
            self.rt.pump.send(sender, self.readiness(entry))

    @staticmethod
    def readiness(entry: Entry) -> Message:
        data = entry.data
        if data is None and entry.located is None:
            data = NONE
        return ObjectReady(entry.object_id, 0, data, entry.located)

    def _object_ready(self, sender: bytes, message: ObjectReady) -> None:
        entry = self.entries.get(message.object_id)
        if entry is None or entry.owner is None:
            return
        if entry.ready:
            if entry.located is not None and message.located is not None:
                entry.located = message.located
            return
        entry.watching = False
        if message.status == 0:
            self.references.fill(entry, message.data, message.located)
        else:
            self.references.fill(entry, error_envelope(vanished(message.object_id)), None)

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
        rt = self.rt
        known = rt.tasks.explain(entry) or rt.actors.explain(entry) or rt.placing.reason(entry)
        again = rt.recovering.reason(entry)
        return ": ".join(filter(None, (again, known))) or "being made"


def _explain(object_ids: list[bytes], rid: int) -> Message:
    return ExplainObjects(rid, object_ids)
