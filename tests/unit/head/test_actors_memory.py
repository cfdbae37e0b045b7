"""Actors whose workers end for want of memory: restarted within max_restarts, each time later."""

from __future__ import annotations

import msgspec

from mray.node.head.actors import ActorTable
from mray.node.head.events import Effect, From, NodeUp, Send, Tick
from mray.wire.messages import (
    ActorSpec,
    ActorStarted,
    Address,
    DeathCause,
    ListActors,
    Message,
    NodeInfo,
    ProcessDied,
    RegisterActor,
    StartActor,
)

NODE, OWNER, ACTOR = b"\x6d" + bytes(27), b"\x64" * 28, b"a" * 16
ONE = ActorSpec(
    ACTOR, b"job1", Address(OWNER, NODE), b"k", "Counter", b"", b"", [], None, None, {}, {},
    max_restarts=2, max_task_retries=0, max_concurrency=1,
)  # fmt: skip
INFO = NodeInfo(
    NODE, Address(NODE, NODE), "10.0.0.1", "h", 1, {"CPU": 20_000}, {}, "/s", "/s/logs", "/arena",
    1, True, "0", "3.11",
)  # fmt: skip
MEMORY = DeathCause("killed", "memory is short", oom=b"facts")


def worker(number: int) -> Address:
    return Address(bytes([200, number]) * 14, NODE)


def tell(table: ActorTable, message: Message, now: float) -> list[Effect]:
    effects = table.handle(From(NODE, message), now)
    table.check()
    return effects


def starts(effects: list[Effect]) -> list[int]:
    return [
        effect.message.incarnation
        for effect in effects
        if isinstance(effect, Send) and isinstance(effect.message, StartActor)
    ]


def test_restarts_for_want_of_memory_are_spaced_out_and_counted() -> None:
    table = ActorTable()
    table.handle(NodeUp(INFO), 0.0)
    assert starts(tell(table, RegisterActor(1, ONE), 1.0)) == [0]
    ends = [(MEMORY, 5.0, 6.0), (DeathCause("kernel_oom"), 7.0, 9.0)]
    for number, (cause, died_at, again_at) in enumerate(ends):
        tell(table, ActorStarted(ACTOR, number, worker(number), 50), died_at)
        died = ProcessDied(worker(number).process_id, "worker", b"job1", cause)
        assert starts(tell(table, died, died_at)) == []
        assert table.deadline() == again_at
        assert starts(table.handle(Tick(), again_at)) == [number + 1]
    tell(table, ActorStarted(ACTOR, 2, worker(2), 50), 10.0)
    tell(table, ProcessDied(worker(2).process_id, "worker", b"job1", MEMORY), 10.0)
    (answer,) = tell(table, ListActors(1), 11.0)
    assert isinstance(answer, Send)
    assert answer.message.actors[0].state == "DEAD"  # type: ignore[attr-defined]


def test_restarts_that_max_oom_restarts_allows_are_not_counted_in_max_restarts() -> None:
    table = ActorTable()
    table.handle(NodeUp(INFO), 0.0)
    spec = msgspec.structs.replace(ONE, max_restarts=1, max_oom_restarts=2)
    tell(table, RegisterActor(1, spec), 1.0)
    now, states = 10.0, []
    for number, cause in enumerate([MEMORY, DeathCause("signal", signal=9), MEMORY, MEMORY]):
        tell(table, ActorStarted(ACTOR, number, worker(number), 50), now)
        tell(table, ProcessDied(worker(number).process_id, "worker", b"job1", cause), now + 1.0)
        table.handle(Tick(), now + 70.0)
        (answer,) = tell(table, ListActors(1), now + 70.0)
        assert isinstance(answer, Send)
        view = answer.message.actors[0]  # type: ignore[attr-defined]
        states.append((view.state, view.restarts_left))
        now += 100.0
    assert states == [("RESTARTING", 1), ("RESTARTING", 0), ("RESTARTING", 0), ("DEAD", 0)]
