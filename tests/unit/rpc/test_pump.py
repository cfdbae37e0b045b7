"""The event loop: what is called when, and what one bad message, peer or handler cannot do."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from mray.ids import new_process_id
from mray.rpc.door import Door
from mray.rpc.link import ACK_AFTER_S, PROBE_AFTER_S, Link
from mray.rpc.pump import Pump, RequestFailed
from mray.wire.codec import encode
from mray.wire.messages import (
    Ack,
    Address,
    GetNodes,
    GetWorkers,
    KvGet,
    Message,
    Ping,
    Refused,
    StealTasks,
    Workers,
)

Connect = Callable[[Pump, Pump], None]


class Clock:
    """Time that moves when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pumps(clock: Clock, tmp_path: Any) -> Iterator[tuple[Pump, Pump]]:
    """Two event loops; the first has dialled the second."""
    made = [Pump(Door(new_process_id()), clock=clock) for _ in range(2)]
    path = str(tmp_path / "b")
    made[1].door.listen_ipc(path)
    made[0].door.dial(Address(made[1].door.process_id, b"", path), b"")
    yield made[0], made[1]
    for pump in made:
        pump.door.close()


@pytest.fixture
def pump(pumps: tuple[Pump, Pump]) -> Pump:
    return pumps[0]


def turn(condition: Callable[[], Any], *pumps: Pump) -> None:
    """Turn the loops until the condition holds."""
    for _ in range(1000):
        if condition():
            return
        for pump in pumps:
            pump.run_once(0.005)
    raise AssertionError("it never came")


def name(pump: Pump) -> bytes:
    return pump.door.process_id


# -- requests


def test_a_reply_finds_its_request(pumps: tuple[Pump, Pump]) -> None:
    a, b = pumps
    b.on(KvGet, lambda sender, message: b.send(sender, Refused(message.rid, "KeyError", "no")))
    got: list[tuple[str, Message]] = []
    a.request(name(b), lambda rid: KvGet(rid, "n", b"k"), lambda r: got.append(("kv", r)), 10)
    a.request(name(b), Ping, lambda r: got.append(("ping", r)), 10)
    turn(lambda: len(got) == 2, a, b)
    assert dict(got) == {"kv": Refused(1, "KeyError", "no"), "ping": Ack(2)}


def test_a_request_without_an_answer_fails_when_its_time_is_over(
    pumps: tuple[Pump, Pump], clock: Clock
) -> None:
    a, b = pumps
    got: list[Message] = []
    a.request(name(b), Ping, got.append, timeout_s=5)
    a.run_once(0)
    clock.now += 4.9
    a.run_once(0)
    assert got == []
    clock.now += 0.1
    a.run_once(0)
    (failure,) = got
    assert isinstance(failure, RequestFailed)
    assert failure.text == f"Ping to {name(b).hex()[:8]}: no answer in time"


def test_an_answer_that_comes_too_late_is_ignored(pumps: tuple[Pump, Pump], clock: Clock) -> None:
    a, b = pumps
    got: list[Message] = []
    a.request(name(b), Ping, got.append, timeout_s=5)
    clock.now += 5
    a.run_once(0)
    later: list[Message] = []
    turn(lambda: not list(b.run_once(0.01) or []) and b._requests == {}, b)
    a.request(name(b), Ping, later.append, timeout_s=5)
    turn(lambda: later, a, b)
    assert [type(message) for message in got + later] == [RequestFailed, Ack]


def test_a_request_to_nobody_fails_at_once_but_not_within_the_call(pump: Pump) -> None:
    got: list[Message] = []
    pump.request(b"nobody", Ping, got.append, timeout_s=100)
    assert got == []
    pump.run_once(None)
    assert isinstance(got[0], RequestFailed)
    assert got[0].text == "Ping: the peer is gone"


def test_a_request_to_the_dead_fails_at_once(pumps: tuple[Pump, Pump]) -> None:
    a, b = pumps
    a.door.hang_up(name(b))
    got: list[Message] = []
    a.request(name(b), Ping, got.append, timeout_s=100)
    a.run_once(None)
    assert isinstance(got[0], RequestFailed)


def test_what_a_process_was_asked_fails_when_it_dies(pumps: tuple[Pump, Pump]) -> None:
    a, b = pumps
    got: list[Message] = []
    a.request(name(b), Ping, got.append, timeout_s=100)
    a.hang_up(name(b))
    assert got == []
    a.run_once(None)
    assert isinstance(got[0], RequestFailed)
    assert got[0].text == "Ping: the peer is gone"
    assert a._requests == {}


