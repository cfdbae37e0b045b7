"""Where the values are that this process owns: copies on other nodes, and their end.

The shell around ownership/locations.py. Owns the words of nodes about copies they made or dropped,
the answers to who asks where an object is, and freeing it wherever it is. What becomes of an object
whose last copy is gone is recovering.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mray.ids import ObjectId, task_of
from mray.ids import object_id as id_of
from mray.ownership.entry import Entry
from mray.ownership.locations import Locations
from mray.runtime.mailbox import Watcher
from mray.wire.messages import (
    CopyGone,
    CopyMade,
    FreeObjects,
    Located,
    LocateObjects,
    ObjectsLocated,
)

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime


class CopiesPart:
    """See the module. All in the loop."""

    def __init__(self, runtime: Runtime) -> None:
        self.rt = runtime
        self.references = runtime.references
        self.locations = Locations()
        pump = runtime.pump
        pump.on(CopyMade, self._copy_made)
        pump.on(CopyGone, self._copy_gone)
        pump.on(LocateObjects, self._locate)

    def _copy_made(self, sender: bytes, message: CopyMade) -> None:
        self._judge(sender, message.node_id, message.object_ids)

    def _judge(self, sender: bytes, node_id: bytes, object_ids: Sequence[bytes]) -> None:
        """A node has copies: note those that are wanted, have it drop the others."""
        unwanted = []
        entries = self.references.entries
        for copy_id in object_ids:
            entry = entries.get(copy_id)
            # Of an item that its generator has not told of: that of the whole.
            awaited = entry or entries.get(id_of(task_of(ObjectId(copy_id)), 1))
            if awaited is not None and _is_first_made(awaited):
                # An attempt that died made it. The next one may be putting its value into the same
                # place by now: what is to go is known when the task is over.
                self._judge_later(awaited, sender, node_id, copy_id)
                continue
            mine = entry is not None and entry.owner is None
            if entry is None or not (mine and self.locations.made(entry, node_id)):
                unwanted.append(copy_id)
            elif not entry.ready:
                self.rt.recovering.found(entry)
        if unwanted:
            self.rt.pump.send(sender, FreeObjects(unwanted))

    def _judge_later(self, awaited: Entry, sender: bytes, node_id: bytes, copy_id: bytes) -> None:
        if awaited.waiters is None:
            awaited.waiters = []
        awaited.waiters.append(Watcher(lambda _: self._judge(sender, node_id, [copy_id])))

    def _copy_gone(self, sender: bytes, message: CopyGone) -> None:
        doubtful = []
        for object_id in message.object_ids:
            entry = self.references.entries.get(object_id)
            self.locations.dropped(object_id, message.node_id)
            if entry is None or entry.owner is not None or entry.located is None:
                continue
            if entry.ready and entry.located.node_id == message.node_id:
                doubtful.append(entry)
        if doubtful:
            self.rt.recovering.doubt(message.node_id, doubtful, message.text)

    def _locate(self, sender: bytes, message: LocateObjects) -> None:
        nodes = []
        for object_id in message.object_ids:
            entry = self.references.entries.get(object_id)
            mine = entry is not None and entry.owner is None
            nodes.append(self.locations.places(entry) if mine and entry is not None else [])
        self.rt.pump.send(sender, ObjectsLocated(message.rid, nodes))

    def freed(self, entries: list[Entry]) -> None:
        """Nothing refers to these objects any more: their copies go, on every node."""
        own = self.rt.node.node_id
        here = []
        there: dict[bytes, list[bytes]] = {}
        for entry in entries:
            assert entry.located is not None
            if entry.located.node_id == own:
                here.append(entry.object_id)
            else:
                there.setdefault(entry.located.node_id, []).append(entry.object_id)
            if self.locations.copies:
                for node_id in self.locations.forget(entry.object_id):
                    if node_id == own:
                        here.append(entry.object_id)
                    else:
                        there.setdefault(node_id, []).append(entry.object_id)
        if here:
            self.rt.store.free_many(here)
        for node_id, object_ids in there.items():
            self.free_at(node_id, object_ids)

    def discard(self, object_id: bytes, made: Located) -> None:
        """A value that was made once too often goes, unless it has taken the place of the one that
        is wanted: a store has one copy of an object."""
        entry = self.references.entries.get(object_id)
        wanted = entry.located if entry is not None else None
        if wanted is None or wanted.node_id != made.node_id:
            self.free_at(made.node_id, [object_id])

    def free_at(self, node_id: bytes, object_ids: list[bytes]) -> None:
        """Have a node drop its copies."""
        if node_id == self.rt.node.node_id:
            self.rt.store.free_many(object_ids)
        else:
            self.rt.nodes.tell(node_id, FreeObjects(object_ids))


def _is_first_made(entry: Entry) -> bool:
    """Whether the task of an entry of ours has not come to an end yet."""
    return entry.owner is None and not entry.ready and entry.located is None
