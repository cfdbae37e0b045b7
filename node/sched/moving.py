"""Demand that goes to another node, or comes back from here: a part of leases.py.

Machine. ``Elsewhere`` decides which part goes where; this turns it into words to owners, and gives
back what owners of other nodes asked for and there was no room for in a while.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from mray.node.sched.effects import Send
from mray.node.sched.elsewhere import Elsewhere
from mray.node.sched.holds import Holds
from mray.node.sched.lines import Line, infeasible_text
from mray.resources import Resources, fits
from mray.wire.messages import LeaseElsewhere, LeaseRefused

#: How long the demand of another node's owner may wait for room.
BUSY_AFTER_S: Final = 0.1


class Moving:
    """``elsewhere`` None: there is no other node. ``node_name`` is for the texts of refusals."""

    def __init__(self, elsewhere: Elsewhere | None, holds: Holds, node_name: str) -> None:
        self._elsewhere = elsewhere
        self._holds = holds
        self._node_name = node_name
        #: Nothing new is begun here.
        self.draining = False

    def possible(self, line: Line) -> bool:
        """Whether a node can ever serve the line: ours, and for an owner of ours any."""
        if self._elsewhere is not None and not line.home:
            return self._elsewhere.possible(line, self._holds.total)
        return fits(line.need, self._holds.total)

    def why_not(self, line: Line) -> str:
        """The text of a refusal."""
        if self._elsewhere is None or line.home:
            total = self._holds.total
            return infeasible_text(line.label, line.need, total, self._node_name)
        return self._elsewhere.why_not(line, self._holds.total, self._node_name)

    def move(
        self, lines: Iterable[Line], left: dict[int, int], free: Resources, now: float
    ) -> list[Send]:
        """Name other nodes to our owners where those serve better. Corrects ``left``: how many
        requests of each line may be granted here."""
        effects: list[Send] = []
        if self.draining:
            for line in lines:
                if line.reserve is None:
                    left[line.number] = 0
        if self._elsewhere is None:
            return effects
        scratch, total = dict(free), self._holds.total
        for line in lines:
            if line.class_id is None or not _may_move(line):
                continue
            if line.infeasible:
                line.infeasible = not self._elsewhere.possible(line, total)
            if line.infeasible:
                continue
            for move in self._elsewhere.move(line, line.count, scratch, total, now):
                line.count -= move.leases
                address = move.node.info.address
                named = LeaseElsewhere(line.class_id, move.leases, address, move.stay)
                effects.append(Send(line.owner, named))
            here = not self.draining and self._elsewhere.fits_here(line, total)
            left[line.number] = line.count if here else 0
        return effects

    def give_back(
        self, lines: Iterable[Line], left: dict[int, int], stuck: set[int], now: float
    ) -> list[Send]:
        """What owners of other nodes wait for in vain. ``left``: what was not granted in this
        round and has no worker on its way; ``stuck``: lines that no worker can come for."""
        effects: list[Send] = []
        for line in lines:
            if not line.home or line.stay or line.class_id is None:
                continue
            if left.get(line.number, 0) < line.count and line.number not in stuck:
                line.short_since = None
            elif line.short_since is None:
                line.short_since = now
            since = line.short_since
            if self.draining or (since is not None and now >= since + BUSY_AFTER_S):
                line.count = 0
                text = f"node {self._node_name} has no room"
                effects.append(Send(line.owner, LeaseRefused(line.class_id, "busy", text)))
        return effects

    def deadline(self, lines: Collection[Line]) -> float | None:
        """When something is to be given back, or room is to be looked for again."""
        since = (line.short_since for line in lines)
        times = [at + BUSY_AFTER_S for at in since if at is not None]
        if self._elsewhere is not None and any(_waits_for_room(line) for line in lines):
            changes_at = self._elsewhere.changes_at()
            if changes_at is not None:
                times.append(changes_at)
        return min(times, default=None)


def _may_move(line: Line) -> bool:
    """Whether it is for us to name other nodes to its owner."""
    if line.group is not None or line.home:
        return False
    return line.class_id is not None and line.own_cpu is None and not line.stay


def _waits_for_room(line: Line) -> bool:
    return bool(line.count) and not line.infeasible and _may_move(line)
