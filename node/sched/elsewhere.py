"""Which of the leases that an owner asks its own node for are better asked of another node.

Machine, a part of leases.py; ``ClusterView`` says what the others have. Rules, in this order:

- A line with soft affinity to a node that can ever serve it waits for that one.
- One that has most of its arguments on a node goes there while there is room.
- SPREAD: nodes with room in turn, this one among them.
- What can never be here goes where it can: to the only such node for good, else to those with room.
- All else is packed here until half of what is critical is in use, and then goes to the node that
  would have most left, this one included. What no node has room for waits here.

What was sent to a node is taken off what is free there for a second, or until news of it comes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from mray.node.sched.cluster_view import ClusterView, Neighbour
from mray.node.sched.lines import Line, infeasible_text
from mray.placement import choice_of, describe_conditions, matches
from mray.resources import Resources, fits, take

#: This node gets more until so much of its scarcest resource is in use.
PACKED_UNTIL: Final = 0.5
#: Units of one line that are placed in one go.
_UNITS_MAX: Final = 256
#: What counts as scarce even if a request does not ask for it.
_CRITICAL: Final = ("CPU", "GPU", "memory")


class Move(NamedTuple):
    """``leases`` of the line's leases are to be asked of this node; ``stay``: for good."""

    node: Neighbour
    leases: int
    stay: bool


class Elsewhere:
    """See the module."""

    def __init__(self, view: ClusterView) -> None:
        self._view = view
        #: SPREAD: the node that had the last one.
        self._last = b""

    def possible(self, line: Line, total: Resources) -> bool:
        """Whether any node, this one included, can ever serve the line."""
        return self.fits_here(line, total) or bool(self._feasible(line))

    def why_not(self, line: Line, total: Resources, node_name: str) -> str:
        """Why no node can ever serve the line."""
        others = self._view.others()
        if line.where is not None and (line.where.labels or line.where.fallbacks):
            conditions = describe_conditions(line.where.labels)
            nodes = [self._view.nodes[self._view.own_id], *others]
            if not any(matches(line.where.labels, node.info.labels) for node in nodes):
                return f"{line.label} needs a node with {conditions}, and none of {len(nodes)} has"
        text = infeasible_text(line.label, line.need, total, node_name)
        return text if not others else f"{text}; nor can any of the {len(others)} other nodes"

    def move(
        self, line: Line, count: int, free: Resources, total: Resources, now: float
    ) -> list[Move]:
        """What of ``count`` leases is to be asked elsewhere. ``free`` and ``total`` of this node:
        what the line gets here is taken off ``free``."""
        self._view.forget_debits(now)
        feasible = self._feasible(line)
        if line.where is not None and line.where.node_id:
            if line.where.node_id == self._view.own_id and self.fits_here(line, total):
                return []
            for node in feasible:
                if node.info.node_id == line.where.node_id:
                    return [Move(node, count, stay=True)]
        others = [node for node in feasible if node.info.node_id not in line.avoid]
        here = self.fits_here(line, total) and not self._view.nodes[self._view.own_id].draining
        if not others:
            return []
        if not here and len(feasible) == 1:
            self._view.debit(feasible[0], line.need, count, now)
            return [Move(feasible[0], count, stay=True)]
        sent: dict[bytes, int] = {}
        rooms = {node.info.node_id: dict(self._view.free(node)) for node in others}
        wished = self._wished(line, others)
        left = min(count, _UNITS_MAX)
        while left and (node_id := self._next(line, rooms, wished, here, free, total)) is not None:
            left -= 1
            if node_id == self._view.own_id:
                take(line.need, free)
                continue
            take(line.need, rooms[node_id])
            sent[node_id] = sent.get(node_id, 0) + 1
        moves = []
        for node in others:
            if (n := sent.get(node.info.node_id, 0)) > 0:
                self._view.debit(node, line.need, n, now)
                moves.append(Move(node, n, stay=False))
        return moves

    def changes_at(self) -> float | None:
        """When move() may say something else though nothing is heard."""
        return self._view.debits_end()

    def _next(
        self, line: Line, rooms: dict[bytes, Resources], wished: list[bytes], here: bool,
        free: Resources, total: Resources,
    ) -> bytes | None:  # fmt: skip
        """The node for the next unit; None if none has room."""
        need, own = line.need, self._view.own_id
        here = here and fits(need, free)
        with_room = [node_id for node_id, room in rooms.items() if fits(need, room)]
        for node_id in wished:
            if (node_id == own and here) or node_id in with_room:
                return node_id
        if line.where is not None and line.where.spread:
            ring = [*with_room, own] if here else with_room
            if not ring:
                return None
            order = sorted(ring)
            after = [node_id for node_id in order if node_id > self._last]
            self._last = (after or order)[0]
            return self._last
        if here and _used({}, free, total) < PACKED_UNTIL:
            return own
        best, least = (own, _used(need, free, total)) if here else (None, 2.0)
        for node_id in with_room:
            used = _used(need, rooms[node_id], self._view.nodes[node_id].total)
            if used < least:
                best, least = node_id, used
        return best

    def _feasible(self, line: Line) -> list[Neighbour]:
        """Other nodes that can ever serve the line."""
        where, nodes = line.where, self._view.others()
        conditions = {}
        if where is not None and (where.labels or where.fallbacks):
            own = self._view.nodes[self._view.own_id].info.labels
            conditions = choice_of(where, [own, *(node.info.labels for node in nodes)])
        return [
            node
            for node in nodes
            if not node.draining
            and fits(line.need, node.total)
            and matches(conditions, node.info.labels)
        ]

    def fits_here(self, line: Line, total: Resources) -> bool:
        """Whether this node can ever serve the line."""
        if not fits(line.need, total):
            return False
        where = line.where
        if where is None or not (where.labels or where.fallbacks):
            return True
        own = self._view.nodes[self._view.own_id].info.labels
        labels = [own, *(node.info.labels for node in self._view.others())]
        return matches(choice_of(where, labels), own)

    def _wished(self, line: Line, others: Iterable[Neighbour]) -> list[bytes]:
        """The nodes that the line would rather be on, best first."""
        where = line.where
        if where is None:
            return []
        wished = [where.prefer] if where.prefer else []
        if where.soft_labels:
            own = self._view.nodes[self._view.own_id]
            wished += [
                node.info.node_id
                for node in (own, *others)
                if matches(where.soft_labels, node.info.labels)
            ]
        return wished


def _used(need: Resources, free: Resources, total: Resources) -> float:
    """The share of its scarcest resource that is in use once ``need`` is taken."""
    most = 0.0
    for name, amount in total.items():
        if amount > 0 and (name in need or name in _CRITICAL):
            most = max(most, 1 - (free.get(name, 0) - need.get(name, 0)) / amount)
    return most
