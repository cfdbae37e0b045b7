"""A node registers again at a head that has begun anew: its actors against the head's records.

A pure comparison. What follows from it for restarts, names and watchers is actors.py's business.
"""

from __future__ import annotations

import msgspec

from mray.node.head.actor_records import Actor, Registry
from mray.node.head.causes import KILLED
from mray.node.head.events import Send
from mray.wire.messages import DeathCause, NodeContents, StartActor, StopActor


class Compared(msgspec.Struct, frozen=True):
    """What differs."""

    #: Incarnations that were alive and are there no more.
    ended: list[tuple[Actor, DeathCause]]
    #: Actors whose owner, a process of the node, is there no more.
    orphans: list[tuple[Actor, DeathCause]]
    #: What the node has to be told (again).
    sends: list[Send]


def compare(registry: Registry, node_id: bytes, contents: NodeContents) -> Compared:
    """What the end of the head's former life cut off, in both directions."""
    compared = Compared([], [], [])
    running = {actor.actor_id: actor for actor in contents.actors}
    for actor in registry.on_node(node_id):
        spec, there = actor.spec, running.get(actor.spec.actor_id)
        here = there is not None and there.incarnation == actor.incarnation
        if actor.worker is not None and not here:
            text = "its worker ended while the head was away, and how is not known"
            cause = DeathCause("killed", text, pid=actor.pid, node_id=node_id)
            compared.ended.append((actor, cause))
        elif actor.ending is not None:
            stop = StopActor(spec.actor_id, actor.incarnation, False, actor.ending)
            compared.sends.append(Send(node_id, stop))
        elif actor.worker is not None and actor.stopping:
            stop = StopActor(spec.actor_id, actor.incarnation, True, KILLED)
            compared.sends.append(Send(node_id, stop))
        elif not here:
            # The order did not arrive; or it waits there for a worker, and this one is void.
            compared.sends.append(Send(node_id, StartActor(spec, actor.incarnation)))
    unwanted = DeathCause("killed", "this incarnation of the actor is not wanted any more")
    for actor_id, there in running.items():
        known = registry.get(actor_id)
        if known is None or (known.node_id, known.incarnation) != (node_id, there.incarnation):
            stop = StopActor(actor_id, there.incarnation, True, unwanted)
            compared.sends.append(Send(node_id, stop))
    processes = set(contents.processes)
    gone = DeathCause("killed", "its process ended while the head was away", node_id=node_id)
    for actor in registry.inherited():
        owner = actor.spec.owner
        orphan = owner.node_id == node_id and owner.process_id not in processes
        if orphan and not actor.spec.detached:
            compared.orphans.append((actor, gone))
    return compared
