"""A node's second pair of sockets, for objects that come and go, and the thread that turns them.

Owns the sockets, the thread, and every copy between frames and the store. Decides nothing: the loop
says what to send and what is expected, and hears in batches of what came. So messages between
daemons never queue behind chunks, and the loop never copies any.

A chunk is read from the arena into the frame that leaves, and written from the frame that came
into the arena: no copy in between (core/rpc/bulk_door.py). Spans of the store belong to the loop.
When it takes one back, ``Span.valid`` is cleared under the lock under which the thread uses it; so
nothing late gets into a range that belongs to another object by now, nor out of it.
"""

from __future__ import annotations

import logging
import threading
import zlib
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

import msgspec

from mray.node.objects.spill_pool import Memory
from mray.node.transfer.chunks import HEAD_BYTES, Head, bulk_name, new_frame, node_of, read_head
from mray.rpc.bulk_door import BulkDoor
from mray.units import MIB
from mray.wire.codec import ProtocolError, decode, encode
from mray.wire.messages import Address, Message

log = logging.getLogger(__name__)

#: What is sent before the sockets are looked at again.
_JOBS_PER_TURN = 8
_VERIFY_BYTES = 4 * MIB
_JOIN_S = 5.0


class Span:
    """A range of the store that chunks go into or come from."""

    __slots__ = ("offset", "size", "valid")

    def __init__(self, offset: int, size: int) -> None:
        self.offset = offset
        self.size = size
        #: Cleared under the lock of Bulk.
        self.valid = True


class ChunkCame(msgspec.Struct, frozen=True):
    """A chunk is in its place."""

    node_id: bytes
    head: Head


class ChunkUnfit(msgspec.Struct, frozen=True):
    """A chunk came and cannot be used: why. ``ours``: because of this node."""

    node_id: bytes
    pull: int
    text: str
    ours: bool


class Verified(msgspec.Struct, frozen=True):
    """A copy was compared with its checksum."""

    pull: int
    right: bool


class Told(msgspec.Struct, frozen=True):
    """A message."""

    node_id: bytes
    message: Message


News = ChunkCame | ChunkUnfit | Verified | Told


class Listener(Protocol):
    """Who hears, in the loop's thread."""

    def bulk_news(self, news: list[News]) -> None:
        """What came since the last call, in order."""


