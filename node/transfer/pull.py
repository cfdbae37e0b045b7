"""One object on its way to this node: which chunks are here, asked for, or still to be asked for.

Owns the bookkeeping of chunks and of the nodes that give them. Decides nothing: pulls.py does.

    queued --room in the quota--> placing --placed--> running --all chunks--> (verifying) --> done
    running <--nodes found-- locating <--no node left-- running

A node is usable, aside (it named others to ask instead) or failed, for this pull.
"""

from __future__ import annotations

from heapq import heappop, heappush

from mray.machine import InvariantError
from mray.wire.messages import Address

QUEUED, PLACING, RUNNING, LOCATING, VERIFYING = (
    "queued", "placing", "running", "locating", "verifying",
)  # fmt: skip
USABLE, ASIDE, FAILED = "usable", "aside", "failed"


class PullSource:
    """A node as one pull knows it."""

    __slots__ = ("asked_at", "in_flight", "node_id", "received", "state", "strikes", "times_aside")

    def __init__(self, node_id: bytes) -> None:
        self.node_id = node_id
        self.state = USABLE
        #: Chunks asked for and not here. Empty unless usable.
        self.in_flight: dict[int, None] = {}
        #: Chunks that came from it.
        self.received = 0
        #: When it was last asked while nothing was in flight, or last sent a chunk; -1: never.
        self.asked_at = -1.0
        #: How often it was silent since its last chunk.
        self.strikes = 0
        self.times_aside = 0


class Pull:
    """See the module."""

    __slots__ = (
        "again", "chunk_bytes", "chunk_count", "crc", "fresh", "have", "left", "located_count",
        "number", "object_id", "owner", "reasons", "size", "sources", "state", "until", "wants",
    )  # fmt: skip

    def __init__(
        self, number: int, object_id: bytes, size: int, owner: Address, chunk_bytes: int
    ) -> None:
        self.number = number
        self.object_id = object_id
        self.size = size
        self.owner = owner
        self.chunk_bytes = chunk_bytes
        #: An empty object has one empty chunk: a source has to say that it has it.
        self.chunk_count = max(1, -(-size // chunk_bytes))
        self.state = QUEUED
        #: Why it is wanted: priorities of pulls.py, without repeats. Never empty.
        self.wants: set[int] = set()
        #: 1 for each chunk that is here.
        self.have = bytearray(self.chunk_count)
        self.left = self.chunk_count
        #: Chunks from here on were never asked for.
        self.fresh = 0
        #: Chunks to be asked for again, lowest first.
        self.again: list[int] = []
        self.sources: dict[bytes, PullSource] = {}
        #: What went wrong with each node that failed.
        self.reasons: dict[bytes, str] = {}
        #: How often the owner was asked since the last chunk came.
        self.located_count = 0
        #: While locating: until when the owner may take.
        self.until = 0.0
        #: The checksum of the whole, where a source knows it.
        self.crc = -1

    @property
    def priority(self) -> int:
        """The most urgent of its reasons."""
        return min(self.wants)

    @property
    def is_hungry(self) -> bool:
        """Whether there are chunks to ask for."""
        return bool(self.again) or self.fresh < self.chunk_count

    @property
    def failed(self) -> tuple[bytes, ...]:
        """Nodes that could not give it."""
        return tuple(node for node, one in self.sources.items() if one.state == FAILED)

    def length(self, chunk: int) -> int:
        """Bytes of a chunk."""
        return min(self.chunk_bytes, self.size - chunk * self.chunk_bytes)

    def take(self) -> int:
        """The next chunk to ask for; it must be hungry."""
        if self.again:
            return heappop(self.again)
        self.fresh += 1
        return self.fresh - 1

    def give_back(self, source: PullSource) -> int:
        """What a source was asked for is to be asked for again; the bytes that were in flight."""
        lost = sum(self.length(chunk) for chunk in source.in_flight)
        for chunk in source.in_flight:
            heappush(self.again, chunk)
        source.in_flight.clear()
        return lost

    def start_over(self) -> None:
        """None of the chunks is any good."""
        self.have = bytearray(self.chunk_count)
        self.left = self.chunk_count
        self.fresh = 0
        self.again = []
        self.crc = -1

    def why(self, locally: str = "") -> str:
        """What went wrong, node by node."""
        parts = [f"node {node.hex()[:8]}: {text}" for node, text in self.reasons.items()]
        return "; ".join([*([locally] if locally else []), *parts])

    def check(self) -> None:
        """Raise InvariantError if chunks are noted wrong."""
        flying = [chunk for one in self.sources.values() for chunk in one.in_flight]
        missing = sorted([*flying, *self.again, *range(self.fresh, self.chunk_count)])
        if missing != [chunk for chunk, here in enumerate(self.have) if not here]:
            raise InvariantError(f"chunks of {self.object_id.hex()} are noted wrong: {missing}")
        if self.left != len(missing) or not self.wants:
            raise InvariantError(f"{self.object_id.hex()} has {self.left} chunks left: {missing}")
        if any(one.in_flight and one.state != USABLE for one in self.sources.values()):
            raise InvariantError("chunks are expected of a node that is not asked")
        if flying and self.state != RUNNING:
            raise InvariantError(f"chunks are in flight while {self.state}")
