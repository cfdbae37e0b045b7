"""Leases while memory is short, and for tasks that want a node to themselves."""

from __future__ import annotations

import itertools

from mray.node.sched.leases import Effect, Leases, Send
from mray.node.workers.pool import Kill, Pool, PoolRules, Spawn
from mray.resources import Resources, to_fixed
from mray.wire.messages import Address, DeathCause, LeaseDemand, LeaseGranted, LeasesWanted

JOB, A, B = b"job1", b"owner-a", b"owner-b"
CPU = to_fixed({"CPU": 1})


class Node:
    """Two CPUs; workers start at once."""

    def __init__(self) -> None:
        numbers = itertools.count(1)
        rules = PoolRules(
            starting_max=100, idle_keep=100, idle_s=1.0, register_timeout_s=60.0, grace_s=5.0
        )
        self.pool = Pool(rules, lambda: b"w%d" % next(numbers))
        self.leases = Leases(to_fixed({"CPU": 2, "memory": 100}), self.pool, 100, "n1")
        self.pool.job_known(JOB)
        self.granted: list[tuple[bytes, int, bytes]] = []
        self.asked_back: list[tuple[bytes, int]] = []

    def do(self, effects: list[Effect]) -> None:
        while True:
            effects = effects + self.leases.settle(0.0)
            self.leases.check()
            spawned = []
            for effect in effects:
                match effect:
                    case Send(owner, LeaseGranted(_, lease_id, worker)):
                        self.granted.append((owner, lease_id, worker.process_id))
                    case Send(owner, LeasesWanted(count)):
                        self.asked_back.append((owner, count))
                    case Spawn(process_id, _):
                        spawned.append(process_id)
            if not spawned:
                return
            for process_id in spawned:
                assert self.pool.registered(process_id, Address(process_id, b"n"), 1, 0.0)
            effects = []

    def demand(
        self, owner: bytes, count: int, need: Resources = CPU, exclusive: bool = False
    ) -> None:
        message = LeaseDemand(int(exclusive), count, need, JOB, exclusive=exclusive)
        self.do(self.leases.demand(owner, message))

    def give_back(self, index: int) -> None:
        owner, lease_id, _ = self.granted[index]
        self.do(self.leases.returned(owner, lease_id, True, 0.0))

    def owners(self) -> list[bytes]:
        return [owner for owner, _, _ in self.granted]


def test_short_memory_asks_for_leases_back_and_grants_none_while_a_task_runs() -> None:
    node = Node()
    node.demand(A, 1)
    node.do(node.leases.memory_short(True))
    assert node.asked_back == [(A, 1)]
    node.demand(B, 3)
    assert node.owners() == [A]
    node.give_back(0)
    assert node.owners() == [A, B]
    node.do(node.leases.memory_short(False))
    assert node.owners() == [A, B, B]


def test_short_memory_lets_one_task_run_where_all_that_run_wait() -> None:
    node = Node()
    node.demand(A, 1)
    node.do(node.leases.memory_short(True))
    node.demand(B, 3)
    node.leases.blocked(node.granted[0][2], True)
    node.do([])
    assert node.owners() == [A, B]


def test_an_exclusive_lease_waits_for_all_cpus_and_keeps_them() -> None:
    node = Node()
    node.demand(A, 1)
    node.demand(B, 1, exclusive=True)
    node.demand(A, 0)
    assert node.owners() == [A]
    node.give_back(0)
    assert node.owners() == [A, B]
    node.demand(A, 2)
    assert node.owners() == [A, B]
    node.give_back(1)
    assert node.owners() == [A, B, A, A]


def test_children_of_an_exclusive_task_run_while_it_waits_for_them() -> None:
    node = Node()
    node.demand(B, 1, exclusive=True)
    node.demand(A, 1)
    node.leases.blocked(node.granted[0][2], True)
    node.do([])
    assert node.owners() == [B, A]


def test_only_an_idle_worker_is_recycled() -> None:
    node = Node()
    node.demand(A, 1)
    worker = node.granted[0][2]
    cause = DeathCause("intended", "memory is short")
    assert node.leases.recycle(worker, cause) == []
    node.give_back(0)
    assert node.leases.recycle(worker, cause) == [Kill(worker, cause, 5.0)]
    assert node.leases.recycle(worker, cause) == []
    assert node.leases.recycle(b"nobody", cause) == []
