"""Bundles of placement groups on a node: reserved, used, given back."""

from __future__ import annotations

import itertools

from mray.node.sched.leases import Effect, Leases, Send, TellHead
from mray.node.workers.pool import Kill, Pool, PoolRules, Spawn
from mray.placement import within
from mray.resources import Resources, to_fixed
from mray.wire.messages import (
    Address,
    BundlesReserved,
    LeaseDemand,
    LeaseGranted,
    LeasesWanted,
    Message,
    ReserveBundles,
    ReturnBundles,
)

JOB, OWNER = b"job1", b"owner"
GROUP, OTHER = b"g" * 18, b"h" * 18
CPU = to_fixed({"CPU": 1})


class Node:
    """Leases of a node whose workers start at once."""

    def __init__(self, cpus: float = 4) -> None:
        numbers = itertools.count(1)
        rules = PoolRules(
            starting_max=100, idle_keep=100, idle_s=100.0, register_timeout_s=60.0, grace_s=5.0
        )
        self.pool = Pool(rules, lambda: b"w%d" % next(numbers))
        self.total = to_fixed({"CPU": cpus})
        self.leases = Leases(self.total, self.pool, 100, "n1")
        self.now = 0.0
        self.to_head: list[Message] = []
        self.granted: list[LeaseGranted] = []
        self.wanted: list[bytes] = []
        self.killed: list[bytes] = []
        self.pool.job_known(JOB)

    def do(self, effects: list[Effect]) -> None:
        waiting = effects + self.leases.settle(self.now)
        while waiting:
            self.leases.check()
            effect = waiting.pop(0)
            match effect:
                case Send(_, LeaseGranted() as granted):
                    self.granted.append(granted)
                case Send(process_id, LeasesWanted()):
                    self.wanted.append(process_id)
                case TellHead(message):
                    self.to_head.append(message)
                case Spawn(process_id, _):
                    self.pool.registered(process_id, Address(process_id, b"n"), 1, self.now)
                    waiting += self.leases.settle(self.now)
                case Kill(process_id, _, _):
                    self.killed.append(process_id)
                case _:
                    pass

    def reserve(self, *cpus: float, group: bytes = GROUP, commit: bool = True) -> None:
        bundles = {index: to_fixed({"CPU": cpu}) for index, cpu in enumerate(cpus)}
        self.do(self.leases.reserve_bundles(ReserveBundles(group, 1, bundles, commit)))

    def demand(self, count: int, need: Resources, class_id: int = 1) -> None:
        self.do(self.leases.demand(OWNER, LeaseDemand(class_id, count, need, JOB)))

    def give_back(self, group: bytes = GROUP, attempt: int = -1) -> None:
        self.do(self.leases.return_bundles(ReturnBundles(group, attempt)))

    def free(self) -> float:
        return self.leases.holds.available.get("CPU", 0) / 10_000


def test_a_bundle_takes_from_the_node_and_gives_back_all() -> None:
    node = Node()
    node.reserve(1, 2)
    assert node.to_head == [BundlesReserved(GROUP, 1)]
    assert node.free() == 1
    node.give_back()
    assert node.leases.holds.available == node.total == node.leases.holds.total


def test_the_same_order_again_is_answered_again_and_takes_nothing() -> None:
    node = Node()
    node.reserve(3)
    node.reserve(3)
    assert node.to_head == [BundlesReserved(GROUP, 1)] * 2
    assert node.free() == 1


def test_bundles_wait_for_room_together() -> None:
    node = Node()
    node.reserve(3)
    node.reserve(1, 1, group=OTHER)
    assert node.free() == 1
    node.give_back()
    assert node.to_head[-1] == BundlesReserved(OTHER, 1)
    assert node.free() == 2


def test_what_the_node_never_has_is_refused() -> None:
    node = Node()
    node.reserve(5)
    [answer] = node.to_head
    assert isinstance(answer, BundlesReserved)
    assert "CPU: asked 5, there 4" in answer.refusal


def test_waiting_bundles_can_be_given_up() -> None:
    node = Node()
    node.reserve(3)
    node.reserve(3, group=OTHER)
    node.give_back(OTHER, attempt=1)
    node.give_back()
    assert len(node.to_head) == 1
    assert node.free() == 4


def test_owners_are_asked_for_idle_leases_that_a_bundle_needs() -> None:
    node = Node(1)
    node.demand(1, CPU)
    assert len(node.granted) == 1
    node.now = 10.0
    node.reserve(1)
    assert node.wanted == [OWNER]
    node.do(node.leases.returned(OWNER, node.granted[0].lease_id, True, node.now))
    assert node.to_head == [BundlesReserved(GROUP, 1)]


def test_tasks_in_bundles_take_from_these_only() -> None:
    node = Node()
    node.reserve(1, 2)
    node.demand(5, within(CPU, GROUP, -1))
    assert len(node.granted) == 3
    assert node.free() == 1
    node.demand(1, CPU, class_id=2)
    assert len(node.granted) == 4


def test_a_bundle_that_is_named_is_the_one_that_is_used() -> None:
    node = Node()
    node.reserve(1, 2)
    node.demand(5, within(CPU, GROUP, 0))
    assert len(node.granted) == 1
    node.demand(5, within(CPU, GROUP, 1), class_id=2)
    assert len(node.granted) == 3


def test_tasks_wait_until_the_bundles_are_committed() -> None:
    node = Node()
    node.demand(1, within(CPU, GROUP, -1))
    node.reserve(1, commit=False)
    assert node.granted == []
    node.leases.bundles.commit(GROUP, 1)
    node.do([])
    assert len(node.granted) == 1


def test_tasks_that_need_nothing_are_in_the_group_too() -> None:
    node = Node()
    node.reserve(1)
    node.demand(3, within({}, GROUP, -1))
    assert len(node.granted) == 3
    node.give_back()
    assert len(node.killed) == 3


def test_given_back_bundles_are_free_when_the_last_process_in_them_is_gone() -> None:
    node = Node()
    node.reserve(1, 1)
    node.demand(1, within(CPU, GROUP, 1))
    node.give_back()
    [worker] = node.killed
    assert node.free() == 3
    node.do(node.leases.worker_exited(worker, "killed", node.now))
    assert node.leases.holds.available == node.total
    node.demand(1, within(CPU, GROUP, 1), class_id=2)
    assert len(node.granted) == 1


def test_a_worker_that_waits_lends_its_bundles_cpu_to_others_of_the_group() -> None:
    node = Node()
    node.reserve(1)
    node.demand(1, within(CPU, GROUP, -1))
    node.demand(1, within(CPU, GROUP, 0), class_id=2)
    assert len(node.granted) == 1
    node.leases.blocked(node.granted[0].worker.process_id, True)
    node.do([])
    assert len(node.granted) == 2
    node.leases.blocked(node.granted[0].worker.process_id, False)
    node.do([])
    node.give_back()
    for worker in node.killed:
        node.do(node.leases.worker_exited(worker, "killed", node.now))
    assert node.leases.holds.available == node.total