class Bulk:
    """See the module. ``door`` and ``memory`` belong to it from now on; ``call_soon`` has the loop
    run a call."""

    def __init__(
        self,
        door: BulkDoor,
        memory: Memory,
        chunk_bytes: int,
        call_soon: Callable[[Callable[[], None]], None],
    ) -> None:
        self.listener: Listener | None = None
        self._door = door
        self._memory = memory
        self._chunk_bytes = chunk_bytes
        self._call_soon = call_soon
        self._jobs: deque[Callable[[], None]] = deque()
        #: Where chunks of each pull go.
        self._expected: dict[int, Span] = {}
        self._news: list[News] = []
        #: Held while a span is read or written.
        self._lock = threading.Lock()
        self._closed = False
        self._complained = False
        self._thread = threading.Thread(target=self._run, name="mray-bulk", daemon=True)

    def start(self) -> None:
        """Begin to turn the sockets."""
        self._thread.start()

    def close(self) -> None:
        """End the thread and close the sockets."""
        self._closed = True
        self._door.wake()
        if self._thread.ident is not None:
            self._thread.join(_JOIN_S)
        self._door.close()

    # ----------------------------------------------------------------------------- by the loop

    def dial(self, node_id: bytes, tcp: str) -> None:
        """Connect to a node's bulk socket, at "host:port". Idempotent."""
        address = Address(bulk_name(node_id), node_id, "", tcp)
        self._do(lambda: self._door.dial(address, b""))

    def hang_up(self, node_id: bytes) -> None:
        """A node is dead."""
        self._do(lambda: self._door.hang_up(bulk_name(node_id)))

    def send(self, node_id: bytes, message: Message) -> None:
        """Send a message; lost where the node is gone."""
        data = encode(message)
        self._do(lambda: self._send(node_id, data))

    def send_frame(self, node_id: bytes, frame: bytearray) -> None:
        """Send a chunk whose frame is complete."""
        self._do(lambda: self._send_frame(node_id, frame))

    def send_chunk(self, node_id: bytes, pull: int, chunk: int, span: Span) -> None:
        """Send a chunk of what is in ``span``. Nothing if that is taken back before."""
        self._do(partial(self._send_chunk, node_id, pull, chunk, span))

    def expect(self, pull: int, span: Span) -> None:
        """Put chunks of this pull there."""
        self._expected[pull] = span

    def forget(self, pull: int) -> Span | None:
        """No more chunks of this pull; where they went."""
        return self._expected.pop(pull, None)

    def take_back(self, span: Span) -> None:
        """On return, nobody reads or writes the span any more."""
        with self._lock:
            span.valid = False

    def verify(self, pull: int, span: Span, crc: int) -> None:
        """Compare the checksum of a span, and tell."""
        self._do(partial(self._verify, pull, span, crc, 0, 0))

    def _do(self, job: Callable[[], None]) -> None:
        self._jobs.append(job)
        self._door.wake()

    # ---------------------------------------------------------------------------- in the thread

    def _run(self) -> None:
        while not self._closed:
            try:
                self._turn()
            except Exception:
                # One round is lost, not the connection: what is missing will be asked for again.
                log.exception("a round of the bulk connection failed")

    def _turn(self) -> None:
        for _ in range(_JOBS_PER_TURN):
            if not self._jobs:
                break
            self._jobs.popleft()()
        for sender, frame in self._door.poll(0.0 if self._jobs or self._news else None):
            self._receive(sender, frame)
        if self._news:
            news, self._news = self._news, []
            self._call_soon(lambda: self._tell(news))

    def _tell(self, news: list[News]) -> None:
        if self.listener is not None:
            self.listener.bulk_news(news)

    def _receive(self, sender: bytes, frame: bytes | memoryview) -> None:
        head = read_head(frame)
        if head is not None:
            self._write(node_of(sender), head, memoryview(frame)[HEAD_BYTES:])
            return
        try:
            message = decode(frame)
        except ProtocolError as error:
            if not self._complained:
                self._complained = True
                log.warning("ignored junk on the bulk connection: %s", error)
            return
        self._news.append(Told(node_of(sender), message))

    def _write(self, node_id: bytes, head: Head, data: memoryview) -> None:
        span = self._expected.get(head.pull)
        if span is None:
            return  # Of a pull that is over.
        at = head.chunk * self._chunk_bytes
        if head.size != span.size:
            text = f"it has another version of it ({head.size} bytes, not {span.size})"
            self._news.append(ChunkUnfit(node_id, head.pull, text, False))
            return
        if len(data) != min(self._chunk_bytes, span.size - at):
            text = f"it sent {len(data)} bytes for chunk {head.chunk} of {span.size} bytes"
            self._news.append(ChunkUnfit(node_id, head.pull, text, False))
            return
        try:
            with self._lock:
                if not span.valid:
                    return
                self._memory.write_from(span.offset + at, data)
        except OSError as error:
            text = f"the system has no room for it: {error.strerror or error}"
            self._news.append(ChunkUnfit(node_id, head.pull, text, True))
            return
        self._news.append(ChunkCame(node_id, head))

    def _send(self, node_id: bytes, data: bytes) -> None:
        self._door.send(bulk_name(node_id), data)

    def _send_frame(self, node_id: bytes, frame: bytearray) -> None:
        self._door.send_frame(bulk_name(node_id), frame)

    def _send_chunk(self, node_id: bytes, pull: int, chunk: int, span: Span) -> None:
        at = chunk * self._chunk_bytes
        frame = new_frame(Head(pull, chunk, span.size, -1), min(self._chunk_bytes, span.size - at))
        with self._lock:
            if not span.valid:
                return
            self._memory.read_into(span.offset + at, memoryview(frame)[HEAD_BYTES:])
        self._door.send_frame(bulk_name(node_id), frame)

    def _verify(self, pull: int, span: Span, crc: int, at: int, so_far: int) -> None:
        piece = memoryview(bytearray(min(_VERIFY_BYTES, span.size - at)))
        with self._lock:
            if not span.valid:
                return
            self._memory.read_into(span.offset + at, piece)
        so_far = zlib.crc32(piece, so_far)
        at += len(piece)
        if at < span.size:
            self._jobs.append(partial(self._verify, pull, span, crc, at, so_far))
        else:
            self._news.append(Verified(pull, so_far == crc))
