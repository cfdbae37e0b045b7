"""Random lives of a node's leases: nothing is lost, lent twice, or forgotten.

The world outside (processes, owners) is kept here in the simplest form; whatever the machine says
is done, at moments that Hypothesis chooses.
"""

from __future__ import annotations

import itertools

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mray.node.sched.cluster_view import ClusterView
from mray.node.sched.elsewhere import Elsewhere
from mray.node.sched.leases import Effect, Leases, Send, TellHead
from mray.node.sched.moving import BUSY_AFTER_S
from mray.node.workers.pool import Kill, Pool, PoolRules, Spawn
from mray.resources import fits, to_fixed
from mray.wire.messages import (
    ActorSpec,
    Address,
    ClusterNews,
    DeathCause,
    LeaseDemand,
    LeaseGranted,
    LeaseRefused,
    NodeInfo,
    NodeNews,
    StartActor,
    StopActor,
)

JOBS = [b"job1", b"job2"]
NEEDS = [to_fixed(n) for n in ({"CPU": 1}, {"CPU": 2}, {"CPU": 0.5, "gadget": 1}, {}, {"CPU": 9})]
ENVS = [b"", b"env"]
OTHER = b"other"


def node_info(node_id: bytes, **amounts: float) -> NodeInfo:
    return NodeInfo(
        node_id, Address(node_id, node_id), "", "", 1, to_fixed(amounts), {}, "", "", "", 0, False,
        "1", "3",
    )  # fmt: skip


