"""Reading several objects with few questions: what will be read next is pinned together.

Owns which objects of a row are pinned ahead of their turn. Does not own pins: client.py does.

One question for several objects saves the way to the node, and those on disk come back together.
But not for all of a long row at once: a value that is copied out when it is read needs its bytes in
memory for that moment only, and a row may be larger than the store. So objects are asked for in
groups, and a group is let go when the next is asked for; what a value shows in place stays anyhow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from mray.exceptions import ObjectStoreFullError
from mray.units import MIB

if TYPE_CHECKING:
    from mray.store.client import StoreClient

#: What a group may have together, unless it is a single object. The smallest store has 75 MiB.
GROUP_BYTES_MAX = 32 * MIB
GROUP_MAX = 64


class ReadAhead:
    """``row``: (object, size in bytes) of what will be read, in order; looked at when needed."""

    __slots__ = ("_held", "_next", "_row", "_store")

    def __init__(self, store: StoreClient, row: Iterable[tuple[bytes, int]]) -> None:
        self._store = store
        self._row: Iterator[tuple[bytes, int]] = iter(row)
        #: The first of the next group.
        self._next: tuple[bytes, int] | None = None
        self._held: dict[bytes, memoryview | None] = {}

    def view(self, object_id: bytes) -> memoryview | None:
        """``StoreClient.get`` of the next object of the row, or of one read before."""
        if object_id not in self._held:
            self._ask()
            if object_id not in self._held:
                return self._store.get(object_id)
        return self._held[object_id]

    def _ask(self) -> None:
        self._held = {}
        group: dict[bytes, None] = {}
        room = GROUP_BYTES_MAX
        one, self._next = self._next or next(self._row, None), None
        while one is not None:
            object_id, size = one
            if group and (size > room or len(group) == GROUP_MAX):
                self._next = one
                break
            if object_id not in group:
                group[object_id] = None
                room -= size
            one = next(self._row, None)
        if len(group) < 2:
            return
        try:
            self._held = dict(zip(group, self._store.get_many(list(group)), strict=True))
        except ObjectStoreFullError:
            # No room for all of them together. Alone, each has room, or an error of its own.
            self._held = {}
