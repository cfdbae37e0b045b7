"""Actors: names, restarts, ends, and who is told."""

from __future__ import annotations

from typing import Any

import pytest

from mray.node.head.actor_records import DEAD_ACTORS_MAX
from mray.node.head.actors import ActorTable
from mray.node.head.events import (
    Effect,
    From,
    JobEnded,
    LastActorGone,
    NodeLost,
    NodeUp,
    Note,
    RoomSeen,
    Send,
    Tick,
)
from mray.node.head.pauses import LAST_CALLS_S
from mray.wire.messages import (
    Ack,
    ActorFound,
    ActorList,
    ActorOutOfScope,
    ActorRegistered,
    ActorSpec,
    ActorStarted,
    ActorStartFailed,
    ActorState,
    Address,
    DeathCause,
    GetActor,
    KillActor,
    ListActors,
    Message,
    NodeInfo,
    Ping,
    ProcessDied,
    Refused,
    RegisterActor,
    StartActor,
    StopActor,
    WatchActor,
)

NODE, NODE2 = b"n" * 28, b"m" * 28
OWNER, WATCHER = b"o" * 28, b"w" * 28
JOB = b"\1\0\0\0"
KILLED = DeathCause("ray_kill", "it was killed by ray.kill()")


def node(node_id: bytes = NODE, cpus: int = 2) -> NodeUp:
    address = Address(node_id, node_id)
    resources = {"CPU": cpus * 10_000}
    info = NodeInfo(
        node_id, address, "ip", "host", 1, resources, {}, "", "", "", 0, node_id == NODE, "1", "3"
    )
    return NodeUp(info)


def worker(number: int = 1, node_id: bytes = NODE) -> Address:
    return Address(bytes([200, number]) * 14, node_id)


def spec(number: int = 1, **changes: Any) -> ActorSpec:
    fields: dict[str, Any] = {
        "actor_id": bytes([number]) * 16,
        "job_id": JOB,
        "owner": Address(OWNER, NODE),
        "class_key": b"k",
        "class_name": "Counter",
        "task_id": b"",
        "args": b"args",
        "deps": [],
        "args_in_store": None,
        "args_located": None,
        "resources": {},
        "placement_resources": {"CPU": 10_000},
        "max_restarts": 0,
        "max_task_retries": 0,
        "max_concurrency": 1,
    }
    return ActorSpec(**{**fields, **changes})


@pytest.fixture
def table() -> ActorTable:
    made = ActorTable()
    made.handle(node(), 0.0)
    return made


def do(table: ActorTable, event: Any, now: float = 1.0) -> list[Effect]:
    effects = table.handle(event, now)
    table.check()
    return [effect for effect in effects if not isinstance(effect, Note)]


def send(
    table: ActorTable, message: Message, sender: bytes = OWNER, now: float = 1.0
) -> list[Effect]:
    return do(table, From(sender, message), now)


def live(table: ActorTable, one: ActorSpec, where: Address | None = None) -> Address:
    """Register an actor and have it started."""
    where = where or worker()
    send(table, RegisterActor(1, one))
    send(table, ActorStarted(one.actor_id, 0, where, 50), where.process_id)
    assert state(table, one).state == "ALIVE"
    return where


def state(table: ActorTable, one: ActorSpec) -> ActorState:
    (effect,) = table.handle(From(b"list", ListActors(1)), 1.0)
    assert isinstance(effect, Send)
    assert isinstance(effect.message, ActorList)
    (found,) = [actor for actor in effect.message.actors if actor.actor_id == one.actor_id]
    return found


def died(where: Address, cause: DeathCause | None = None) -> ProcessDied:
    cause = cause or DeathCause("signal", signal=9)
    return ProcessDied(where.process_id, "worker", JOB, cause)


def messages(effects: list[Effect], kind: type) -> list[Any]:
    return [e.message for e in effects if isinstance(e, Send) and isinstance(e.message, kind)]


# -- birth


def test_a_registered_actor_is_started_on_a_node(table: ActorTable) -> None:
    assert send(table, RegisterActor(1, spec())) == [
        Send(OWNER, ActorRegistered(1)),
        Send(NODE, StartActor(spec(), 0)),
    ]
    assert state(table, spec()).state == "PENDING"


