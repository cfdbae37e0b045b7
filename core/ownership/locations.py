"""Locations: which nodes have further copies of what this process owns.

Machine. Owns the table of copies beside the primary one, which is the entry's ``located``: only
objects with such copies are in it. Any of them may go at any time; the primary one is kept (in
memory or on disk) until it is freed. Sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from mray.machine import InvariantError
from mray.ownership.entry import Entry
from mray.wire.messages import Located

#: The last nodes that are gone and are remembered.
GONE_MAX: Final = 10_000


class Locations:
    """See the module."""

    def __init__(self) -> None:
        #: Further copies: object -> nodes, oldest first. Never an empty dict.
        self.copies: dict[bytes, dict[bytes, None]] = {}
        #: Nodes that are gone: what was under way from them is not believed.
        self._gone: dict[bytes, None] = {}

    def made(self, entry: Entry, node_id: bytes) -> bool:
        """A node has a further copy. False if it is not wanted: the object is freed or its value
        is not in a store."""
        if entry.freed or entry.located is None:
            return False
        if node_id != entry.located.node_id and node_id not in self._gone:
            self.copies.setdefault(entry.object_id, {})[node_id] = None
        return True

    def dropped(self, object_id: bytes, node_id: bytes) -> None:
        """A node has its further copy no more."""
        nodes = self.copies.get(object_id)
        if nodes is not None:
            nodes.pop(node_id, None)
            if not nodes:
                del self.copies[object_id]

    def places(self, entry: Entry) -> list[bytes]:
        """The nodes that have the value, the one to keep it first; none unless it is ready."""
        if not entry.ready or entry.located is None:
            return []
        return [entry.located.node_id, *self.copies.get(entry.object_id, ())]

    def promote(self, entry: Entry, but: Sequence[bytes] = ()) -> bytes | None:
        """The primary copy is gone: make another one that, and return its node; None if there is
        none. ``but``: nodes whose copies are not to be had."""
        assert entry.located is not None
        for node_id in list(self.copies.get(entry.object_id, ())):
            if node_id not in but and node_id not in self._gone:
                self.dropped(entry.object_id, node_id)
                entry.located = Located(node_id, entry.located.size_bytes)
                return node_id
        return None

    def forget(self, object_id: bytes) -> list[bytes]:
        """The object is freed or made anew: the nodes that had further copies."""
        return list(self.copies.pop(object_id, ()))

    def node_gone(self, node_id: bytes, entries: Iterable[Entry]) -> list[Entry]:
        """A node is gone, and its copies with it; what of ``entries`` has its primary one there."""
        self._gone[node_id] = None
        if len(self._gone) > GONE_MAX:
            del self._gone[next(iter(self._gone))]
        for object_id in [oid for oid, nodes in self.copies.items() if node_id in nodes]:
            self.dropped(object_id, node_id)
        return [
            entry
            for entry in entries
            if entry.owner is None
            and entry.ready
            and entry.located is not None
            and entry.located.node_id == node_id
        ]

    def is_gone(self, node_id: bytes) -> bool:
        """Whether the node is known to be gone."""
        return node_id in self._gone

    def check(self) -> None:
        """Raise InvariantError on a contradiction."""
        for object_id, nodes in self.copies.items():
            if not nodes or any(node_id in self._gone for node_id in nodes):
                raise InvariantError(f"{object_id.hex()}: copies on {list(nodes)}")
