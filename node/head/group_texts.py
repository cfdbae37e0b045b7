"""What is said of placement groups that wait, in words."""

from __future__ import annotations

from mray.node.head.placement import Room
from mray.resources import Resources, to_float
from mray.wire.messages import GroupSpec, PlacementGroupState


def why_it_waits(
    spec: GroupSpec, wanted: dict[int, Resources], rooms: list[Room], never: bool
) -> str:  # fmt: skip
    """Why bundles have no places on ``rooms``. ``never``: not even if all were idle."""
    asked = f"{spec.strategy} of {len(wanted)} bundles ({amounts(sum_of(wanted))} in all)"
    if not rooms:
        return f"infeasible: {asked}, and no node takes anything"
    have = "; ".join(
        f"node {short(room.node_id)} has {_have(wanted, room, never)}" for room in rooms[:3]
    )
    if not never:
        return f"waits for room: {asked}; free now: {have}"
    text = f"infeasible: {asked} does not fit, even when all is idle: {have}"
    if spec.strategy == "STRICT_SPREAD":
        text = f"infeasible: {asked} needs {len(spec.bundles)} nodes: {have}"
    return text


def unknown_group(group_id: bytes) -> PlacementGroupState:
    """What is said of a group that the head has no record of."""
    reason = "the head knows no such group: it was removed long ago, or never made"
    return PlacementGroupState(group_id, None, "REMOVED", reason=reason)


def sum_of(bundles: dict[int, Resources]) -> Resources:
    """What bundles need together."""
    total: Resources = {}
    for bundle in bundles.values():
        for name, amount in bundle.items():
            total[name] = total.get(name, 0) + amount
    return total


def _have(wanted: dict[int, Resources], room: Room, idle: bool) -> str:
    there = room.total if idle else room.available
    return amounts({name: there.get(name, 0) for name in sum_of(wanted)})


def amounts(resources: Resources) -> str:
    """As in "2 CPU, 1 GPU"."""
    floats = to_float(resources)
    return ", ".join(f"{floats[name]:g} {name}" for name in sorted(floats)) or "nothing"


def short(node_id: bytes) -> str:
    """A node's id for people."""
    return node_id.hex()[:10]
