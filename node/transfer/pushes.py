"""What this node gives to others: whom it serves, whom it sends elsewhere, what goes out next.

Owns streams: what one puller asked for of one object. Decides only: the shell says what is here and
reads and sends the chunks. An object that is itself on its way here is served as far as it has
come, and the rest when it comes.

At most ``streams_max`` pullers get one object from here at a time. Who comes then is sent to one of
those that got it or are getting it, each in its turn. So a broadcast becomes a tree that all nodes
carry together, and every link of it is busy from its first chunk on. A puller that has tried all of
those is served all the same. Small objects are not worth the detour.

What is under way to all pullers together has a bound; a puller tells with each question how much it
still expects. Beyond it streams take turns. A stream that is asked for nothing for long is closed.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence

import msgspec

from mray.machine import InvariantError
from mray.node.transfer.effects import PushEffect, Refuse, Release, SendChunk

Key = tuple[bytes, int]


class PushRules(msgspec.Struct, frozen=True, kw_only=True):
    """How objects are served. ``chunk_bytes`` as in PullRules."""

    chunk_bytes: int
    streams_max: int = 2
    #: Objects of so many chunks are served whoever else is.
    small_chunks: int = 4
    #: What may be under way, in chunks.
    in_flight_max: int = 128
    idle_s: float = 30.0


class Present(msgspec.Struct, frozen=True):
    """An object that is here: ``have`` is None when all of it is, else 1 for each chunk that is."""

    size: int
    have: bytes | None = None


class _Stream:
    """One puller's pull of one object."""

    __slots__ = ("asked_at", "held", "key", "object_id", "out", "ready")

    def __init__(self, key: Key, object_id: bytes) -> None:
        self.key = key
        self.object_id = object_id
        self.asked_at = 0.0
        #: Chunks to send, in order.
        self.ready: deque[int] = deque()
        #: Chunks that are not here yet.
        self.held: dict[int, None] = {}
        #: Chunks sent that the puller may not have yet, oldest first.
        self.out: OrderedDict[int, None] = OrderedDict()


class _Shared:
    """One object and who gets it from here. There is one while it has streams."""

    __slots__ = ("named", "streams")

    def __init__(self) -> None:
        self.streams: dict[Key, _Stream] = {}
        #: Nodes that got or are getting it, and how often each was named to others.
        self.named: dict[bytes, int] = {}


