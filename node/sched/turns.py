"""Whose turn it is: the order in which lines are looked at, and for whom room is kept.

Owners take turns, whoever was served longest ago first; an owner's lines go by age. In a crowd
those go first whose worker blocked with the newest lease: see leases.py.
"""

from __future__ import annotations

from collections.abc import Collection

from mray.node.sched.holds import Holds
from mray.node.sched.lines import Line
from mray.resources import Resources, fits, take


class Turns:
    """Remembers who was served when (as a count, not a time)."""

    def __init__(self, holds: Holds) -> None:
        self._holds = holds
        self._served: dict[bytes, int] = {}
        self._count = 0
        #: When the question for whom room is kept has another answer.
        self.claims_change_at: float | None = None

    def served(self, line: Line) -> None:
        """One request of the line was granted."""
        self._count += 1
        self._served[line.owner] = self._count
        line.served()

    def forget(self, owner: bytes) -> None:
        """The owner is gone."""
        self._served.pop(owner, None)

    def order(
        self, lines: Collection[Line], claimant: Line | None, crowded: bool
    ) -> list[list[Line]]:
        """Each owner's lines, in the order of the owners' turns."""
        by_owner: dict[bytes, list[Line]] = {}
        for line in lines:
            by_owner.setdefault(line.owner, []).append(line)
        if len(by_owner) > 1:
            turns = sorted(by_owner.values(), key=lambda own: self._rank(own[0], claimant, crowded))
        else:
            turns = list(by_owner.values())
        if claimant is not None:
            turns[0].sort(key=lambda line: line is not claimant)
        return turns

    def _rank(self, oldest: Line, claimant: Line | None, crowded: bool) -> tuple[int, int, int]:
        owner = oldest.owner
        if claimant is not None and owner == claimant.owner:
            return (0, 0, 0)
        if crowded and self._holds.is_blocked(owner):
            return (1, -self._holds.by_worker[owner].lease_id, 0)
        return (2, self._served.get(owner, 0), oldest.number)

    def claimant(self, lines: Collection[Line], now: float) -> Line | None:
        """The oldest line that room is kept for. What only an actor's end could help is none."""
        claiming = [line for line in lines if line.claims(now)]
        times = [line.claim_changes_at(now) for line in lines]
        self.claims_change_at = min((at for at in times if at is not None), default=None)
        if not claiming:
            return None
        could_be_free = self._holds.beside_actors()
        return next((line for line in claiming if fits(line.need, could_be_free)), None)

    def room(self, line: Line, claimant: Line | None, free: Resources) -> Resources:
        """What the line may take of ``free``: not what is kept for a claimant.

        A blocked worker's line may take that too, for its end frees more than it takes.
        """
        if claimant is None or line is claimant or self._holds.is_blocked(line.owner):
            return free
        room = dict(free)
        take(claimant.need, room)
        return room
