"""Methods that yield: plain, threaded and async actors, restarts, deaths of actors and callers."""

from __future__ import annotations

import asyncio
import os

import pytest

pytestmark = pytest.mark.conformance


def outcomes(ray, refs):
    """The values of references, and the exceptions' names where there is no value."""
    found = []
    for ref in refs:
        try:
            found.append(ray.get(ref))
        except Exception as error:
            found.append(type(error).__name__.removeprefix("RayTaskError(").removesuffix(")"))
    return found


@pytest.fixture
def count_to(ray):
    @ray.remote
    def count_to(n):
        for number in range(n):  # noqa: UP028
            yield number

    return count_to


# -- actors


@pytest.fixture
def actors(ray):
    """A plain, a threaded and an async actor with the same generators."""

    class Plain:
        def count(self, n):
            for number in range(n):  # noqa: UP028
                yield number

        @ray.method(num_returns="streaming")
        def said(self, n):
            for number in range(n):  # noqa: UP028
                yield number

        @ray.method(num_returns=2)
        def two(self):
            yield 1
            yield 2

        def failing(self):
            yield 1
            raise ValueError("mid")

    class Async(Plain):
        async def count(self, n):
            for number in range(n):
                await asyncio.sleep(0)
                yield number

        async def failing(self):
            yield 1
            raise ValueError("mid")

    plain = ray.remote(Plain)
    made = {
        "plain": plain.remote(),
        "threaded": plain.options(max_concurrency=2).remote(),
        "async": ray.remote(Async).remote(),
    }
    yield made
    for actor in made.values():
        ray.kill(actor)


@pytest.mark.parametrize("kind", ["plain", "threaded", "async"])
def test_generator_methods_of_actors(ray, actors, kind):
    actor = actors[kind]
    gen = actor.count.remote(3)
    assert isinstance(gen, ray.ObjectRefGenerator)
    assert [ray.get(ref) for ref in gen] == [0, 1, 2]
    assert [ray.get(ref) for ref in actor.said.remote(2)] == [0, 1]
    assert ray.get(actor.two.remote()) == [1, 2]
    assert outcomes(ray, actor.failing.remote()) == [1, "ValueError"]
    slow = actor.count.options(_generator_backpressure_num_objects=1).remote(3)
    assert [ray.get(ref) for ref in slow] == [0, 1, 2]


def test_methods_that_yield_nothing_cannot_stream(ray):
    @ray.remote
    class Plain:
        def value(self):
            return 1

    actor = Plain.remote()
    with pytest.raises(ValueError, match="generator"):
        actor.value.options(num_returns="streaming").remote()
    ray.kill(actor)


def test_streams_of_one_async_actor_run_together(ray):
    @ray.remote
    class Pair:
        def __init__(self):
            self.here = asyncio.Event()

        async def waiting(self):
            yield "waits"
            await self.here.wait()
            yield "goes on"

        async def calling(self):
            self.here.set()
            yield "called"

    actor = Pair.remote()
    waiting = actor.waiting.remote()
    assert ray.get(next(waiting)) == "waits"
    assert outcomes(ray, actor.calling.remote()) == ["called"]
    assert outcomes(ray, waiting) == ["goes on"]
    ray.kill(actor)


def test_streams_of_a_threaded_actor_run_together(ray, gate):
    wait = gate.waiter()

    @ray.remote(max_concurrency=2)
    class Pair:
        def held(self):
            yield 1
            wait()
            yield 2

        def free(self):
            yield 3

    actor = Pair.remote()
    held = actor.held.remote()
    assert ray.get(next(held)) == 1
    assert outcomes(ray, actor.free.remote()) == [3]
    gate.open()
    assert outcomes(ray, held) == [2]
    ray.kill(actor)


def test_a_restarted_actor_repeats_a_stream(ray, gate, tally):
    wait, add = gate.waiter(), tally.adder()

    @ray.remote(max_restarts=1, max_task_retries=1)
    class Dying:
        def count(self):
            run = add()
            for number in range(4):
                if number == 2 and run == 1:
                    wait()
                    os._exit(1)
                yield number

    actor = Dying.remote()
    gen = actor.count.remote()
    refs = [next(gen), next(gen)]
    gate.open()
    assert ray.get(refs + list(gen)) == [0, 1, 2, 3]
    assert tally.count == 2
    ray.kill(actor)


def test_the_death_of_an_actor_is_the_last_item(ray, gate):
    wait = gate.waiter()

    @ray.remote
    class Dying:
        def count(self):
            yield 1
            wait()

    actor = Dying.remote()
    gen = actor.count.remote()
    assert ray.get(next(gen)) == 1
    ray.kill(actor)
    assert outcomes(ray, gen) == ["ActorDiedError"]


def test_a_task_reads_the_stream_of_an_actor(ray, actors):
    @ray.remote
    def total(actor):
        return sum(ray.get(ref) for ref in actor.count.remote(4))

    assert ray.get(total.remote(actors["plain"])) == 6


def test_a_generator_reads_another(ray, count_to):
    @ray.remote
    def doubled(n):
        for ref in count_to.remote(n):
            yield 2 * ray.get(ref)

    assert [ray.get(ref) for ref in doubled.remote(3)] == [0, 2, 4]


# -- the caller


def test_a_stream_ends_with_its_caller(ray, gate, tally):
    """An actor that yields for a dead caller is free for others again."""
    add = tally.adder()

    @ray.remote
    class Producer:
        def endless(self):
            while True:
                add()
                yield 1

        def ping(self):
            return "pong"

    @ray.remote
    class Caller:
        def begin(self, producer):
            endless = producer.endless.options(_generator_backpressure_num_objects=3)
            self.gen = endless.remote()
            return len([next(self.gen)])

    producer, caller = Producer.remote(), Caller.remote()
    assert ray.get(caller.begin.remote(producer)) == 1
    ray.kill(caller)
    assert ray.get(producer.ping.remote(), timeout=20) == "pong"
    ray.kill(producer)
