"""Sockets of a process: who gets in, what arrives, what is told of peers that are gone."""

from __future__ import annotations

import os
import socket
import struct
import threading
from pathlib import Path

import pytest
import zmq

from mray.ids import new_process_id
from mray.rpc.door import IPC_PATH_BYTES_MAX, Door, Keys
from mray.wire.codec import MESSAGE_BYTES_MAX
from mray.wire.messages import Address

from .doors import NODE, Listen, MakeDoor, deliver, listen_tcp, receive

# -- unix sockets


def test_a_path_too_long_for_a_unix_socket_is_refused_with_what_to_do(
    make_door: MakeDoor, tmp_path: Path
) -> None:
    path = str(tmp_path / ("x" * IPC_PATH_BYTES_MAX))
    with pytest.raises(ValueError, match=f"at most {IPC_PATH_BYTES_MAX} .*MRAY_TMPDIR"):
        make_door().listen_ipc(path)


def test_the_longest_possible_path_works(tmp_path: Path) -> None:
    link = f"/tmp/{new_process_id()[1:6].hex()}"
    os.symlink(tmp_path, link)
    try:
        path = f"{link}/".ljust(IPC_PATH_BYTES_MAX, "x")
        server, client = Door(new_process_id()), Door(new_process_id())
        server.listen_ipc(path)
        client.dial(Address(server.process_id, NODE, path), NODE)
        assert client.send(server.process_id, b"hello")
        assert receive(server) == [(client.process_id, b"hello")]
        server.close()
        client.close()
    finally:
        os.unlink(link)


def test_the_socket_file_goes_with_the_door(ipc: Listen) -> None:
    door = Door(new_process_id())
    address = ipc(door)
    assert os.path.exists(address.ipc)
    door.close()
    assert not os.path.exists(address.ipc)


def test_answers_go_back_on_the_connection_of_the_question(
    make_door: MakeDoor, ipc: Listen
) -> None:
    server, client = make_door(), make_door()
    client.dial(ipc(server), NODE)
    assert client.send(server.process_id, b"question")
    assert receive(server) == [(client.process_id, b"question")]
    assert server.send(client.process_id, b"answer")
    assert receive(client) == [(server.process_id, b"answer")]


def test_messages_wait_for_a_peer_that_listens_later(make_door: MakeDoor, tmp_path: Path) -> None:
    server, client = make_door(), make_door()
    path = str(tmp_path / "late")
    client.dial(Address(server.process_id, NODE, path), NODE)
    assert client.send(server.process_id, b"early")
    server.listen_ipc(path)
    assert receive(server) == [(client.process_id, b"early")]


def test_a_pair_of_processes_keeps_to_one_connection(make_door: MakeDoor, ipc: Listen) -> None:
    server, client = make_door(), make_door()
    mine, theirs = ipc(server), ipc(client)
    client.dial(mine, NODE)
    client.send(server.process_id, b"0")
    receive(server)
    server.dial(theirs, NODE)  # knows the client already: dials nothing
    assert list(server._lines) == []
    for number in range(100):
        assert server.send(client.process_id, b"%d" % number)
    assert [data for _, data in receive(client, 100)] == [b"%d" % n for n in range(100)]


def test_processes_that_dial_each_other_at_once_understand_each_other(
    make_door: MakeDoor,
    ipc: Listen,
) -> None:
    a, b = make_door(), make_door()
    address_a, address_b = ipc(a), ipc(b)
    a.dial(address_b, NODE)
    b.dial(address_a, NODE)
    assert a.send(b.process_id, b"from a")
    assert b.send(a.process_id, b"from b")
    assert receive(a) == [(b.process_id, b"from b")]
    assert receive(b) == [(a.process_id, b"from a")]
    assert a.send(b.process_id, b"again")
    assert receive(b) == [(a.process_id, b"again")]


def test_sending_to_a_stranger_says_so(make_door: MakeDoor) -> None:
    assert make_door().send(new_process_id(), b"x") is False


def test_sending_to_a_caller_that_went_says_so(make_door: MakeDoor, ipc: Listen) -> None:
    server, caller = make_door(), Door(new_process_id())
    caller.dial(ipc(server), NODE)
    caller.send(server.process_id, b"x")
    receive(server)
    assert server.knows(caller.process_id)
    caller.close()
    for _ in range(1000):
        server.poll(0.01)
        if not server.send(caller.process_id, b"y"):
            break
        list(server.poll(0.01))
    assert not server.knows(caller.process_id)


def test_who_was_hung_up_on_is_gone_for_good(make_door: MakeDoor, tmp_path: Path) -> None:
    client, server = make_door(), make_door()
    address = Address(server.process_id, NODE, str(tmp_path / "s"))
    client.dial(address, NODE)
    client.send(server.process_id, b"never to arrive")
    client.hang_up(server.process_id)
    # Dialled again at once, libzmq would abort the process: the old connection is still there.
    client.dial(address, NODE)
    assert not client.knows(server.process_id)
    assert client.send(server.process_id, b"x") is False


def test_hanging_up_on_a_stranger_does_nothing(make_door: MakeDoor) -> None:
    make_door().hang_up(b"nobody")


def test_an_address_without_a_way_to_it_is_refused(make_door: MakeDoor) -> None:
    with pytest.raises(ValueError, match="no address to dial"):
        make_door().dial(Address(b"p", NODE), NODE)


# -- junk

