"""StoreServer: messages in, messages and holes out, on a real arena."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator

import pytest

from mray.node.objects.arena import PAGE_BYTES, Arena
from mray.node.objects.server import StoreServer
from mray.store.abort import NO_SPACE
from mray.units import MIB
from mray.wire.messages import (
    AbortObject,
    CopyMade,
    CreateObject,
    FreeObjects,
    GetStoreStats,
    Message,
    ObjectCreated,
    ObjectsPinned,
    Ping,
    PinObjects,
    Refused,
    SealObject,
    StoreStats,
    UnpinObjects,
)

OWNER, READER = b"o" * 28, b"r" * 28
X, Y = b"x" * 28, b"y" * 28


class Node:
    """A server with a clock that the test turns and a list of what it sent."""

    def __init__(self, base: str) -> None:
        self.now = 100.0
        self.sent: list[tuple[bytes, Message]] = []
        self.arena = Arena.make("s1", "6d012345", 16 * MIB, base)
        self.server = StoreServer(
            self.arena, lambda to, message: self.sent.append((to, message)), clock=lambda: self.now
        )

    def tell(self, sender: bytes, message: Message) -> list[tuple[bytes, Message]]:
        """Handle a message; returns what was sent meanwhile."""
        self.sent.clear()
        assert self.server.handle(sender, message)
        assert self.server.deadline() == self.server.store.deadline()
        return list(self.sent)

    def settle(self) -> list[tuple[bytes, Message]]:
        """Tick until nothing is due."""
        self.sent.clear()
        while (deadline := self.server.deadline()) is not None and deadline <= self.now:
            self.server.tick(self.now)
        return list(self.sent)


@pytest.fixture
def node() -> Iterator[Node]:
    base = tempfile.mkdtemp(prefix="server-test-", dir="/dev/shm")
    node = Node(base)
    yield node
    node.server.store.check()
    node.server.close()
    shutil.rmtree(base)


def test_an_object_is_created_sealed_read_and_freed(node: Node) -> None:
    assert node.tell(OWNER, CreateObject(1, X, MIB, OWNER)) == [
        (OWNER, ObjectCreated(1, 0, [(0, MIB)]))
    ]
    assert node.tell(OWNER, SealObject(X)) == []
    assert node.tell(READER, PinObjects(2, [X, Y])) == [
        (READER, ObjectsPinned(2, [(0, MIB), (-1, 0)]))
    ]
    assert node.server.used_bytes == MIB
    node.tell(OWNER, FreeObjects([X]))
    assert node.server.used_bytes == MIB
    node.tell(READER, UnpinObjects([(X, 1)]))
    assert node.server.used_bytes == 0


def test_messages_for_others_are_left_alone(node: Node) -> None:
    assert not node.server.handle(OWNER, Ping(1))


def test_a_full_store_refuses_after_its_grace(node: Node) -> None:
    node.tell(OWNER, CreateObject(1, X, 12 * MIB, OWNER))
    node.tell(OWNER, SealObject(X))
    assert node.tell(OWNER, CreateObject(2, Y, 8 * MIB, OWNER)) == []
    assert node.server.deadline() == 102.0
    node.now = 102.0
    ((to, refused),) = node.settle()
    assert isinstance(refused, Refused)
    assert (to, refused.rid, refused.kind) == (OWNER, 2, "ObjectStoreFullError")
    assert "12 MiB of 16 MiB are in use by 1 object" in refused.text
    assert X.hex() in refused.text


def test_a_nonsense_size_is_refused(node: Node) -> None:
    ((_, refused),) = node.tell(OWNER, CreateObject(1, X, -5, OWNER))
    assert isinstance(refused, Refused)
    assert refused.kind == "ValueError"


def test_stats_count_and_list(node: Node) -> None:
    node.tell(OWNER, CreateObject(1, X, 100, OWNER))
    node.tell(OWNER, SealObject(X))
    node.tell(READER, PinObjects(2, [X]))
    assert node.tell(READER, GetStoreStats(3)) == [
        (READER, StoreStats(3, 16 * MIB, PAGE_BYTES, 0, 1, []))
    ]
    ((_, stats),) = node.tell(READER, GetStoreStats(4, objects=True))
    assert isinstance(stats, StoreStats)
    assert stats.objects == [(X, 100, "sealed", 1, OWNER)]


def test_an_aborted_writers_pages_leave_the_file(node: Node) -> None:
    node.tell(OWNER, CreateObject(1, X, 4 * MIB, OWNER))
    with open(node.arena.path, "r+b") as file:
        file.write(b"x" * 4 * MIB)
    assert node.arena.resident_bytes() == 4 * MIB
    node.tell(OWNER, AbortObject(X, "ValueError"))
    node.settle()
    assert node.arena.resident_bytes() == 0
    assert node.server.used_bytes == 0


def test_a_writer_without_pages_makes_the_store_give_its_free_ones_back(node: Node) -> None:
    node.tell(OWNER, CreateObject(1, X, 4 * MIB, OWNER))
    with open(node.arena.path, "r+b") as file:
        file.write(b"x" * 4 * MIB)
    node.tell(OWNER, SealObject(X))
    node.tell(OWNER, FreeObjects([X]))
    node.tell(OWNER, CreateObject(2, Y, 8 * MIB, OWNER))
    node.tell(OWNER, AbortObject(Y, NO_SPACE))
    assert node.tell(OWNER, CreateObject(3, Y, 8 * MIB, OWNER)) == []
    assert node.settle() == [(OWNER, ObjectCreated(3, 0, [(0, 8 * MIB)]))]
    assert node.arena.resident_bytes() == 0


def test_pressure_empties_the_file(node: Node) -> None:
    node.tell(OWNER, CreateObject(1, X, 4 * MIB, OWNER))
    with open(node.arena.path, "r+b") as file:
        file.write(b"x" * 4 * MIB)
    node.tell(OWNER, SealObject(X))
    node.tell(OWNER, FreeObjects([X]))
    assert node.arena.resident_bytes() == 4 * MIB
    node.server.press()
    node.settle()
    assert node.arena.resident_bytes() == 0


def test_deaths_free_what_the_dead_held(node: Node) -> None:
    node.tell(OWNER, CreateObject(1, X, MIB, OWNER))
    node.tell(OWNER, SealObject(X))
    node.tell(READER, PinObjects(1, [X]))
    node.server.owner_died(OWNER)
    assert node.server.used_bytes == MIB
    node.server.client_died(READER)
    assert node.server.used_bytes == 0


def test_the_death_of_a_writer_tells_the_owners_of_what_it_made_for_them(node: Node) -> None:
    """Its last words may be lost: who is to free that would never have heard of it."""
    for rid, (object_id, owner) in enumerate([(X, OWNER), (Y, READER), (b"z" * 28, OWNER)]):
        node.tell(READER, CreateObject(rid, object_id, MIB, owner))
    for object_id in (X, Y):
        node.tell(READER, SealObject(object_id))
    node.sent.clear()
    node.server.client_died(READER)
    assert node.sent == [(OWNER, CopyMade([X], node.server.own_id))]


def test_broken_clients_are_logged_and_change_nothing(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    node.tell(OWNER, CreateObject(1, X, MIB, OWNER))
    node.tell(OWNER, SealObject(X))
    with caplog.at_level(logging.WARNING):
        node.tell(READER, FreeObjects([X]))
        node.tell(READER, SealObject(X))
        node.tell(READER, UnpinObjects([(X, 0)]))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
    assert node.server.used_bytes == MIB
