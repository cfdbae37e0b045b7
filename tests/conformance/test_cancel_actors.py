"""cancel() of actors' calls: queued, running, async."""

from __future__ import annotations

import time

import pytest

pytestmark = pytest.mark.conformance


@pytest.fixture
def queue_of_three(ray, hold, tally):
    """Three calls of an actor, of which the first runs; the second counts."""
    run, add = hold.body(), tally.adder()

    @ray.remote
    class Actor:
        def first(self):
            run(1.0)
            return 1

        def second(self):
            add()

        def third(self):
            return 3

    actor = Actor.remote()
    refs = actor.first.remote(), actor.second.remote(), actor.third.remote()
    hold.wait()
    return refs


def test_a_queued_call_of_an_actor_is_cancelled_and_the_others_run(ray, queue_of_three, cancelled):
    first, second, third = queue_of_three
    ray.cancel(second)
    assert ray.get([first, third], timeout=60) == [1, 3]
    cancelled(second)


@pytest.mark.mray_only("Ray runs the call and drops its result")
def test_a_queued_call_of_an_actor_never_runs(ray, queue_of_three, cancelled, tally):
    first, second, third = queue_of_three
    ray.cancel(second)
    cancelled(second)
    assert ray.get([first, third], timeout=60) == [1, 3]
    assert tally.count == 0


def test_a_call_that_waits_for_its_arguments_is_taken_back_and_those_behind_it_run(
    ray, gate, cancelled
):
    wait = gate.waiter()

    @ray.remote
    def slow():
        wait()

    @ray.remote
    class Actor:
        def call(self, value=None):
            return 1

    actor = Actor.remote()
    argument = slow.remote()
    held, behind = actor.call.remote(argument), actor.call.remote()
    ray.cancel(held)
    cancelled(held)
    assert ray.get(behind, timeout=60) == 1
    gate.open()
    ray.get(argument, timeout=60)


def test_a_running_call_is_not_interrupted_and_its_result_is_dropped(ray, hold, tally, cancelled):
    run, add = hold.body(), tally.adder()

    @ray.remote
    class Actor:
        def call(self):
            run(0.5)
            add()
            return 1

        def alive(self):
            return "alive"

    actor = Actor.remote()
    ref = actor.call.remote()
    hold.wait()
    ray.cancel(ref)
    cancelled(ref)
    assert tally.count == 1
    assert ray.get(actor.alive.remote(), timeout=60) == "alive"


def test_a_running_call_that_raises_keeps_its_error(ray, hold):
    run = hold.body()

    @ray.remote
    class Actor:
        def call(self):
            run(0.5)
            raise KeyError("mine")

    ref = Actor.remote().call.remote()
    hold.wait()
    ray.cancel(ref)
    with pytest.raises(KeyError):
        ray.get(ref, timeout=60)


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_call_may_ask_whether_it_was_cancelled(ray, hold, concurrency, cancelled):
    run = hold.body()

    @ray.remote
    class Actor:
        def call(self):
            before = ray.get_runtime_context().is_canceled()
            run(0.0)
            while not ray.get_runtime_context().is_canceled():
                time.sleep(0.01)
            self.seen = before

        def ask(self):
            return self.seen, ray.get_runtime_context().is_canceled()

    actor = Actor.options(max_concurrency=concurrency).remote()
    ref = actor.call.remote()
    hold.wait()
    ray.cancel(ref)
    cancelled(ref)
    assert ray.get(actor.ask.remote(), timeout=60) == (False, False)


def test_coroutines_of_async_actors_are_cancelled(ray, hold, tally, cancelled):
    run, add = hold.body(), tally.adder()

    @ray.remote
    class Actor:
        async def sleeps(self):
            import asyncio

            run(0.0, "sleeps")
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                add()
                raise

        async def swallows(self):
            import asyncio

            run(0.0, "swallows")
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return "swallowed"

        async def quick(self):
            return 1

    actor = Actor.remote()
    for name in ("sleeps", "swallows"):
        ref = getattr(actor, name).remote()
        hold.wait(name)
        ray.cancel(ref)
        cancelled(ref)
    give_up_at = time.monotonic() + 60
    while tally.count < 1:
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
    done = actor.quick.remote()
    assert ray.get(done, timeout=60) == 1
    ray.cancel(done)
    assert ray.get(done, timeout=60) == 1


def test_calls_queued_in_an_async_actor_are_cancelled(ray, gate, hold, tally, cancelled):
    run, add = hold.body(), tally.adder()

    @ray.remote
    class Actor:
        async def long(self):
            import asyncio

            run(0.0)
            await asyncio.sleep(1.0)
            return 1

        async def queued(self):
            add()

    actor = Actor.options(max_concurrency=1).remote()
    first = actor.long.remote()
    hold.wait()
    refs = [actor.queued.remote() for _ in range(5)]
    for ref in refs:
        ray.cancel(ref)
    for ref in refs:
        cancelled(ref)
    assert ray.get(first, timeout=60) == 1
    assert tally.count == 0


def test_a_cancelled_call_is_not_retried_over_a_restart(ray, hold, tally):
    run, add = hold.body(), tally.adder()

    @ray.remote(max_restarts=1, max_task_retries=5)
    class Actor:
        def call(self):
            add()
            run(60.0)

        def alive(self):
            return 1

    actor = Actor.remote()
    ray.get(actor.alive.remote(), timeout=60)
    ref = actor.call.remote()
    hold.wait()
    ray.cancel(ref)
    time.sleep(0.2)  # Ray: the actor has heard of it.
    ray.kill(actor, no_restart=False)
    with pytest.raises((ray.exceptions.TaskCancelledError, ray.exceptions.RayActorError)):
        ray.get(ref, timeout=60)
    assert ray.get(actor.alive.remote(), timeout=60) == 1
    assert tally.count == 1


def test_children_of_a_call_are_cancelled_with_it(ray, hold, tally, cancelled):
    run, add = hold.body(), tally.adder()

    @ray.remote(num_cpus=0)
    def child():
        try:
            run(name="child")
        except KeyboardInterrupt:
            add()
            raise

    @ray.remote
    class Actor:
        def call(self):
            return ray.get(child.remote())

    ref = Actor.remote().call.remote()
    hold.wait("child")
    ray.cancel(ref)
    cancelled(ref)
    give_up_at = time.monotonic() + 60
    while tally.count < 1:
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
