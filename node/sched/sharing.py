"""Whom to ask for leases back, so that everybody has a share.

Pure functions over lines that are short of room and the holds of the moment. How often to ask is
leases.py's. The unit of sharing between owners is the owner; between the classes of one owner, the
class.
"""

from __future__ import annotations

from collections.abc import Iterable

from mray.node.sched.holds import Hold
from mray.node.sched.lines import Line


def whom_to_ask(short: Iterable[Line], lent: list[Hold]) -> dict[bytes, int]:
    """Owners to send LeasesWanted to, and how many leases each should give back.

    Owners with more than their share are asked. In the first round of a line everybody else is,
    even one with an equal share, because a lease may be idle there and only its owner knows.
    """
    asked: dict[bytes, int] = {}
    for line in short:
        useful = [one for one in lent if any(name in one.held for name in line.need)]
        mine = sum(one.owner == line.owner for one in useful)
        mine_of_class = sum(
            one.owner == line.owner and one.class_id == line.class_id for one in useful
        )
        theirs: dict[bytes, int] = {}
        for one in useful:
            if one.owner != line.owner:
                theirs[one.owner] = theirs.get(one.owner, 0) + 1
        # One owner's classes share among themselves as owners do.
        other_classes = mine - mine_of_class
        if other_classes:
            theirs[line.owner] = other_classes
        for owner, count in theirs.items():
            share = mine_of_class if owner == line.owner else mine
            if count > share + 1 or share == 0 or not line.asked_back:
                surplus = min(line.count, max(1, (count - share) // 2))
                asked[owner] = max(asked.get(owner, 0), surplus)
    return asked
