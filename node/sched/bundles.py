"""Bundles of placement groups on this node: reserved, in use, given back.

Machine, a part of leases.py, which keeps the line of those that wait for room. A bundle takes its
resources out of what is free when it is reserved, and offers the same under the group's names
(mray.placement) once it is committed. What runs in it takes from these only. Given back, its
resources are free again when the last process that worked in it is gone.
"""

from __future__ import annotations

from mray.machine import InvariantError
from mray.node.sched.gpus import gpu_amount
from mray.node.sched.holds import Holds
from mray.node.sched.lines import Line, infeasible_text
from mray.placement import in_bundle, offered
from mray.resources import Resources, fits, give_back, take
from mray.wire.messages import BundlesReserved, ReserveBundles, RunningBundle


class _Bundle:
    __slots__ = ("attempt", "committed", "leaving", "resources")

    def __init__(self, resources: Resources, attempt: int) -> None:
        self.resources = resources
        self.attempt = attempt
        self.committed = False
        #: Given back; there until the last process in it is gone.
        self.leaving = False


class Bundles:
    """See the module. Changes ``holds``, which owns the arithmetic."""

    def __init__(self, holds: Holds) -> None:
        self._holds = holds
        #: By group and index.
        self._groups: dict[bytes, dict[int, _Bundle]] = {}

    def has(self, group_id: bytes, attempt: int) -> bool:
        """Whether something was reserved for the group in that try and not given back."""
        bundles = self._groups.get(group_id, {}).values()
        return any(b.attempt == attempt and not b.leaving for b in bundles)

    def usable(self, group_id: bytes) -> bool:
        """Whether something may run in the group here."""
        bundles = self._groups.get(group_id, {}).values()
        return any(b.committed and not b.leaving for b in bundles)

    def contents(self) -> list[RunningBundle]:
        """All that are reserved and not given back."""
        return [
            RunningBundle(group_id, index, bundle.attempt, bundle.committed)
            for group_id, group in self._groups.items()
            for index, bundle in group.items()
            if not bundle.leaving
        ]

    def judge(
        self, message: ReserveBundles, node_name: str
    ) -> tuple[Resources, BundlesReserved | None]:
        """What the bundles need together, and the answer where that is known already."""
        group_id, attempt = message.group_id, message.attempt
        need: Resources = {}
        for bundle in message.bundles.values():
            give_back(bundle, need)
        if self.has(group_id, attempt):
            return need, BundlesReserved(group_id, attempt)
        if fits(need, self._holds.total):
            return need, None
        label = f"placement group {group_id.hex()[:10]}"
        text = infeasible_text(label, need, self._holds.total, node_name)
        return need, BundlesReserved(group_id, attempt, text)

    def reserve(self, message: ReserveBundles) -> Resources:
        """Take the bundles out of what is free, where there must be room; what they offer now."""
        group = self._groups.setdefault(message.group_id, {})
        for index, resources in message.bundles.items():
            group[index] = _Bundle(resources, message.attempt)
            self._holds.reserve(resources, message.group_id, index)
        if message.commit:
            return self.commit(message.group_id, message.attempt)
        return {}

    def commit(self, group_id: bytes, attempt: int) -> Resources:
        """From now on the bundles can be used; what they offer. Idempotent."""
        offers: Resources = {}
        for index, bundle in self._groups.get(group_id, {}).items():
            if bundle.attempt == attempt and not (bundle.committed or bundle.leaving):
                bundle.committed = True
                give_back(offered(bundle.resources, group_id, index), offers)
        self._holds.grow(offers)
        return offers

    def leave(self, group_id: bytes, attempt: int) -> None:
        """The bundles (of one try; -1: all) are given back, those in use when they are not any
        more: what runs in them is to be ended."""
        for bundle in self._groups.get(group_id, {}).values():
            if attempt in (-1, bundle.attempt):
                bundle.leaving = True
        self.settle(group_id)

    def settle(self, group_id: bytes) -> None:
        """A process in the group is gone: perhaps the last."""
        group = self._groups.get(group_id)
        if group is None:
            return
        for index, bundle in list(group.items()):
            if not bundle.leaving:
                continue
            offer = offered(bundle.resources, group_id, index)
            if bundle.committed:
                if self._holds.in_use(offer):
                    continue
                self._holds.shrink(offer)
            self._holds.unreserve(bundle.resources, group_id, index)
            del group[index]
        if not group:
            del self._groups[group_id]

    def choose(self, line: Line, free: Resources) -> tuple[Resources, Resources] | None:
        """What a line in a group has to find free, and would hold, in the first of its bundles
        that has room; None if none has."""
        assert line.group is not None
        for index, bundle in self._groups.get(line.group, {}).items():
            if bundle.leaving or not bundle.committed or line.index not in (-1, index):
                continue
            need = in_bundle(line.need, line.group, index)
            if not fits(need, free):
                continue
            gpus = self._holds.bundle_gpus.get((line.group, index))
            if gpus is None or gpus.fits(gpu_amount(line.hold)):
                return need, in_bundle(line.hold, line.group, index)
        return None

    def check(self) -> None:
        """Raise InvariantError on a contradiction."""
        reserved: Resources = {}
        offers: Resources = {}
        for group_id, group in self._groups.items():
            for index, bundle in group.items():
                give_back(bundle.resources, reserved)
                if bundle.committed:
                    give_back(offered(bundle.resources, group_id, index), offers)
        take(self._holds.reserved, reserved)
        take(self._holds.offers, offers)
        wrong = [name for name, amount in {**reserved, **offers}.items() if amount]
        if wrong:
            raise InvariantError(f"bundles and the node's sums differ in {', '.join(wrong)}")
