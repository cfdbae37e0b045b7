"""One life of a simulated cluster: programs, faults, calm, and what must be true at the end."""

from __future__ import annotations

import functools
import gc
import tempfile
from typing import Any

from mray import current
from mray.exceptions import RayActorError, RayError
from mray.ids import object_id
from mray.object_ref import ObjectRef
from mray.ownership.entry import Entry
from mray.resources import to_fixed
from mray.runtime.arguments import NOTHING
from mray.runtime.runtime import Runtime
from mray.wire.messages import ActorSpec

from .clockwork import Clockwork, Violation
from .cluster import SimCluster
from .labour import int_of
from .record import value_of
from .strands import Strand, sleep


class Asked:
    """A reference that a driver holds, and what is expected of it."""

    def __init__(self, rt: Runtime, plan: dict[str, Any], ref: Any, args: int) -> None:
        self.rt, self.plan, self.ref = rt, plan, ref
        self.expected = value_of(plan, args)
        self.outcome: Any = None
        self.is_over = False
        self.actor: SimActor | None = None


class SimActor:
    """An actor that a driver has made and holds."""

    def __init__(self, rt: Runtime, spec: ActorSpec, ref: Any) -> None:
        self.rt, self.spec, self.ref = rt, spec, ref
        #: The incarnation that answered last.
        self.incarnation = 0
        self.answered: list[int] = []


#: How long after the last reference, and the news of the last death, something may still be kept:
#: batches go again within seconds.
REST_S = 12.0


