"""Whom to ask for leases back, and when, so that everybody has a share.

The unit of sharing between owners is the owner; between the classes of one owner, the class.

An owner that was just given a lease is asked a moment later, when its task is on its way: it then
returns the lease as soon as the task is done, instead of keeping it for the next. One that was
asked is not asked again for 20 ms, then 40 and so on while nothing moves.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mray.node.sched.effects import Send
from mray.node.sched.holds import Hold
from mray.node.sched.lines import Line
from mray.wire.messages import LeasesWanted

#: Longer than an owner takes to push a task to a worker it was given.
_AFTER_GRANT_S: Final = 0.002
_GAP_FIRST_S: Final = 0.02
_GAP_LAST_S: Final = 0.64


class Pacing:
    """When each owner may be asked."""

    def __init__(self) -> None:
        #: By owner: when it was asked last and the gap after that; when it was granted a lease.
        self._asked: dict[bytes, tuple[float, float]] = {}
        self._granted: dict[bytes, float] = {}
        #: When somebody may be asked to give back.
        self.ask_at: float | None = None

    def granted(self, owner: bytes, now: float) -> None:
        """The owner has a new lease."""
        self._granted[owner] = now

    def moved(self) -> None:
        """A lease has changed hands: who was asked in vain may be asked anew."""
        for owner, (asked_at, _) in self._asked.items():
            self._asked[owner] = (asked_at, 0.0)

    def asked(self, owner: bytes, now: float) -> None:
        """It was asked."""
        _, gap_s = self._asked.get(owner, (now, 0.0))
        self._asked[owner] = (now, min(max(gap_s * 2, _GAP_FIRST_S), _GAP_LAST_S))

    def due_at(self, owner: bytes) -> float:
        """When the owner may be asked."""
        asked_at, gap_s = self._asked.get(owner, (float("-inf"), 0.0))
        again_at = asked_at + max(gap_s, _GAP_FIRST_S)
        return max(again_at, self._granted.get(owner, float("-inf")) + _AFTER_GRANT_S)

    def ask_back(
        self, short: list[Line], lent: list[Hold], moved: bool, now: float
    ) -> list[Send]:
        """Ask for leases for lines that found no room; ``moved``: some lease was granted."""
        if moved:
            self.moved()
        self.ask_at = None
        if not short:
            return []
        due_at = min((self.due_at(hold.owner) for hold in lent), default=None)
        if due_at is None or due_at > now:
            self.ask_at = due_at
            return []
        asked = whom_to_ask(short, lent)
        for line in short:
            line.asked_back = True
        effects = []
        for owner, count in asked.items():
            if self.due_at(owner) <= now:
                self.asked(owner, now)
                effects.append(Send(owner, LeasesWanted(count)))
        self.ask_at = min(map(self.due_at, asked), default=None)
        return effects

    def forget(self, owner: bytes) -> None:
        """The owner is gone."""
        self._asked.pop(owner, None)
        self._granted.pop(owner, None)


def whom_to_ask(short: Iterable[Line], lent: list[Hold]) -> dict[bytes, int]:
    """Owners to send LeasesWanted to, and how many leases each should give back.

    Owners with more than their share are asked. In the first round of a line everybody else is,
    even one with an equal share, because a lease may be idle there and only its owner knows.
    """
    counted: dict[object, tuple[dict[bytes, int], dict[tuple[bytes, int | None], int]]]
    counted = {}
    asked: dict[bytes, int] = {}
    for line in short:
        names = tuple(line.need)
        what = line.group or names
        if what not in counted:
            mine_too = [one for one in lent if _any(names, one) or _beside(line, one)]
            counted[what] = _count(mine_too)
        by_owner, by_class = counted[what]
        mine = by_owner.get(line.owner, 0)
        for owner, count in by_owner.items():
            share = mine
            if owner == line.owner:
                share = by_class.get((owner, line.class_id), 0)
                count -= share
            if count and (count > share + 1 or share == 0 or not line.asked_back):
                surplus = min(line.count, max(1, (count - share) // 2))
                asked[owner] = max(asked.get(owner, 0), surplus)
    return asked


def _any(names: tuple[str, ...], hold: Hold) -> bool:
    held = hold.held
    return any(name in held for name in names)


def _beside(line: Line, hold: Hold) -> bool:
    """Whether a lease is in the placement group that the line waits in."""
    return line.group is not None and hold.group == line.group


def _count(
    lent: list[Hold],
) -> tuple[dict[bytes, int], dict[tuple[bytes, int | None], int]]:
    by_owner: dict[bytes, int] = {}
    by_class: dict[tuple[bytes, int | None], int] = {}
    for one in lent:
        by_owner[one.owner] = by_owner.get(one.owner, 0) + 1
        at = (one.owner, one.class_id)
        by_class[at] = by_class.get(at, 0) + 1
    return by_owner, by_class
