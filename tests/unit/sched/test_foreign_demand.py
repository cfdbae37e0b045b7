"""Demand of owners on other nodes: served, given back without room, void with its owner's end."""

from __future__ import annotations

import itertools

from mray.node.sched.cluster_view import ClusterView
from mray.node.sched.elsewhere import Elsewhere
from mray.node.sched.leases import Effect, Leases, Send, TellHead
from mray.node.sched.moving import BUSY_AFTER_S
from mray.node.workers.pool import Kill, Pool, PoolRules, Spawn
from mray.resources import Resources, to_fixed
from mray.wire.messages import (
    ActorStartFailed,
    Address,
    DeathCause,
    LeaseDemand,
    LeaseElsewhere,
    LeaseGranted,
    LeaseRefused,
    LeasesWanted,
    Message,
    NodeInfo,
)

HERE, THERE, JOB = b"h" * 28, b"t" * 28, b"job"
OWN, FOREIGN = b"own", b"foreign"
CPU = to_fixed({"CPU": 1})


def info(node_id: bytes, **amounts: float) -> NodeInfo:
    return NodeInfo(
        node_id, Address(node_id, node_id), "1.2.3.4", "host", 1, to_fixed(amounts), {}, "", "",
        "", 0, False, "1", "3",
    )  # fmt: skip


class Node:
    """Leases of a node with two CPUs whose workers start at once; another node has four."""

    def __init__(self) -> None:
        numbers = itertools.count(1)
        rules = PoolRules(
            starting_max=100, idle_keep=100, idle_s=100.0, register_timeout_s=60.0, grace_s=5.0
        )
        self.pool = Pool(rules, lambda: b"w%d" % next(numbers))
        self.view = ClusterView(info(HERE, CPU=2))
        self.leases = Leases(
            to_fixed({"CPU": 2}), self.pool, 100, "here", Elsewhere(self.view)
        )  # fmt: skip
        self.now = 0.0
        self.starts = True
        self.sent: list[tuple[bytes, Message]] = []
        self.killed: list[bytes] = []
        self.pool.job_known(JOB)

    def join(self) -> None:
        self.view.joined([info(THERE, CPU=4)])
        self.do([])

    def do(self, effects: list[Effect]) -> None:
        waiting = effects + self.leases.settle(self.now)
        while waiting:
            self.leases.check()
            match waiting.pop(0):
                case Send(to, message):
                    self.sent.append((to, message))
                case TellHead(message):
                    self.sent.append((b"head", message))
                case Spawn(process_id, _) if self.starts:
                    self.pool.registered(process_id, Address(process_id, HERE), 1, self.now)
                    waiting += self.leases.settle(self.now)
                case Kill(process_id, _, _):
                    self.killed.append(process_id)

    def demand(self, owner: bytes, count: int, need: Resources = CPU, **more: object) -> None:
        home = THERE if owner == FOREIGN else b""
        demand = LeaseDemand(1, count, need, JOB, home=home, **more)  # type: ignore[arg-type]
        self.do(self.leases.demand(owner, demand))

    def of(self, owner: bytes, kind: type[Message]) -> list[Message]:
        return [message for to, message in self.sent if to == owner and isinstance(message, kind)]


def test_an_owner_of_another_node_is_served() -> None:
    node = Node()
    node.demand(FOREIGN, 2)
    assert len(node.of(FOREIGN, LeaseGranted)) == 2


def test_without_room_its_demand_goes_back_after_a_tenth_of_a_second() -> None:
    node = Node()
    node.demand(OWN, 2)
    node.demand(FOREIGN, 3)
    assert node.leases.deadline() is not None
    assert node.of(FOREIGN, LeaseRefused) == []
    node.now = BUSY_AFTER_S
    node.do([])
    [refused] = node.of(FOREIGN, LeaseRefused)
    assert isinstance(refused, LeaseRefused)
    assert refused.kind == "busy"
    node.now = 9.0
    node.do([])
    assert len(node.of(FOREIGN, LeaseRefused)) == 1


