"""The bulk connection of two nodes: real sockets and threads, stores that are bytearrays."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from mray.node.transfer.bulk import (
    Bulk,
    ChunkCame,
    ChunkUnfit,
    News,
    Span,
    Told,
    Verified,
)
from mray.node.transfer.chunks import HEAD_BYTES, Head, bulk_name, new_frame, node_of, read_head
from mray.rpc.bulk_door import BulkDoor
from mray.rpc.door import Door, Keys
from mray.wire.messages import Address, EndPull
from tests.proxy import Direction, Proxy
from tests.waiting import eventually

A, B = b"m" + b"a" * 27, b"m" + b"b" * 27
KEYS = Keys.from_token("a token for these tests only, not a secret")
CHUNK = 1000


class Bytes:
    """A store in a bytearray; ``full`` has no pages left."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)
        self.full = False

    def read_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.data[offset : offset + len(buffer)]

    def write_from(self, offset: int, buffer: memoryview) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.data[offset : offset + len(buffer)] = buffer


class End:
    """One node: its connection, its store, what it heard."""

    def __init__(self, node_id: bytes) -> None:
        self.node_id = node_id
        self.memory = Bytes(10 * CHUNK)
        self._calls: SimpleQueue[Any] = SimpleQueue()
        self.heard: list[News] = []
        door = BulkDoor(bulk_name(node_id), KEYS)
        self.tcp = f"127.0.0.1:{door.listen_tcp('127.0.0.1', 0)}"
        self.bulk = Bulk(door, self.memory, CHUNK, self._calls.put)
        self.bulk.listener = self
        self.bulk.start()

    def bulk_news(self, news: list[News]) -> None:
        self.heard += news

    def next(self) -> News:
        """The next news, as the loop would hear it."""

        def turn() -> bool:
            while not self._calls.empty():
                self._calls.get()()
            return bool(self.heard)

        eventually(turn)
        return self.heard.pop(0)


@pytest.fixture
def ends() -> Iterator[tuple[End, End]]:
    a, b = End(A), End(B)
    a.bulk.dial(B, b.tcp)
    a.bulk.send(B, EndPull(1))
    assert b.next() == Told(A, EndPull(1))
    yield a, b
    a.bulk.close()
    b.bulk.close()


def test_heads_of_chunks_are_told_from_messages() -> None:
    head = Head(7, 3, 5000, -1)
    frame = new_frame(head, 10)
    assert len(frame) == HEAD_BYTES + 10
    assert read_head(frame) == head
    assert read_head(b"\x01 a message that is long enough to be a head") is None
    assert read_head(b"\x02") is None
    assert node_of(bulk_name(A)) == A


def test_a_chunk_goes_from_one_store_into_the_other(ends: tuple[End, End]) -> None:
    a, b = ends
    b.memory.data[500:2800] = bytes(range(230)) * 10
    a.bulk.expect(9, Span(4000, 2300))
    for chunk in (2, 0, 1):
        b.bulk.send_chunk(A, 9, chunk, Span(500, 2300))
    came = [a.next() for _ in range(3)]
    assert came == [ChunkCame(B, Head(9, chunk, 2300, -1)) for chunk in (2, 0, 1)]
    assert a.memory.data[4000:6300] == b.memory.data[500:2800]
    assert not any(a.memory.data[6300:])


def test_chunks_of_pulls_that_are_over_are_written_nowhere(ends: tuple[End, End]) -> None:
    a, b = ends
    b.memory.data[:] = b"x" * len(b.memory.data)
    span = Span(0, CHUNK)
    a.bulk.expect(1, span)
    a.bulk.expect(2, Span(CHUNK, CHUNK))
    a.bulk.take_back(span)
    b.bulk.send_chunk(A, 1, 0, Span(0, CHUNK))
    b.bulk.send_chunk(A, 77, 0, Span(0, CHUNK))
    b.bulk.send_chunk(A, 2, 0, Span(0, CHUNK))
    assert a.next() == ChunkCame(B, Head(2, 0, CHUNK, -1))
    assert not any(a.memory.data[:CHUNK])