class Life:
    """See the module."""

    def __init__(self, cluster: SimCluster) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.asked: list[Asked] = []
        self.actors: list[SimActor] = []
        #: Nothing goes wrong any more.
        self.is_calm = False
        self.fault_rate = self.world.rng.choice([0.05, 0.2, 0.4])
        self._numbers = iter(range(1, 10**9))

    def plan(self, depth: int = 0) -> dict[str, Any]:
        """A random plan."""
        rng = self.world.rng
        kids = []
        if depth < 2 and rng.random() < 0.3:
            kids = [self.plan(depth + 1) for _ in range(rng.choice([1, 2, 4]))]
        return {
            "number": next(self._numbers),
            "run_s": rng.choice([0.0, 0.0, 0.001, 0.1, 1.0]),
            "kids": kids,
            "retries": 20,
            "cpus": rng.choice([1.0, 1.0, 1.0, 0.5, 2.0]),
            "big": rng.choice([0, 0, 120_000, 300_000]),
        }

    def connect(self, node_id: bytes) -> Runtime:
        """A driver."""
        box: list[Runtime] = []
        self.cluster.connect(node_id, box.append)
        self.world.run(lambda: bool(box), 60.0, "a driver connects")
        return box[0]

    def submit(self, rt: Runtime, plan: dict[str, Any], args: list[Asked] | None = None) -> Asked:
        """A driver submits a task and waits for it."""
        args = args or []
        ref = self.cluster.submit(rt, plan, [one.ref for one in args])
        asked = Asked(rt, plan, ref, sum(one.expected for one in args))
        self._await(asked)
        return asked

    def _await(self, asked: Asked) -> None:
        rt, plan, ref = asked.rt, asked.plan, asked.ref
        self.asked.append(asked)

        late_s = self.world.rng.choice([0.0, 0.0, 2.0, 8.0])

        def wait() -> None:
            value: Any
            sleep(late_s)
            try:
                (value,) = rt.objects.get([ref], None)
                if not isinstance(value, tuple):
                    value = int_of(value)
            except Exception as error:
                value = error.with_traceback(None)  # Its frames would hold the reference.
            if asked.is_over:
                raise Violation(f"plan {plan['number']} has ended twice")
            asked.is_over, asked.outcome = True, value
            self.world.say(f"plan {plan['number']} is over: {str(value)[:60]}")
            if asked.actor is not None:
                self._heed_actor(asked, asked.actor, at_once=not late_s)

        door = self.world.doors[rt.process_id]
        Strand(door, rt, wait)
        door.turn_soon()

    def make_actor(self, rt: Runtime) -> SimActor:
        """A driver makes an actor."""
        rng = self.world.rng
        actor_id, task_id = rt.ids.actor(), rt.ids.task()
        spec = ActorSpec(
            actor_id, rt.job_id, rt.address, b"", "Sim", task_id, b"", [], None, None,
            {}, to_fixed({"CPU": 1.0}), rng.choice([0, 3, -1]), rng.choice([0, 0, 5]), 1,
        )  # fmt: skip
        entry = Entry(object_id(task_id, 1), None, rt.mailbox, 1, "Sim")
        entry.is_actor = entry.ready = True
        rt.references.entries[entry.object_id] = entry
        ref: Any = ObjectRef(entry)
        with self.cluster.as_process(rt):
            rt.actors.create(spec, NOTHING, entry, False)
        self.world.doors[rt.process_id].turn_soon()
        self.world.say(f"actor {actor_id.hex()[:8]}: {spec.max_restarts} restarts")
        actor = SimActor(rt, spec, ref)
        self.actors.append(actor)
        return actor

    def call(self, actor: SimActor, plan: dict[str, Any]) -> Asked:
        """A driver calls its actor."""
        rt, spec = actor.rt, actor.spec
        plan["retries"] = spec.max_task_retries
        template = rt.actors.method_template("Sim", "work", 1, spec.max_task_retries, b"", b"")
        with self.cluster.as_process(rt):
            (ref,) = rt.tasks.call(template, (plan,), {}, spec.actor_id, actor.ref._entry)
        asked = Asked(rt, plan, ref, 0)
        asked.actor = actor
        self._await(asked)
        return asked

    def _heed_actor(self, asked: Asked, actor: SimActor, at_once: bool) -> None:
        """An actor has answered, or not: is it what may be?"""
        number, outcome = asked.plan["number"], asked.outcome
        if isinstance(outcome, RayActorError):
            return  # It may be dead or away; how often a call began is counted elsewhere.
        if isinstance(outcome, BaseException):
            raise Violation(f"call {number}: {outcome!r}")
        total, _, incarnation = outcome
        if total != asked.expected:
            raise Violation(f"call {number}: {total}, expected {asked.expected}")
        if number not in self.cluster.record.served.get((actor.spec.actor_id, incarnation), ()):
            raise Violation(f"call {number} was answered by incarnation {incarnation} unserved")
        if at_once:
            if incarnation < actor.incarnation:
                raise Violation(f"call {number}: {incarnation} answers after {actor.incarnation}")
            actor.incarnation = incarnation

    # -- the end

    def calm_down(self, limit_s: float = 300.0) -> None:
        """Everything asked for by the living comes to its end, with the right value."""
        living = [one for one in self.asked if one.rt in self.cluster.drivers]
        open_ = list(living)

        def all_over() -> bool:
            while open_ and open_[-1].is_over:
                open_.pop()
            return not open_

        self.world.run(
            all_over, limit_s,
            lambda: f"plans {[one.plan['number'] for one in living if not one.is_over][:5]} end",
        )  # fmt: skip
        for one in living:
            if one.actor is not None:
                continue
            if isinstance(one.outcome, RayError) or one.outcome != one.expected:
                raise Violation(
                    f"plan {one.plan['number']}: {one.outcome!r}, expected {one.expected}"
                )

    def rest(self) -> None:
        """All references are dropped: in the end nothing is left anywhere."""
        cluster = self.cluster
        self.asked.clear()
        self.actors.clear()
        self.world.run(
            lambda: cluster.known_alive() == cluster.nodes.keys(), 150.0, "the head knows who lives"
        )
        asleep_s = max(door.stopped_until for door in self.world.doors.values()) - self.world.now
        self.world.pass_time(max(0.0, asleep_s) + REST_S)
        if any(rt.references.entries for rt in cluster.runtimes.values()):
            gc.collect()  # An error's traceback can hold a cycle of ours.
            for door in self.world.doors.values():
                door.turn_soon()
            self.world.pass_time(REST_S)
        for process_id, rt in cluster.runtimes.items():
            left = list(rt.references.entries.values())
            if left:
                raise Violation(
                    f"process {process_id.hex()[:8]} still has {len(left)} objects: "
                    f"{[(e.name, e.local, e.held, e.inside, e.borrowers) for e in left[:3]]}"
                )
            if rt.tasks.pending:
                raise Violation(f"process {process_id.hex()[:8]} has tasks left")
            self.world.doors[process_id].lines.check()
            rt.ledger.check()
            rt.tasks.dispatcher.check()
        for node_id, node in cluster.nodes.items():
            self.world.doors[node_id].lines.check()
            node._leases.check()
            store = node._store.store
            if store.object_count:
                left = [(copy.object_id.hex()[:16], copy.state) for copy in store.copies()]
                raise Violation(f"node {node_id.hex()[:6]} still stores {left[:5]}")
            free, total = node._leases.free(), node.info.resources
            if free != total:
                raise Violation(f"node {node_id.hex()[:6]}: {free} of {total} is free")
            if node._leases.pending():
                raise Violation(f"node {node_id.hex()[:6]}: {node._leases.pending()} waits")


def uncollected(call: Any) -> Any:
    """Run one life without the cyclic collector, and clear the runtime after it.

    When a collection comes depends on all that this process did before, and it runs finalizers:
    the life of a seed would depend on the lives before it. The garbage of some lives is collected
    after them, all at once."""

    @functools.wraps(call)
    def run(seed: int, *args: Any, **kwargs: Any) -> Any:
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            return call(seed, *args, **kwargs)
        finally:
            current.runtime = None
            if was_enabled:
                gc.enable()

    return run


#: What may go wrong, and how often compared with the others.
FAULTS = {
    "worker dies": 6,
    "node dies": 3,
    "node stands still": 2,
    "worker stands still": 2,
    "partition": 2,
    "connections are cut": 3,
    "driver dies": 1,
    "node joins": 1,
    "head dies": 2,
    "disk is full": 1,
}


