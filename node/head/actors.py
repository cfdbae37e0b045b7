"""Actors: their registry, names, restarts and ends.

    RegisterActor -> PENDING --ActorStarted--> ALIVE --worker or node dies--> RESTARTING -> …
                        |                        |        (while restarts are left)
                        +--- killed, out of scope, owner or job gone, constructor failed --> DEAD

Every start has an incarnation number, from 0 up. A new incarnation is placed only when the former
one's end is known, and what a former one still says is answered by stopping it: callers name the
incarnation they mean, so two of them never both answer. Does not choose nodes (placement.py), nor
workers on them (the node does), and keeps no queue of calls: owners do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec

from mray.last_deaths import LastDeaths
from mray.machine import InvariantError
from mray.node.head.actor_adoption import compare
from mray.node.head.actor_records import SPECS, Actor, Registry
from mray.node.head.causes import KILLED, describe, for_memory, group_removed, owner_died
from mray.node.head.events import (
    ActorGone,
    Effect,
    From,
    GroupEnded,
    GroupPlaced,
    JobEnded,
    LastActorGone,
    NodeLost,
    NodeUp,
    Note,
    RoomSeen,
    Send,
    Tick,
)
from mray.node.head.pauses import pause_of
from mray.node.head.placement import Choice, Room, allowed, choose, choose_in_group, on_named
from mray.placement import Where, group_in
from mray.resources import give_back, take
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
    DeathCause,
    GetActor,
    KillActor,
    ListActors,
    NodeContents,
    NodeInfo,
    ProcessDied,
    Refused,
    RegisterActor,
    StartActor,
    StopActor,
    WatchActor,
)

_Event: TypeAlias = From | Tick | NodeUp | NodeLost | RoomSeen | JobEnded | GroupPlaced | GroupEnded
#: Ends that were wanted: no restart follows them.
_INTENDED: Final = ("intended", "out_of_scope")
#: Placement groups that were removed and are remembered.
_ENDED_GROUPS_MAX: Final = 10_000
#: A watcher may ask before the owner's registration arrives; longer than this it is a mistake.
_REGISTRATION_WAIT_S: Final = 10.0


class ActorTable:
    """All actors of the cluster. See the module. ``kept``: what changes is to be persisted."""

    def __init__(self, *, kept: bool = False) -> None:
        self._registry = Registry(kept)
        #: Nodes of a former life of this head that have not come back.
        self._expected: dict[bytes, None] = {}
        #: What nodes have free: their last heartbeat, less what was sent to them since.
        self._rooms: dict[bytes, Room] = {}
        #: For messages of processes, or about them, that the news of their end has overtaken.
        self._deaths = LastDeaths()
        #: Actor id -> (moment to give up, watchers), of actors nobody registered yet.
        self._unknown: dict[bytes, tuple[float, list[bytes]]] = {}
        #: Where the bundles of placement groups are, and groups that were removed lately.
        self._groups: dict[bytes, list[bytes]] = {}
        self._ended_groups: dict[bytes, None] = {}
        #: The unplaced actors that have a moment to be tried again at.
        self._delayed: dict[bytes, Actor] = {}

    def handle(self, event: _Event, now: float) -> list[Effect]:
        """Take a message about actors, or what happened to nodes and jobs."""
        effects = self._handle(event, now)
        return [*self._registry.persist(), *effects] if self._registry.changed else effects

    def _handle(self, event: _Event, now: float) -> list[Effect]:
        match event:
            case From(sender, message):
                return self._message(sender, message, now)
            case NodeUp(node, contents):
                self._room_up(node)
                adopted = [] if contents is None else self._adopt(node.node_id, contents, now)
                return adopted + self._place_waiting(now)
            case RoomSeen(node_id, available, draining):
                if node_id in self._rooms:
                    self._rooms[node_id].draining = draining
                return self._room_seen(node_id, available, now)
            case NodeLost(node_id, cause):
                return self._node_lost(node_id, cause, now)
            case JobEnded(job_id):
                cause = DeathCause("owner_died", f"its job {job_id.hex()} has ended")
                mine = [a for a in self._registry.living() if a.spec.job_id == job_id]
                ended = self._end_all([a for a in mine if not a.spec.detached], cause)
                return [*ended, *self._last_of(job_id)]
            case GroupPlaced(group_id, nodes):
                self._groups[group_id] = nodes
                return self._place_waiting(now)
            case GroupEnded(group_id):
                return self._group_ended(group_id)
            case Tick():
                return self._tick(now)

    def deadline(self) -> float | None:
        """When a delayed restart or an unknown actor's watcher is due."""
        moments = [at for at, _ in self._unknown.values()]
        moments += [a.retry_at for a in self._delayed.values() if a.retry_at is not None]
        return min(moments, default=None)

    def _message(self, sender: bytes, message: object, now: float) -> list[Effect]:
        match message:
            case RegisterActor():
                return self._register(sender, message, now)
            case ActorStarted():
                return self._started(message, now)
            case ActorStartFailed(actor_id, incarnation, cause):
                actor = self._registry.get(actor_id)
                if actor is None or actor.incarnation != incarnation or actor.state == "DEAD":
                    return []
                return self._incarnation_ended(actor, cause, now)
            case ProcessDied():
                return self._process_died(message, now)
            case KillActor():
                return self._kill(sender, message, now)
            case ActorOutOfScope(actor_id):
                return self._out_of_scope(actor_id)
            case WatchActor(actor_id):
                return self._watch(sender, actor_id, now)
            case GetActor(rid, name, namespace):
                actor = self._registry.by_name(namespace, name)
                return [Send(sender, ActorFound(rid, actor.spec if actor else None))]
            case ListActors(rid):
                states = [actor.view() for actor in self._registry.all()]
                return [Send(sender, ActorList(rid, states))]
            case other:
                raise TypeError(f"not for the actors: {type(other).__name__}")

    # -- birth

    def _register(self, sender: bytes, message: RegisterActor, now: float) -> list[Effect]:
        spec = message.spec
        if self._registry.get(spec.actor_id) is not None:
            return [Send(sender, ActorRegistered(message.rid))]
        if spec.group and group_in(spec.placement_resources) is None:
            text = "an actor of a placement group has to ask for a bundle's resources"
            return [Send(sender, Refused(message.rid, "ValueError", text))]
        if spec.where:
            # Refused now, or else it raises whenever a place is looked for, for all actors.
            msgspec.msgpack.decode(spec.where, type=Where)
        if spec.name:
            other = self._registry.by_name(spec.namespace, spec.name)
            if other is not None and message.get_if_exists:
                return [Send(sender, ActorRegistered(message.rid, other.spec))]
            if other is not None:
                text = (
                    f"an actor named {spec.name!r} lives in namespace {spec.namespace!r} already "
                    f"({other.spec.class_name} {other.spec.actor_id.hex()}, {other.state}); get it "
                    "with get_actor(), pass get_if_exists=True, or take another name"
                )
                return [Send(sender, Refused(message.rid, "ValueError", text))]
        actor = Actor(spec=spec, restarts_left=spec.max_restarts)
        _, early = self._unknown.pop(spec.actor_id, (0.0, []))
        actor.watchers = dict.fromkeys(early)
        self._registry.add(actor)
        self._registry.touch(actor, SPECS)
        effects: list[Effect] = [Send(sender, ActorRegistered(message.rid))]
        death = self._deaths.get(spec.owner.process_id)
        if death is not None and not spec.detached:
            return effects + self._end(actor, owner_died(death.cause))
        if spec.group in self._ended_groups:
            return effects + self._end(actor, group_removed(spec.group))
        effects += self._place(actor)
        return effects + [Send(watcher, actor.view()) for watcher in early]

    def _place(self, actor: Actor) -> list[Effect]:
        """Send an unplaced actor to a node, if there is one for it; tell of a new reason if not."""
        spec = actor.spec
        choice = self._choose(spec)
        self._delay(actor, None)
        if choice.never:
            return self._end(actor, DeathCause("unschedulable", choice.reason))
        before, actor.reason = actor.reason, choice.reason
        if choice.node_id is None:
            return [] if choice.reason == before else self._tell(actor)
        self._registry.set_node(actor, choice.node_id)
        self._registry.touch(actor)
        take(spec.placement_resources, self._rooms[choice.node_id].available)
        start = Send(choice.node_id, StartActor(spec, actor.incarnation))
        return [start, *(self._tell(actor) if actor.reason != before else [])]

    def _choose(self, spec: ActorSpec) -> Choice:
        need = spec.placement_resources
        if spec.group:
            return choose_in_group(need, spec.group, self._groups.get(spec.group, []), self._rooms)
        rooms = [room for room in self._rooms.values() if not room.draining]
        if not spec.where:
            return choose(need, spec.resources, rooms)
        where = msgspec.msgpack.decode(spec.where, type=Where)
        rooms, settled = allowed(where, rooms)
        return settled or on_named(where, choose(need, spec.resources, rooms, where.spread))

    def _group_ended(self, group_id: bytes) -> list[Effect]:
        self._groups.pop(group_id, None)
        self._ended_groups[group_id] = None
        if len(self._ended_groups) > _ENDED_GROUPS_MAX:
            del self._ended_groups[next(iter(self._ended_groups))]
        cause = group_removed(group_id)
        killed = msgspec.structs.replace(cause, kind="killed")
        effects: list[Effect] = []
        for actor in list(self._registry.living()):
            if actor.spec.group == group_id:
                effects += self._end(actor, cause if actor.state == "PENDING" else killed)
        return effects

    def _started(self, message: ActorStarted, now: float) -> list[Effect]:
        actor = self._registry.get(message.actor_id)
        worker = message.worker
        if actor is not None and actor.worker == worker:
            return []  # Said twice.
        wanted = (
            actor is not None
            and actor.state in ("PENDING", "RESTARTING")
            and actor.incarnation == message.incarnation
            and actor.node_id == worker.node_id
        )
        if actor is None or not wanted:
            cause = DeathCause("killed", "this incarnation of the actor is not wanted any more")
            stop = StopActor(message.actor_id, message.incarnation, True, cause)
            return [Send(worker.node_id, stop)]
        if message.error:
            text = f"the constructor of {actor.spec.class_name} raised an error"
            failed = DeathCause("creation_failed", text, pid=message.pid, node_id=worker.node_id)
            actor.error = message.error
            return self._end(actor, failed)
        if (room := self._rooms.get(actor.node_id)) is not None:  # Else it has not come back yet.
            give_back(actor.spec.placement_resources, room.available)
            take(actor.spec.resources, room.available)
        self._registry.touch(actor)
        self._registry.set_worker(actor, worker, message.pid)
        actor.state, actor.reason, actor.fruitless_count = "ALIVE", "", 0
        effects = self._tell(actor)
        death = self._deaths.get(worker.process_id)
        if death is not None:  # Its death overtook its birth.
            effects += self._incarnation_ended(actor, death.cause, now)
        elif actor.stopping:  # It was killed while it started.
            effects.append(self._stop(actor, KILLED))
        return effects

    # -- death

    def _process_died(self, message: ProcessDied, now: float) -> list[Effect]:
        process_id, cause = message.process_id, message.cause
        self._deaths.add(message)
        effects: list[Effect] = []
        actor = self._registry.by_worker(process_id)
        if actor is not None:
            effects += self._incarnation_ended(actor, cause, now)
        owned = self._registry.owned_by(process_id)
        effects += self._end_all([a for a in owned if not a.spec.detached], owner_died(cause))
        for watched in self._registry.living():
            watched.watchers.pop(process_id, None)
        return effects

    def _incarnation_ended(self, actor: Actor, cause: DeathCause, now: float) -> list[Effect]:
        """The worker of the present incarnation is gone, or was never had: restart or end."""
        self._registry.touch(actor)
        self._leave_node(actor)
        if actor.ending is not None:
            return self._end(actor, actor.ending if cause.kind in _INTENDED else cause)
        allowed = actor.spec.max_oom_restarts
        uncounted = for_memory(cause) and (allowed < 0 or actor.memory_count < allowed)
        if cause.kind == "drained" and actor.restarts_left:
            uncounted = True
        if cause.kind in _INTENDED or cause.kind in ("creation_failed", "env_failed"):
            return self._end(actor, cause)
        if not (uncounted or actor.restarts_left):
            return self._end(actor, cause)
        if actor.restarts_left > 0 and not uncounted:
            actor.restarts_left -= 1
        if actor.state != "ALIVE" and not actor.stopping:
            actor.fruitless_count += 1
        actor.stopping = False
        actor.incarnation += 1
        actor.state, actor.cause = "RESTARTING", cause
        self._registry.set_worker(actor, None, 0)
        note = Note(
            f"actor {actor.name_for_people} restarts as incarnation {actor.incarnation}: "
            f"{describe(cause)}"
        )
        actor.memory_count += for_memory(cause)
        pause_s, actor.reason = pause_of(actor, cause)
        if pause_s:
            self._delay(actor, now + pause_s)
            return [note, *self._tell(actor)]
        return [note, *self._tell(actor), *self._place(actor)]

    def _kill(self, sender: bytes, message: KillActor, now: float) -> list[Effect]:
        ack = Send(sender, Ack(message.rid))
        actor = self._registry.get(message.actor_id)
        if actor is None or actor.state == "DEAD":
            return [ack]
        if message.no_restart or not actor.restarts_left:
            return [ack, *self._end(actor, message.cause or KILLED)]
        if not actor.node_id:
            # Between two incarnations: there is nothing to kill, the next one comes anyway.
            return [ack]
        actor.stopping = True
        self._registry.touch(actor)
        # While it starts there may be no worker yet, whose end would be told: kill it when it is
        # alive.
        return [ack, self._stop(actor, KILLED)] if actor.state == "ALIVE" else [ack]

    def _out_of_scope(self, actor_id: bytes) -> list[Effect]:
        actor = self._registry.get(actor_id)
        if actor is None or actor.state == "DEAD" or actor.spec.detached:
            return []
        cause = DeathCause("out_of_scope", "its last handle went out of scope")
        if actor.state != "ALIVE" or actor.stopping:
            return self._end(actor, cause)
        actor.ending = cause
        self._registry.touch(actor)
        stop = StopActor(actor_id, actor.incarnation, False, cause)
        return [Send(actor.node_id, stop)]

    def _end_all(self, actors: list[Actor], cause: DeathCause) -> list[Effect]:
        effects: list[Effect] = []
        for actor in actors:
            effects += self._end(actor, cause)
        return effects

    def _end(self, actor: Actor, cause: DeathCause) -> list[Effect]:
        """For good. Whatever still runs of it is stopped at once."""
        effects: list[Effect] = [self._stop(actor, cause)] if actor.node_id else []
        self._leave_node(actor)
        self._delay(actor, None)
        actor.cause, actor.reason = cause, ""
        self._registry.touch(actor, SPECS)  # Without its arguments.
        self._registry.end(actor)
        note = Note(f"actor {actor.name_for_people} is dead: {describe(cause)}")
        told = self._tell(actor)
        actor.watchers = {}
        effects += [*told, note]
        if actor.spec.detached:
            effects += [ActorGone(actor.spec.actor_id), *self._last_of(actor.spec.job_id)]
        return effects

    def _last_of(self, job_id: bytes) -> list[Effect]:
        return [] if self._registry.outlives(job_id) else [LastActorGone(job_id)]

    def _stop(self, actor: Actor, cause: DeathCause) -> Send:
        return Send(actor.node_id, StopActor(actor.spec.actor_id, actor.incarnation, True, cause))

    def _delay(self, actor: Actor, retry_at: float | None) -> None:
        actor.retry_at = retry_at
        if retry_at is None:
            self._delayed.pop(actor.spec.actor_id, None)
        else:
            self._delayed[actor.spec.actor_id] = actor

    def _leave_node(self, actor: Actor) -> None:
        """Think of the actor's resources as free until the next heartbeat knows better."""
        room = self._rooms.get(actor.node_id)
        if room is not None:
            give_back(actor.held, room.available)
        self._registry.set_node(actor, b"")

    # -- nodes and time

    def _room_up(self, node: NodeInfo) -> None:
        self._expected.pop(node.node_id, None)
        self._rooms[node.node_id] = Room(
            node_id=node.node_id,
            is_head=node.is_head,
            total=dict(node.resources),
            available=dict(node.resources),
            labels=dict(node.labels),
        )

    def _room_seen(self, node_id: bytes, available: dict[str, int], now: float) -> list[Effect]:
        room = self._rooms.get(node_id)
        if room is None:
            return []
        room.available = dict(available)
        for actor in self._registry.on_node(node_id):
            if actor.state != "ALIVE":
                take(actor.spec.placement_resources, room.available)
        return self._place_waiting(now)

    def _place_waiting(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for actor in self._registry.unplaced():
            if actor.retry_at is None or actor.retry_at <= now:
                effects += self._place(actor)
        return effects

    def _node_lost(self, node_id: bytes, cause: DeathCause, now: float) -> list[Effect]:
        self._rooms.pop(node_id, None)
        self._expected.pop(node_id, None)
        effects: list[Effect] = []
        kind = "drained" if cause.kind == "drained" else "node_died"
        died = DeathCause(kind, cause.text, node_id=node_id)
        for actor in self._registry.on_node(node_id):
            effects += self._incarnation_ended(actor, died, now)
        owned = [a for a in self._registry.living() if a.spec.owner.node_id == node_id]
        return effects + self._end_all([a for a in owned if not a.spec.detached], owner_died(died))

    def _tick(self, now: float) -> list[Effect]:
        effects = self._place_waiting(now)
        for actor_id, (give_up_at, watchers) in list(self._unknown.items()):
            if give_up_at <= now:
                del self._unknown[actor_id]
                cause = DeathCause(
                    "creation_failed",
                    f"no actor {actor_id.hex()} was ever registered with this head, or it ended "
                    "so long ago that it is forgotten",
                )
                state = ActorState(actor_id, "DEAD", 0, None, cause=cause)
                effects += [Send(watcher, state) for watcher in watchers]
        return effects

    def _adopt(self, node_id: bytes, contents: NodeContents, now: float) -> list[Effect]:
        """A node that had its actors before this head's life."""
        compared = compare(self._registry, node_id, contents)
        for actor in self._registry.on_node(node_id):
            take(actor.held, self._rooms[node_id].available)
        effects: list[Effect] = []
        for actor, cause in compared.ended:
            effects += self._incarnation_ended(actor, cause, now)
        for actor, cause in compared.orphans:
            if actor.state != "DEAD":
                effects += self._end(actor, owner_died(cause))
        return [*effects, *compared.sends]

    # -- what outlives the head

    def restore(self, states: Mapping[bytes, bytes], specs: Mapping[bytes, bytes]) -> None:
        """Take in what was stored, before anything else."""
        self._registry.restore(states, specs)
        self._expected = dict.fromkeys(a.node_id for a in self._registry.living() if a.node_id)

    def rows(self) -> dict[str, dict[bytes, bytes]]:
        """What should be stored now, by table."""
        return self._registry.rows()

    def nodes(self) -> set[bytes]:
        """Where living actors are, and where the owners are that they end with."""
        return self._registry.nodes()

    # -- telling

    def _watch(self, sender: bytes, actor_id: bytes, now: float) -> list[Effect]:
        actor = self._registry.get(actor_id)
        if actor is None:
            _, watchers = self._unknown.setdefault(actor_id, (now + _REGISTRATION_WAIT_S, []))
            if sender not in watchers:
                watchers.append(sender)
            return []
        if actor.state != "DEAD":
            actor.watchers[sender] = None
        return [Send(sender, actor.view())]

    def _tell(self, actor: Actor) -> list[Effect]:
        view = actor.view()
        return [Send(watcher, view) for watcher in actor.watchers]

    def check(self) -> None:
        """See mray.machine."""
        self._registry.check()
        for actor in self._registry.living():
            if (actor.retry_at is not None) != (actor.spec.actor_id in self._delayed):
                raise InvariantError(f"{actor.name_for_people} is delayed and is not")
            if actor.node_id and actor.node_id not in (*self._rooms, *self._expected):
                raise InvariantError(f"{actor.name_for_people} is on a node that is gone")
            if actor.spec.actor_id in self._unknown:
                raise InvariantError(f"{actor.name_for_people} is registered and unknown")
