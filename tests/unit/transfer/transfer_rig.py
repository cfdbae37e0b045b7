"""A node's store and transfers with fakes of its connections, for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mray.node.objects.arena import Arena
from mray.node.objects.server import StoreServer
from mray.node.objects.spill_pool import StoreMemory
from mray.node.transfer.bulk import ChunkCame, Span, Told
from mray.node.transfer.chunks import Head
from mray.node.transfer.pulls import PullRules
from mray.node.transfer.service import Transfer
from mray.units import KIB, MIB
from mray.wire import messages as m

ME, A, B = b"m" + b"1" * 27, b"m" + b"2" * 27, b"m" + b"3" * 27
READER, WORKER, OTHER = b"r" * 28, b"w" * 28, b"o" * 28
OWNER = m.Address(b"owner" + b"3" * 23, B, "", "10.0.0.3:1")
X = b"x" * 28
CHUNK = 64 * KIB
SIZE = 3 * CHUNK


class FakePump:
    """Keeps what is sent and asked."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sent: list[tuple[bytes, m.Message]] = []
        self.asked: list[tuple[bytes, m.Message, Callable[[m.Message], None]]] = []
        self.door = self

    def clock(self) -> float:
        return self.now

    def send(self, to: bytes, message: m.Message) -> bool:
        self.sent.append((to, message))
        return True

    def request(self, to: bytes, make: Any, on_reply: Any, timeout_s: float) -> int:
        self.asked.append((to, make(7), on_reply))
        return 7

    def knows(self, process_id: bytes) -> bool:
        return True


class FakeBulk:
    """Keeps what is sent to other nodes."""

    def __init__(self) -> None:
        self.listener: Any = None
        self.sent: list[tuple[bytes, m.Message]] = []
        self.chunks: list[tuple[bytes, int, int, Span]] = []
        self.expected: dict[int, Span] = {}
        self.hung_up: list[bytes] = []

    def start(self) -> None:
        assert self.listener is not None

    def close(self) -> None:
        self.expected.clear()

    def dial(self, node_id: bytes, tcp: str) -> None:
        assert tcp

    def hang_up(self, node_id: bytes) -> None:
        self.hung_up.append(node_id)

    def send(self, node_id: bytes, message: m.Message) -> None:
        self.sent.append((node_id, message))

    def send_chunk(self, node_id: bytes, pull: int, chunk: int, span: Span) -> None:
        self.chunks.append((node_id, pull, chunk, span))

    def expect(self, pull: int, span: Span) -> None:
        self.expected[pull] = span

    def forget(self, pull: int) -> Span | None:
        return self.expected.pop(pull, None)

    def take_back(self, span: Span) -> None:
        span.valid = False


def info(node_id: bytes) -> m.NodeInfo:
    address = m.Address(node_id, node_id)
    return m.NodeInfo(
        node_id, address, "", "", 1, {}, {}, "", "", "", 0, False, "", "", bulk="10.0.0.9:9"
    )


class Node:
    """The store and the transfers of one node, and the world around them."""

    def __init__(self, base: str) -> None:
        self.pump, self.bulk = FakePump(), FakeBulk()
        arena = Arena.make("s1", "6d012345", 4 * MIB, base)
        self.server = StoreServer(arena, self.pump.send, clock=self.pump.clock)
        self.memory = StoreMemory(arena.path, arena.virtual_bytes)
        known = {A: info(A), B: info(B)}
        rules = PullRules(quota_bytes=2 * MIB, chunk_bytes=CHUNK, window_bytes=MIB)
        self.transfer = Transfer(
            self.pump, self.server, ME, self.bulk, known.get, rules  # type: ignore[arg-type]
        )  # fmt: skip

    def tell(self, sender: bytes, message: m.Message) -> list[tuple[bytes, m.Message]]:
        """A message by the ordinary connection; what was sent by it meanwhile."""
        self.pump.sent.clear()
        handlers = {**self.server.handlers, **self.transfer.handlers}
        handlers[type(message)](sender, message)
        return list(self.pump.sent)

    def come(self, *chunks: int, pull: int = 1, node: bytes = A) -> list[tuple[bytes, m.Message]]:
        """Chunks arrive; what was sent by the ordinary connection meanwhile."""
        self.pump.sent.clear()
        self.transfer.bulk_news([ChunkCame(node, Head(pull, c, SIZE, -1)) for c in chunks])
        return list(self.pump.sent)

    def hear(self, node: bytes, message: m.Message) -> list[tuple[bytes, m.Message]]:
        """A message by the bulk connection; what was sent by it meanwhile."""
        self.bulk.sent.clear()
        self.transfer.bulk_news([Told(node, message)])
        return list(self.bulk.sent)

    def used(self) -> int:
        """What objects take, once what was given back has been punched."""
        while (due := self.server.deadline()) is not None and due <= self.pump.now:
            self.server.tick(self.pump.now)
        return self.server.used_bytes

    def make(self, object_id: bytes = X, seal: bool = True) -> None:
        """A worker of this node makes an object."""
        self.tell(WORKER, m.CreateObject(1, object_id, SIZE, OTHER))
        if seal:
            self.tell(WORKER, m.SealObject(object_id))
