"""``mray.util.list_named_actors``: which names get_actor() finds."""

from __future__ import annotations

from typing import Any

from mray import current
from mray.wire.messages import ActorList, ListActors

__all__ = ["list_named_actors"]


def list_named_actors(all_namespaces: bool = False) -> list[Any]:
    """The names of the actors that live or are about to, in the namespace of this process.

    ``all_namespaces``: in all of them, as ``{"name": ..., "namespace": ...}``.
    """
    rt = current.get()
    actors = rt.ask(rt.head, ListActors, ActorList).actors
    named = [actor for actor in actors if actor.name and actor.state != "DEAD"]
    if all_namespaces:
        return [{"name": actor.name, "namespace": actor.namespace} for actor in named]
    return [actor.name for actor in named if actor.namespace == rt.namespace]
