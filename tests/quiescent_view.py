"""What a cluster says of itself when it should be at rest: the inside half of quiescent.py.

Covers: asking head and nodes over mray's own messages, and naming what is not at rest. Runs in a
process that is connected to the cluster, which may be another than the test's (netcluster_driver.py
runs it within a network namespace), so it imports nothing of the tests and returns plain values.
"""

from __future__ import annotations

from typing import Any

from mray.resources import to_float
from mray.state_ask import RuntimeAsker
from mray.state_collect import Asker, tasks
from mray.wire.messages import (
    ActorList,
    GetStoreStats,
    GetWorkers,
    ListActors,
    NodeView,
    StoreStats,
    Workers,
)

#: The keys that each say nothing at rest; the rest of a view is for the dump.
TROUBLES = ("resources", "store", "tasks", "actors")
_ENDED = ("FINISHED", "FAILED")


def look(keep_actors: bool = False) -> dict[str, Any]:
    """The cluster of this process's runtime. ``keep_actors``: those that live may."""
    from mray import current

    return view(RuntimeAsker(current.get()), keep_actors)


def view(asker: Asker, keep_actors: bool = False) -> dict[str, Any]:
    """Troubles by kind, each a list of lines; ``nodes`` and ``workers`` are what was seen."""
    nodes = list(asker.nodes())
    living = [node for node in nodes if node.state != "DEAD"]
    workers = {node.node.node_id.hex(): _workers(asker, node) for node in living}
    held = keep_actors and any(worker["actor"] for seen in workers.values() for worker in seen)
    return {
        "resources": [] if held else [line for node in living for line in _resources(node)],
        "store": [line for node in living for line in _store(asker, node)],
        "tasks": _tasks(asker),
        "actors": [] if keep_actors else _actors(asker),
        "nodes": [
            {"id": node.node.node_id.hex(), "state": node.state, "pid": node.node.pid,
             "session": node.node.session_dir, "silent_s": round(node.since_heartbeat_s, 2)}
            for node in nodes
        ],
        "workers": workers,
    }  # fmt: skip


def _resources(node: NodeView) -> list[str]:
    total, free = node.node.resources, node.available
    wrong = {name: total.get(name, 0) - free.get(name, 0) for name in {*total, *free}}
    taken = {name: amount for name, amount in sorted(wrong.items()) if amount}
    lines = [f"node {_short(node)} has lent {to_float(taken)}"] if taken else []
    if node.pending:
        lines.append(f"at node {_short(node)} somebody waits for {node.pending}")
    return lines


def _store(asker: Asker, node: NodeView) -> list[str]:
    told = asker.ask_node(node, lambda rid: GetStoreStats(rid), StoreStats, 5.0)
    figures = {
        "used_bytes": told.used_bytes,
        "object_count": told.object_count,
        "spilled_objects": told.spilled_objects,
        "overflow_bytes": told.overflow_bytes,
    }
    left = {name: figure for name, figure in figures.items() if figure}
    return [f"the store of node {_short(node)} holds {left}"] if left else []


def _tasks(asker: Asker) -> list[str]:
    told = tasks(asker, [], 10_000)
    lines = [
        f"{each.name} ({each.task_id.hex()}, attempt {each.attempt}) is {each.state}: {each.reason}"
        for each in told.views
        if each.state not in _ENDED and each.type != "ACTOR_CREATION_TASK"
    ]
    return [*lines, *(f"pid {pid} does not say what it runs" for pid in told.silent)]


def _actors(asker: Asker) -> list[str]:
    actors = asker.ask_head(lambda rid: ListActors(rid), ActorList, 5.0).actors
    return [
        f"actor {each.class_name} ({each.actor_id.hex()}, pid {each.pid}) is {each.state}"
        for each in actors
        if each.state != "DEAD"
    ]


def _workers(asker: Asker, node: NodeView) -> list[dict[str, Any]]:
    told = asker.ask_node(node, lambda rid: GetWorkers(rid), Workers, 5.0)
    return [
        {"pid": each.pid, "state": each.state, "actor": each.actor_id.hex()}
        for each in told.workers
    ]


def _short(node: NodeView) -> str:
    return node.node.node_id.hex()[:8]