def test_watchers_hear_of_every_change(table: ActorTable) -> None:
    send(table, RegisterActor(1, spec()))
    (now,) = messages(send(table, WatchActor(spec().actor_id), WATCHER), ActorState)
    assert now.state == "PENDING"
    (effect,) = send(table, ActorStarted(spec().actor_id, 0, worker(), 50))
    assert isinstance(effect, Send)
    told = effect.message
    assert isinstance(told, ActorState)
    assert (effect.to, told.state, told.worker, told.pid) == (WATCHER, "ALIVE", worker(), 50)
    (told,) = messages(send(table, died(worker()), NODE), ActorState)
    assert (told.state, told.cause) == ("DEAD", DeathCause("signal", signal=9))


def test_registering_again_starts_nothing(table: ActorTable) -> None:
    send(table, RegisterActor(1, spec()))
    assert send(table, RegisterActor(2, spec())) == [Send(OWNER, ActorRegistered(2))]


def test_an_actor_without_a_node_says_why_and_starts_when_one_joins(table: ActorTable) -> None:
    big = spec(placement_resources={"CPU": 80_000})
    assert send(table, RegisterActor(1, big)) == [Send(OWNER, ActorRegistered(1))]
    assert "infeasible: needs 8 CPU" in state(table, big).reason
    send(table, WatchActor(big.actor_id), WATCHER)
    effects = do(table, node(NODE2, cpus=8))
    assert effects[0] == Send(NODE2, StartActor(big, 0))
    assert messages(effects, ActorState)[0].reason == ""


def test_among_full_nodes_an_actor_waits_for_the_first_with_room(table: ActorTable) -> None:
    do(table, node(NODE2))
    do(table, RoomSeen(NODE, {"CPU": 0}))
    do(table, RoomSeen(NODE2, {"CPU": 5_000}))
    assert messages(send(table, RegisterActor(1, spec())), StartActor) == []
    assert "waiting for room" in state(table, spec()).reason
    assert do(table, RoomSeen(NODE2, {"CPU": 10_000}))[0] == Send(NODE2, StartActor(spec(), 0))


def test_actors_on_their_way_count_as_taken(table: ActorTable) -> None:
    do(table, node(NODE2))
    for number in (1, 2, 3):
        send(table, RegisterActor(1, spec(number)))
        do(table, RoomSeen(NODE, {"CPU": 20_000}))
    places = [state(table, spec(number)).node_id for number in (1, 2, 3)]
    assert places == [NODE, NODE2, NODE]


def test_a_constructor_error_is_the_end_with_restarts_or_without(table: ActorTable) -> None:
    one = spec(max_restarts=-1)
    send(table, RegisterActor(1, one))
    send(table, WatchActor(one.actor_id), WATCHER)
    effects = send(table, ActorStarted(one.actor_id, 0, worker(), 50, error=b"boom"))
    (told,) = messages(effects, ActorState)
    assert (told.state, told.error, told.cause.kind) == ("DEAD", b"boom", "creation_failed")
    assert [stop.force for stop in messages(effects, StopActor)] == [True]


def test_a_watch_may_come_before_the_registration(table: ActorTable) -> None:
    assert send(table, WatchActor(spec().actor_id), WATCHER, now=1.0) == []
    told = messages(send(table, RegisterActor(1, spec()), now=2.0), ActorState)
    assert [view.state for view in told] == ["PENDING"]
    assert table.deadline() is None
    assert messages(send(table, ActorStarted(spec().actor_id, 0, worker(), 5)), ActorState)


def test_an_actor_nobody_registers_is_dead_after_a_while(table: ActorTable) -> None:
    send(table, WatchActor(spec().actor_id), WATCHER, now=1.0)
    assert table.deadline() == 11.0
    (told,) = messages(do(table, Tick(), 11.0), ActorState)
    assert told.state == "DEAD"
    assert "ever registered" in told.cause.text
    assert table.deadline() is None


# -- names


def test_a_name_is_taken_while_its_actor_lives(table: ActorTable) -> None:
    first = spec(1, name="x", namespace="s")
    live(table, first)
    (refused,) = messages(send(table, RegisterActor(2, spec(2, name="x", namespace="s"))), Refused)
    assert refused.kind == "ValueError"
    assert "an actor named 'x' lives in namespace 's' already" in refused.text
    send(table, died(worker()), NODE)
    effects = send(table, RegisterActor(3, spec(2, name="x", namespace="s")))
    assert effects[0] == Send(OWNER, ActorRegistered(3))


