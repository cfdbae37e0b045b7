"""``ray._private.state``: actors as dicts, with Ray's keys for what mray knows of them, and what
each node has."""

from __future__ import annotations

from typing import Any

from mray import api, current
from mray.resources import to_float
from mray.state_records import ActorState
from mray.util.state import list_actors, list_nodes
from mray.wire.messages import GetNodes, Nodes

__all__ = ["actors", "available_resources_per_node", "total_resources_per_node"]

_ALL = 2**31 - 1


def actors(
    actor_id: str | None = None, job_id: Any = None, actor_state_name: str | None = None
) -> dict[str, Any]:
    """All actors by id, or with ``actor_id`` (hex) that one's facts, {} where there is none.

    ``job_id`` (hex, or an id that has it) and ``actor_state_name`` choose among all.
    """
    wanted = job_id.hex() if hasattr(job_id, "hex") else job_id
    ips = {node.node_id: node.node_ip for node in list_nodes(limit=_ALL)}
    told = {
        actor.actor_id: _facts(actor, ips.get(actor.node_id or "", ""))
        for actor in list_actors(limit=_ALL, detail=True)
        if wanted in (None, actor.job_id) and actor_state_name in (None, actor.state)
    }
    return told if actor_id is None else told.get(actor_id, {})


def _facts(actor: ActorState, ip: str) -> dict[str, Any]:
    return {
        "ActorID": actor.actor_id,
        "ActorClassName": actor.class_name,
        "Name": actor.name,
        "JobID": actor.job_id,
        "Address": {"IPAddress": ip, "NodeID": actor.node_id or ""},
        "State": actor.state,
        "NumRestarts": actor.num_restarts,
        "DeathCause": actor.death_cause or "",
        "Pid": actor.pid or 0,
    }


def available_resources_per_node() -> dict[str, dict[str, float]]:
    """What is free on each living node, by its id (hex), as of its last report. What is used up is
    left out."""
    rt = current.get()
    views = rt.ask(rt.head, GetNodes, Nodes).nodes
    return {
        view.node.node_id.hex(): {
            name: free for name, free in to_float(view.available).items() if free
        }
        for view in views
        if view.state != "DEAD"
    }


def total_resources_per_node() -> dict[str, dict[str, float]]:
    """What each living node has, by its id (hex)."""
    return {node["NodeID"]: node["Resources"] for node in api.nodes() if node["Alive"]}
