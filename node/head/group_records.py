"""The records of placement groups, how they are stored, and what a node has of them that registers
again. Decides nothing else: placement_groups.py does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from mray.node.head.events import Send
from mray.wire.messages import (
    CommitBundles,
    GroupSpec,
    NodeContents,
    PlacementGroupState,
    ReturnBundles,
)

#: Its table in the head's storage; keys are group ids.
TABLE: Final = "groups"
#: How long nodes may take to reserve their parts of a group that has several.
RESERVE_S: Final = 5.0


class GroupRow(msgspec.Struct, frozen=True):
    """A group as it is stored. ``nodes``: where its bundles are, not where they are to be: an
    attempt ends with the head that made it."""

    #: Grows: in the order of making.
    number: int
    spec: GroupSpec
    state: str
    nodes: list[bytes]
    attempt: int
    reason: str
    created_after_s: float


_encode: Final = msgspec.msgpack.Encoder().encode
_row: Final = msgspec.msgpack.Decoder(GroupRow)


class Group(msgspec.Struct):
    """A placement group. See placement_groups.py."""

    spec: GroupSpec
    made_at: float
    state: str = "PENDING"
    #: Where each bundle is or is being reserved; b"" for nowhere.
    nodes: list[bytes] = []
    #: Nodes that have not yet reserved what this attempt asks of them.
    awaited: dict[bytes, None] = {}
    #: The bundles that this attempt places.
    placing: list[int] = []
    attempt: int = 0
    #: When an attempt is given up, or the next is made.
    due_at: float | None = None
    reserve_s: float = RESERVE_S
    reason: str = ""
    infeasible: bool = False
    created_after_s: float = 0.0
    watchers: dict[bytes, None] = {}
    number: int = 0

    @property
    def settled(self) -> list[bytes]:
        """Where the bundles are, not where they are being reserved."""
        return [b"" if i in self.placing else node for i, node in enumerate(self.nodes)]

    def row(self) -> bytes:
        """As it is stored."""
        reason = self.reason if self.state == "REMOVED" else ""
        row = GroupRow(
            self.number, self.spec, self.state, self.settled, self.attempt, reason,
            self.created_after_s,
        )  # fmt: skip
        return _encode(row)

    def view(self) -> PlacementGroupState:
        """As watchers and lists are told."""
        return PlacementGroupState(
            self.spec.group_id, self.spec, self.state, self.settled, self.reason,
            self.infeasible, self.created_after_s, self.attempt,
        )  # fmt: skip


def restored(rows: Mapping[bytes, bytes], now: float) -> list[Group]:
    """The groups that were stored, in the order of making."""
    found = sorted((_row.decode(data) for data in rows.values()), key=lambda row: row.number)
    return [_of_row(row, now) for row in found]


def _of_row(row: GroupRow, now: float) -> Group:
    return Group(
        row.spec, now, row.state, list(row.nodes), attempt=row.attempt, reason=row.reason,
        created_after_s=row.created_after_s, number=row.number,
    )  # fmt: skip


def lost_bundles(group: Group, node_id: bytes, contents: NodeContents) -> list[int]:
    """The bundles of a group that should be on the node and are not."""
    group_id = group.spec.group_id
    there = {bundle.index for bundle in contents.bundles if bundle.group_id == group_id}
    return [i for i, node in enumerate(group.settled) if node == node_id and i not in there]


def bundle_orders(
    groups: Mapping[bytes, Group], node_id: bytes, contents: NodeContents
) -> list[Send]:
    """What the node has to be told of the bundles that it has."""
    sends: dict[tuple[bytes, int], Send] = {}
    for bundle in contents.bundles:
        key = (bundle.group_id, bundle.attempt)
        group = groups.get(bundle.group_id)
        if group is None or group.state == "REMOVED":
            sends[bundle.group_id, -1] = Send(node_id, ReturnBundles(bundle.group_id))
        elif bundle.index >= len(group.nodes) or group.settled[bundle.index] != node_id:
            sends[key] = Send(node_id, ReturnBundles(*key))
        elif not bundle.committed:
            sends[key] = Send(node_id, CommitBundles(*key))
    return list(sends.values())
