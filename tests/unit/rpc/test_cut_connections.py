"""Two pumps over tcp whose connection is cut again and again: nothing lost, doubled, overtaken."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from mray.ids import new_node_id
from mray.rpc.door import Door, Keys
from mray.rpc.pump import Pump
from mray.wire.messages import Ack, Address


class Relay:
    """Passes bytes between whoever connects and a port, until it is told to cut."""

    def __init__(self, target_port: int) -> None:
        self._target = ("127.0.0.1", target_port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._wake_read, self._wake_write = socket.socketpair()
        self._cuts = self._cuts_done = 0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="relay")
        self._thread.start()

    def cut(self) -> None:
        """Reset all connections, with what is under way."""
        self._cuts += 1
        self._wake_write.send(b"x")

    def close(self) -> None:
        """End."""
        self._closing = True
        self._wake_write.send(b"x")
        self._thread.join()
        for each in (self._server, self._wake_read, self._wake_write):
            each.close()

    def _run(self) -> None:
        while not self._closing:
            sockets = [one for pair in self._pairs for one in pair]
            ready, _, _ = select.select([self._server, self._wake_read, *sockets], [], [])
            if self._wake_read in ready:
                self._wake_read.recv(100)
            if self._cuts > self._cuts_done:
                self._cuts_done = self._cuts
                self._drop_all()
                continue
            if self._server in ready:
                client, _ = self._server.accept()
                self._pairs.append((client, socket.create_connection(self._target)))
            for pair in list(self._pairs):
                for source, target in (pair, pair[::-1]):
                    if source in ready and pair in self._pairs:
                        self._pass_on(pair, source, target)
        self._drop_all()

    def _pass_on(
        self, pair: tuple[socket.socket, socket.socket], source: socket.socket,
        target: socket.socket,
    ) -> None:  # fmt: skip
        try:
            data = source.recv(65536)
            if data:
                target.sendall(data)
                return
        except OSError:
            data = b""
        self._drop(pair)

    def _drop(self, pair: tuple[socket.socket, socket.socket]) -> None:
        self._pairs.remove(pair)
        for one in pair:
            # A reset, and not an end: what is in the buffers is lost.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            one.close()

    def _drop_all(self) -> None:
        for pair in list(self._pairs):
            self._drop(pair)


class Two:
    """A pump that dials, by way of a relay, one that listens."""

    def __init__(self) -> None:
        keys = Keys.from_token("a token")
        nodes = new_node_id(), new_node_id()
        doors = [Door(node, keys) for node in nodes]
        port = doors[1].listen_tcp("127.0.0.1", 0)
        self.relay = Relay(port)
        self.pumps = [Pump(door, node) for door, node in zip(doors, nodes, strict=True)]
        self.got: list[list[int]] = [[], []]
        self.address = Address(nodes[1], nodes[1], "", f"127.0.0.1:{self.relay.port}")
        self.ids = nodes
        for end, pump in enumerate(self.pumps):
            pump.on(Ack, lambda sender, message, end=end: self.got[end].append(message.rid))

    def turn(self, until: Callable[[], bool]) -> None:
        """Turn both."""
        give_up_at = time.monotonic() + 30.0
        while not until():
            assert time.monotonic() < give_up_at, self.got
            for pump in self.pumps:
                pump.run_once(0.005)

    def close(self) -> None:
        """End."""
        for pump in self.pumps:
            pump.door.close()
        self.relay.close()


@pytest.fixture
def two() -> Iterator[Two]:
    with contextlib.closing(Two()) as both:
        yield both


def test_cuts_lose_and_double_nothing_in_either_direction(two: Two) -> None:
    there = back = 0
    for round_ in range(12):
        for _ in range(200):
            two.pumps[0].send_to(two.address, Ack(there))
            there += 1
        # The listening end can talk once it has been talked to.
        if two.pumps[1].door.knows(two.ids[0]):
            for _ in range(100):
                assert two.pumps[1].send(two.ids[0], Ack(back))
                back += 1
        seen = len(two.got[1])
        two.turn(lambda seen=seen: len(two.got[1]) > seen)  # type: ignore[misc]
        if round_ % 2:
            two.relay.cut()
    two.turn(lambda: len(two.got[1]) >= there and len(two.got[0]) >= back)
    assert two.got[1] == list(range(there))
    assert two.got[0] == list(range(back))
    assert back > 0


def test_who_is_hung_up_on_is_gone(two: Two) -> None:
    two.pumps[0].send_to(two.address, Ack(1))
    two.turn(lambda: two.got[1] == [1])
    two.pumps[0].hang_up(two.ids[1])
    assert not two.pumps[0].send(two.ids[1], Ack(2))
    two.pumps[1].send(two.ids[0], Ack(3))
    for _ in range(20):
        for pump in two.pumps:
            pump.run_once(0.005)
    assert two.got == [[], [1]]


def test_who_cannot_be_sent_anything_is_a_peer_until_it_is_hung_up_on(two: Two) -> None:
    """Its link waits for it to come back: whoever learns that it is dead finds it to hang up."""
    two.pumps[0].send_to(two.address, Ack(1))
    two.turn(lambda: two.got[1] == [1])
    two.pumps[0].hang_up(two.ids[1])

    def is_away() -> bool:
        two.pumps[1].send(two.ids[0], Ack(2))
        return not two.pumps[1].door.knows(two.ids[0])

    two.turn(is_away)
    assert two.pumps[1].peers() == [two.ids[0]]
    two.pumps[1].hang_up(two.ids[0])
    assert two.pumps[1].peers() == []
