"""Placement groups: bundles of resources reserved together, for tasks and actors to run in.

What users call. The group itself is the head's (node/head/placement_groups.py); what this process
knows of it is core/runtime/placing.py's.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from mray import current
from mray.former import cluster_now, refuse_group
from mray.object_ref import ObjectRef
from mray.resources import to_fixed, to_float

STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")
_UNIQUE_BYTES = 14

Bundle = dict[str, float]


class PlacementGroupID(bytes):
    """The id of a group: 14 bytes of its own and the job's 4."""

    __slots__ = ()

    def binary(self) -> bytes:
        """As plain bytes."""
        return bytes(self)

    def is_nil(self) -> bool:
        """Whether it is the id of no group."""
        return not self.strip(b"\xff")

    @classmethod
    def nil(cls) -> PlacementGroupID:
        """The id of no group."""
        return cls(b"\xff" * (_UNIQUE_BYTES + 4))

    @classmethod
    def from_hex(cls, text: str) -> PlacementGroupID:
        """From what ``hex()`` gives."""
        return cls(bytes.fromhex(text))

    def __repr__(self) -> str:
        return f"PlacementGroupID({self.hex()})"

    __str__ = __repr__


class PlacementGroup:
    """A handle of a group; any process of the cluster may use it. The group does not end with its
    handles."""

    def __init__(self, id: PlacementGroupID, bundle_cache: list[Bundle] | None = None) -> None:
        self.id = id if isinstance(id, PlacementGroupID) else PlacementGroupID(id)
        self.bundle_cache = bundle_cache
        self._cluster = cluster_now()

    @staticmethod
    def empty() -> PlacementGroup:
        """A handle of no group."""
        return PlacementGroup(PlacementGroupID.nil())

    @property
    def is_empty(self) -> bool:
        """Whether it is a handle of no group."""
        return self.id.is_nil()

    def ready(self) -> ObjectRef[PlacementGroup]:
        """A reference that is ready when the group is created; its value is this handle.
        TaskPlacementGroupRemoved if the group is removed before."""
        rt = current.get()
        refuse_group(self.id.hex(), self._cluster)
        return rt.placing.ready(self.id.binary(), self)

    def wait(self, timeout_seconds: float = 30) -> bool:
        """Wait for its creation; whether it came in time. ValueError if it was removed."""
        if self.is_empty:
            return False
        rt = current.get()
        refuse_group(self.id.hex(), self._cluster)
        return rt.placing.wait(self.id.binary(), self, timeout_seconds)

    @property
    def bundle_specs(self) -> list[Bundle]:
        """The bundles, in order. ValueError of a group that is not known."""
        if self.bundle_cache is None:
            found = [] if self.is_empty else _find(group_id=self.id.binary())
            if not found or found[0].spec is None:
                raise ValueError(f"placement group {self.id.hex()} is not known to the cluster")
            self.bundle_cache = [to_float(bundle) for bundle in found[0].spec.bundles]
        return self.bundle_cache

    @property
    def bundle_count(self) -> int:
        """How many bundles it has."""
        return len(self.bundle_specs)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PlacementGroup):
            return self.id == other.id
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)


def placement_group(
    bundles: list[dict[str, float]],
    strategy: str | None = None,
    name: str = "",
    lifetime: str | None = None,
    _soft_target_node_id: str | None = None,
    bundle_label_selector: list[dict[str, str]] | None = None,
    topology_strategy: dict[str, str] | None = None,
) -> PlacementGroup:
    """Reserve bundles of resources, all of them or none. Returns at once; see ``ready`` and
    ``wait``.

    ``strategy``: PACK (few nodes, the default), SPREAD (many), STRICT_PACK (one), STRICT_SPREAD
    (each on its own). ``lifetime="detached"`` outlives the job. Bundles go to the node of the
    process that makes the group, because it can run tasks nowhere else in this version; what does
    not fit there waits, with the reason in `mray list placement-groups`.

    Raises ValueError or TypeError for wrong arguments, RaySystemError if the name is taken.
    """
    if topology_strategy is not None:
        raise ValueError("topology_strategy is not supported by this version of mray")
    strategy = "PACK" if strategy is None else strategy
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, not {strategy!r}")
    if lifetime not in (None, "detached"):
        raise ValueError(f"lifetime must be None or 'detached', not {lifetime!r}")
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, not {name!r}")
    if _soft_target_node_id and strategy != "STRICT_PACK":
        raise ValueError(f"_soft_target_node_id goes with STRICT_PACK only, not with {strategy}")
    fixed = _bundles(bundles)
    selectors = _selectors(bundle_label_selector, len(fixed))
    rt = current.get()
    group_id = os.urandom(_UNIQUE_BYTES) + rt.job_id
    soft_node = bytes.fromhex(_soft_target_node_id or "")
    rt.placing.create(group_id, strategy, fixed, name, lifetime is not None, soft_node, selectors)
    return PlacementGroup(PlacementGroupID(group_id), [to_float(bundle) for bundle in fixed])


