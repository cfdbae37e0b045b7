"""The records of actors, the indexes by name, worker, owner and node, and how they are stored.

Holds and finds; decides nothing. Every index is kept by the methods here, so that it cannot
disagree with the records. The spec, which may be big, and the rest are stored in two tables: a spec
changes twice in an actor's life.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from mray.machine import InvariantError
from mray.node.head.events import Persist
from mray.units import MIB
from mray.wire.messages import ActorSpec, ActorState, Address, DeathCause

#: Dead actors that are remembered, for those who still hold handles and for lists.
DEAD_ACTORS_MAX: Final = 10_000
#: What the errors of their constructors may take; beyond it the oldest go, and the causes stay.
DEAD_ERRORS_BYTES_MAX: Final = 32 * MIB
#: Tables of the head's storage; keys are actor ids.
SPECS: Final = "actor_specs"
STATES: Final = "actors"


class ActorRow(msgspec.Struct, frozen=True):
    """An actor as it is stored, but for its spec. See Actor."""

    #: Grows: in the order of registering.
    number: int
    state: str
    incarnation: int
    node_id: bytes
    worker: Address | None
    pid: int
    restarts_left: int
    cause: DeathCause | None
    error: bytes
    fruitless_count: int
    memory_count: int
    stopping: bool
    ending: DeathCause | None


_encode: Final = msgspec.msgpack.Encoder().encode
_row: Final = msgspec.msgpack.Decoder(ActorRow)
_spec: Final = msgspec.msgpack.Decoder(ActorSpec)


class Actor(msgspec.Struct, kw_only=True, eq=False):
    """One actor. Change ``state`` to DEAD, ``node_id`` and ``worker`` through the registry."""

    spec: ActorSpec
    #: PENDING, ALIVE, RESTARTING or DEAD.
    state: str = "PENDING"
    incarnation: int = 0
    #: The node that was told to start it, or has it; b"" while it waits for one.
    node_id: bytes = b""
    #: Set while ALIVE.
    worker: Address | None = None
    pid: int = 0
    #: -1 for no end of them.
    restarts_left: int = 0
    #: Why it is DEAD, or why it restarts.
    cause: DeathCause | None = None
    #: The envelope of the constructor's error.
    error: bytes = b""
    #: What a waiting actor waits for.
    reason: str = ""
    #: Not to be placed before this moment.
    retry_at: float | None = None
    #: Starts in a row that never got alive.
    fruitless_count: int = 0
    #: Ends for want of memory.
    memory_count: int = 0
    #: Killed to be restarted, and its worker's end is not known yet.
    stopping: bool = False
    #: Ends after the calls it has: the cause it will have ended of.
    ending: DeathCause | None = None
    #: Process ids that are told of each change, in the order they asked.
    watchers: dict[bytes, None] = {}
    #: Grows with each actor that is registered.
    number: int = 0

    @property
    def name_for_people(self) -> str:
        """Class, name if any, and id."""
        name = f" {self.spec.name!r}" if self.spec.name else ""
        return f"{self.spec.class_name}{name} {self.spec.actor_id.hex()}"

    @property
    def held(self) -> dict[str, int]:
        """What it takes of its node: while it is placed, and once it lives."""
        alive = self.state == "ALIVE"
        return self.spec.resources if alive else self.spec.placement_resources

    def view(self) -> ActorState:
        """As watchers and lists are told."""
        return ActorState(
            self.spec.actor_id,
            self.state,
            self.incarnation,
            self.worker,
            pid=self.pid,
            node_id=self.node_id,
            cause=self.cause,
            error=self.error,
            reason=self.reason,
            class_name=self.spec.class_name,
            name=self.spec.name,
            restarts_left=self.restarts_left,
            namespace=self.spec.namespace,
        )

    def row(self) -> bytes:
        """As it is stored, but for the spec."""
        row = ActorRow(
            self.number, self.state, self.incarnation, self.node_id, self.worker, self.pid,
            self.restarts_left, self.cause, self.error, self.fruitless_count, self.memory_count,
            self.stopping, self.ending,
        )  # fmt: skip
        return _encode(row)

    def spec_row(self) -> bytes:
        """The spec as it is stored."""
        return _encode(self.spec)


class Registry:
    """All actors that are known. See the module. ``kept``: changes are to be persisted."""

    def __init__(self, kept: bool = False) -> None:
        self._kept = kept
        #: (table, actor id) of the rows that changed.
        self.changed: dict[tuple[str, bytes], None] = {}
        #: The living in the order of registering.
        self._living: dict[bytes, Actor] = {}
        #: The dead in the order of dying, at most DEAD_ACTORS_MAX. Disjoint from _living.
        self._dead: dict[bytes, Actor] = {}
        #: Those of them that have errors, in the same order, and what these take.
        self._errors: dict[bytes, Actor] = {}
        self._error_bytes = 0
        self._names: dict[tuple[str, str], Actor] = {}
        self._workers: dict[bytes, Actor] = {}
        self._owners: dict[bytes, dict[bytes, Actor]] = {}
        self._nodes: dict[bytes, dict[bytes, Actor]] = {}
        #: Living actors that no node was told to start.
        self._unplaced: dict[bytes, Actor] = {}
        self._number = self._restored = 0

    def get(self, actor_id: bytes) -> Actor | None:
        """By id, dead or alive."""
        return self._living.get(actor_id) or self._dead.get(actor_id)

    def by_name(self, namespace: str, name: str) -> Actor | None:
        """The living actor of that name."""
        return self._names.get((namespace, name))

    def by_worker(self, process_id: bytes) -> Actor | None:
        """The actor that lives in a worker."""
        return self._workers.get(process_id)

    def owned_by(self, process_id: bytes) -> list[Actor]:
        """The living actors of an owner."""
        return list(self._owners.get(process_id, {}).values())

    def on_node(self, node_id: bytes) -> list[Actor]:
        """The living actors on, or sent to, a node."""
        return list(self._nodes.get(node_id, {}).values())

    def living(self) -> list[Actor]:
        """All that are not DEAD."""
        return list(self._living.values())

    def outlives(self, job_id: bytes) -> bool:
        """Whether a detached actor of a job lives."""
        return any(a.spec.detached and a.spec.job_id == job_id for a in self._living.values())

    def inherited(self) -> list[Actor]:
        """Those living ones that lived already when this head began."""
        return [actor for actor in self._living.values() if actor.number <= self._restored]

    def unplaced(self) -> list[Actor]:
        """All that wait for a node."""
        return list(self._unplaced.values())

    def all(self) -> list[Actor]:
        """The living, then the dead."""
        return [*self._living.values(), *self._dead.values()]

    def add(self, actor: Actor) -> None:
        """Take in a new, unplaced actor, whose name is free."""
        spec = actor.spec
        self._number += 1
        actor.number = self._number
        self._living[spec.actor_id] = actor
        self._unplaced[spec.actor_id] = actor
        self._owners.setdefault(spec.owner.process_id, {})[spec.actor_id] = actor
        if spec.name:
            self._names[spec.namespace, spec.name] = actor

    def set_node(self, actor: Actor, node_id: bytes) -> None:
        """Put a living actor on a node, or with b"" on none."""
        actor_id = actor.spec.actor_id
        _drop(self._nodes, actor.node_id, actor_id)
        actor.node_id = node_id
        if node_id:
            self._unplaced.pop(actor_id, None)
            self._nodes.setdefault(node_id, {})[actor_id] = actor
        else:
            self._unplaced[actor_id] = actor

    def set_worker(self, actor: Actor, worker: Address | None, pid: int) -> None:
        """Give a living actor its worker, or take it away."""
        if actor.worker is not None:
            self._workers.pop(actor.worker.process_id, None)
        actor.worker, actor.pid = worker, pid
        if worker is not None:
            self._workers[worker.process_id] = actor

    def end(self, actor: Actor) -> None:
        """Make a living actor DEAD; its name is free again. The pid stays for people to read."""
        spec, pid = actor.spec, actor.pid
        self.set_worker(actor, None, pid)
        _drop(self._nodes, actor.node_id, spec.actor_id)
        _drop(self._owners, spec.owner.process_id, spec.actor_id)
        self._unplaced.pop(spec.actor_id, None)
        if spec.name:
            del self._names[spec.namespace, spec.name]
        actor.state = "DEAD"
        actor.node_id = b""
        # The arguments of the constructor may be big, and nobody needs them any more.
        actor.spec = msgspec.structs.replace(spec, args=b"", deps=[])
        del self._living[spec.actor_id]
        self._bury(actor)
        if len(self._dead) > DEAD_ACTORS_MAX:
            oldest = self._dead.pop(next(iter(self._dead)))
            self._drop_error(oldest)
            self.touch(oldest, SPECS)

    def _bury(self, actor: Actor) -> None:
        self._dead[actor.spec.actor_id] = actor
        if actor.error:
            self._errors[actor.spec.actor_id] = actor
            self._error_bytes += len(actor.error)
            while self._error_bytes > DEAD_ERRORS_BYTES_MAX and len(self._errors) > 1:
                oldest = next(iter(self._errors.values()))
                self._drop_error(oldest)
                oldest.error = b""
                self.touch(oldest)

    def _drop_error(self, actor: Actor) -> None:
        if self._errors.pop(actor.spec.actor_id, None) is not None:
            self._error_bytes -= len(actor.error)

    def nodes(self) -> set[bytes]:
        """Where living actors are, and where the owners are that they end with."""
        living = self._living.values()
        owners = {actor.spec.owner.node_id for actor in living if not actor.spec.detached}
        return {*owners, *(actor.node_id for actor in living)} - {b""}

    # -- what outlives the head

    def touch(self, actor: Actor, table: str = STATES) -> None:
        """The actor's record is changed, and with SPECS its spec as well."""
        if self._kept:
            self.changed[table, actor.spec.actor_id] = None
            self.changed[STATES, actor.spec.actor_id] = None

    def persist(self) -> list[Persist]:
        """The rows that changed, as they are now; they have not changed after that."""
        changed, self.changed = self.changed, {}
        rows = []
        for table, actor_id in changed:
            actor = self.get(actor_id)
            row = None
            if actor is not None:
                row = actor.row() if table == STATES else actor.spec_row()
            rows.append(Persist(table, actor_id, row))
        return rows

    def rows(self) -> dict[str, dict[bytes, bytes]]:
        """What should be stored now, by table."""
        actors = self.all()
        return {
            STATES: {actor.spec.actor_id: actor.row() for actor in actors},
            SPECS: {actor.spec.actor_id: actor.spec_row() for actor in actors},
        }

    def restore(self, states: Mapping[bytes, bytes], specs: Mapping[bytes, bytes]) -> None:
        """Take in what was stored, before anything else."""
        rows = sorted((_row.decode(data) for data in states.values()), key=lambda row: row.number)
        by_number = {_row.decode(data).number: actor_id for actor_id, data in states.items()}
        for row in rows:
            actor = Actor(
                spec=_spec.decode(specs[by_number[row.number]]), incarnation=row.incarnation,
                restarts_left=row.restarts_left, cause=row.cause, error=row.error,
                fruitless_count=row.fruitless_count, memory_count=row.memory_count,
                stopping=row.stopping, ending=row.ending,
            )  # fmt: skip
            if row.state == "DEAD":
                actor.state, actor.pid, actor.number = "DEAD", row.pid, row.number
                self._bury(actor)
                self._number = max(self._number, row.number)
                continue
            self._number = row.number - 1
            self.add(actor)
            actor.state = row.state
            self.set_node(actor, row.node_id)
            self.set_worker(actor, row.worker, row.pid)
        self._restored = self._number

    def check(self) -> None:
        """Raise InvariantError where an index and the records disagree."""
        for actor_id, actor in self._living.items():
            if actor.state == "DEAD" or actor_id in self._dead:
                raise InvariantError(f"{actor.name_for_people} is dead and alive")
            if (actor.state == "ALIVE") != (actor.worker is not None):
                raise InvariantError(f"{actor.name_for_people}: {actor.state}, {actor.worker}")
            if (actor_id in self._unplaced) != (actor.node_id == b""):
                raise InvariantError(f"{actor.name_for_people} is placed and waits")
        found = {id(a) for group in self._nodes.values() for a in group.values()}
        if found != {id(a) for a in self._living.values() if a.node_id}:
            raise InvariantError("the index of nodes is wrong")
        if {id(a) for a in self._workers.values()} != {
            id(a) for a in self._living.values() if a.worker is not None
        }:
            raise InvariantError("the index of workers is wrong")
        if {id(a) for a in self._names.values()} != {
            id(a) for a in self._living.values() if a.spec.name
        }:
            raise InvariantError("the index of names is wrong")
        errors = [actor_id for actor_id, actor in self._dead.items() if actor.error]
        if sorted(errors) != sorted(self._errors):
            raise InvariantError("the index of errors is wrong")
        if self._error_bytes != sum(len(actor.error) for actor in self._errors.values()):
            raise InvariantError(f"errors of the dead do not take {self._error_bytes} bytes")
        if any(not group for group in (*self._nodes.values(), *self._owners.values())):
            raise InvariantError("an empty group is kept")


def _drop(index: dict[bytes, dict[bytes, Actor]], key: bytes, actor_id: bytes) -> None:
    group = index.get(key)
    if group is not None:
        group.pop(actor_id, None)
        if not group:
            del index[key]
