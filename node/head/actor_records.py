"""The records of actors, and the indexes by name, worker, owner and node.

Holds and finds; decides nothing. Every index is kept by the methods here, so that it cannot
disagree with the records.
"""

from __future__ import annotations

from typing import Final

import msgspec

from mray.machine import InvariantError
from mray.wire.messages import ActorSpec, ActorState, Address, DeathCause

#: Dead actors that are remembered, for those who still hold handles and for lists.
DEAD_ACTORS_MAX: Final = 10_000


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

    @property
    def name_for_people(self) -> str:
        """Class, name if any, and id."""
        name = f" {self.spec.name!r}" if self.spec.name else ""
        return f"{self.spec.class_name}{name} {self.spec.actor_id.hex()}"

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


class Registry:
    """All actors that are known. See the module."""

    def __init__(self) -> None:
        #: The living in the order of registering.
        self._living: dict[bytes, Actor] = {}
        #: The dead in the order of dying, at most DEAD_ACTORS_MAX. Disjoint from _living.
        self._dead: dict[bytes, Actor] = {}
        self._names: dict[tuple[str, str], Actor] = {}
        self._workers: dict[bytes, Actor] = {}
        self._owners: dict[bytes, dict[bytes, Actor]] = {}
        self._nodes: dict[bytes, dict[bytes, Actor]] = {}
        #: Living actors that no node was told to start.
        self._unplaced: dict[bytes, Actor] = {}

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

    def unplaced(self) -> list[Actor]:
        """All that wait for a node."""
        return list(self._unplaced.values())

    def all(self) -> list[Actor]:
        """The living, then the dead."""
        return [*self._living.values(), *self._dead.values()]

    def add(self, actor: Actor) -> None:
        """Take in a new, unplaced actor, whose name is free."""
        spec = actor.spec
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
        self._dead[spec.actor_id] = actor
        if len(self._dead) > DEAD_ACTORS_MAX:
            del self._dead[next(iter(self._dead))]

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
        if any(not group for group in (*self._nodes.values(), *self._owners.values())):
            raise InvariantError("an empty group is kept")


def _drop(index: dict[bytes, dict[bytes, Actor]], key: bytes, actor_id: bytes) -> None:
    group = index.get(key)
    if group is not None:
        group.pop(actor_id, None)
        if not group:
            del index[key]
