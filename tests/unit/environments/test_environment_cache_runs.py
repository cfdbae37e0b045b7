"""Random runs of the cache against what must always hold."""

from __future__ import annotations

import random

import pytest

from mray.node.environments.cache import RETRY_S, Cache, Effect, Make, Remove, Settled
from mray.node.environments.parts import Part, Plan

_PARTS = [Part("package", name, f"{name}.zip") for name in "abcde"]


class World:
    """A node's disk and who waits, seen naively."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.cache = Cache(25)
        self.making: list[str] = []
        self.there: dict[str, int] = {}
        self.waiting: set[bytes] = set()
        self.jobs: dict[bytes, set[bytes]] = {}
        self.plans = {
            b"env%d" % n: Plan(modules=tuple(self.draw.sample(_PARTS, self.draw.randint(0, 3))))
            for n in range(6)
        }
        self.now = 0.0

    def take(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Make):
                assert effect.part.name not in self.there
                assert effect.part.name not in self.making
                self.making.append(effect.part.name)
            elif isinstance(effect, Remove):
                del self.there[effect.name]
                users = [env for envs in self.jobs.values() for env in envs]
                assert not any(
                    part.name == effect.name for env in users for part in self.plans[env].parts
                )
            else:
                self.settled(effect)

    def settled(self, effect: Settled) -> None:
        self.waiting.remove(effect.runtime_env)
        if not effect.error:
            assert all(part.name in self.there for part in self.plans[effect.runtime_env].parts)

    def step(self) -> None:
        match self.draw.randrange(4):
            case 0:
                env = self.draw.choice(list(self.plans))
                job = b"job%d" % self.draw.randrange(4)
                self.jobs.setdefault(job, set()).add(env)
                self.waiting.add(env)
                self.take(self.cache.need(env, self.plans[env], job, self.now))
            case 1 if self.making:
                name = self.making.pop(self.draw.randrange(len(self.making)))
                self.there[name] = self.draw.randint(1, 20)
                self.take(self.cache.made(name, self.there[name]))
            case 2 if self.making:
                name = self.making.pop(self.draw.randrange(len(self.making)))
                self.take(self.cache.failed(name, f"{name} failed", self.now))
            case 3:
                job = b"job%d" % self.draw.randrange(4)
                self.jobs.pop(job, None)
                used = {env for envs in self.jobs.values() for env in envs}
                self.waiting &= used
                self.take(self.cache.job_gone(job))
            case _:
                self.now += RETRY_S / 3
        self.cache.check()


@pytest.mark.parametrize("seed", range(100))
def test_what_is_used_stays_and_whoever_waits_is_told(seed: int) -> None:
    world = World(seed)
    for _ in range(200):
        world.step()
    while world.making:
        name = world.making.pop()
        world.there[name] = 1
        world.take(world.cache.made(name, 1))
    assert not world.waiting
    for job in list(world.jobs):
        del world.jobs[job]
        world.take(world.cache.job_gone(job))
    assert sum(world.there.values()) <= 25
    world.cache.check()
