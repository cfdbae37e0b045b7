"""One life of an owner and its workers, drawn from a seed: see dispatching.py."""

from __future__ import annotations

from collections.abc import Callable

from mray.tasks.dispatch import Dispatcher

from .dispatching import RUN_US, Violation, Worker, World, must

STEPS = 250
#: How often each thing happens.
_WEIGHTS = {
    "submit": 6, "cancel": 1, "time": 12, "node_hears": 14, "node_speaks": 14, "grant": 10,
    "refuse": 0.3, "want": 0.5, "die": 0.6, "read": 15, "begin": 10, "finish": 8, "run": 30,
    "exit": 0.3, "block": 2, "hear": 35, "release": 3, "settle": 0.5,
}  # fmt: skip


def live(seed: int, make: Callable[[], Dispatcher] = Dispatcher) -> World:
    """Live it to its end. Violation, with the seed, for what must never be."""
    world = World(seed, make())
    rng = world.rng
    # Each life has its own tempo: in some the wires are slow, in others the tasks.
    weights = [weight * rng.choice((0.2, 1, 1, 3)) for weight in _WEIGHTS.values()]
    what = ""
    try:
        for what in rng.choices(list(_WEIGHTS), weights, k=STEPS):
            _step(world, what)
        what = "close"
        world.close()
    except AssertionError as error:
        raise Violation(f"seed {seed}, {what} at {world.now:.4f}: {error}") from error
    return world


def _step(world: World, what: str) -> None:
    rng = world.rng
    lent = list(world.lent.values())
    working = [w for w in lent if w.running is not None]
    match what:
        case "submit":
            world.submit(rng.randrange(len(world.templates)), rng.randint(1, 12), rng.randint(0, 2))
        case "cancel":
            left = [task for task_id, task in world.tasks.items() if task_id not in world.ended]
            if left:
                world.cancel(rng.choice(left))
        case "time":
            world.pass_time(rng.choice((0.0005, 0.003, 0.003, 0.02, 0.25)))
        case "node_hears" if world.to_node:
            world.hear_owner()
        case "node_speaks" if world.to_owner:
            world.hear_node()
        case "grant" if world.may_grant():
            world.grant(rng.choice(world.may_grant()))
        case "refuse":
            wanted = [class_id for class_id, count in world.demand.items() if count]
            if wanted:
                class_id = rng.choice(wanted)
                world.demand[class_id] = 0
                world.to_owner.append(("refused", class_id))
        case "want":
            world.to_owner.append(("wanted", rng.randint(1, 3)))
        case "die" if lent:
            world.die(rng.choice(lent), rng.random() < 0.7)
        case "settle":
            _settle(world)
        case _:
            _at_a_worker(world, what, lent, working)


def _settle(world: World) -> None:
    world.settle(long=True)
    bad = world.waits()
    must(not bad, f"a task is {bad[:1]}")


def _run_some(world: World, worker: Worker) -> None:
    """A worker runs several tasks before it looks at its messages."""
    run_us = world.rng.choice(RUN_US[:-1])
    for _ in range(world.rng.randint(1, 12)):
        if worker.running is not None:
            world.finish(worker, run_us)
        if not worker.pending:
            return
        world.begin(worker)


def _at_a_worker(world: World, what: str, lent: list[Worker], working: list[Worker]) -> None:
    rng = world.rng
    match what:
        case "read":
            some = [w for w in lent if w.inbox and not (world.late and w.pending)]
            if some:
                world.read(rng.choice(some))
        case "begin":
            some = [w for w in lent if w.pending and w.running is None and not w.leaving]
            if some:
                world.begin(rng.choice(some))
        case "finish" if working:
            world.finish(rng.choice(working), rng.choice(RUN_US), rng.random() < 0.1)
        case "run":
            some = [w for w in lent if w.pending and not w.leaving]
            if some:
                _run_some(world, rng.choice(some))
        case "exit" if working:
            worker = rng.choice(working)
            if not (worker.withheld or worker.leaving):
                world.exit(worker, rng.choice(RUN_US), rng.random() < 0.5)
        case "block":
            some = [w for w in working if not w.blocked]
            if some:
                world.block(rng.choice(some))
        case "release":
            some = [w for w in lent if w.withheld]
            if some:
                worker = rng.choice(some)
                worker.say([worker.withheld.pop(0)], [])
        case "hear":
            some = [w for w in world.workers.values() if w.said]
            if some:
                worker = rng.choice(some)
                ends = bool(worker.said[0][0])
                world.hear(worker)
                # What was handed back, or was not, is where tasks could be left waiting.
                if not ends and rng.random() < 0.5:
                    _settle(world)