class Pushes:
    """The machine, of the node ``node_id``."""

    def __init__(self, node_id: bytes, rules: PushRules) -> None:
        self._node_id = node_id
        self.rules = rules
        self._streams: dict[Key, _Stream] = {}
        self._shared: dict[bytes, _Shared] = {}
        #: Streams with something to send; whose turn it is comes first.
        self._turns: OrderedDict[Key, _Stream] = OrderedDict()
        self._in_flight = 0
        self._look_at: float | None = None
        #: Chunks sent since the start, without those sent again.
        self.sent_total = 0

    def __len__(self) -> int:
        return len(self._streams)

    def serves(self, object_id: bytes) -> bool:
        """Whether anybody gets this object from here."""
        return object_id in self._shared

    def asked(
        self, puller: bytes, pull: int, object_id: bytes, chunks: Sequence[int], owed: int,
        tried: Sequence[bytes], present: Present | None, now: float,
    ) -> list[PushEffect]:  # fmt: skip
        """A node asks for chunks. ``present``: what is here of the object, None for nothing.

        Raises ValueError for chunks that there are not.
        """
        key = (puller, pull)
        if present is None:
            text = f"it is not in the store of node {self._node_id.hex()[:8]}"
            return [*self.end(puller, pull, now), Refuse(puller, pull, (), text)]
        count = max(1, -(-present.size // self.rules.chunk_bytes))
        if any(not 0 <= chunk < count for chunk in chunks):
            raise ValueError(f"object {object_id.hex()} has {count} chunks, not {list(chunks)}")
        stream = self._streams.get(key)
        if stream is not None and stream.object_id != object_id:
            raise ValueError(f"pull {pull} of node {puller.hex()[:8]} is one of another object")
        if stream is None:
            other = self._elsewhere(puller, object_id, count, tried)
            if other:
                return [Refuse(puller, pull, (other,), "")]
            stream = self._open(key, object_id)
        stream.asked_at = now
        have = present.have
        for chunk in chunks:
            if have is None or have[chunk]:
                if chunk not in stream.ready:
                    stream.ready.append(chunk)
            else:
                stream.held[chunk] = None
        self._heard(stream, owed)
        if stream.ready:
            self._turns[key] = stream
        if self._look_at is None:
            self._look_at = now + self.rules.idle_s
        return self._flow()

    def arrived(self, object_id: bytes, chunk: int) -> list[PushEffect]:
        """A chunk of an object that is on its way here has come."""
        shared = self._shared.get(object_id)
        if shared is None:
            return []
        for key, stream in shared.streams.items():
            if chunk in stream.held:
                del stream.held[chunk]
                stream.ready.append(chunk)
                self._turns[key] = stream
        return self._flow()

    def gone(self, object_id: bytes, text: str) -> list[PushEffect]:
        """An object is not to be had here any more, or will not come."""
        shared = self._shared.get(object_id)
        if shared is None:
            return []
        effects: list[PushEffect] = []
        for key in list(shared.streams):
            effects += [*self._close(key), Refuse(*key, (), text)]
        return effects + self._flow()

    def failed(self, puller: bytes, pull: int, text: str) -> list[PushEffect]:
        """A chunk could not be read."""
        if (puller, pull) not in self._streams:
            return []
        effects = self._close((puller, pull))
        return [*effects, Refuse(puller, pull, (), text), *self._flow()]

    def end(self, puller: bytes, pull: int, now: float) -> list[PushEffect]:
        """A puller wants no more, because it has all or for another reason."""
        if (puller, pull) not in self._streams:
            return []
        return [*self._close((puller, pull)), *self._flow()]

    def node_gone(self, node_id: bytes) -> list[PushEffect]:
        """A node has died: it gets nothing, and is named to nobody."""
        effects: list[PushEffect] = []
        for key in [key for key in self._streams if key[0] == node_id]:
            effects += self._close(key)
        for shared in self._shared.values():
            shared.named.pop(node_id, None)
        return effects + self._flow()

    def tick(self, now: float) -> list[PushEffect]:
        """``deadline`` has come: closes streams that nobody asks for anything."""
        if self._look_at is None or self._look_at > now:
            return []
        effects: list[PushEffect] = []
        for key, stream in list(self._streams.items()):
            # Who waits for what is not here yet has asked for it, and waits.
            if not stream.held and stream.asked_at + self.rules.idle_s <= now:
                effects += self._close(key)
        self._look_at = now + self.rules.idle_s if self._streams else None
        return effects + self._flow()

    def deadline(self) -> float | None:
        """When to call ``tick``."""
        return self._look_at

    def check(self) -> None:
        """Raise InvariantError if the state contradicts itself."""
        listed = {key for shared in self._shared.values() for key in shared.streams}
        if listed != set(self._streams) or not all(one.streams for one in self._shared.values()):
            raise InvariantError("streams are listed wrong")
        if sum(len(one.out) for one in self._streams.values()) != self._in_flight:
            raise InvariantError(f"{self._in_flight} chunks are noted in flight")
        ready = {key for key, one in self._streams.items() if one.ready}
        if ready != set(self._turns):
            raise InvariantError("who has chunks to send is noted wrong")
        if ready and self._in_flight < self.rules.in_flight_max:
            raise InvariantError("chunks wait though there is room for them")
        for object_id, shared in self._shared.items():
            if any(key[0] not in shared.named for key in shared.streams):
                raise InvariantError(f"a node that gets {object_id.hex()} is not noted")
        for stream in self._streams.values():
            if set(stream.ready) & set(stream.held):
                raise InvariantError("a chunk is here and is not")

    # --------------------------------------------------------------------------------- private

    def _elsewhere(
        self, puller: bytes, object_id: bytes, count: int, tried: Sequence[bytes]
    ) -> bytes:
        """The node that a new puller is sent to; b"" where it is served here."""
        shared = self._shared.get(object_id)
        if shared is None or count <= self.rules.small_chunks:
            return b""
        if len(shared.streams) < self.rules.streams_max:
            return b""
        others = [one for one in shared.named if one != puller and one not in tried]
        if not others:
            return b""
        other = min(others, key=lambda one: shared.named[one])
        shared.named[other] += 1
        return other

    def _open(self, key: Key, object_id: bytes) -> _Stream:
        stream = self._streams[key] = _Stream(key, object_id)
        shared = self._shared.setdefault(object_id, _Shared())
        shared.streams[key] = stream
        shared.named.setdefault(key[0], 0)
        return stream

    def _close(self, key: Key) -> list[PushEffect]:
        stream = self._streams.pop(key)
        self._turns.pop(key, None)
        self._in_flight -= len(stream.out)
        shared = self._shared[stream.object_id]
        del shared.streams[key]
        if shared.streams:
            return []
        del self._shared[stream.object_id]
        return [Release(stream.object_id)]

    def _heard(self, stream: _Stream, owed: int) -> None:
        """A puller still expects so many chunks, those included that are yet to be sent."""
        while len(stream.out) > max(0, owed - len(stream.ready) - len(stream.held)):
            stream.out.popitem(last=False)
            self._in_flight -= 1

    def _flow(self) -> list[PushEffect]:
        effects: list[PushEffect] = []
        while self._turns and self._in_flight < self.rules.in_flight_max:
            key, stream = self._turns.popitem(last=False)
            chunk = stream.ready.popleft()
            if stream.ready:
                self._turns[key] = stream
            if chunk not in stream.out:
                stream.out[chunk] = None
                self._in_flight += 1
                self.sent_total += 1
            effects.append(SendChunk(key[0], key[1], stream.object_id, chunk))
        return effects