def test_get_if_exists_gives_the_actor_that_has_the_name(table: ActorTable) -> None:
    first = spec(1, name="x", namespace="s")
    live(table, first)
    again = RegisterActor(2, spec(2, name="x", namespace="s"), get_if_exists=True)
    assert send(table, again) == [Send(OWNER, ActorRegistered(2, first))]


def test_names_are_found_in_their_namespace_and_not_after_death(table: ActorTable) -> None:
    first = spec(1, name="x", namespace="s")
    live(table, first)
    assert send(table, GetActor(3, "x", "s")) == [Send(OWNER, ActorFound(3, first))]
    assert send(table, GetActor(4, "x", "other")) == [Send(OWNER, ActorFound(4, None))]
    send(table, died(worker()), NODE)
    assert send(table, GetActor(5, "x", "s")) == [Send(OWNER, ActorFound(5, None))]


# -- restarts


def test_a_death_uses_up_a_restart_and_the_last_one_is_the_end(table: ActorTable) -> None:
    one = spec(max_restarts=1)
    live(table, one)
    effects = send(table, died(worker()), NODE)
    assert effects == [Send(NODE, StartActor(one, 1))]
    assert (state(table, one).state, state(table, one).restarts_left) == ("RESTARTING", 0)
    send(table, ActorStarted(one.actor_id, 1, worker(2), 51))
    assert state(table, one).state == "ALIVE"
    assert messages(send(table, died(worker(2)), NODE), StartActor) == []
    assert state(table, one).state == "DEAD"


def test_restarts_without_end_stay_so(table: ActorTable) -> None:
    one = spec(max_restarts=-1)
    live(table, one)
    for incarnation in range(1, 5):
        (start,) = messages(send(table, died(worker(incarnation)), NODE), StartActor)
        assert start.incarnation == incarnation
        send(table, ActorStarted(one.actor_id, incarnation, worker(incarnation + 1), 50))
    assert state(table, one).restarts_left == -1


@pytest.mark.parametrize("kind", ["intended", "out_of_scope"])
def test_a_wanted_end_is_not_followed_by_a_restart(table: ActorTable, kind: str) -> None:
    one = spec(max_restarts=-1)
    live(table, one)
    assert send(table, died(worker(), DeathCause(kind)), NODE) == []
    assert state(table, one).state == "DEAD"


def test_starts_that_fail_in_a_row_are_spaced_out(table: ActorTable) -> None:
    one = spec(max_restarts=-1)
    send(table, RegisterActor(1, one))
    cause = DeathCause("signal", signal=11)
    failed = send(table, ActorStartFailed(one.actor_id, 0, cause), NODE, now=1.0)
    assert messages(failed, StartActor)
    assert send(table, ActorStartFailed(one.actor_id, 1, cause), NODE, now=2.0) == []
    assert "2 starts in a row failed" in state(table, one).reason
    assert table.deadline() == 2.25
    assert messages(do(table, RoomSeen(NODE, {"CPU": 20_000}), 2.125), StartActor) == []
    assert messages(do(table, Tick(), 2.25), StartActor) == [StartActor(one, 2)]
    send(table, ActorStartFailed(one.actor_id, 2, cause), NODE, now=4.0)
    assert table.deadline() == 4.5


def test_a_start_that_failed_finally_is_the_end(table: ActorTable) -> None:
    one = spec(max_restarts=-1)
    send(table, RegisterActor(1, one))
    cause = DeathCause("creation_failed", "bad environment")
    assert messages(send(table, ActorStartFailed(one.actor_id, 0, cause)), StartActor) == []
    assert state(table, one).cause == cause


def test_news_of_a_former_incarnation_stops_it_and_changes_nothing(table: ActorTable) -> None:
    one = spec(max_restarts=5)
    live(table, one)
    send(table, died(worker()), NODE)
    cause = DeathCause("killed", "this incarnation of the actor is not wanted any more")
    assert send(table, ActorStarted(one.actor_id, 0, worker(9), 50)) == [
        Send(NODE, StopActor(one.actor_id, 0, True, cause))
    ]
    assert send(table, ActorStartFailed(one.actor_id, 0, cause)) == []
    assert state(table, one).state == "RESTARTING"


