"""A store without processes: a client whose questions go straight to a real server."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator

import pytest

from mray.node.objects.arena import Arena
from mray.node.objects.server import StoreServer
from mray.store.client import StoreClient
from mray.units import MIB
from mray.wire.codec import decode, encode
from mray.wire.messages import Message


class LocalNode:
    """A store server with a clock of its own, and clients of it. Messages pass the codec."""

    def __init__(self, base: str, capacity_bytes: int = 64 * MIB) -> None:
        self.now = 100.0
        self.arena = Arena.make("s1", "6d012345", capacity_bytes, base)
        self.server = StoreServer(self.arena, self._deliver, clock=lambda: self.now)
        self.clients: list[StoreClient] = []
        #: Everything that clients sent, in order.
        self.received: list[Message] = []
        self._replies: dict[int, Message] = {}
        self._rids = itertools.count(1)
        self._lock = threading.RLock()

    def client(
        self, name: bytes, schedule: Callable[[Callable[[], None]], None] | None = None
    ) -> StoreClient:
        """A process's client."""

        def ask(make: Callable[[int], Message], timeout_s: float) -> Message:
            with self._lock:
                rid = next(self._rids)
                post(make(rid))
                while rid not in self._replies:
                    deadline = self.server.deadline()
                    assert deadline is not None, "nothing will ever answer"
                    self.now = max(self.now, deadline)
                    self.server.tick(self.now)
                return self._replies.pop(rid)

        def post(message: Message) -> None:
            with self._lock:
                self.received.append(message)
                self.server.handle(name, decode(encode(message)))

        client = StoreClient(self.arena.path, ask=ask, post=post, schedule=schedule)
        self.clients.append(client)
        return client

    def told(self, kind: type[Message]) -> list[Message]:
        """The messages of one kind that came so far."""
        return [message for message in self.received if type(message) is kind]

    def states(self) -> dict[bytes, tuple[str, int]]:
        """State and pins of every copy."""
        return {copy.object_id: (copy.state, copy.pin_count) for copy in self.server.store.copies()}

    def settle(self) -> None:
        """Tick until nothing is due."""
        while (deadline := self.server.deadline()) is not None and deadline <= self.now:
            self.server.tick(self.now)

    def close(self) -> None:
        """Check that nothing contradicts itself, and take all away."""
        for client in self.clients:
            client.close()
        self.server.store.check()
        self.server.close()

    def _deliver(self, to: bytes, message: Message) -> None:
        self._replies[message.rid] = message  # type: ignore[attr-defined]


@pytest.fixture
def node() -> Iterator[LocalNode]:
    base = tempfile.mkdtemp(prefix="client-test-", dir="/dev/shm")
    node = LocalNode(base)
    yield node
    node.close()
    shutil.rmtree(base)


@pytest.fixture
def local_node() -> type[LocalNode]:
    """The class itself, for a store in another place."""
    return LocalNode