def test_demand_that_is_for_this_node_alone_waits() -> None:
    node = Node()
    node.demand(OWN, 2)
    node.demand(FOREIGN, 1, stay=True)
    node.now = 9.0
    node.do([])
    assert node.of(FOREIGN, LeaseRefused) == []
    [one, _] = node.of(OWN, LeaseGranted)
    assert isinstance(one, LeaseGranted)
    node.do(node.leases.returned(OWN, one.lease_id, True, node.now))
    assert len(node.of(FOREIGN, LeaseGranted)) == 1


def test_workers_on_their_way_are_waited_for() -> None:
    node = Node()
    node.starts = False
    node.demand(FOREIGN, 1)
    node.now = 9.0
    node.do([])
    assert node.of(FOREIGN, LeaseRefused) == []


def test_what_the_node_never_has_goes_back_as_infeasible() -> None:
    node = Node()
    node.demand(FOREIGN, 1, to_fixed({"GPU": 1}))
    [refused] = node.of(FOREIGN, LeaseRefused)
    assert isinstance(refused, LeaseRefused)
    assert refused.kind == "infeasible"


def test_own_owners_are_sent_on_once_half_is_in_use_and_foreign_ones_never() -> None:
    node = Node()
    node.join()
    node.demand(OWN, 3)
    assert len(node.of(OWN, LeaseGranted)) == 1
    [named] = node.of(OWN, LeaseElsewhere)
    assert isinstance(named, LeaseElsewhere)
    assert (named.count, named.node.node_id, named.stay) == (2, THERE, False)
    node.demand(FOREIGN, 5)
    assert node.of(FOREIGN, LeaseElsewhere) == []


def test_what_waited_in_vain_goes_to_a_node_that_joins() -> None:
    node = Node()
    node.demand(OWN, 1, to_fixed({"CPU": 3}))
    [refused] = node.of(OWN, LeaseRefused)
    assert isinstance(refused, LeaseRefused)
    assert refused.kind == "infeasible"
    node.join()
    [named] = node.of(OWN, LeaseElsewhere)
    assert isinstance(named, LeaseElsewhere)
    assert (named.count, named.stay) == (1, True)


def test_the_end_of_an_owner_ends_what_it_had_here() -> None:
    node = Node()
    node.demand(FOREIGN, 3)
    assert FOREIGN in node.leases.owners()
    node.do(node.leases.owner_died(FOREIGN))
    assert len(node.killed) == 2
    for worker in node.killed:
        node.do(node.leases.worker_exited(worker, "", node.now))
    assert FOREIGN not in node.leases.owners()
    assert node.leases.free() == to_fixed({"CPU": 2})


def test_a_node_that_drains_asks_for_its_leases_and_grants_none() -> None:
    node = Node()
    node.join()
    node.demand(OWN, 1)
    node.demand(FOREIGN, 1)
    before = len(node.sent)
    node.view.nodes[HERE].draining = True
    node.do(node.leases.drain(DeathCause("drained", "it leaves")))
    node.do(node.leases.ask_all_back())
    assert {to for to, message in node.sent[before:] if isinstance(message, LeasesWanted)} == {
        OWN, FOREIGN,
    }  # fmt: skip
    granted = len(node.of(OWN, LeaseGranted)) + len(node.of(FOREIGN, LeaseGranted))
    node.demand(OWN, 2)
    node.demand(FOREIGN, 2)
    assert len(node.of(OWN, LeaseGranted)) + len(node.of(FOREIGN, LeaseGranted)) == granted
    assert len(node.of(OWN, LeaseElsewhere)) == 1
    assert [r.kind for r in node.of(FOREIGN, LeaseRefused) if isinstance(r, LeaseRefused)] == [
        "busy"
    ]
    assert node.of(b"head", ActorStartFailed) == []
