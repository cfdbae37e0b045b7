"""What of the node's resources is held, by which worker, for whom.

Owns the arithmetic: available = total - what is held. Who gets what is leases.py's decision.
"""

from __future__ import annotations

from mray.machine import InvariantError
from mray.node.sched.gpus import Gpus, gpu_amount
from mray.placement import group_in
from mray.resources import Resources, give_back, take
from mray.wire.messages import StartActor


class Hold:
    """A worker at work for somebody: a lease, or an actor's place."""

    __slots__ = (
        "actor", "blocked", "class_id", "gpus", "gpus_of", "group", "lease_id", "owner",
        "resources", "since", "worker",
    )  # fmt: skip

    def __init__(
        self, lease_id: int, owner: bytes, class_id: int | None, worker: bytes,
        resources: Resources, actor: StartActor | None, since: float = 0.0,
    ) -> None:  # fmt: skip
        self.lease_id = lease_id
        self.owner = owner
        self.class_id = class_id
        self.worker = worker
        self.resources = resources
        found = group_in(resources)
        #: The placement group that it is in.
        self.group = found[0] if found is not None else None
        #: The actor that has its place here; None for a lease.
        self.actor = actor
        #: Its worker waits in get: its CPU is with the node.
        self.blocked = False
        #: When it was granted, monotonic seconds.
        self.since = since
        #: The numbers of the GPUs that it has, or a part of one.
        self.gpus: list[int] = []
        #: The node's, or its bundle's.
        self.gpus_of: Gpus | None = None

    @property
    def held(self) -> Resources:
        """What it holds at this moment."""
        if not self.blocked:
            return self.resources
        return {name: n for name, n in self.resources.items() if not _is_cpu(name)}


class Holds:
    """All holds of the node. A worker has at most one, which ends with its lease or its process."""

    def __init__(self, total: Resources) -> None:
        #: What the node has, and what its bundles offer under names of their own.
        self.total = dict(total)
        #: What bundles took out of it, and offer.
        self.reserved: Resources = {}
        self.offers: Resources = {}
        #: Below zero where workers took their CPU back while others had it.
        self.available = dict(total)
        self.gpus = Gpus(total.get("GPU", 0))
        #: Those of bundles that have any, by group and index.
        self.bundle_gpus: dict[tuple[bytes, int], Gpus] = {}
        self.by_worker: dict[bytes, Hold] = {}
        #: Leases only.
        self.by_lease: dict[int, Hold] = {}

    def add(self, hold: Hold) -> None:
        """Take its resources."""
        self.by_worker[hold.worker] = hold
        if hold.actor is None:
            self.by_lease[hold.lease_id] = hold
        take(hold.resources, self.available)
        amount = gpu_amount(hold.resources) if self.gpus else 0
        if amount:
            place = group_in(hold.resources)
            hold.gpus_of = self.gpus if place is None else self.bundle_gpus[place]
            hold.gpus = hold.gpus_of.take(amount)

    def remove(self, hold: Hold) -> None:
        """Give its resources back."""
        give_back(hold.held, self.available)
        if hold.gpus_of is not None:
            hold.gpus_of.give_back(hold.gpus, gpu_amount(hold.resources))
        del self.by_worker[hold.worker]
        self.by_lease.pop(hold.lease_id, None)

    def block(self, hold: Hold, blocked: bool) -> None:
        """Its worker begins or ends to wait: its CPU goes back, or is taken again."""
        if hold.blocked == blocked:
            return
        cpu = {name: amount for name, amount in hold.resources.items() if _is_cpu(name)}
        if blocked:
            give_back(cpu, self.available)
        else:
            take(cpu, self.available)
        hold.blocked = blocked

    def is_blocked(self, worker: bytes) -> bool:
        """Whether the process is a worker that waits in get."""
        hold = self.by_worker.get(worker)
        return hold is not None and hold.blocked

    def place_of(self, actor_id: bytes, incarnation: int) -> Hold | None:
        """Where this incarnation of an actor lives."""
        for hold in self.by_worker.values():
            start = hold.actor
            if start is None or start.spec.actor_id != actor_id:
                continue
            if start.incarnation == incarnation:
                return hold
        return None

    def beside_actors(self) -> Resources:
        """What would be available if every lease were returned."""
        rest = dict(self.total)
        take(self.reserved, rest)
        for hold in self.by_worker.values():
            if hold.actor is not None:
                take(hold.held, rest)
        return rest

    # -- bundles of placement groups

    def reserve(self, bundle: Resources, group_id: bytes, index: int) -> None:
        """Take a bundle out of what is free."""
        give_back(bundle, self.reserved)
        take(bundle, self.available)
        if self.gpus and bundle.get("GPU"):
            self.bundle_gpus[group_id, index] = self.gpus.part(bundle["GPU"])

    def unreserve(self, bundle: Resources, group_id: bytes, index: int) -> None:
        """Give a bundle back."""
        _shrink(self.reserved, bundle)
        give_back(bundle, self.available)
        part = self.bundle_gpus.pop((group_id, index), None)
        if part is not None:
            self.gpus.join(part)

    def grow(self, offer: Resources) -> None:
        """What a bundle offers is there."""
        for amounts in (self.total, self.available, self.offers):
            give_back(offer, amounts)

    def shrink(self, offer: Resources) -> None:
        """What a bundle offered, and nobody holds, is there no more."""
        for amounts in (self.total, self.available, self.offers):
            _shrink(amounts, offer)

    def in_use(self, offer: Resources) -> bool:
        """Whether somebody holds some of it."""
        return any(
            name in offer for hold in self.by_worker.values() if hold.group for name in hold.held
        )

    def check(self) -> None:
        """Raise InvariantError on a contradiction."""
        for gpus in (self.gpus, *self.bundle_gpus.values()):
            gpus.check()
        expected = dict(self.total)
        take(self.reserved, expected)
        for hold in self.by_worker.values():
            take(hold.held, expected)
            if (hold.actor is None) != (self.by_lease.get(hold.lease_id) is hold):
                raise InvariantError(f"lease {hold.lease_id} is not filed by its number")
        for name in expected.keys() | self.available.keys():
            there, left = self.available.get(name, 0), expected.get(name, 0)
            if there != left:
                raise InvariantError(f"{name}: {there} available, but {left} not held")


def _is_cpu(name: str) -> bool:
    """Whether a worker that waits gives it back: the node's CPUs, or those of a bundle."""
    return name == "CPU" or name.startswith("CPU_group_")


def _shrink(amounts: Resources, by: Resources) -> None:
    """Subtract, and forget names that nothing is left of."""
    take(by, amounts)
    for name in by:
        if not amounts[name]:
            del amounts[name]