GREETING = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x01NULL".ljust(12 + 20, b"\0") + b"\0" * 32
READY = b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x06DEALER"[:27]
JUNK = [
    b"",
    b"\0",
    b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
    b"\xff" * 64,
    bytes(range(256)) * 40,
    GREETING,
    GREETING + b"\x02" + struct.pack(">Q", 1 << 62),
    GREETING + READY + b"\x02" + struct.pack(">Q", (1 << 63) - 1) + b"x",
]


def throw(path: str, junk: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(path)
        try:
            raw.sendall(junk)
        except BrokenPipeError:
            return  # It has hung up on us already.


def test_bytes_that_are_no_zeromq_end_that_connection_only(
    make_door: MakeDoor, ipc: Listen
) -> None:
    server, client = make_door(), make_door()
    address = ipc(server)
    client.dial(address, NODE)
    for junk in JUNK:
        throw(address.ipc, junk)
        client.send(server.process_id, b"still here")
        assert receive(server) == [(client.process_id, b"still here")]


def test_messages_that_are_not_one_frame_arrive_empty(make_door: MakeDoor, ipc: Listen) -> None:
    server = make_door()
    address = ipc(server)
    with zmq.Context() as context, context.socket(zmq.DEALER) as strange:
        strange.linger = 0
        strange.connect(f"ipc://{address.ipc}")
        strange.send_multipart([b"two", b"frames"])
        strange.send_multipart([b"", b"", b"three"])
        strange.send(b"one")
        assert [data for _, data in receive(server, 3)] == [b"", b"", b"one"]


def test_messages_beyond_the_limit_are_refused_unread_on_unix_sockets_too(
    make_door: MakeDoor,
) -> None:
    door = make_door()
    for ours in (door._listening, door._dialling):
        assert ours.get(zmq.MAXMSGSIZE) == MESSAGE_BYTES_MAX


# -- waking and watching


def test_many_wakes_are_one(make_door: MakeDoor) -> None:
    door = make_door()
    for _ in range(1000):
        door.wake()
    assert os.eventfd_read(door._wake_fd) == 1
    door._awake = False
    door.wake()
    assert list(door.poll(10)) == []  # returns at once: it was woken
    assert list(door.poll(0)) == []


def test_a_wake_from_another_thread_ends_a_poll_without_end(make_door: MakeDoor) -> None:
    door = make_door()
    thread = threading.Thread(target=door.wake)
    thread.start()
    assert list(door.poll(None)) == []
    thread.join()


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_what_was_sent_before_a_door_was_closed_arrives_at_a_busy_peer(
    make_door: MakeDoor, ipc: Listen, tcp: bool
) -> None:
    keys = Keys.from_token("secret")
    server = make_door(keys)
    address = listen_tcp(server) if tcp else ipc(server)
    for _ in range(10):
        client = Door(new_process_id(), keys)
        client.dial(address, NODE)
        client.send(server.process_id, b"first")
        deliver(client, server)
        for number in range(500):
            client.send(server.process_id, b"%d" % number)
        client.close()
        assert [data for _, data in receive(server, 500)] == [b"%d" % n for n in range(500)]


def test_a_closed_door_does_not_write_into_the_descriptors_of_others(tmp_path: Path) -> None:
    door = Door(new_process_id())
    number = door._wake_fd
    door.close()
    other = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        os.dup2(other, number)
        door.wake()
        assert os.fstat(other).st_size == 0
        os.close(number)
    finally:
        if other != number:
            os.close(other)


def test_watched_descriptors_call_when_readable(make_door: MakeDoor) -> None:
    door = make_door()
    read, write = os.pipe()
    calls: list[bytes] = []
    door.watch(read, lambda: calls.append(os.read(read, 10)))
    os.write(write, b"x")
    list(door.poll(10))
    door.unwatch(read)
    door.unwatch(read)
    os.write(write, b"y")
    list(door.poll(0))
    assert calls == [b"x"]
    os.close(read)
    os.close(write)


def test_a_watch_ended_by_another_in_the_same_round_is_not_called(make_door: MakeDoor) -> None:
    door = make_door()
    pipes = [os.pipe(), os.pipe()]
    calls: list[int] = []

    def called(mine: int, other: int) -> None:
        calls.append(mine)
        door.unwatch(other)

    door.watch(pipes[0][0], lambda: called(pipes[0][0], pipes[1][0]))
    door.watch(pipes[1][0], lambda: called(pipes[1][0], pipes[0][0]))
    for _, write in pipes:
        os.write(write, b"x")
    list(door.poll(10))
    assert len(calls) == 1
    for read, write in pipes:
        os.close(read)
        os.close(write)


def test_whether_somebody_listens_is_seen_without_sending_anything(
    make_door: MakeDoor, ipc: Listen, tmp_path: Path
) -> None:
    door = Door(new_process_id())
    address = ipc(door)
    assert door.somebody_listens(address, NODE)
    assert list(door.poll(0)) == []
    left = tmp_path / "left"
    os.link(address.ipc, left)  # as a killed process leaves it
    door.close()
    assert not door.somebody_listens(address, NODE)
    assert not door.somebody_listens(Address(b"p", NODE, str(left)), NODE)
    assert not door.somebody_listens(Address(b"p", b"other", str(left), "127.0.0.1:1"), NODE)
    gone = Address(b"p", b"other", str(tmp_path / "none"), "127.0.0.1:1")
    assert door.somebody_listens(gone, NODE) is None