def test_a_death_that_overtakes_the_birth_still_counts(table: ActorTable) -> None:
    send(table, RegisterActor(1, spec()))
    assert send(table, died(worker()), NODE) == []
    send(table, ActorStarted(spec().actor_id, 0, worker(), 50))
    assert state(table, spec()).state == "DEAD"


def test_a_birth_told_twice_is_one_birth(table: ActorTable) -> None:
    live(table, spec())
    assert send(table, ActorStarted(spec().actor_id, 0, worker(), 50)) == []


# -- ends


def test_a_killed_actor_is_dead_at_once_and_stopped_on_its_node(table: ActorTable) -> None:
    one = spec(max_restarts=5)
    live(table, one)
    assert send(table, KillActor(7, one.actor_id)) == [
        Send(OWNER, Ack(7)),
        Send(NODE, StopActor(one.actor_id, 0, True, KILLED)),
    ]
    assert state(table, one).cause == KILLED
    assert send(table, died(worker(), KILLED), NODE) == []
    assert send(table, KillActor(8, one.actor_id)) == [Send(OWNER, Ack(8))]


def test_a_kill_with_restart_waits_for_the_end_of_the_old_one(table: ActorTable) -> None:
    one = spec(max_restarts=5)
    live(table, one)
    effects = send(table, KillActor(7, one.actor_id, no_restart=False))
    assert messages(effects, StartActor) == []
    assert messages(effects, StopActor)
    assert state(table, one).state == "ALIVE"
    assert messages(send(table, died(worker(), KILLED), NODE), StartActor) == [StartActor(one, 1)]


def test_a_kill_with_restart_during_the_start_reaches_the_new_worker(table: ActorTable) -> None:
    one = spec(max_restarts=5)
    send(table, RegisterActor(1, one))
    assert send(table, KillActor(7, one.actor_id, no_restart=False)) == [Send(OWNER, Ack(7))]
    stops = messages(send(table, ActorStarted(one.actor_id, 0, worker(), 50)), StopActor)
    assert [stop.incarnation for stop in stops] == [0]
    assert messages(send(table, died(worker(), KILLED), NODE), StartActor) == [StartActor(one, 1)]


def test_a_kill_with_restart_and_none_left_is_the_end(table: ActorTable) -> None:
    live(table, spec())
    send(table, KillActor(7, spec().actor_id, no_restart=False))
    assert state(table, spec()).state == "DEAD"


def test_killing_an_unknown_actor_is_answered(table: ActorTable) -> None:
    assert send(table, KillActor(7, b"?" * 16)) == [Send(OWNER, Ack(7))]


def test_killing_a_waiting_actor_stops_nothing_on_a_node(table: ActorTable) -> None:
    big = spec(placement_resources={"CPU": 80_000})
    send(table, RegisterActor(1, big))
    assert send(table, KillActor(7, big.actor_id)) == [Send(OWNER, Ack(7))]
    assert messages(do(table, node(NODE2, cpus=8)), StartActor) == []


def test_an_actor_out_of_scope_ends_after_its_calls(table: ActorTable) -> None:
    one = spec(max_restarts=5)
    live(table, one)
    (stop,) = messages(send(table, ActorOutOfScope(one.actor_id)), StopActor)
    assert (stop.force, stop.cause.kind) == (False, "out_of_scope")
    assert state(table, one).state == "ALIVE"
    send(table, died(worker(), DeathCause("intended")), NODE)
    dead = state(table, one)
    assert dead.cause is not None
    assert (dead.state, dead.cause.kind) == ("DEAD", "out_of_scope")


def test_a_crash_on_the_way_out_is_told_and_not_restarted(table: ActorTable) -> None:
    one = spec(max_restarts=5)
    live(table, one)
    send(table, ActorOutOfScope(one.actor_id))
    assert messages(send(table, died(worker()), NODE), StartActor) == []
    assert state(table, one).cause == DeathCause("signal", signal=9)


def test_a_pending_actor_out_of_scope_is_dead_at_once(table: ActorTable) -> None:
    send(table, RegisterActor(1, spec()))
    (stop,) = messages(send(table, ActorOutOfScope(spec().actor_id)), StopActor)
    assert stop.force
    assert state(table, spec()).state == "DEAD"


