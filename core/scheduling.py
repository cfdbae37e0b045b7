"""Where a task or actor is to run, from its options: checked once, at the edge.

Turns strategies, the older placement_group options, label selectors and what the caller's own
group captures into one value, ``Placing``. Who can serve that is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from mray.former import refuse_group
from mray.placement import Conditions, Where, parse_selector
from mray.resources import Resources, fits, to_fixed, to_float
from mray.tasks.placing import ANYWHERE, Placing
from mray.util.placement_group import (
    PlacementGroup,
    PlacementGroupID,
    check_placement_group_index,
)
from mray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime


def check_strategy(name: str, value: Any) -> None:
    """Raise ValueError or TypeError unless it is a strategy."""
    if isinstance(value, str):
        if value not in ("DEFAULT", "SPREAD"):
            raise ValueError(
                f"{name}={value!r} is none: 'DEFAULT', 'SPREAD', or one of "
                "mray.util.scheduling_strategies"
            )
    elif isinstance(value, PlacementGroupSchedulingStrategy):
        if value.placement_group is not None:
            check_group(f"{name}.placement_group", value.placement_group)
    elif not isinstance(value, (NodeAffinitySchedulingStrategy, NodeLabelSchedulingStrategy)):
        raise TypeError(f"{name} must be a string or a strategy, not {type(value).__name__}")


def check_group(name: str, value: Any) -> None:
    """Raise unless it is a placement group, or "default"."""
    if not isinstance(value, PlacementGroup) and value != "default":
        raise TypeError(f"{name} must be a placement group, not {value!r}")


def checked_selector(name: str, value: Any) -> dict[str, str]:
    """Raise unless it is a dict of labels and what is asked of them."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict of strings, not {value!r}")
    for key, text in value.items():
        if not isinstance(key, str) or not isinstance(text, str) or not key:
            raise ValueError(f"{name} must have labels and values that are strings: {key!r}")
    parse_selector(value)
    return dict(value)


def checked_fallbacks(name: str, value: Any) -> list[dict[str, str]]:
    """The label selectors of a ``fallback_strategy``; raise unless it is a list of dicts that each
    have one."""
    if not isinstance(value, list):
        raise TypeError(f"{name} must be a list of dicts, not {value!r}")
    selectors = []
    for number, entry in enumerate(value):
        what = f"{name}[{number}]"
        if not isinstance(entry, Mapping) or not entry:
            raise ValueError(f"{what} must be a dict with a label_selector, not {entry!r}")
        unknown = sorted(set(entry) - {"label_selector"}, key=str)
        if unknown:
            raise ValueError(f"{what} has {unknown}; it may have a label_selector only")
        selectors.append(checked_selector(f"{what}['label_selector']", entry["label_selector"]))
    return selectors


def placing_of(rt: Runtime, options: Mapping[str, Any], what: str, *needs: Resources) -> Placing:
    """Where it is to run. ``needs``: what has to fit into one bundle.

    ValueError if the group has no such bundle, or none that is big enough.
    """
    strategy = options.get("scheduling_strategy")
    group = options.get("placement_group")
    index = options.get("placement_group_bundle_index")
    captures = options.get("placement_group_capture_child_tasks")
    labels = _labels(options.get("label_selector"))
    fallbacks = [
        parse_selector(entry["label_selector"]) for entry in options.get("fallback_strategy") or ()
    ]
    if not labels:
        fallbacks = []  # Every node meets what is asked for first.
    if strategy is None and group is None and index is None and not labels and not rt.scope_group:
        return ANYWHERE
    if strategy is not None and isinstance(group, PlacementGroup):
        raise ValueError(f"{what}: give the placement group in scheduling_strategy only")
    if isinstance(strategy, PlacementGroupSchedulingStrategy):
        group = strategy.placement_group
        index = strategy.placement_group_bundle_index
        captures = strategy.placement_group_capture_child_tasks
    elif strategy is not None:
        return Placing(where=_where(strategy, labels, fallbacks))
    elif not isinstance(group, PlacementGroup) and rt.scope_group:
        # The caller's group captures what it submits.
        group, captures = PlacementGroup(PlacementGroupID(rt.scope_group)), True
    index = -1 if index is None else index
    if not isinstance(group, PlacementGroup) or group.is_empty:
        if index != -1:
            raise ValueError(f"{what}: placement_group_bundle_index needs a placement group")
        return Placing(where=_where(None, labels, fallbacks)) if labels else ANYWHERE
    refuse_group(group.id.hex(), group._cluster)
    check_placement_group_index(group, index)
    bundles = group.bundle_specs
    for need in needs:
        places = bundles if index < 0 else [bundles[index]]
        if not any(fits(need, to_fixed(bundle)) for bundle in places):
            where = f"any bundle of its placement group, {bundles}"
            if index >= 0:
                where = f"bundle {index} of its placement group, {bundles[index]}"
            raise ValueError(f"{what} asks for {to_float(need)}, which does not fit into {where}")
    rt.placing.know(group.id.binary())
    captures = bool(rt.scope_group) if captures is None else bool(captures)
    return Placing(group.id.binary(), index, captures)


def _labels(selector: Any) -> Conditions:
    return parse_selector(selector) if selector else {}


def _where(strategy: Any, labels: Conditions, fallbacks: list[Conditions]) -> bytes:
    """Conditions on the node; b"" where there are none."""
    where = Where(labels=labels, fallbacks=fallbacks, spread=strategy == "SPREAD")
    if isinstance(strategy, NodeAffinitySchedulingStrategy):
        node_id = bytes.fromhex(strategy.node_id)
        where = Where(node_id, bool(strategy.soft), labels, fallbacks=fallbacks)
    elif isinstance(strategy, NodeLabelSchedulingStrategy):
        hard = {key: (value.operator, value.values) for key, value in strategy.hard.items()}
        soft = {key: (value.operator, value.values) for key, value in strategy.soft.items()}
        both = [{**choice, **hard} for choice in fallbacks]
        where = Where(labels={**labels, **hard}, soft_labels=soft, fallbacks=both)
    return b"" if where == Where() else msgspec.msgpack.encode(where)