@uncollected
def live(seed: int, actions: int = 25, faults: dict[str, int] | None = None) -> SimCluster:
    """A whole life. Violation, with the seed and the story, if something is not as it must be."""
    faults = FAULTS if faults is None else faults
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as directory,
        SimCluster(seed, directory) as cluster,
    ):
        life, world = Life(cluster), cluster.world
        try:
            world.run(
                lambda: all(node._daemon.was_ready for node in cluster.nodes.values()),
                30.0,
                "all nodes join",
            )
            homes = list(cluster.nodes)[:2]
            for home in homes[: world.rng.choice([1, 2])]:
                life.connect(home)
            for _ in range(actions):
                act(life, faults)
                for _ in range(world.rng.choice([0, 1, 10, 100])):
                    world.step()
            world.pass_time(rng_pause(world))
            life.is_calm = True
            world.heal()
            cluster.disk_has_room()
            world.run(lambda: cluster.head is not None, 60.0, "the head is back")
            for _ in range(2):
                cluster.add_node()  # Whatever died: there is room for all that was asked for.
            life.calm_down()
            life.rest()
            if cluster.failures.texts:
                raise Violation(f"a handler failed: {cluster.failures.texts[0]}")
        except AssertionError as error:
            raise Violation(f"seed {seed}: {error}\n{world.story()}") from error
        return cluster


def rng_pause(world: Clockwork) -> float:
    """How long things go wrong before it is seen to that all can end."""
    return world.rng.choice([0.0, 3.0, 12.0])


def act(life: Life, faults: dict[str, int]) -> None:
    """One thing that a program, or fate, does."""
    cluster, rng = life.cluster, life.world.rng
    choice = rng.random()
    if faults and choice < life.fault_rate:
        fault = rng.choices(list(faults), list(faults.values()))[0]
        # Much of what can go wrong does when all has been submitted.
        life.world.after(rng.choice([0.0, rng.uniform(0.0, 12.0)]), lambda: fate(life, fault))
        return
    if not cluster.drivers:
        if cluster.nodes:
            life.connect(next(iter(cluster.nodes)))
        return
    rt = rng.choice(cluster.drivers)
    mine = [one for one in life.asked if one.rt is rt and one.actor is None]
    stored = [one for one in mine if one.plan["big"]]
    # What dies with a node has to be wanted once more.
    args = [rng.choice(rng.choice([mine, stored or mine]))] if mine and rng.random() < 0.4 else []
    actors = [actor for actor in life.actors if actor.rt is rt]
    if choice > 0.9:
        life.make_actor(rt)
    elif actors and choice > 0.6:
        life.call(rng.choice(actors), {**life.plan(depth=2), "run_s": rng.choice([0.0, 0.1])})
    else:
        life.submit(rt, life.plan(), args)


def fate(life: Life, fault: str) -> None:
    """Something goes wrong."""
    cluster, world = life.cluster, life.world
    if life.is_calm:
        return
    rng, nodes = world.rng, list(cluster.nodes)
    homes = {rt.node.node_id for rt in cluster.drivers}
    match fault:
        case "worker dies" if cluster.workers:
            cluster.worker_dies(rng.choice(list(cluster.workers)))
        case "node dies":
            others = [node_id for node_id in nodes if node_id not in homes]
            if others and len(nodes) > 1:
                cluster.node_dies(rng.choice(others))
        case "node stands still":
            node_id, pause_s = rng.choice(nodes), rng.choice([1.0, 4.0, 30.0])
            if pause_s < 10.0 or node_id not in homes:
                world.say(f"node {node_id.hex()[:6]} stands still for {pause_s:g} s")
                world.doors[node_id].stop(pause_s)
        case "worker stands still" if cluster.workers:
            world.doors[rng.choice(list(cluster.workers))].stop(rng.choice([1.0, 5.0]))
        case "partition":
            head = cluster.head_address.process_id
            a, b = rng.sample([*nodes, head], 2)
            pause_s = rng.choice([1.0, 3.0, 20.0])
            if pause_s > 10.0 and ({a, b} & homes):
                pause_s = 3.0
            one_way = rng.random() < 0.3
            world.say(f"{a.hex()[:6]} and {b.hex()[:6]} are parted for {pause_s:g} s ({one_way})")
            world.partition(a, b, one_way)
            world.after(pause_s, world.heal)
        case "connections are cut":
            a, b = rng.sample([*nodes, cluster.head_address.process_id], 2)
            world.say(f"connections of {a.hex()[:6]} and {b.hex()[:6]} are cut")
            world.reset(a, b)
        case "driver dies" if len(cluster.drivers) > 1:
            cluster.driver_dies(rng.choice(cluster.drivers))
        case "head dies":
            cluster.head_dies(rng.choice([0.1, 1.0, 15.0]))
        case "disk is full":
            pause_s = rng.choice([0.5, 5.0])
            world.say(f"the head's disk is full for {pause_s:g} s")
            cluster.storage.is_broken = True
            world.after(pause_s, cluster.disk_has_room)
        case "node joins" if len(nodes) < 5:
            cluster.add_node()
