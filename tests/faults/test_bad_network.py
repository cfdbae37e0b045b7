"""F18, F20: connections that are cut, delayed or damaged, between two processes and to a cluster.

ZeroMQ promises no delivery, so messages may be lost with their connection. None may be damaged,
doubled or overtaken, and none may reach a process that was not meant. Between pumps, whose links
send again what was lost, and in a cluster, none may be missing either.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

import pytest
import zmq

from mray.ids import new_process_id
from mray.rpc.door import Door, Keys
from mray.rpc.pump import Pump
from mray.wire.messages import Ack, Address

from ..proxy import Proxy
from ..waiting import eventually

pytestmark = pytest.mark.failure

Pair = tuple[Door, Door, Proxy]


@pytest.fixture
def pair() -> Iterator[Callable[[int], Pair]]:
    """``pair(seed)``: a door that listens, one that has dialled it, and what is between them."""
    proxies: list[Proxy] = []
    doors: list[Door] = []

    def make(seed: int) -> Pair:
        keys = Keys.from_token("t" * 32)
        server, client = Door(new_process_id(), keys), Door(new_process_id(), keys)
        proxy = Proxy(("127.0.0.1", server.listen_tcp("127.0.0.1", 0)), seed)
        proxies.append(proxy.__enter__())
        doors.extend((server, client))
        client.dial(Address(server.process_id, b"elsewhere", tcp=proxy.address), b"here")
        return server, client, proxy

    yield make
    for door in doors:
        door._dialling.set(zmq.LINGER, 0)
        door._listening.set(zmq.LINGER, 0)
        door.close()
    for proxy in proxies:
        proxy.__exit__(None, None, None)


def message(number: int) -> bytes:
    """Tells whether it is whole: its number, and bytes that follow from it."""
    return b"%d " % number + random.Random(number).randbytes(200)


def received(server: Door, client: Door) -> list[int]:
    """The numbers of what has come; AssertionError for anything that was not sent so."""
    numbers = []
    for _ in client.poll(0.0):
        raise AssertionError("nobody answered")
    for sender, data in server.poll(0.005):
        assert sender == client.process_id
        number = int(data.partition(b" ")[0])
        assert data == message(number)
        numbers.append(number)
    return numbers


def exchange(
    pair: Pair, count: int, fault: Callable[[int], None], done: Callable[[list[int]], bool]
) -> list[int]:
    """Send ``count`` messages while ``fault`` is called for each; what came in which order."""
    server, client, _ = pair
    came: list[int] = []
    for number in range(count):
        fault(number)
        client.send(server.process_id, message(number))
        if number % 10 == 9:
            came += received(server, client)
    give_up_at = time.monotonic() + 20
    while not done(came) and time.monotonic() < give_up_at:
        came += received(server, client)
    return came


@pytest.mark.parametrize("seed", range(3))
def test_damaged_bytes_never_become_a_message_and_harm_nobody_else(
    pair: Callable[[int], Pair], seed: int
) -> None:
    server, client, proxy = pair(seed)
    eventually(lambda: client.send(server.process_id, message(0)))
    eventually(lambda: received(server, client) == [0])
    proxy.flip_chance = 0.02
    came = exchange((server, client, proxy), 1000, lambda number: None, lambda came: True)
    eventually(lambda: proxy.flips > 0 or client.send(server.process_id, message(1)))
    assert came == sorted(set(came)), "doubled or overtaken"
    proxy.flip_chance = 0.0
    other = Door(new_process_id(), Keys.from_token("t" * 32))
    try:
        other.dial(Address(server.process_id, b"elsewhere", tcp=proxy.address), b"here")
        other.send(server.process_id, b"whole")
        eventually(
            lambda: (
                list(other.poll(0.0))
                or [data for who, data in server.poll(0.01) if who == other.process_id]
            )
        )
    finally:
        other.close()


def test_cut_connections_come_again_and_nothing_is_doubled(pair: Callable[[int], Pair]) -> None:
    server, client, proxy = pair(7)
    came: list[int] = []
    number = 0
    for cut in range(1, 6):
        before = len(came)
        # What is sent while a connection breaks may be lost with it; what comes after is not.
        while len(came) == before or proxy.connections < cut:
            client.send(server.process_id, message(number))
            number += 1
            came += received(server, client)
            assert number < 20_000
        proxy.cut()
    assert came == sorted(set(came)), "doubled or overtaken"


def test_a_slow_and_late_line_delivers_all_of_it_in_order(pair: Callable[[int], Pair]) -> None:
    server, client, proxy = pair(3)
    proxy.delay_s = 0.1
    proxy.bytes_per_s = 1_000_000
    came = exchange((server, client, proxy), 2000, lambda number: None, lambda c: 1999 in c)
    assert came == list(range(2000))


def test_a_line_that_is_deaf_one_way_delivers_what_waited_when_it_hears_again(
    pair: Callable[[int], Pair],
) -> None:
    server, client, proxy = pair(4)
    proxy.deaf = {"down"}  # not even the handshake ends
    for number in range(100):
        client.send(server.process_id, message(number))
    assert received(server, client) == []
    proxy.deaf = set()
    proxy.cut()
    came = exchange((server, client, proxy), 0, lambda number: None, lambda c: 99 in c)
    assert came == list(range(100))


# -- damaged bytes, and nothing is lost: pumps have links


@pytest.mark.parametrize("seed", range(4))
def test_bytes_damaged_either_way_lose_double_and_reorder_nothing(
    pair: Callable[[int], Pair], seed: int
) -> None:
    server, client, proxy = pair(seed)
    there, back = Pump(server), Pump(client)
    came: dict[Pump, list[int]] = {there: [], back: []}
    for pump in (there, back):
        pump.on(Ack, lambda sender, message, pump=pump: came[pump].append(message.rid))
    sent = {there: 0, back: 0}

    def turn() -> None:
        for pump in (there, back):
            pump.run_once(0.001)

    def say(pump: Pump, peer: bytes, count: int) -> None:
        for _ in range(count):
            pump.send(peer, Ack(sent[pump]))
            sent[pump] += 1

    say(back, server.process_id, 1)
    eventually(lambda: turn() or server.knows(client.process_id))
    for flips in range(1, 7):
        proxy.flip_chance = 0.2
        while proxy.flips < flips:
            say(there, client.process_id, 20)
            say(back, server.process_id, 20)
            turn()
        proxy.flip_chance = 0.0
        eventually(
            lambda: turn() or (len(came[there]) >= sent[back] and len(came[back]) >= sent[there]),
            20,
            "all of it",
        )
    assert came == {there: list(range(sent[back])), back: list(range(sent[there]))}
