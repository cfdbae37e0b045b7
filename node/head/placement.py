"""Which node an actor goes to: a pure choice over what the nodes have and have free.

Nodes with room are preferred, the head's node first (nothing has to travel), then in the order of
joining. Where no node has room now but one could ever have it, a single such node gets the actor
at once and queues it, knowing best when room comes; among several the actor waits here for the
first that has room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from mray.resources import UNIT, fits, missing, to_float


class Room(msgspec.Struct, kw_only=True):
    """What a node has in all, and what is thought to be free of it."""

    node_id: bytes
    is_head: bool
    total: dict[str, int]
    available: dict[str, int]


class Choice(msgspec.Struct, frozen=True):
    """``node_id`` is None where the actor has to wait; ``reason`` says what for."""

    node_id: bytes | None
    reason: str = ""


def choose(need: Mapping[str, int], held: Mapping[str, int], rooms: Sequence[Room]) -> Choice:
    """The node for an actor that needs ``need`` to be placed and ``held`` while it lives."""
    both = {name: max(need.get(name, 0), held.get(name, 0)) for name in {**need, **held}}
    feasible = [room for room in rooms if fits(both, room.total)]
    if not feasible:
        return Choice(None, _infeasible(both, rooms))
    for room in sorted(feasible, key=lambda room: not room.is_head):
        if fits(need, room.available):
            return Choice(room.node_id)
    if len(feasible) == 1:
        return Choice(feasible[0].node_id, _full(need, feasible))
    return Choice(None, _full(need, feasible))


def _infeasible(need: Mapping[str, int], rooms: Sequence[Room]) -> str:
    asked = _amounts(need)
    if not rooms:
        return f"needs {asked}, and the cluster has no node yet"
    lacks = []
    for room in rooms:
        short = missing(need, room.total)
        have = ", ".join(f"{there:g} {name}" for name, (_, there) in sorted(short.items()))
        lacks.append(f"node {room.node_id.hex()[:10]} has {have}")
    more = f" and {len(lacks) - 3} nodes more" if len(lacks) > 3 else ""
    return (
        f"infeasible: needs {asked}, and no node has that much even when idle "
        f"({'; '.join(lacks[:3])}{more}); waiting for a node that has"
    )


def _full(need: Mapping[str, int], rooms: Sequence[Room]) -> str:
    free = "; ".join(
        f"node {room.node_id.hex()[:10]} has "
        + ", ".join(f"{room.available.get(n, 0) / UNIT:g} {n}" for n in sorted(need))
        for room in rooms[:3]
    )
    more = f" and {len(rooms) - 3} nodes more" if len(rooms) > 3 else ""
    return f"waiting for room: needs {_amounts(need)}, free now: {free}{more}"


def _amounts(need: Mapping[str, int]) -> str:
    amounts = to_float(need)
    return ", ".join(f"{amounts[name]:g} {name}" for name in sorted(amounts)) or "nothing"
