"""What is thrown away when the connection to a dead peer is closed, and what is not."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest

from mray.rpc.door import Keys
from mray.rpc.unsent import discard_unsent

from .doors import NODE, MakeDoor, deliver, listen_tcp

Ends = tuple[socket.socket, socket.socket, int]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """A connection: who dialled, who listened, and the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            peer, _ = server.accept()
            with peer:
                yield client, peer, port


def test_the_connection_is_broken_off_when_it_is_closed(ends: Ends) -> None:
    client, peer, port = ends
    discard_unsent(client.fileno(), f"tcp://127.0.0.1:{port}")
    client.sendall(b"still open")
    assert peer.recv(100) == b"still open"
    client.close()
    with pytest.raises(ConnectionResetError):
        peer.recv(100)


def test_a_descriptor_that_is_another_connection_by_now_is_left_alone(ends: Ends) -> None:
    client, peer, port = ends
    discard_unsent(client.fileno(), f"tcp://127.0.0.1:{port + 1}")
    client.sendall(b"last words")
    client.close()
    assert peer.recv(100) == b"last words"
    assert peer.recv(100) == b""


def test_what_is_no_connection_is_left_alone() -> None:
    reading, writing = os.pipe()
    before = sorted(os.listdir("/proc/self/fd"))
    discard_unsent(writing, "tcp://127.0.0.1:1")
    assert sorted(os.listdir("/proc/self/fd")) == before
    with socket.socket() as unconnected:
        discard_unsent(unconnected.fileno(), "tcp://127.0.0.1:1")
    os.close(reading)
    os.close(writing)
    discard_unsent(writing, "tcp://127.0.0.1:1")


def test_a_door_does_so_for_whom_it_hangs_up_on(make_door: MakeDoor) -> None:
    keys = Keys.from_token("secret")
    server, other, client = make_door(keys), make_door(keys), make_door(keys)
    copies = []
    for peer in (server, other):
        client.dial(listen_tcp(peer), NODE)
        client.send(peer.process_id, b"hello")
        assert deliver(peer, client) == [(client.process_id, b"hello")]
    described = client._dialler._descriptors
    assert len(described) == 2
    copies = [socket.socket(fileno=os.dup(number)) for number in described.values()]
    client.hang_up(server.process_id)
    lingers = [
        struct.unpack("ii", copy.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))
        for copy in copies
    ]
    assert lingers == [(1, 0), (0, 0)]
    assert len(described) == 1
    for copy in copies:
        copy.close()
