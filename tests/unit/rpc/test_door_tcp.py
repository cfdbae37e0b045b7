"""Tcp sockets of a process: who gets in, to whom messages come, which way is taken."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from mray.ids import new_head_id, new_process_id
from mray.rpc.door import Door, Keys
from mray.wire.messages import Address
from tests.proxy import Direction, Proxy
from tests.waiting import eventually

from .doors import NODE, Listen, MakeDoor, deliver, listen_tcp


def test_holders_of_the_token_talk_over_tcp(make_door: MakeDoor) -> None:
    keys = Keys.from_token("secret")
    server, client = make_door(keys), make_door(keys)
    client.dial(listen_tcp(server), NODE)
    client.send(server.process_id, b"hello")
    assert deliver(server, client) == [(client.process_id, b"hello")]
    server.send(client.process_id, b"welcome")
    assert deliver(server, client) == [(server.process_id, b"welcome")]


def test_one_door_dials_tcp_and_unix_sockets_in_turn(make_door: MakeDoor, ipc: Listen) -> None:
    keys = Keys.from_token("secret")
    far, near, far_too = make_door(keys), make_door(keys), make_door(keys)
    client = make_door(keys)
    for server, address in (
        (far, listen_tcp(far)), (near, ipc(near)), (far_too, listen_tcp(far_too)),
    ):  # fmt: skip
        client.dial(address, NODE)
        client.send(server.process_id, b"hello")
        assert deliver(server, client) == [(client.process_id, b"hello")]


def test_a_listener_on_tcp_still_takes_unix_sockets_without_keys(
    make_door: MakeDoor, ipc: Listen
) -> None:
    server, client = make_door(Keys.from_token("secret")), make_door()
    address = ipc(server)
    listen_tcp(server)
    client.dial(address, NODE)
    client.send(server.process_id, b"hello")
    assert deliver(server, client) == [(client.process_id, b"hello")]


def refused_by(server: Door, dialling: zmq.Socket[bytes], tcp: str = "") -> bool:
    """Turn the server until the handshake of ``dialling`` has failed; False if it succeeded.

    ``tcp``: where one that tries but once is connected, and sends, so that its end is heard."""
    monitor = dialling.get_monitor_socket(
        zmq.EVENT_HANDSHAKE_SUCCEEDED
        | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        | zmq.EVENT_DISCONNECTED
    )
    if tcp:
        dialling.connect(f"tcp://{tcp}")
        dialling.send(b"let me in")
    try:
        for _ in range(1000):
            assert list(server.poll(0.01)) == []
            if monitor.poll(0):
                event = recv_monitor_message(monitor)["event"]
                return bool(event != zmq.EVENT_HANDSHAKE_SUCCEEDED)
        raise AssertionError("the handshake never ended")
    finally:
        dialling.disable_monitor()
        monitor.close(0)


def test_another_token_does_not_get_in(make_door: MakeDoor) -> None:
    server, client = make_door(Keys.from_token("secret")), Door(b"c" * 13, Keys.from_token("guess"))
    address = listen_tcp(server)
    client._dialling.set(zmq.LINGER, 0)
    client.dial(address, NODE)
    client.send(server.process_id, b"let me in")
    try:
        assert refused_by(server, client._dialling)
    finally:
        client.close()


def test_knowing_the_servers_public_key_is_not_enough(make_door: MakeDoor) -> None:
    right, wrong = Keys.from_token("secret"), Keys.from_token("guess")
    half = Keys(
        right.server_public, wrong.server_secret, wrong.client_public, wrong.client_secret,
        right.seed,
    )  # fmt: skip
    server, client = make_door(right), Door(b"c" * 13, half)
    address = listen_tcp(server)
    client._dialling.set(zmq.LINGER, 0)
    client.dial(address, NODE)
    client.send(server.process_id, b"let me in")
    try:
        assert refused_by(server, client._dialling)
    finally:
        client.close()


def test_who_has_the_port_of_a_dead_process_does_not_get_its_messages(make_door: MakeDoor) -> None:
    keys = Keys.from_token("secret")
    server, client = make_door(keys), make_door(keys)
    address = listen_tcp(server)
    client._dialling.set(zmq.LINGER, 0)
    dead = new_process_id()
    client.dial(Address(dead, b"other node", tcp=address.tcp), NODE)
    client.send(dead, b"for the dead")
    assert refused_by(server, client._dialling)


def test_a_head_is_found_by_host_and_port_alone(make_door: MakeDoor) -> None:
    keys = Keys.from_token("secret")
    head, client = Door(new_head_id(), keys), make_door(keys)
    try:
        client.dial_endpoint(b"somebody", f"tcp://{listen_tcp(head).tcp}")
        client.send(b"somebody", b"hello")
        assert deliver(head, client) == [(b"somebody", b"hello")]
        by_id = make_door(keys)
        by_id.dial(listen_tcp(head), NODE)
        by_id.send(head.process_id, b"by id")
        assert deliver(head, by_id) == [(by_id.process_id, b"by id")]
    finally:
        head.close()


def test_ports_are_taken_from_a_range_until_it_is_used_up(make_door: MakeDoor) -> None:
    keys = Keys.from_token("secret")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        first = probe.getsockname()[1]
    taken = make_door(keys).listen_tcp_between("127.0.0.1", first, first)
    assert taken == first
    with pytest.raises(OSError, match="min_worker_port"):
        make_door(keys).listen_tcp_between("127.0.0.1", first, first)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6_hosts_are_listened_on_and_dialled(make_door: MakeDoor) -> None:
    keys = Keys.from_token("secret")
    server, client = make_door(keys), make_door(keys)
    try:
        port = server.listen_tcp("::1", 0)
    except zmq.ZMQError:
        pytest.skip("the loopback has no IPv6 address")
    client.dial(Address(server.process_id, b"other node", tcp=f"[::1]:{port}"), NODE)
    client.send(server.process_id, b"hello")
    assert deliver(server, client) == [(client.process_id, b"hello")]


def test_another_node_of_this_machine_is_dialled_by_its_socket_unless_told_not_to(
    make_door: MakeDoor, ipc: Listen
) -> None:
    keys = Keys.from_token("secret")
    server = make_door(keys)
    path = ipc(server).ipc
    both = Address(server.process_id, b"other node", path, listen_tcp(server).tcp)
    near, far = make_door(keys), Door(new_process_id(), keys, same_machine_ipc=False)
    try:
        for client, kind in ((near, "ipc"), (far, "tcp")):
            client.dial(both, NODE)
            assert client.dialled_by_tcp() == ([server.process_id] if kind == "tcp" else [])
            client.send(server.process_id, b"hello")
            assert deliver(server, client) == [(client.process_id, b"hello")]
    finally:
        far.close()


def test_a_client_without_curve_does_not_get_in(make_door: MakeDoor) -> None:
    server = make_door(Keys.from_token("secret"))
    address = listen_tcp(server)
    with zmq.Context() as context, context.socket(zmq.DEALER) as plain:
        plain.linger = 0
        assert refused_by(server, plain, address.tcp)


def test_tcp_needs_a_token_at_both_ends(make_door: MakeDoor) -> None:
    with pytest.raises(ValueError, match="cluster token"):
        make_door().listen_tcp("127.0.0.1", 0)
    with pytest.raises(ValueError, match="cluster token"):
        make_door().dial(Address(b"p", b"other", tcp="127.0.0.1:1"), NODE)


def test_a_port_in_use_is_an_error(make_door: MakeDoor) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(zmq.ZMQError, match="in use"):
            make_door(Keys.from_token("t")).listen_tcp("127.0.0.1", taken.getsockname()[1])


def test_who_connects_and_says_nothing_is_cut_off_and_who_talks_is_not() -> None:
    keys = Keys.from_token("secret")
    server, client = Door(new_process_id(), keys, handshake_s=0.3), Door(new_process_id(), keys)
    try:
        address = listen_tcp(server)
        client.dial(address, NODE)
        client.send(server.process_id, b"0")
        assert deliver(server, client) == [(client.process_id, b"0")]
        host, _, port = (address.tcp or "").rpartition(":")
        with socket.create_connection((host, int(port))) as silent:
            silent.settimeout(10)
            while silent.recv(1000):
                continue  # Its greeting; then the end.
        client.send(server.process_id, b"1")
        assert deliver(server, client) == [(client.process_id, b"1")]
    finally:
        client.close()
        server.close()


# -- lines that end


def turn(client: Door, server: Door, until: Callable[[], bool], what: str) -> list[bytes]:
    """Turn both; what came at the server."""
    came: list[bytes] = []

    def turned() -> bool:
        list(client.poll(0.005))
        came.extend(data for _, data in server.poll(0.005))
        return until()

    eventually(turned, 10.0, what)
    return came


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_line_that_a_damaged_byte_has_ended_is_dialled_again_under_another_name(
    make_door: MakeDoor, direction: Direction
) -> None:
    keys = Keys.from_token("secret")
    server, client = make_door(keys), make_door(keys)
    with Proxy(("127.0.0.1", server.listen_tcp("127.0.0.1", 0))) as proxy:
        again: list[bytes] = []
        client.on_again = again.append
        client.dial(Address(server.process_id, b"other", tcp=proxy.address), NODE)
        (line,) = client._lines
        for number in range(5):
            client.send(server.process_id, b"there %d" % number)
            assert deliver(server, client) == [(client.process_id, b"there %d" % number)]
            proxy.damaged, proxy.flip_chance = {direction}, 1.0
            ends = client, server
            sender, receiver = ends if direction == "up" else ends[::-1]
            sender.send(receiver.process_id, bytes(3000))
            turn(client, server, lambda n=number: len(again) > n or not line.name, "an end")  # type: ignore[misc]
            proxy.flip_chance = 0.0
            turn(client, server, lambda n=number: len(again) > n, "another line")  # type: ignore[misc]
            assert line.name.startswith(server.process_id)
            assert len(line.name) > len(server.process_id)
            client.send(server.process_id, b"again")
            assert (client.process_id, b"again") in deliver(server, client)
            server.send(client.process_id, b"back")
            assert deliver(client, server) == [(server.process_id, b"back")]
        assert set(again) == {server.process_id}
        assert client.peers() == [server.process_id]


def test_who_has_the_port_of_the_dead_keeps_its_line_when_they_are_hung_up_on(
    make_door: MakeDoor,
) -> None:
    keys = Keys.from_token("secret")
    server, client = make_door(keys), make_door(keys)
    address, dead = listen_tcp(server), new_process_id()
    client.dial(address, NODE)
    client.send(server.process_id, b"hello")
    assert deliver(server, client) == [(client.process_id, b"hello")]
    client.dial(Address(dead, b"other node", tcp=address.tcp), NODE)
    turn(client, server, lambda: client.refusals > 0, "a refusal")
    client.hang_up(dead)
    client.send(server.process_id, b"still here")
    assert deliver(server, client) == [(client.process_id, b"still here")]
    assert not client.send(dead, b"x")


def test_who_is_refused_tries_again_and_gets_in_once_it_may(
    make_door: MakeDoor,
) -> None:
    keys = Keys.from_token("secret")
    stranger, server, client = (
        make_door(Keys.from_token("another")),
        make_door(keys),
        make_door(keys),
    )
    with Proxy(("127.0.0.1", stranger.listen_tcp("127.0.0.1", 0))) as proxy:
        client.dial(Address(server.process_id, b"other", tcp=proxy.address), NODE)
        client.send(server.process_id, b"from the beginning")
        (line,) = client._lines
        turn(client, stranger, lambda: line.refusals >= 3, "refusals")
        assert client.refusals >= 3
        proxy.target = ("127.0.0.1", server.listen_tcp("127.0.0.1", 0))
        assert deliver(server, client) == [(client.process_id, b"from the beginning")]


def test_a_process_that_has_moved_is_dialled_where_it_is(make_door: MakeDoor, ipc: Listen) -> None:
    keys = Keys.from_token("secret")
    for kind in (ipc, listen_tcp):
        former, client = make_door(keys), make_door(keys)
        client.dial(kind(former), NODE)
        client.send(former.process_id, b"0")
        assert deliver(former, client) == [(client.process_id, b"0")]
        now = Door(former.process_id, keys)
        try:
            client.redial(former.process_id, listen_tcp(now).tcp)
            client.send(now.process_id, b"1")
            assert deliver(now, client) == [(client.process_id, b"1")]
            assert client.dialled_by_tcp() == [now.process_id]
        finally:
            now.close()


def test_a_poll_without_end_stays_one_when_all_that_was_due_is_dialled(
    make_door: MakeDoor,
) -> None:
    keys = Keys.from_token("secret")
    server, client = make_door(keys), make_door(keys)
    client.dial(listen_tcp(make_door(keys)), NODE)
    client.redial(client.peers()[0], listen_tcp(server).tcp)
    client.wake()
    assert list(client.poll(None)) == []


def test_a_process_that_called_can_be_dialled_where_it_is_by_now(make_door: MakeDoor) -> None:
    keys = Keys.from_token("secret")
    caller, door = make_door(keys), make_door(keys)
    caller.dial(listen_tcp(door), NODE)
    caller.send(door.process_id, b"0")
    assert deliver(door, caller) == [(caller.process_id, b"0")]
    door.redial(caller.process_id, listen_tcp(caller).tcp)
    door.send(caller.process_id, b"1")
    assert deliver(caller, door) == [(door.process_id, b"1")]


def test_what_waits_for_a_line_leaves_when_the_door_is_closed(make_door: MakeDoor) -> None:
    keys = Keys.from_token("secret")
    server, client = make_door(keys), Door(new_process_id(), keys)
    client.dial(listen_tcp(server), NODE)
    client.send(server.process_id, b"last words")
    closing = threading.Thread(target=client.close)
    closing.start()
    assert deliver(server) == [(client.process_id, b"last words")]
    closing.join()
