"""Who waits for a worker: lines of equal requests, and since when they are passed over.

A line holds what one process asks for with the same needs: so many leases of one class, or starts
of actors. Whose turn it is and whether anything is granted is decided in leases.py.

A line that needs much would wait for ever where small requests take every bit that comes free. So
once it has been passed over for a second, room is kept for it (it claims) for five seconds at most:
if that was not enough, because what runs runs long, others are served again for twice as long each
time. A node is thus never idle for more than half of the time for the sake of one line.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from mray.node.workers.pool import Key
from mray.placement import Where, group_in
from mray.resources import UNIT, Resources, missing
from mray.units import format_bytes
from mray.wire.messages import ReserveBundles, StartActor

CLAIM_AFTER_S: Final = 1.0
CLAIM_S: Final = 5.0
_REST_LAST_S: Final = 300.0
_IN_BYTES: Final = ("memory", "object_store_memory")


class Line:
    """Equal requests of one owner. ``class_id`` is None for actors and bundles."""

    __slots__ = (
        "asked_back", "avoid", "class_id", "count", "group", "hold", "home", "index", "infeasible",
        "key", "label", "need", "number", "own_cpu", "owner", "passed_over_at", "reserve", "rest_s",
        "rest_until", "short_since", "starts", "stay", "where",
    )  # fmt: skip

    def __init__(
        self, number: int, owner: bytes, class_id: int | None, key: Key, need: Resources,
        hold: Resources, label: str,
    ) -> None:  # fmt: skip
        #: Age: lower is older.
        self.number = number
        self.owner = owner
        self.class_id = class_id
        self.key = key
        #: What has to be free, and what is then held (for actors that may be less).
        self.need = need
        self.hold = hold
        self.label = label
        #: How many are still wanted. For actors: len(starts).
        self.count = 0
        self.starts: deque[StartActor] = deque()
        #: Of a line that waits for room for bundles: it needs no worker.
        self.reserve: ReserveBundles | None = None
        #: The placement group that it is in, and the bundle; -1: any.
        found = group_in(need)
        self.group: bytes | None = found[0] if found is not None else None
        self.index = found[1] if found is not None else -1
        #: Of a line that wants the node to itself: the CPUs that its task asked for. Else None.
        self.own_cpu: int | None = None
        #: The node of an owner that is not on ours, b"" for one that is; whether its demand waits
        #: here however long; since when it has found nothing here.
        self.home = b""
        self.stay = False
        self.short_since: float | None = None
        #: Conditions on the node, and nodes that are not to be named to the owner now.
        self.where: Where | None = None
        self.avoid: tuple[bytes, ...] = ()
        #: Asks for what no node has, and its owner was told.
        self.infeasible = False
        #: Everybody has been asked once to give back idle leases for it.
        self.asked_back = False
        #: Since when others are served and this line is not, for want of room; None: it is not so.
        self.passed_over_at: float | None = None
        #: It does not claim before; and how long it will rest after its next claim.
        self.rest_until = float("-inf")
        self.rest_s = CLAIM_S

    def pass_over(self, now: float) -> None:
        """Others were served while this line did not fit."""
        if self.passed_over_at is None:
            self.passed_over_at = now

    def served(self) -> None:
        """One of its requests was granted."""
        self.passed_over_at = self.short_since = None
        self.rest_until = float("-inf")
        self.rest_s = CLAIM_S

    def claims(self, now: float) -> bool:
        """Whether room is kept for this line now. Ends a claim that has lasted long enough."""
        begins_at = self._claim_begins_at()
        if begins_at is None or now < begins_at:
            return False
        if now < begins_at + CLAIM_S:
            return True
        self.rest_until = now + self.rest_s
        self.rest_s = min(self.rest_s * 2, _REST_LAST_S)
        return False

    def claim_changes_at(self, now: float) -> float | None:
        """When claims() changes next."""
        begins_at = self._claim_begins_at()
        if begins_at is None or now < begins_at:
            return begins_at
        return begins_at + CLAIM_S

    def _claim_begins_at(self) -> float | None:
        if self.passed_over_at is None:
            return None
        return max(self.passed_over_at + CLAIM_AFTER_S, self.rest_until)


def find_start(
    lines: Iterable[Line], actor_id: bytes, incarnation: int
) -> tuple[Line, StartActor] | None:
    """Where the start of this incarnation of an actor waits."""
    for line in lines:
        for start in line.starts:
            if start.spec.actor_id == actor_id and start.incarnation == incarnation:
                return line, start
    return None


def sum_needs(lines: Iterable[Line]) -> list[tuple[Resources, int]]:
    """What waits, summed by needs, oldest first; bundles, which the head tells of, are left out."""
    sums: dict[tuple[tuple[str, int], ...], tuple[Resources, int]] = {}
    for line in lines:
        if line.reserve is not None:
            continue
        shape = tuple(sorted(line.need.items()))
        _, count = sums.get(shape, (line.need, 0))
        sums[shape] = (line.need, count + line.count)
    return list(sums.values())


def describe(resources: Resources) -> str:
    """A resource vector for people: ``{CPU: 1, memory: 2 GiB}``."""
    parts = [f"{name}: {describe_amount(name, amount)}" for name, amount in resources.items()]
    return "{" + ", ".join(sorted(parts)) + "}"


def describe_amount(name: str, amount: int) -> str:
    """An amount of one resource for people."""
    return format_bytes(amount // UNIT) if name in _IN_BYTES else f"{amount / UNIT:g}"


def infeasible_text(label: str, need: Resources, total: Resources, node_name: str) -> str:
    """Why a request can never be granted here, in numbers."""
    lacks = ", ".join(
        f"{name}: asked {describe_amount(name, need[name])}, "
        f"there {describe_amount(name, total.get(name, 0))}"
        for name in missing(need, total)
    )
    return (
        f"{label} asks for {describe(need)}, which node {node_name} can never give ({lacks}); "
        "ask for less, or add a node that has it"
    )
