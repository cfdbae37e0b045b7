"""Objects of other nodes: telling the store where they are, having them brought before their time.

Owns waits for copies on this node (``wait`` with ``fetch_local``) and the fetching of arguments of
tasks that are queued here. Bringing is the node daemon's (node/transfer/); what is read at once is
asked for by the store's client itself, who is told here where to look.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from mray.exceptions import GetTimeoutError
from mray.ownership.entry import Entry
from mray.runtime.mailbox import Waiter, Watcher
from mray.wire.messages import (
    Address,
    FetchObjects,
    Located,
    ObjectsFetched,
    RefInfo,
    Source,
    TaskSpec,
)

if TYPE_CHECKING:
    from mray.object_ref import ObjectRef
    from mray.runtime.runtime import Runtime

Fires = Waiter | Watcher
#: FetchObjects.priority.
_WAIT, _ARGUMENTS = 1, 2
#: Objects remembered as fetched. One that is forgotten is asked for again, and is there.
_HERE_KEPT = 10_000


class FetchWaiter(Waiter):
    """A wait for copies on this node: an entry that is ready elsewhere is fetched first."""

    __slots__ = ("_fetching",)

    def __init__(self, left: int, fetching: FetchingPart) -> None:
        super().__init__(left, fail_fast=False)
        self._fetching = fetching

    def fire(self, entry: Any) -> None:
        """One of the entries is ready, somewhere."""
        if self._fetching.is_away(entry):
            self._fetching.fetch(entry, self)
        else:
            super().fire(entry)


class FetchingPart:
    """See the module."""

    def __init__(self, runtime: Runtime) -> None:
        self.rt = runtime
        self._node_id = runtime.node.node_id
        #: Objects that were fetched, latest last. They may have gone since.
        self._here: dict[bytes, None] = {}
        #: Who waits for a copy here.
        self._waiting: dict[bytes, list[tuple[Fires, Entry]]] = {}
        runtime.pump.on(ObjectsFetched, self._fetched)

    # -- any thread

    def look_there(self, object_id: bytes, owner: Address | None, located: Located) -> None:
        """The store's client is about to read an object that is in a store; ``owner`` None: this
        process."""
        if located.node_id != self._node_id:
            self.rt.store.elsewhere(object_id, self._source(object_id, owner, located))

    def is_here(self, entry: Entry) -> bool:
        """Whether a value is there and no other node has to give it."""
        located = entry.located
        return entry.ready and (
            located is None or located.node_id == self._node_id or entry.object_id in self._here
        )

    def is_away(self, entry: Entry) -> bool:
        """Whether a value is, or was, on another node, and not brought here."""
        located = entry.located
        return (
            located is not None
            and located.node_id != self._node_id
            and entry.object_id not in self._here
        )

    def wait(
        self, refs: list[ObjectRef[Any]], num_returns: int, timeout_s: float | None
    ) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
        """As ObjectsPart.wait, of values on this node."""
        is_here, objects = self.is_here, self.rt.objects
        deadline = None if timeout_s is None else monotonic() + timeout_s
        left, pending = refs, None
        while True:
            # Loops that wait for one after the other pass here with all that are left.
            found = objects.first_ready(refs, num_returns)
            if len(found[0]) == num_returns and all(is_here(ref._entry) for ref in found[0]):
                return found
            if pending is not None:
                # What has been here counts, also when there are too many to remember.
                still = set(pending)
                left = [ref for ref in left if ref._entry in still]
                if deadline is not None:
                    timeout_s = deadline - monotonic()
            over = pending is not None and timeout_s is not None and timeout_s <= 0
            pending = self._away(left)
            missing = num_returns - (len(refs) - len(pending))
            if missing <= 0 or over:
                break
            self._wait_once(pending, missing, timeout_s)
            # A value that was lost on its way is waited for again: it is being made once more.
        away = set(pending)
        ready = [ref for ref in refs if ref._entry not in away][:num_returns]
        chosen = set(ready)
        return ready, [ref for ref in refs if ref not in chosen]

    def _wait_once(self, pending: list[Entry], missing: int, timeout_s: float | None) -> None:
        """Until ``missing`` of these were told to have come, or cannot be had."""
        objects = self.rt.objects
        at_once = timeout_s is not None and timeout_s <= 0
        waiter = FetchWaiter(len(pending) + 1 if at_once else missing, self)
        if at_once:
            self.rt.post(lambda: objects.begin_wait(waiter, pending))
        else:
            objects.block(waiter, pending, timeout_s)
        self.rt.post(lambda: self._end_wait(waiter, pending))

    def _away(self, refs: list[ObjectRef[Any]]) -> list[Entry]:
        """``is_here`` is not true of these; without a call for each."""
        own, here = self._node_id, self._here
        return [
            entry
            for ref in refs
            if not (entry := ref._entry).ready
            or (
                (located := entry.located) is not None
                and located.node_id != own
                and entry.object_id not in here
            )
        ]

    def bring(self, refs: Sequence[ObjectRef[Any]], deadline: float) -> None:
        """Have ready values brought until ``deadline`` (monotonic seconds). GetTimeoutError for
        those that are not here then."""
        away = [ref for ref in refs if not self.is_here(ref._entry)]
        if not away:
            return
        left_s = max(0.0, deadline - monotonic())
        rest = self.wait(away, len(away), left_s)[1]
        if rest:
            raise GetTimeoutError(
                pending=[(ref.hex(), ref._entry.name, self._where(ref._entry)) for ref in rest],
                timeout_s=left_s,
            )

    def _where(self, entry: Entry) -> str:
        located = entry.located
        if located is None:
            return "it is being made again"
        return f"it is on node {located.node_id.hex()[:8]} and has not come from there in time"

    # -- the loop

    def queued(self, tasks: Iterable[TaskSpec]) -> None:
        """Tasks have come to this worker: have what they need brought while they wait."""
        object_ids: dict[bytes, Source] = {}
        for spec in tasks:
            stored: list[tuple[RefInfo, Located | None]] = [
                (dep.ref, dep.located) for dep in spec.deps
            ]
            if spec.args_in_store is not None:
                stored.append((spec.args_in_store, spec.args_located))
            for ref, located in stored:
                if located is not None and located.node_id != self._node_id:
                    object_ids[ref.object_id] = self._source(ref.object_id, ref.owner, located)
        if object_ids:
            message = FetchObjects(list(object_ids), list(object_ids.values()), _ARGUMENTS)
            self.rt.pump.send(self._node_id, message)

    def fetch(self, entry: Entry, waiter: Fires) -> None:
        """Have a ready entry's value brought, and fire then."""
        waiting = self._waiting.setdefault(entry.object_id, [])
        waiting.append((waiter, entry))
        if len(waiting) == 1 and entry.located is not None:
            source = self._source(entry.object_id, entry.owner, entry.located)
            message = FetchObjects([entry.object_id], [source], _WAIT)
            self.rt.pump.send(self._node_id, message)

    def _end_wait(self, waiter: FetchWaiter, pending: list[Entry]) -> None:
        self.rt.objects.end_wait(waiter, pending)
        for entry in pending:
            waiting = self._waiting.get(entry.object_id)
            if waiting is None:
                continue
            left = [one for one in waiting if one[0] is not waiter]
            if left:
                self._waiting[entry.object_id] = left
            else:
                # It comes all the same; a later wait will find it here.
                del self._waiting[entry.object_id]

    def _fetched(self, sender: bytes, message: ObjectsFetched) -> None:
        for object_id in message.object_ids:
            # One that cannot be had is ready as well: get() says why, or has it made again.
            self._here[object_id] = None
            for waiter, entry in self._waiting.pop(object_id, ()):
                waiter.fire(entry)
        while len(self._here) > _HERE_KEPT:
            del self._here[next(iter(self._here))]

    def _source(self, object_id: bytes, owner: Address | None, located: Located) -> Source:
        nodes = [located.node_id]
        if owner is None:
            nodes += self.rt.recovering.locations.copies.get(object_id, ())
        return Source(owner or self.rt.address, located.size_bytes, nodes)