class LeasesLife(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        numbers = itertools.count(1)
        rules = PoolRules(
            starting_max=3, idle_keep=2, idle_s=1.0, register_timeout_s=60.0, grace_s=5.0
        )
        self.pool = Pool(rules, lambda: b"w%d" % next(numbers))
        self.view = ClusterView(node_info(b"n", CPU=2, gadget=1))
        self.leases = Leases(
            to_fixed({"CPU": 2, "gadget": 1}), self.pool, 6, "n1", Elsewhere(self.view)
        )
        self.now = 0.0
        #: Events come one by one and are not settled yet, as within a round of the pump.
        self.batching = False
        self.owners = [b"d1", b"d2", b"f1"]
        self.class_numbers: dict[tuple[object, ...], int] = {}
        self.starting: list[bytes] = []
        self.alive: list[bytes] = []
        self.dying: list[bytes] = []
        #: What owners believe they hold: lease -> (owner, worker).
        self.lent: dict[int, tuple[bytes, bytes]] = {}
        self.actors: list[StartActor] = []
        self.actor_count = 0
        self.living_jobs = list(JOBS)
        for job in JOBS:
            self.pool.job_known(job)

    # -- the world obeys

    def do(self, effects: list[Effect]) -> None:
        if not self.batching:
            effects = effects + self.leases.settle(self.now)
        for effect in effects:
            match effect:
                case Spawn(worker, _):
                    self.starting.append(worker)
                case Kill(worker, _, _):
                    assert worker in self.starting + self.alive + self.dying
                    for group in (self.starting, self.alive):
                        if worker in group:
                            group.remove(worker)
                            self.dying.append(worker)
                case Send(owner, LeaseGranted() as granted):
                    worker = granted.worker.process_id
                    assert owner in self.owners + self.alive + self.dying, (
                        "a lease for somebody who is gone"
                    )
                    assert worker in self.alive, "a lease of a worker that does not live"
                    assert worker not in [held for _, held in self.lent.values()], "lent twice"
                    assert granted.lease_id not in self.lent
                    self.lent[granted.lease_id] = (owner, worker)
                case Send(worker, StartActor() as start):
                    assert worker in self.alive
                    self.actors.append(start)
                case Send(_, LeaseRefused()) | Send() | TellHead():
                    continue

    @rule(batching=st.booleans())
    def set_batching(self, batching: bool) -> None:
        self.batch(batching)

    def batch(self, batching: bool) -> None:
        self.batching = batching
        self.do([])

    @rule(
        who=st.integers(0, 30),
        need=st.sampled_from(NEEDS),
        env=st.sampled_from(ENVS),
        job=st.sampled_from(JOBS),
        count=st.integers(0, 5),
        stay=st.booleans(),
    )
    def demand(
        self, who: int, need: dict[str, int], env: bytes, job: bytes, count: int, stay: bool
    ) -> None:
        owners = self.owners + self.alive
        owner = owners[who % len(owners)]
        if job not in self.living_jobs:
            return
        shape = (tuple(need.items()), env, job)
        number = self.class_numbers.setdefault(shape, len(self.class_numbers))
        home = OTHER if owner == b"f1" else b""
        message = LeaseDemand(number, count, need, job, env, home=home, stay=bool(home) and stay)
        self.do(self.leases.demand(owner, message))

    @rule(cpus=st.integers(0, 4), draining=st.booleans())
    def news_of_another_node(self, cpus: int, draining: bool) -> None:
        self.view.joined([node_info(OTHER, CPU=4)])
        news = NodeNews(OTHER, to_fixed({"CPU": cpus}), draining=draining)
        self.view.news(ClusterNews([news]))
        self.do([])

    @precondition(lambda self: self.starting)
    @rule(index=st.integers(0, 9))
    def worker_registers(self, index: int) -> None:
        worker = self.starting.pop(index % len(self.starting))
        assert self.pool.registered(worker, Address(worker, b"n"), 7, self.now)
        self.alive.append(worker)
        self.do([])

    @precondition(lambda self: self.starting)
    @rule(index=st.integers(0, 9))
    def start_fails(self, index: int) -> None:
        worker = self.starting.pop(index % len(self.starting))
        self.do(self.leases.worker_exited(worker, "exit code 1", self.now))

    @precondition(lambda self: self.dying)
    @rule(index=st.integers(0, 9))
    def dying_worker_is_gone(self, index: int) -> None:
        worker = self.dying.pop(index % len(self.dying))
        self.forget(worker)
        self.do(self.leases.worker_exited(worker, "killed", self.now))

    @precondition(lambda self: self.alive)
    @rule(index=st.integers(0, 9))
    def worker_crashes(self, index: int) -> None:
        worker = self.alive.pop(index % len(self.alive))
        self.forget(worker)
        self.do(self.leases.worker_exited(worker, "SIGSEGV", self.now))

    def forget(self, worker: bytes) -> None:
        self.lent = {n: pair for n, pair in self.lent.items() if worker not in pair}

    @precondition(lambda self: self.lent)
    @rule(index=st.integers(0, 9), reuse=st.booleans())
    def give_back(self, index: int, reuse: bool) -> None:
        lease_id = list(self.lent)[index % len(self.lent)]
        owner, _ = self.lent.pop(lease_id)
        self.do(self.leases.returned(owner, lease_id, reuse, self.now))

    @precondition(lambda self: self.alive)
    @rule(index=st.integers(0, 9), blocked=st.booleans())
    def block(self, index: int, blocked: bool) -> None:
        worker = self.alive[index % len(self.alive)]
        self.leases.blocked(worker, blocked)
        self.do([])

    @precondition(lambda self: len(self.owners) > 1)
    @rule()
    def driver_dies(self) -> None:
        owner = self.owners.pop()
        self.lent = {n: pair for n, pair in self.lent.items() if pair[0] != owner}
        self.do(self.leases.owner_died(owner))

    @rule(need=st.sampled_from(NEEDS), job=st.sampled_from(JOBS), detached=st.booleans())
    def start_actor(self, need: dict[str, int], job: bytes, detached: bool) -> None:
        if job not in self.living_jobs:
            return
        self.actor_count += 1
        spec = ActorSpec(
            actor_id=b"a%d" % self.actor_count, job_id=job, owner=Address(b"d1", b"n"),
            class_key=b"", class_name="A", task_id=b"", args=b"", deps=[], args_in_store=None,
            args_located=None, resources=need, placement_resources=to_fixed({"CPU": 1}),
            max_restarts=0, max_task_retries=0, max_concurrency=1, detached=detached,
        )  # fmt: skip
        self.do(self.leases.start_actor(StartActor(spec, 0)))

    @precondition(lambda self: self.actors)
    @rule(index=st.integers(0, 9), force=st.booleans())
    def stop_actor(self, index: int, force: bool) -> None:
        start = self.actors[index % len(self.actors)]
        stop = StopActor(start.spec.actor_id, 0, force, DeathCause("ray_kill"))
        self.do(self.leases.stop_actor(stop))

    @precondition(lambda self: len(self.living_jobs) > 1)
    @rule()
    def job_ends(self) -> None:
        job = self.living_jobs.pop()
        self.do(self.leases.job_over(job, self.now))
        self.lent = {
            n: pair for n, pair in self.lent.items() if self.pool.workers[pair[1]].state == "leased"
        }

    @rule(seconds=st.sampled_from([0.01, 0.5, 3.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.batch(False)
        until = self.now + seconds
        for _ in range(10_000):
            at = self.leases.deadline()
            if at is None or at > until:
                break
            self.now = max(self.now, at)
            self.do(self.leases.tick(self.now))
        else:
            raise AssertionError("the machine asks for ticks without end")
        self.now = until

    # -- what is always so

    @invariant()
    def demand_of_other_nodes_does_not_wait_in_vain(self) -> None:
        if self.batching:
            return
        for line in self.leases._lines.values():
            since = line.short_since
            assert since is None or self.now < since + BUSY_AFTER_S
            assert since is None or line.home

    @invariant()
    def state_is_sound(self) -> None:
        if not self.batching:
            self.leases.check()
        assert set(self.pool.workers) == set(self.starting + self.alive + self.dying)

    @invariant()
    def owners_and_node_agree_on_leases(self) -> None:
        for lease_id, (owner, worker) in self.lent.items():
            if worker in self.alive and (owner in self.alive or owner in self.owners):
                hold = self.leases.holds.by_lease[lease_id]
                assert (hold.owner, hold.worker) == (owner, worker)

    @invariant()
    def nobody_waits_alone_beside_free_resources_and_an_idle_worker(self) -> None:
        if self.batching:
            return
        waiting = [line for line in self.leases._lines.values() if not line.infeasible]
        if len(waiting) == 1:
            (line,) = waiting
            assert not fits(line.need, self.leases.holds.available) or not self.pool.take_idle(
                line.key
            )

    def teardown(self) -> None:
        """Once everybody is gone, everything is there again."""
        self.batch(False)
        for owner in list(self.owners):
            self.do(self.leases.owner_died(owner))
        for job in JOBS:
            self.do(self.leases.job_over(job, self.now))
        for worker in [*self.starting, *self.alive, *self.dying]:
            self.do(self.leases.worker_exited(worker, "", self.now))
        assert self.leases.holds.available == self.leases.holds.total
        self.leases.check()


LeasesLife.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    phases=(Phase.generate,),
    database=None,
)
TestLeasesLife = LeasesLife.TestCase
