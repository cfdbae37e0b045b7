"""One life of an owner whose objects lie on nodes that come and go: random user code and faults.

Owns what happens how often. See nodes.py for what must be true of it.
"""

from __future__ import annotations

from typing import Any

from .nodes import Nodes
from .owner import OWN
from .world import Violation


def live_on_nodes(seed: int, actions: int = 50, **change: Any) -> Nodes:
    """A whole life. Raises Violation with the seed and the story."""
    world = Nodes(seed, **change)
    try:
        for _ in range(actions):
            act(world)
            world.owner.settle()
            for _ in range(world.rng.choice([0, 1, 3, 8])):
                world.step()
            if world.rng.random() < 0.1:
                world.owner.check()
        world.calm_down()
    except (AssertionError, KeyError) as error:
        story = "\n".join(world.story[-300:])
        raise Violation(f"seed {seed}: {type(error).__name__} {error}\n{story}") from error
    return world


def act(world: Nodes) -> None:
    """One thing that user code, or fate, does."""
    rng, owner = world.rng, world.owner
    choice = rng.random()
    if choice < world.death_rate:
        mortal = [node_id for node_id in world.living() if node_id != OWN]
        if mortal:
            world.die(rng.choice(mortal))
    elif choice < world.death_rate + 0.04:
        world.damage()
    elif choice < world.death_rate + 0.08:
        world.evict()
    elif choice < 0.2:
        world.reach.append(owner.put())
    elif choice < 0.55:
        args = rng.sample(world.reach, min(len(world.reach), rng.choice([0, 1, 1, 2])))
        task = owner.submit(args, rng.choice([1, 1, 2]), rng.choice([0, 1, 3, 3, -1]))
        world.reach += task.returns
    elif choice < 0.75 and world.reach:
        entry = rng.choice(world.reach)
        world.reach.remove(entry)
        owner.drop(entry)
    elif world.reach:
        world.read(rng.choice(world.reach))
