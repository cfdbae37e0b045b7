"""Which node an actor goes to: a pure choice over what the nodes have and have free.

Nodes with room are preferred: packed until half of what is scarce is in use, the head's node first
(nothing has to travel), then in the order of joining; from there on, and with SPREAD, the one that
has most left. Nodes that drain get nothing.

Where no node has room now but one could ever have it, a single such node gets the actor at once
and queues it, knowing best when room comes; among several the actor waits here for the first that
has room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from mray.placement import (
    INFEASIBLE,
    Where,
    choice_of,
    describe_conditions,
    group_in,
    in_bundle,
    matches,
    plain,
)
from mray.resources import UNIT, fits, missing, to_float

#: A node gets more until so much of its scarcest resource is in use.
PACKED_UNTIL: Final = 0.5


class Room(msgspec.Struct, kw_only=True):
    """What a node has in all, and what is thought to be free of it."""

    node_id: bytes
    is_head: bool
    total: dict[str, int]
    available: dict[str, int]
    labels: dict[str, str] = {}
    #: It takes nothing new and is about to end.
    draining: bool = False


class Choice(msgspec.Struct, frozen=True):
    """``node_id`` is None where the actor has to wait; ``reason`` says what for."""

    node_id: bytes | None
    reason: str = ""
    #: It never can be, whatever nodes join.
    never: bool = False


def choose(
    need: Mapping[str, int], held: Mapping[str, int], rooms: Sequence[Room], spread: bool = False
) -> Choice:
    """The node for an actor that needs ``need`` to be placed and ``held`` while it lives."""
    both = {name: max(need.get(name, 0), held.get(name, 0)) for name in {**need, **held}}
    feasible = [room for room in rooms if fits(both, room.total)]
    if not feasible:
        return Choice(None, _infeasible(both, rooms))
    with_room = [room for room in feasible if fits(need, room.available)]
    if with_room:
        return Choice(min(with_room, key=lambda room: _rank(need, room, spread)).node_id)
    if len(feasible) == 1:
        return Choice(feasible[0].node_id, _full(need, feasible))
    return Choice(None, _full(need, feasible))


def _rank(need: Mapping[str, int], room: Room, spread: bool) -> tuple[float, bool]:
    """Lower is better."""
    used, then = 0.0, 0.0
    for name, amount in room.total.items():
        if amount > 0 and (name in need or name in ("CPU", "GPU", "memory")):
            left = room.available.get(name, 0)
            used = max(used, 1 - left / amount)
            then = max(then, 1 - (left - need.get(name, 0)) / amount)
    return then if spread or used >= PACKED_UNTIL else 0.0, not room.is_head


def choose_in_group(
    need: Mapping[str, int], group_id: bytes, nodes: Sequence[bytes], rooms: Mapping[bytes, Room]
) -> Choice:
    """The node for an actor in a bundle of the group. ``nodes``: where its bundles are, b"" for
    nowhere; none of a group that is not created."""
    name = f"placement group {group_id.hex()[:10]}"
    found = group_in(need)
    assert found is not None
    index = found[1]
    wanted = range(len(nodes)) if index < 0 else [i for i in (index,) if i < len(nodes)]
    there = [i for i in wanted if nodes[i] in rooms]
    if not there:
        return Choice(None, f"waits for {name}, which is not created" if not nodes else
                      f"waits for {name}: its bundle is on no node now")  # fmt: skip
    for i in there:
        room = rooms[nodes[i]]
        if fits(in_bundle(need, group_id, i), room.available):
            return Choice(room.node_id)
    # The bundles' nodes know best when there is room in them.
    return Choice(nodes[there[0]], f"waits for room in {name}: needs {_amounts(plain(need))}")


def allowed(where: Where, rooms: Sequence[Room]) -> tuple[list[Room], Choice | None]:
    """The nodes that meet conditions, the wished ones first; and a choice where that settles it."""
    if where.node_id:
        named = [room for room in rooms if room.node_id == where.node_id]
        if named or not where.soft:
            text = f"the node {where.node_id.hex()} that it has to be on is not in the cluster"
            return named, None if named else Choice(None, text, never=True)
    labels = choice_of(where, (room.labels for room in rooms))
    rooms = [room for room in rooms if matches(labels, room.labels)]
    if where.labels and not rooms:
        conditions = describe_conditions(where.labels)
        text = f"{INFEASIBLE}: no node has the labels that it needs ({conditions})"
        return [], Choice(None, text)
    return sorted(rooms, key=lambda room: not matches(where.soft_labels, room.labels)), None


def on_named(where: Where, choice: Choice) -> Choice:
    """What has to be on a certain node, and can never be there, can never be."""
    named = where.node_id and not where.soft
    if named and choice.node_id is None and choice.reason.startswith(INFEASIBLE):
        text = f"it has to be on node {where.node_id.hex()}, and there it is {choice.reason}"
        return Choice(None, text.partition("; waiting for")[0], never=True)
    return choice


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
        f"{INFEASIBLE}: needs {asked}, and no node has that much even when idle "
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