def test_a_forgotten_request_calls_nobody(pumps: tuple[Pump, Pump], clock: Clock) -> None:
    a, b = pumps
    got: list[Message] = []
    a.forget_request(a.request(name(b), Ping, got.append, timeout_s=1))
    clock.now += 2
    a.run_once(0)
    other: list[Message] = []
    a.request(name(b), Ping, other.append, timeout_s=10)
    turn(lambda: other, a, b)
    assert got == []


def test_a_failed_request_may_forget_another_that_fails_too(
    pumps: tuple[Pump, Pump], clock: Clock
) -> None:
    a, b = pumps
    rids: list[int] = []
    got: list[Message] = []

    def failed(message: Message) -> None:
        got.append(message)
        for rid in rids:
            a.forget_request(rid)

    rids += [a.request(name(b), Ping, failed, timeout_s=1) for _ in range(2)]
    clock.now += 2
    a.run_once(0)
    assert len(got) == 1


def test_only_who_was_asked_can_answer(pumps: tuple[Pump, Pump]) -> None:
    a, b = pumps
    got: list[Message] = []
    b.on(KvGet, lambda sender, message: None)
    rid = b.request(b"x", lambda rid: KvGet(rid, "", b""), got.append, 100)
    b._requests[rid] = (got.append, 1e9, b"somebody else", "KvGet")
    b._calls.clear()
    a.send(name(b), Ack(rid))
    turn(lambda: b.junk_count, a, b)
    assert got == []
    assert rid in b._requests


def test_handlers_that_raise_refuse_the_request_and_the_loop_goes_on(
    pumps: tuple[Pump, Pump], caplog: pytest.LogCaptureFixture
) -> None:
    a, b = pumps

    def raises(sender: bytes, message: GetNodes) -> None:
        raise LookupError("no such node")

    b.on(GetNodes, raises)
    got: list[Message] = []
    a.request(name(b), GetNodes, got.append, 100)
    a.request(name(b), Ping, got.append, 100)
    turn(lambda: len(got) == 2, a, b)
    assert got == [Refused(1, "LookupError", "no such node"), Ack(2)]
    assert "GetNodes from" in caplog.text
    assert "Traceback" in caplog.text


