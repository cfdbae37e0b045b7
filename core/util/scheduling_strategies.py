"""Strategies for ``scheduling_strategy=`` of tasks and actors: in a group, on a node, by labels.

Values, checked as they are made. What becomes of them is mray.scheduling's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mray.ids import NODE_BYTES

if TYPE_CHECKING:
    from mray.util.placement_group import PlacementGroup


class PlacementGroupSchedulingStrategy:
    """Run in a bundle of the group: the one of this index, or any (-1). ``None`` for the group:
    in none, even where the caller's group captures what it submits."""

    def __init__(
        self,
        placement_group: PlacementGroup | None,
        placement_group_bundle_index: int = -1,
        placement_group_capture_child_tasks: bool | None = None,
    ) -> None:
        self.placement_group = placement_group
        self.placement_group_bundle_index = placement_group_bundle_index
        self.placement_group_capture_child_tasks = placement_group_capture_child_tasks


class NodeAffinitySchedulingStrategy:
    """Run on the node of this id (hex). ``soft``: elsewhere if it is gone or cannot.

    ValueError for what is no node id, and for the two private options of Ray, which this version
    does not have.
    """

    def __init__(
        self,
        node_id: str,
        soft: bool,
        _spill_on_unavailable: bool = False,
        _fail_on_unavailable: bool = False,
    ) -> None:
        node_id = str(node_id)
        try:
            right = len(bytes.fromhex(node_id)) == NODE_BYTES
        except ValueError:
            right = False
        if not right:
            raise ValueError(
                f"node_id {node_id!r} is none: it takes {2 * NODE_BYTES} hex digits, as in the "
                '"NodeID" of nodes()'
            )
        if _spill_on_unavailable or _fail_on_unavailable:
            raise ValueError(
                "_spill_on_unavailable and _fail_on_unavailable are not supported by this version "
                "of mray"
            )
        self.node_id = node_id
        self.soft = soft


class _Operator:
    """What is asked of a label."""

    operator = ""

    def __init__(self, *values: str) -> None:
        name = type(self).__name__
        if not values:
            raise ValueError(f'{name}() needs values: {name}("a", "b")')
        for value in values:
            if not isinstance(value, str):
                raise ValueError(f"{name}() takes strings, not {value!r}")
        self.values = list(values)


class In(_Operator):
    """The label has one of these values."""

    operator = "in"


class NotIn(_Operator):
    """The label has none of these values, or is not there."""

    operator = "!in"


class Exists(_Operator):
    """The label is there."""

    operator = "exists"

    def __init__(self) -> None:
        self.values = []


class DoesNotExist(_Operator):
    """The label is not there."""

    operator = "!exists"

    def __init__(self) -> None:
        self.values = []


LabelMatchExpressionsT = Mapping[str, In | NotIn | Exists | DoesNotExist]


class NodeLabelSchedulingStrategy:
    """Run on a node whose labels meet ``hard``, rather on one that meets ``soft`` too."""

    def __init__(
        self, hard: LabelMatchExpressionsT | None, *, soft: LabelMatchExpressionsT | None = None
    ) -> None:
        self.hard = _checked("hard", hard)
        self.soft = _checked("soft", soft)
        if not (self.hard or self.soft):
            raise ValueError("hard and soft are both empty: name a label to go by")


def _checked(what: str, given: object) -> dict[str, _Operator]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ValueError(f'{what} must be a dict like {{"key": In("a")}}, not {given!r}')
    for key, value in given.items():
        if not isinstance(key, str):
            raise ValueError(f"{what}: labels are strings, not {key!r}")
        if not isinstance(value, _Operator):
            raise ValueError(
                f"{what}[{key!r}] must be In(), NotIn(), Exists() or DoesNotExist(), not {value!r}"
            )
    return dict(given)
