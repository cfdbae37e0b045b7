"""Placement groups as ``ray.util.state`` tells of them."""

from __future__ import annotations

from mray.resources import to_float
from mray.state_answers import Filters, asking, chosen, one
from mray.state_records import PlacementGroupState
from mray.wire.messages import GetPlacementGroups, PlacementGroups

_ALL = 2**31


def list_placement_groups(
    address: str | None = None,
    filters: Filters = None,
    limit: int = 100,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> list[PlacementGroupState]:
    """Placement groups, the removed ones that the head remembers too; the newest first."""
    with asking(address, timeout) as ask:
        told = ask.ask_head(GetPlacementGroups, PlacementGroups, timeout).groups
    found = []
    for group in reversed(told):
        spec = group.spec
        if spec is None:
            continue
        state = PlacementGroupState(
            group.group_id.hex(), spec.name, spec.job_id.hex(), group.state, group.reason or None
        )
        if detail:
            nodes = group.nodes or [b""] * len(spec.bundles)
            state.bundles = [
                {"bundle_index": index, "unit_resources": to_float(bundle), "node_id": node.hex()}
                for index, (bundle, node) in enumerate(zip(spec.bundles, nodes, strict=True))
            ]
            state.is_detached = spec.detached
            state.strategy = spec.strategy
            state.stats = {"scheduling_attempt": group.attempts}
        found.append(state)
    return chosen(PlacementGroupState, found, filters)[:limit]


def get_placement_group(
    id: str, address: str | None = None, timeout: int = 30, _explain: bool = False
) -> PlacementGroupState | None:
    """The placement group with this id, None where there is none."""
    wanted = [("placement_group_id", "=", id)]
    return one(
        list_placement_groups(address, wanted, _ALL, timeout, True), "placement_group_id", id
    )
