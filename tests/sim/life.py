"""One life of a world: random user code, deaths, and calm at the end.

Owns what happens how often. See world.py for what must be true of it.
"""

from __future__ import annotations

from collections.abc import Callable

from mray.ownership.ledger import Ledger

from .world import Violation, World


def live(seed: int, ledger: Callable[..., Ledger] = Ledger, actions: int = 60) -> World:
    """A whole life. Raises Violation or InvariantError with the seed and the story."""
    world = World(seed, ledger=ledger)
    try:
        for _ in range(actions):
            act(world)
            for _ in range(world.rng.choice([0, 1, 3, 8])):
                world.step()
        world.calm_down()
    except AssertionError as error:
        raise Violation(f"seed {seed}: {error}\n{world.story()}") from error
    return world


def act(world: World) -> None:
    """One thing that user code, or fate, does."""
    rng = world.rng
    living = world.living()
    process = rng.choice(living)
    choice = rng.random()
    if choice < world.death_rate:
        world.end(process)
    elif choice < 0.28 or not process.reach:
        inner = rng.sample(process.reach, min(len(process.reach), rng.choice([0, 0, 1, 2])))
        world.put(process, inner)
    elif choice < 0.4:
        outer = rng.choice(process.reach)
        world.read(process, outer)
        if rng.random() < 0.5:
            world.forget(process, outer)
    elif choice < 0.65:
        world.forget(process, rng.choice(process.reach))
    else:
        worker = rng.choice(living)
        if worker is not process:
            args = rng.sample(process.reach, min(len(process.reach), rng.choice([0, 1, 1, 2])))
            world.submit(process, worker, args, rng.choice([0, 0, 0, 1, 10]))


def hand_over(seed: int, ledger: Callable[..., Ledger] = Ledger) -> World:
    """A short life: a worker returns the only reference to an object of a third process, and dies
    at some moment about then. Raises as ``live`` does."""
    world = World(seed, process_count=3, ledger=ledger)
    owner, worker, caller = world.living()
    try:
        entry = world.put(owner, [])
        keeps = world.submit(owner, worker, [entry])
        world.keep_all.add(keeps.number)
        while keeps.number in owner.pending:
            world.step()
        world.forget(owner, entry)
        world.forget(owner, keeps.result)
        gives = world.submit(caller, worker, [])
        world.give_all.add(gives.number)
        world.after(world.rng.uniform(0.0, 10 * world.delay_s), lambda: world.end(worker))
        for _ in range(60):
            world.step()
        world.calm_down()
    except AssertionError as error:
        raise Violation(f"seed {seed}: {error}\n{world.story()}") from error
    return world
