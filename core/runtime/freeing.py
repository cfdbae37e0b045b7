"""Freeing by hand: values whose references live on, and garbage that keeps references alive.

Owns the dialogues of ``internal_api.free`` and ``global_gc``. What frees objects in the ordinary
way are their counts, which this leaves alone: a freed value's reference stays, and reading it
raises ObjectFreedError.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mray.exceptions import ObjectFreedError
from mray.ownership.entry import Entry
from mray.runtime.mailbox import Watcher
from mray.serialization.failures import error_envelope
from mray.wire.messages import Ack, Address, CollectGarbage, FreeValues, GetNodes, Nodes

if TYPE_CHECKING:
    from mray.object_ref import ObjectRef
    from mray.runtime.runtime import Runtime

_OWNER_TIMEOUT_S = 10.0


class FreeingPart:
    """See the module."""

    def __init__(self, runtime: Runtime) -> None:
        self.rt = runtime
        runtime.pump.on(FreeValues, self._free_values)
        runtime.pump.on(CollectGarbage, self._collect)

    # -- any thread

    def free(self, refs: Sequence[ObjectRef[Any]]) -> None:
        """Free the values, wherever their owners are; returns when the owners have.

        Raises RpcError when an owner does not answer. A dead owner's values are gone already.
        """
        rt = self.rt
        mine: list[bytes] = []
        theirs: dict[bytes, tuple[Address, list[bytes]]] = {}
        for ref in refs:
            entry = ref._entry
            if entry.owner is None:
                mine.append(entry.object_id)
            elif entry.owner.process_id not in rt.dead_processes:
                ids = theirs.setdefault(entry.owner.process_id, (entry.owner, []))[1]
                ids.append(entry.object_id)
        if mine:
            rt.post(lambda: self._free(mine))
            rt.flush()
        for owner, ids in theirs.values():
            rt.ask(owner, lambda rid, ids=ids: FreeValues(rid, ids), Ack, _OWNER_TIMEOUT_S)  # type: ignore[misc]

    def collect_everywhere(self) -> None:
        """Have every process of the cluster run a full collection, soon. Raises RpcError when a
        node does not answer."""
        rt = self.rt
        for view in rt.ask(rt.head, GetNodes, Nodes).nodes:
            if view.state == "ALIVE":
                rt.ask(view.node.address, CollectGarbage, Ack)

    # -- the loop

    def _free_values(self, sender: bytes, message: FreeValues) -> None:
        self._free(message.object_ids)
        self.rt.pump.send(sender, Ack(message.rid))

    def _free(self, object_ids: Sequence[bytes]) -> None:
        for object_id in object_ids:
            entry = self.rt.references.entries.get(object_id)
            if entry is None or entry.owner is not None or entry.is_actor:
                continue
            if entry.ready:
                self._free_one(entry)
            else:
                # What is being made is freed as soon as it is there.
                if entry.waiters is None:
                    entry.waiters = []
                entry.waiters.append(Watcher(self._free_one))

    def _free_one(self, entry: Entry) -> None:
        rt = self.rt
        located = entry.located
        error = error_envelope(ObjectFreedError(entry.object_id.hex(), task_name=entry.name))
        nested, entry.nested = entry.nested, None
        rt.recovering.fill(entry, error, None)
        for inner in nested or ():
            inner.inside -= 1
            rt.references.settle(inner)
        if located is not None:
            rt.recovering.copies.free_at(located.node_id, [entry.object_id])

    def _collect(self, sender: bytes, message: CollectGarbage) -> None:
        # Not in the loop: finalizers of users may want to wait for it.
        threading.Thread(target=gc.collect, name="mray-gc", daemon=True).start()