def test_nothing_is_sent_from_a_range_that_was_taken_back(ends: tuple[End, End]) -> None:
    a, b = ends
    a.bulk.expect(1, Span(0, CHUNK))
    gone = Span(0, CHUNK)
    b.bulk.take_back(gone)
    b.bulk.send_chunk(A, 1, 0, gone)
    b.bulk.send(A, EndPull(5))
    assert a.next() == Told(B, EndPull(5))


def test_what_does_not_fit_the_object_is_told_and_not_written(ends: tuple[End, End]) -> None:
    a, b = ends
    a.bulk.expect(1, Span(0, 2 * CHUNK))
    b.bulk.send_chunk(A, 1, 0, Span(0, CHUNK))
    b.bulk.send_frame(A, new_frame(Head(1, 1, 2 * CHUNK, -1), 10))
    b.bulk.send_frame(A, new_frame(Head(1, 2, 2 * CHUNK, -1), 10))
    for words in ("another version", "10 bytes for chunk 1", "10 bytes for chunk 2"):
        unfit = a.next()
        assert isinstance(unfit, ChunkUnfit)
        assert words in unfit.text
        assert not unfit.ours


def test_a_full_system_is_this_nodes_own_trouble(ends: tuple[End, End]) -> None:
    a, b = ends
    a.memory.full = True
    a.bulk.expect(1, Span(0, CHUNK))
    b.bulk.send_chunk(A, 1, 0, Span(0, CHUNK))
    unfit = a.next()
    assert isinstance(unfit, ChunkUnfit)
    assert unfit.ours
    assert "No space left" in unfit.text


def test_checksums_are_compared_piece_by_piece(ends: tuple[End, End]) -> None:
    a, _ = ends
    a.memory.data[:] = bytes(range(250)) * 40
    right = zlib.crc32(a.memory.data[1000:9000])
    a.bulk.verify(3, Span(1000, 8000), right)
    a.bulk.verify(4, Span(1000, 8000), right ^ 1)
    assert [a.next(), a.next()] == [Verified(3, True), Verified(4, False)]


def test_junk_is_ignored_and_the_connection_goes_on(ends: tuple[End, End]) -> None:
    a, b = ends
    b.bulk.send_frame(A, bytearray(b"junk"))
    b.bulk.send(A, EndPull(6))
    assert a.next() == Told(B, EndPull(6))


def test_who_has_not_the_token_is_not_heard() -> None:
    end = End(A)
    stranger = Door(b"stranger", Keys.from_token("another token, made up as well"))
    try:
        stranger.dial(Address(bulk_name(A), A, "", end.tcp), b"")
        for _ in range(20):
            stranger.send(bulk_name(A), b"\x02" + bytes(100))
            list(stranger.poll(0.02))
        assert end.heard == []
    finally:
        stranger.close()
        end.bulk.close()


@pytest.mark.parametrize("direction", ["up", "down"])
def test_chunks_go_again_after_a_damaged_byte(direction: Direction) -> None:
    a, b = End(A), End(B)
    host, _, port = b.tcp.rpartition(":")
    try:
        with Proxy((host, int(port))) as proxy:
            a.bulk.dial(B, proxy.address)
            a.bulk.send(B, EndPull(1))
            assert b.next() == Told(A, EndPull(1))
            b.memory.data[:] = a.memory.data[:] = bytes(range(250)) * 40
            to, by, name = (b, a, B) if direction == "up" else (a, b, A)
            to.bulk.expect(1, Span(0, CHUNK))
            proxy.damaged, proxy.flip_chance = {direction}, 1.0
            by.bulk.send_chunk(name, 1, 0, Span(CHUNK, CHUNK))
            eventually(lambda: proxy.flips)
            proxy.flip_chance = 0.0

            def asked_again() -> bool:
                by.bulk.send_chunk(name, 1, 0, Span(CHUNK, CHUNK))
                return not to._calls.empty()

            eventually(asked_again, 20)
            came = to.next()
            assert isinstance(came, ChunkCame)
            assert to.memory.data[:CHUNK] == by.memory.data[CHUNK : 2 * CHUNK]
    finally:
        a.bulk.close()
        b.bulk.close()