def _bundles(bundles: object) -> list[dict[str, int]]:
    if not isinstance(bundles, list):
        raise ValueError(f"bundles must be a list of dicts, not {type(bundles).__name__}")
    if not bundles:
        raise ValueError('bundles must not be empty: [{"CPU": 1}, {"GPU": 1}]')
    fixed = []
    for bundle in bundles:
        if not isinstance(bundle, Mapping):
            raise ValueError(f"a bundle must be a dict of resources, not {bundle!r}")
        for key, amount in bundle.items():
            number = isinstance(amount, (int, float)) and math.isfinite(amount)
            if not isinstance(key, str) or not number:
                raise ValueError(f"a bundle has names and numbers, not {key!r}: {amount!r}")
        needs = to_fixed(bundle)
        if not needs:
            raise ValueError(f"a bundle must have something in it, not {dict(bundle)}")
        fixed.append(needs)
    return fixed


def _selectors(given: Sequence[Mapping[str, str]] | None, count: int) -> list[dict[str, str]]:
    from mray.scheduling import checked_selector

    if not given:
        return []
    if len(given) != count:
        raise ValueError(
            f"bundle_label_selector has {len(given)} entries for {count} bundles: one for each"
        )
    return [checked_selector("bundle_label_selector", selector) for selector in given]


def remove_placement_group(placement_group: PlacementGroup) -> None:
    """End the group, and what runs in it; its resources are free when that is gone. Returns at
    once. Of one that was removed: nothing."""
    if not isinstance(placement_group, PlacementGroup):
        raise TypeError(f"remove_placement_group() takes a group, not {placement_group!r}")
    current.get().placing.remove(placement_group.id.binary())


def get_placement_group(placement_group_name: str) -> PlacementGroup:
    """The group of a name in this namespace. ValueError if there is none."""
    if not placement_group_name:
        raise ValueError("get_placement_group() needs a name")
    found = _find(name=placement_group_name)
    if not found or found[0].spec is None:
        raise ValueError(f"there is no placement group named {placement_group_name!r}")
    spec = found[0].spec
    return PlacementGroup(
        PlacementGroupID(spec.group_id), [to_float(bundle) for bundle in spec.bundles]
    )


def get_current_placement_group() -> PlacementGroup | None:
    """The group that the calling task or actor runs in; None for none, and in a driver."""
    group_id = current.get().placing.current_group()
    return PlacementGroup(PlacementGroupID(group_id)) if group_id else None


def placement_group_table(
    placement_group: PlacementGroup | None = None,
) -> dict[Any, Any]:
    """What is known of a group ({} if nothing is), or of all by id. ``stats["reason"]`` says what
    one that is pending waits for."""
    if placement_group is None:
        return {view.group_id.hex(): _facts(view) for view in _find()}
    found = _find(group_id=placement_group.id.binary())
    return _facts(found[0]) if found else {}


def check_placement_group_index(placement_group: PlacementGroup, bundle_index: int) -> None:
    """ValueError unless the group has a bundle of this index; -1 is any."""
    if placement_group.is_empty:
        if bundle_index != -1:
            raise ValueError("a bundle index needs a placement group")
        return
    count = placement_group.bundle_count
    if not -1 <= bundle_index < count:
        raise ValueError(
            f"placement group bundle index {bundle_index!r} is invalid: the group has bundles 0 "
            f"to {count - 1}, and -1 is any"
        )


class _CallableModule(ModuleType):
    """`mray.util.placement_group` names this module and, as in Ray, the function: whichever of the
    two somebody has imported can be called."""

    def __call__(self, *args: Any, **kwargs: Any) -> PlacementGroup:
        return placement_group(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule


def _find(name: str = "", group_id: bytes = b"") -> list[Any]:
    found: list[Any] = current.get().placing.find(name, group_id)
    return found


def _facts(view: Any) -> dict[str, Any]:
    spec = view.spec
    state = {"PENDING": "NO_RESOURCES", "CREATED": "FINISHED", "RESCHEDULING": "NO_RESOURCES"}
    latency_ms = round(view.created_after_s * 1000, 3)
    return {
        "placement_group_id": view.group_id.hex(),
        "name": spec.name,
        "bundles": {index: to_float(bundle) for index, bundle in enumerate(spec.bundles)},
        "bundles_to_node_id": {index: node.hex() for index, node in enumerate(view.nodes)},
        "strategy": spec.strategy,
        "state": view.state,
        "stats": {
            "end_to_end_creation_latency_ms": latency_ms,
            "scheduling_latency_ms": latency_ms,
            "scheduling_attempt": view.attempts,
            "highest_retry_delay_ms": 0.0,
            "scheduling_state": "INFEASIBLE"
            if view.infeasible
            else state.get(view.state, view.state),
            "reason": view.reason,
        },
    }
