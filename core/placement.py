"""Where tasks and actors may run: names of what bundles hold, and conditions on nodes.

Pure functions and values, shared by programs, nodes and the head. A bundle's resources are
resources of its node under names of their own: what asks for 1 CPU in a group asks for
``CPU_group_<group>`` (any bundle) or ``CPU_group_<index>_<group>``, as in Ray. So the same
arithmetic serves both, and nothing in a bundle can take from outside. Everything that runs in a
group takes a little of ``bundle``, so what needs nothing is in the group too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from mray.resources import UNIT, Resources

_MARK: Final = "_group_"
#: Every bundle has so much of this, and everything in it takes this much.
_BUNDLE: Final = "bundle"
_SLOTS: Final = 1000 * UNIT
_SLOT: Final = UNIT // 1000

#: How the reason begins of what no node of the cluster can ever serve.
INFEASIBLE: Final = "infeasible"
#: How labels are compared: operator, values.
Conditions = dict[str, tuple[str, list[str]]]
IN, NOT_IN, EXISTS, ABSENT = "in", "!in", "exists", "!exists"


class Where(msgspec.Struct, array_like=True, frozen=True, omit_defaults=True):
    """Conditions on the node. ``node_id`` b"" is any; soft ones are wishes."""

    node_id: bytes = b""
    soft: bool = False
    labels: Conditions = {}
    soft_labels: Conditions = {}
    #: What counts in place of ``labels`` where no node meets them: the first that some node meets.
    fallbacks: list[Conditions] = []
    #: The SPREAD strategy: nodes in turn.
    spread: bool = False
    #: The node that has most of what it needs.
    prefer: bytes = b""

    def choices(self) -> list[Conditions]:
        """Conditions on labels, in the order in which they are tried."""
        return [self.labels, *self.fallbacks]


def accelerator_resource(kind: str) -> tuple[str, float]:
    """What a task with an ``accelerator_type`` asks for, so that only nodes with it qualify."""
    return f"accelerator_type:{kind}", 0.001


def is_in_group(name: str) -> bool:
    """Whether a resource's name is that of a bundle's share."""
    return _MARK in name


def within(resources: Mapping[str, int], group_id: bytes, index: int) -> Resources:
    """What a task or actor asks for in a group: ``index`` -1 is any bundle."""
    tail = group_id.hex() if index < 0 else f"{index}_{group_id.hex()}"
    needs = {f"{name}{_MARK}{tail}": amount for name, amount in resources.items()}
    needs[f"{_BUNDLE}{_MARK}{tail}"] = _SLOT
    return needs


def offered(bundle: Mapping[str, int], group_id: bytes, index: int) -> Resources:
    """The resources that a node has more for a bundle."""
    offer = within(bundle, group_id, index)
    offer[f"{_BUNDLE}{_MARK}{index}_{group_id.hex()}"] = _SLOTS
    return offer


def group_in(resources: Mapping[str, int]) -> tuple[bytes, int] | None:
    """The group and bundle (-1: any) that these needs are in; None for no group."""
    for name in resources:
        if name.startswith(_BUNDLE + _MARK):
            index, _, group = name[len(_BUNDLE) + len(_MARK) :].rpartition("_")
            return bytes.fromhex(group), int(index) if index else -1
    return None


def in_bundle(resources: Mapping[str, int], group_id: bytes, index: int) -> Resources:
    """The needs of something in any bundle, in this one."""
    here = f"{_MARK}{index}_{group_id.hex()}"
    return {
        name.partition(_MARK)[0] + here if _MARK in name else name: amount
        for name, amount in resources.items()
    }


def plain(resources: Mapping[str, int]) -> Resources:
    """Needs without the names of groups: as the user asked."""
    return {
        name.partition(_MARK)[0]: amount
        for name, amount in resources.items()
        if not name.startswith(_BUNDLE + _MARK)
    }


def matches(conditions: Conditions, labels: Mapping[str, str]) -> bool:
    """Whether a node with these labels meets all conditions."""
    for key, (operator, values) in conditions.items():
        there = labels.get(key)
        if operator == IN:
            met = there in values
        elif operator == NOT_IN:
            met = there not in values
        else:
            met = (there is None) == (operator == ABSENT)
        if not met:
            return False
    return True


def choice_of(where: Where, nodes: Iterable[Mapping[str, str]]) -> Conditions:
    """The conditions that count among nodes with these labels: the first that some node meets, else
    those that the user named first."""
    there = list(nodes)
    for conditions in where.choices():
        if any(matches(conditions, labels) for labels in there):
            return conditions
    return where.labels


def parse_selector(selector: Mapping[str, str]) -> Conditions:
    """The conditions of a ``label_selector``: values are ``a``, ``!a``, ``in(a,b)``, ``!in(a,b)``.

    ValueError for a value that is none of these.
    """
    conditions: Conditions = {}
    for key, text in selector.items():
        body = text.removeprefix("!")
        operator = NOT_IN if text.startswith("!") else IN
        values = [body]
        if body.startswith("in("):
            if not body.endswith(")"):
                raise ValueError(f"label_selector[{key!r}]: {text!r} has no closing bracket")
            values = [value.strip() for value in body[3:-1].split(",")]
        if not all(values):
            raise ValueError(f"label_selector[{key!r}]: {text!r} names no value")
        conditions[key] = (operator, values)
    return conditions


def describe_conditions(conditions: Conditions) -> str:
    """Conditions for people."""
    words = {IN: "in", NOT_IN: "not in", EXISTS: "exists", ABSENT: "does not exist"}
    return ", ".join(
        f"{key} {words[operator]}{' (' + ', '.join(values) + ')' if values else ''}"
        for key, (operator, values) in conditions.items()
    )
