"""Leases: who gets a worker, when, and what happens to it afterwards."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from mray.node.sched.leases import Effect, Leases, Send, TellHead
from mray.node.workers.pool import Kill, Pool, PoolRules, Spawn
from mray.resources import Resources, to_fixed
from mray.wire.messages import (
    ActorSpec,
    ActorStartFailed,
    Address,
    DeathCause,
    LeaseDemand,
    LeaseGranted,
    LeaseRefused,
    LeasesWanted,
    Message,
    StartActor,
    StopActor,
    TerminateActor,
)

JOB = b"job1"
A, B, C = b"owner-a", b"owner-b", b"owner-c"
CPU = to_fixed({"CPU": 1})


class Node:
    """Leases of a node whose workers start when a test says so."""

    def __init__(self, total: Resources, workers_max: int = 100) -> None:
        numbers = itertools.count(1)
        rules = PoolRules(
            starting_max=100, idle_keep=100, idle_s=1.0, register_timeout_s=60.0, grace_s=5.0
        )
        self.pool = Pool(rules, lambda: b"w%d" % next(numbers))
        self.leases = Leases(total, self.pool, workers_max, "n1")
        self.now = 0.0
        self.sent: list[tuple[bytes, Message]] = []
        self.to_head: list[Message] = []
        self.spawned: list[bytes] = []
        self.killed: dict[bytes, DeathCause] = {}
        self.pool.job_known(JOB)

    def do(self, effects: list[Effect]) -> None:
        effects = effects + self.leases.settle(self.now)
        self.leases.check()
        for effect in effects:
            match effect:
                case Send(process_id, message):
                    self.sent.append((process_id, message))
                case TellHead(message):
                    self.to_head.append(message)
                case Spawn(process_id, _):
                    self.spawned.append(process_id)
                case Kill(process_id, cause, _):
                    self.killed[process_id] = cause

    def demand(
        self, owner: bytes, count: int, need: Resources = CPU, class_id: int = 1, env: bytes = b""
    ) -> None:
        message = LeaseDemand(class_id, count, need, JOB, env, "f()")
        self.do(self.leases.demand(owner, message))

    def start_all(self) -> None:
        while self.spawned:
            worker = self.spawned.pop(0)
            address = Address(worker, b"n")
            assert self.pool.registered(worker, address, 1000, self.now)
            self.do([])

    def block(self, worker: bytes, is_blocked: bool = True) -> None:
        self.leases.blocked(worker, is_blocked)
        self.do([])

    def exit(self, worker: bytes, words: str = "exit code 1") -> None:
        if worker in self.spawned:
            self.spawned.remove(worker)
        self.do(self.leases.worker_exited(worker, words, self.now))

    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.do(self.leases.tick(self.now))

    def give_back(self, owner: bytes, lease_id: int, reuse: bool = True) -> None:
        self.do(self.leases.returned(owner, lease_id, reuse, self.now))

    def granted(self, owner: bytes) -> list[LeaseGranted]:
        """What the owner was granted since the last call of take_sent()."""
        return [m for to, m in self.sent if to == owner and isinstance(m, LeaseGranted)]

    def wanted(self, owner: bytes) -> list[int]:
        return [m.waiting for to, m in self.sent if to == owner and isinstance(m, LeasesWanted)]

    def refused(self, owner: bytes) -> list[LeaseRefused]:
        return [m for to, m in self.sent if to == owner and isinstance(m, LeaseRefused)]


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node(to_fixed({"CPU": 2, "memory": 1000}))
    yield made
    made.leases.check()


def actor(
    number: int = 1,
    held: Resources | None = None,
    placed: Resources | None = None,
    detached: bool = False,
) -> StartActor:
    spec = ActorSpec(
        actor_id=b"actor%d" % number, job_id=JOB, owner=Address(A, b"n"), class_key=b"",
        class_name="Counter", task_id=b"", args=b"", deps=[], args_in_store=None,
        args_located=None, resources=held or {}, placement_resources=placed or CPU,
        max_restarts=0, max_task_retries=0, max_concurrency=1, detached=detached,
    )  # fmt: skip
    return StartActor(spec, 0)


def test_a_demand_starts_as_many_workers_as_resources_fit_and_is_granted(node: Node) -> None:
    node.demand(A, 5)
    assert node.spawned == [b"w1", b"w2"]
    node.start_all()
    assert [g.worker.process_id for g in node.granted(A)] == [b"w1", b"w2"]
    assert len({g.lease_id for g in node.granted(A)}) == 2
    assert node.leases.free() == to_fixed({"memory": 1000}) | {"CPU": 0}
    assert node.leases.pending() == [(CPU, 3)]


def test_a_demand_replaces_the_former_one(node: Node) -> None:
    node.demand(A, 5)
    node.demand(A, 0)
    node.start_all()
    assert node.granted(A) == []
    assert node.leases.pending() == []


def test_a_returned_lease_serves_the_next_owner_with_the_same_worker(node: Node) -> None:
    node.demand(A, 2)
    node.start_all()
    node.demand(B, 1)
    node.give_back(A, node.granted(A)[0].lease_id)
    (granted,) = node.granted(B)
    assert granted.worker == node.granted(A)[0].worker


def test_owners_take_turns(node: Node) -> None:
    node.demand(A, 10)
    node.start_all()
    node.demand(B, 10)
    node.demand(C, 10)
    served = []
    for _ in range(6):
        lease = next(iter(node.leases.holds.by_lease.values()))
        node.sent.clear()
        node.give_back(lease.owner, lease.lease_id)
        served += [to for to, m in node.sent if isinstance(m, LeaseGranted)]
    assert served == [B, C, A, B, C, A]


def test_what_does_not_fit_lets_smaller_requests_pass(node: Node) -> None:
    node.demand(A, 1)
    node.start_all()
    node.demand(B, 1, to_fixed({"CPU": 2}))
    node.demand(C, 1)
    node.start_all()
    assert node.granted(B) == []
    assert len(node.granted(C)) == 1


def test_a_big_request_that_is_passed_over_has_room_kept_for_it(node: Node) -> None:
    node.demand(A, 100)
    node.start_all()
    node.demand(B, 1, to_fixed({"CPU": 2}))
    for _ in range(30):
        if node.granted(B):
            break
        lease = next(iter(node.leases.holds.by_lease.values()))
        node.give_back(lease.owner, lease.lease_id)
        node.start_all()
        node.tick(0.1)
    assert len(node.granted(B)) == 1


def test_room_is_not_kept_for_long_where_it_does_not_help(node: Node) -> None:
    node.demand(A, 2)
    node.start_all()  # One of these is never returned.
    node.demand(B, 1, to_fixed({"CPU": 2}), class_id=2)
    forever, turns = node.granted(A)
    lease_id, owner = turns.lease_id, A
    idle_s = 0.0
    for step in range(400):
        if lease_id:
            node.sent.clear()
            node.demand(C, step % 5 + 1)
            node.give_back(owner, lease_id)
            lease_id = 0
        node.tick(0.1)
        for granted in node.granted(C):
            lease_id, owner = granted.lease_id, C
        node.sent.clear()
        idle_s += 0.1 if not lease_id else 0.0
    assert forever.lease_id in node.leases.holds.by_lease
    assert 4.0 < idle_s < 20.0


def test_a_blocked_worker_gives_its_cpu_back_and_takes_it_again_beyond_the_limit(
    node: Node,
) -> None:
    node.demand(A, 2, to_fixed({"CPU": 1, "memory": 500}))
    node.start_all()
    first = node.granted(A)[0].worker.process_id
    node.block(first, True)
    assert node.leases.free()["CPU"] == CPU["CPU"]
    assert node.leases.free()["memory"] == 0
    node.demand(first, 1)
    node.start_all()
    assert len(node.granted(first)) == 1
    node.block(first, False)
    node.block(first, False)
    assert node.leases.holds.available["CPU"] == -CPU["CPU"]
    node.give_back(first, node.granted(first)[0].lease_id)
    assert node.leases.holds.available["CPU"] == 0


def test_a_request_the_node_can_never_grant_is_refused_once_with_numbers(node: Node) -> None:
    big = to_fixed({"CPU": 64})
    node.demand(A, 1, big)
    node.demand(A, 7, big)
    (refused,) = node.refused(A)
    assert refused.kind == "infeasible"
    assert refused.text == (
        "f() asks for {CPU: 64}, which node n1 can never give (CPU: asked 64, there 2); "
        "ask for less, or add a node that has it"
    )
    assert node.leases.pending() == [(big, 7)]
    assert node.spawned == []


def test_the_others_are_asked_to_give_back_what_they_hold_beyond_their_share(node: Node) -> None:
    node.demand(A, 5)
    node.start_all()
    node.now = 1.0
    node.demand(B, 3)
    assert node.wanted(A) == [1]
    assert node.leases.deadline() == 1.02
    node.give_back(A, node.granted(A)[0].lease_id)
    assert len(node.granted(B)) == 1
    node.sent.clear()
    for _ in range(100):
        node.tick(0.02)
    assert node.wanted(A) == node.wanted(B) == []


def test_asking_back_slows_down_while_nothing_moves(node: Node) -> None:
    node.demand(A, 2)
    node.start_all()
    node.now = 1.0
    node.demand(B, 1)
    times = []
    for _ in range(5):
        at = node.leases.deadline()
        assert at is not None
        times.append(round(at, 2))
        node.tick(at - node.now)
    assert times == [1.02, 1.06, 1.14, 1.3, 1.62]
    assert node.wanted(A) == [1] * 6


def test_another_class_of_the_same_owner_gets_its_share_as_well(node: Node) -> None:
    node.demand(A, 2)
    node.start_all()
    node.demand(A, 1, to_fixed({"CPU": 0.5}), class_id=2)
    assert node.wanted(A) == []
    node.tick(0.002)
    assert node.wanted(A) == [1]


def test_leases_of_a_dead_owner_end_and_free_their_resources_when_the_worker_is_gone(
    node: Node,
) -> None:
    node.demand(A, 2)
    node.start_all()
    node.do(node.leases.owner_died(A))
    assert {c.kind for c in node.killed.values()} == {"owner_died"}
    assert node.leases.free()["CPU"] == 0
    for worker in list(node.killed):
        node.exit(worker)
    assert node.leases.free()["CPU"] == 2 * CPU["CPU"]


def test_a_dead_owners_demand_is_void(node: Node) -> None:
    node.demand(A, 3)
    node.do(node.leases.owner_died(A))
    assert node.leases.pending() == []


def test_a_lease_can_be_returned_only_by_its_owner_and_once(node: Node) -> None:
    node.demand(A, 1)
    node.start_all()
    lease_id = node.granted(A)[0].lease_id
    node.give_back(B, lease_id)
    assert node.leases.free()["CPU"] == CPU["CPU"]
    node.give_back(A, lease_id)
    node.give_back(A, lease_id)
    assert node.leases.free()["CPU"] == 2 * CPU["CPU"]


def test_workers_are_not_shared_between_environments(node: Node) -> None:
    node.demand(A, 1)
    node.start_all()
    node.give_back(A, node.granted(A)[0].lease_id)
    node.demand(A, 1, class_id=2, env=b"env")
    assert node.spawned == [b"w2"]


def test_workers_that_do_not_start_fail_the_demand_after_five_tries(node: Node) -> None:
    node.demand(A, 3)
    while not node.refused(A):
        while node.spawned:
            node.exit(node.spawned[0], "exit code 1; it wrote: no module named numpy")
        deadline = node.leases.deadline()
        if deadline is not None:
            node.tick(deadline - node.now)
    (refused,) = node.refused(A)
    assert refused.kind == "worker_start_failed"
    assert "no module named numpy" in refused.text
    assert node.now == 15.0
    assert node.leases.pending() == []


def test_while_a_kind_of_worker_does_not_start_others_use_the_resources(node: Node) -> None:
    node.demand(A, 2, env=b"broken")
    for worker in list(node.spawned):
        node.exit(worker)
    node.demand(B, 2)
    node.start_all()
    assert len(node.granted(B)) == 2


def test_an_actor_needs_its_placement_resources_only_at_its_start(node: Node) -> None:
    node.do(node.leases.start_actor(actor()))
    node.do(node.leases.start_actor(actor()))
    assert node.spawned == [b"w1"]
    node.start_all()
    assert node.sent == [(b"w1", actor())]
    assert node.leases.free()["CPU"] == 2 * CPU["CPU"]
    node.do(node.leases.start_actor(actor()))
    assert node.spawned == []


def test_an_actor_waits_until_its_placement_fits_and_asks_leases_back(node: Node) -> None:
    node.demand(A, 2)
    node.start_all()
    node.do(node.leases.start_actor(actor()))
    assert node.spawned == []
    node.tick(0.002)
    assert node.wanted(A) == [1]
    assert node.leases.pending() == [(CPU, 1)]


def test_an_actor_that_can_never_fit_is_refused_to_the_head(node: Node) -> None:
    node.do(node.leases.start_actor(actor(held=to_fixed({"GPU": 1}))))
    (failed,) = node.to_head
    assert isinstance(failed, ActorStartFailed)
    assert "GPU: asked 1, there 0" in failed.cause.text


def test_an_actor_whose_worker_does_not_start_is_refused_to_the_head(node: Node) -> None:
    node.do(node.leases.start_actor(actor()))
    while not node.to_head:
        while node.spawned:
            node.exit(node.spawned[0])
        node.tick(1.0)
    (failed,) = node.to_head
    assert isinstance(failed, ActorStartFailed)
    assert failed.cause.kind == "creation_failed"


def test_stopping_an_actor_kills_it_or_lets_it_finish_or_cancels_its_start(node: Node) -> None:
    cause = DeathCause("ray_kill", "ray.kill()")
    for number in (1, 2):
        node.do(node.leases.start_actor(actor(number)))
    node.start_all()
    node.do(node.leases.stop_actor(StopActor(b"actor1", 0, True, cause)))
    assert node.killed == {b"w1": cause}
    node.do(node.leases.stop_actor(StopActor(b"actor2", 0, False, cause)))
    assert node.sent[-1] == (b"w2", TerminateActor(b"actor2"))
    node.do(node.leases.start_actor(actor(3)))
    node.do(node.leases.stop_actor(StopActor(b"actor3", 0, False, cause)))
    assert node.leases.pending() == []


def test_the_end_of_a_job_ends_its_workers_but_not_detached_actors_and_what_they_run(
    node: Node,
) -> None:
    node.do(node.leases.start_actor(actor(1, detached=True)))
    node.do(node.leases.start_actor(actor(2)))
    node.start_all()
    node.demand(b"w1", 1)
    node.demand(A, 2)
    node.start_all()
    assert len(node.granted(A)) == len(node.granted(b"w1")) == 1
    node.do(node.leases.job_over(JOB, node.now))
    theirs = node.granted(A)[0].worker.process_id
    assert set(node.killed) == {b"w2", theirs}
    assert node.leases.pending() == []


def test_recursion_in_a_crowd_goes_depth_first() -> None:
    node = Node(to_fixed({"CPU": 2}), workers_max=4)
    node.demand(A, 2)
    node.start_all()
    for depth in range(20):
        newest = list(node.leases.holds.by_lease.values())[-1].worker
        node.block(newest, True)
        node.sent.clear()
        node.demand(newest, 2)
        node.start_all()
        assert len(node.granted(newest)) == 1, depth
    assert node.pool.count("leased") == 22


def test_in_a_crowd_tasks_without_cpu_wait() -> None:
    node = Node(to_fixed({"CPU": 2}), workers_max=4)
    node.demand(A, 50, {})
    node.start_all()
    assert len(node.granted(A)) == 4
    node.do(node.leases.start_actor(actor()))
    assert len(node.spawned) == 1


def test_in_a_crowd_idle_workers_of_another_kind_make_room() -> None:
    node = Node(to_fixed({"CPU": 2}), workers_max=2)
    node.demand(A, 2)
    node.start_all()
    for granted in node.granted(A):
        node.give_back(A, granted.lease_id)
    node.demand(B, 1, env=b"env")
    assert list(node.killed) == [b"w1"]
    node.exit(b"w1")
    node.start_all()
    assert len(node.granted(B)) == 1