def test_a_detached_actor_has_no_scope(table: ActorTable) -> None:
    one = spec(detached=True)
    live(table, one)
    assert send(table, ActorOutOfScope(one.actor_id)) == []
    assert send(table, died(Address(OWNER, NODE)), NODE) == []
    assert do(table, JobEnded(JOB)) == []
    assert state(table, one).state == "ALIVE"


def test_the_death_of_the_owner_ends_its_actors(table: ActorTable) -> None:
    one = spec(max_restarts=-1)
    live(table, one)
    effects = send(table, died(Address(OWNER, NODE)), NODE)
    assert len(messages(effects, StopActor)) == 1
    dead = state(table, one)
    assert dead.cause is not None
    assert (dead.state, dead.cause.kind) == ("DEAD", "owner_died")


def test_a_registration_that_comes_after_its_owners_death_is_dead(table: ActorTable) -> None:
    send(table, died(Address(OWNER, NODE)), NODE)
    assert messages(send(table, RegisterActor(1, spec())), StartActor) == []
    assert state(table, spec()).state == "DEAD"


def test_the_death_of_an_actor_ends_the_actors_it_owns(table: ActorTable) -> None:
    parent = spec(1, max_restarts=1)
    child = spec(2, owner=worker(1), max_restarts=1)
    live(table, parent, worker(1))
    live(table, child, worker(2))
    send(table, died(worker(1)), NODE)
    assert state(table, parent).state == "RESTARTING"
    assert state(table, child).state == "DEAD"


def test_the_end_of_a_job_ends_its_actors(table: ActorTable) -> None:
    live(table, spec(1, max_restarts=-1))
    live(table, spec(2, job_id=b"\2\0\0\0"), worker(2))
    do(table, JobEnded(JOB))
    assert state(table, spec(1)).state == "DEAD"
    assert state(table, spec(2)).state == "ALIVE"


def test_the_last_detached_actor_of_a_job_is_told_of(table: ActorTable) -> None:
    gone = LastActorGone(JOB)
    assert do(table, JobEnded(JOB)) == [gone]
    for number in (2, 3):
        live(table, spec(number, detached=True), worker(number))
    assert gone not in send(table, KillActor(1, spec(2).actor_id))
    assert gone in send(table, KillActor(2, spec(3).actor_id))


def test_the_loss_of_a_node_restarts_its_actors_elsewhere(table: ActorTable) -> None:
    one = spec(1, max_restarts=1, owner=Address(OWNER, NODE2))
    two = spec(2, owner=Address(OWNER, NODE2))
    live(table, one)
    live(table, two, worker(2))
    do(table, node(NODE2))
    lost = NodeLost(NODE, DeathCause("node_died", "silence"))
    assert messages(do(table, lost), StartActor) == [], "callers hear of it first"
    assert state(table, one).state == "RESTARTING"
    assert table.deadline() == 1.0 + LAST_CALLS_S
    effects = table.handle(Tick(), 1.0 + LAST_CALLS_S)
    assert messages(effects, StartActor) == [StartActor(one, 1)]
    assert state(table, one).node_id == NODE2
    dead = state(table, two)
    assert dead.cause == DeathCause("node_died", "silence", node_id=NODE)


def test_the_loss_of_the_owners_node_ends_its_actors(table: ActorTable) -> None:
    do(table, node(NODE2))
    one = spec(max_restarts=-1, owner=Address(OWNER, NODE2))
    live(table, one)
    do(table, NodeLost(NODE2, DeathCause("node_died", "silence")))
    assert state(table, one).state == "DEAD"


def test_dead_actors_are_remembered_up_to_a_bound_without_their_arguments(
    table: ActorTable,
) -> None:
    for number in range(DEAD_ACTORS_MAX + 2):
        one = spec(actor_id=number.to_bytes(16, "big"))
        table.handle(From(OWNER, RegisterActor(1, one)), 1.0)
        table.handle(From(OWNER, KillActor(1, one.actor_id)), 1.0)
    table.check()
    (effect,) = table.handle(From(OWNER, ListActors(1)), 1.0)
    assert isinstance(effect, Send)
    assert isinstance(effect.message, ActorList)
    assert len(effect.message.actors) == DEAD_ACTORS_MAX


def test_other_messages_are_a_mistake(table: ActorTable) -> None:
    with pytest.raises(TypeError):
        table.handle(From(OWNER, Ping(1)), 0.0)
