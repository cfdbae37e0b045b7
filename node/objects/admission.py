"""The creates that wait for room, first come first served.

Owns order and deadlines. Does not know what room is: store.py asks for the head and takes it out.

Strictly in order: a small object behind a big one waits, at most the grace of the big one. Letting
it pass would let a stream of small ones starve the big one into an error that says "full" while
there was room over and over. All waits have the same grace, so the head's deadline is the first.
It counts from the last room that spilling made: whoever sees the store work is not refused.
"""

from __future__ import annotations

from collections import OrderedDict

from mray.node.objects.lifecycle import Copy

#: More creates than this are refused at once. A client waits with one create a thread, so this is
#: out of reach of anything but a broken client.
WAITING_MAX = 10_000


class Waiting:
    """A create that has no answer yet."""

    __slots__ = ("client", "copy", "deadline", "object_id", "owner_id", "rid", "since", "size")

    def __init__(
        self, client: bytes, rid: int, object_id: bytes, size: int, owner_id: bytes,
        since: float, deadline: float,
    ) -> None:  # fmt: skip
        self.client = client
        self.rid = rid
        self.object_id = object_id
        self.size = size
        self.owner_id = owner_id
        self.since = since
        self.deadline = deadline
        #: Set once it has a place and waits only for pages to be cooled. Then it cannot expire.
        self.copy: Copy | None = None


class Admission:
    """The queue. One entry at most for a client and an object."""

    __slots__ = ("bytes", "entries")

    def __init__(self) -> None:
        #: What those that wait ask for together.
        self.bytes = 0
        #: In order of arrival, by client and object; for looking.
        self.entries: OrderedDict[tuple[bytes, bytes], Waiting] = OrderedDict()

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def head(self) -> Waiting | None:
        """Whose turn it is."""
        return next(iter(self.entries.values()), None)

    @property
    def deadline(self) -> float | None:
        """When the head has waited long enough."""
        head = self.head
        return head.deadline if head is not None and head.copy is None else None

    def find(self, client: bytes, object_id: bytes) -> Waiting | None:
        """The waiting create of a client for an object."""
        return self.entries.get((client, object_id))

    def append(self, entry: Waiting) -> None:
        """Join the end of the queue."""
        key = (entry.client, entry.object_id)
        if key in self.entries:
            raise ValueError(f"a create of {entry.object_id.hex()} already waits")
        self.entries[key] = entry
        self.bytes += entry.size

    def remove(self, entry: Waiting) -> None:
        """Leave the queue. KeyError if it is not in it."""
        del self.entries[entry.client, entry.object_id]
        self.bytes -= entry.size

    def of_client(self, client: bytes) -> list[Waiting]:
        """What a client waits for, in order."""
        return [entry for entry in self.entries.values() if entry.client == client]

    def of_owner(self, owner_id: bytes) -> list[Waiting]:
        """What waits on behalf of an owner, in order."""
        return [entry for entry in self.entries.values() if entry.owner_id == owner_id]