def test_callbacks_that_raise_do_not_end_the_loop(
    pumps: tuple[Pump, Pump], clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = pumps

    def raises(*ignored: object) -> None:
        raise RuntimeError("a bug")

    read, write = os.pipe()
    a.door.watch(read, lambda: raises(os.read(read, 1)))
    os.write(write, b"x")
    a.call_soon(raises)
    a.after(1, raises)
    a.request(name(b), Ping, raises, 10)
    a.request(b"nobody", Ping, raises, 10)
    a.hooks.append(raises)
    clock.now += 1
    got: list[Message] = []
    a.request(name(b), Ping, got.append, 10)
    turn(lambda: got, a, b)
    assert caplog.text.count("a bug") >= 6
    os.close(read)
    os.close(write)


# -- junk


def test_junk_is_counted_and_complained_about_every_ten_seconds_only(
    pumps: tuple[Pump, Pump], clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = pumps
    caplog.set_level(logging.WARNING, "mray.pump")
    for _ in range(50):
        a.door.send(name(b), b"junk")
    turn(lambda: b.junk_count == 50, b)
    assert len(caplog.records) == 1
    clock.now += 10
    a.door.send(name(b), encode(StealTasks(1)))
    turn(lambda: b.junk_count == 51, b)
    first, second = [record.getMessage() for record in caplog.records]
    assert f"ignored junk from peer {name(a).hex()[:16]} (1 so far): not an mray message" in first
    assert "(51 so far): unexpected StealTasks" in second


def test_answers_to_no_request_are_no_junk(pumps: tuple[Pump, Pump]) -> None:
    a, b = pumps
    a.send(name(b), Workers(999, [], []))
    got: list[Message] = []
    a.request(name(b), Ping, got.append, 10)
    turn(lambda: got, a, b)
    assert b.junk_count == 0


# -- timers and calls


def test_timers_run_in_the_order_of_their_time(pump: Pump, clock: Clock) -> None:
    order: list[str] = []
    pump.after(3, lambda: order.append("third"))
    pump.after(1, lambda: order.append("first"))
    pump.at(clock.now + 1, lambda: order.append("second"))
    pump.run_once(0)
    assert order == []
    clock.now += 1
    pump.run_once(0)
    assert order == ["first", "second"]
    clock.now += 10
    pump.run_once(0)
    assert order == ["first", "second", "third"]


def test_cancelled_timers_do_not_run(pump: Pump, clock: Clock) -> None:
    order: list[str] = []
    later = pump.after(2, lambda: order.append("later"))
    pump.after(1, later.cancel)

    def once() -> None:
        order.append("again")
        again.cancel()

    again = pump.every(1, once)
    for _ in range(4):
        clock.now += 1
        pump.run_once(0)
    assert order == ["again"]


def test_periodic_timers_keep_their_rhythm_and_do_not_make_up_for_a_pause(
    pump: Pump, clock: Clock
) -> None:
    ticks: list[float] = []
    pump.every(1, lambda: ticks.append(clock.now))
    for _ in range(3):
        clock.now += 1
        pump.run_once(0)
    assert ticks == [101, 102, 103]
    clock.now += 100
    pump.run_once(0)
    pump.run_once(0)
    assert 1 <= len(ticks) - 3 <= 2


def test_the_loop_sleeps_no_longer_than_to_the_next_timer_or_deadline(
    pumps: tuple[Pump, Pump], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pumps
    waits: list[float | None] = []
    monkeypatch.setattr(a.door, "poll", lambda timeout_s, run: waits.append(timeout_s) or iter(()))
    a.run_once(None)
    a.after(7, lambda: None)
    a.after(5, lambda: None).cancel()
    a.run_once(None)
    a.request(name(b), Ping, lambda reply: None, timeout_s=3)
    a.run_once(None)
    a.run_once(1)
    a.call_soon(lambda: a.call_soon(lambda: None))
    a.run_once(None)
    assert waits == [None, 7, 3, 1, 0]


def test_nobody_wakes_for_a_link_whose_messages_are_all_confirmed(clock: Clock) -> None:
    waits: list[float | None] = []
    sent: list[bytes] = []
    arrived: list[tuple[bytes, bytes]] = []

    def poll(timeout_s: float | None, run: Any) -> Iterator[tuple[bytes, bytes]]:
        waits.append(timeout_s)
        while arrived:
            yield arrived.pop()

    door: Any = SimpleNamespace(
        dialled_by_tcp=lambda: [b"peer"], send=lambda to, data: sent.append(data), poll=poll
    )
    pump, peer = Pump(door, clock=clock), Link()
    pump.send(b"peer", Ack(1))
    pump.run_once(None)
    peer.receive(sent.pop(), clock.now)
    clock.now += ACK_AFTER_S
    (confirmation,) = peer.tick(clock.now)
    arrived.append((b"peer", confirmation))
    pump.run_once(None)
    pump.run_once(None)
    assert waits == [PROBE_AFTER_S, pytest.approx(PROBE_AFTER_S - ACK_AFTER_S), None]
    pump.send(b"peer", Ack(2))
    pump.run_once(None)
    assert waits[-1] == pytest.approx(PROBE_AFTER_S)


def test_calls_from_other_threads_run_in_the_loop_in_order(pump: Pump) -> None:
    ran: list[tuple[int, int]] = []

    def call() -> None:
        for number in range(1000):
            pump.call_soon(lambda number=number: ran.append((number, threading.get_ident())))  # type: ignore[misc]
        pump.call_soon(pump.stop)

    thread = threading.Thread(target=call)
    thread.start()
    pump.run()
    thread.join()
    assert ran == [(number, threading.get_ident()) for number in range(1000)]


def test_calls_that_call_each_other_without_end_let_messages_in(pumps: tuple[Pump, Pump]) -> None:
    a, b = pumps

    def again() -> None:
        b.call_soon(again)

    b.call_soon(again)
    got: list[Message] = []
    a.request(name(b), GetWorkers, got.append, 100)
    b.on(GetWorkers, lambda sender, message: b.send(sender, Workers(message.rid, [], [])))
    turn(lambda: got, a, b)


def test_hooks_run_every_round_before_the_loop_waits(pump: Pump) -> None:
    order: list[str] = []
    pump.hooks.append(lambda: order.append("hook"))
    pump.call_soon(lambda: order.append("call"))
    pump.run_once(0)
    pump.run_once(0)
    assert order == ["call", "hook", "hook"]
