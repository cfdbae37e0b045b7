"""Generators as tasks and actor methods: items as they are made, errors, the end, backpressure,
retries in mid stream, streams that are dropped.

Ray drives generators with send(), which `yield from range(n)` does not bear: the loops here are
written out.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time

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


def eventually(condition, patience_s=60):
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


@pytest.fixture
def count_to(ray):
    @ray.remote
    def count_to(n):
        for number in range(n):  # noqa: UP028
            yield number

    return count_to


# -- what a call returns


def test_a_generator_function_returns_an_object_ref_generator(ray, count_to):
    gen = count_to.remote(3)
    assert isinstance(gen, ray.ObjectRefGenerator)
    refs = list(gen)
    assert all(isinstance(ref, ray.ObjectRef) for ref in refs)
    assert ray.get(refs) == [0, 1, 2]
    with pytest.raises(StopIteration):
        next(gen)


def test_streaming_may_be_said(ray, count_to):
    assert [ray.get(ref) for ref in count_to.options(num_returns="streaming").remote(2)] == [0, 1]


def test_an_empty_generator_ends_at_once(ray, count_to):
    gen = count_to.remote(0)
    assert list(gen) == []
    assert gen.is_finished()


@pytest.mark.parametrize("words", ["streaming", "dynamic"])
def test_streams_are_refused_where_nothing_is_yielded(ray, words):
    def plain():
        return [1]

    with pytest.raises(ValueError, match="generator"):
        ray.remote(num_returns=words)(plain)
    with pytest.raises(ValueError, match="generator"):
        ray.remote(plain).options(num_returns=words).remote()
    with pytest.raises(ValueError, match="generator"):
        ray.method(num_returns=words)(plain)


def test_wrong_numbers_of_returns_are_refused(ray, count_to):
    with pytest.raises(ValueError, match="num_returns"):
        count_to.options(num_returns=-1)
    with pytest.raises(TypeError):
        count_to.options(num_returns="all").remote(1)


def test_items_are_there_while_the_task_runs(ray, gate):
    wait = gate.waiter()

    @ray.remote
    def held():
        yield "first"
        wait()
        yield "second"

    gen = held.remote()
    assert ray.get(next(gen)) == "first"
    assert not gen.next_ready()
    assert not gen.is_finished()
    assert ray.wait([gen], timeout=0) == ([], [gen])
    gate.open()
    assert ray.get(next(gen)) == "second"
    assert outcomes(ray, gen) == []
    assert gen.is_finished()
    assert not gen.next_ready()


def test_completed_is_ready_when_the_task_is_over(ray, gate):
    wait = gate.waiter()

    @ray.remote
    def held():
        yield 1
        wait()

    gen = held.remote()
    done = gen.completed()
    assert isinstance(done, ray.ObjectRef)
    next(gen)
    assert ray.wait([done], timeout=0) == ([], [done])
    gate.open()
    assert ray.get(done) is None
    assert gen.completed() == done


def test_completed_does_not_raise_what_the_generator_raised(ray):
    @ray.remote
    def failing():
        yield 1
        raise ValueError("late")

    gen = failing.remote()
    assert ray.get(gen.completed()) is None
    assert not gen.is_finished()
    assert gen.next_ready()


def test_next_within_a_time(ray, gate):
    wait = gate.waiter()

    @ray.remote
    def held():
        wait()
        yield 1

    gen = held.remote()
    assert gen._next_sync(0).is_nil()
    gate.open()
    ref = gen._next_sync(60)
    assert not ref.is_nil()
    assert ray.get(ref) == 1
    with pytest.raises(StopIteration):
        gen._next_sync(60)


def test_get_of_a_generator_is_the_generator(ray, count_to):
    gen = count_to.remote(1)
    assert ray.get(gen) is gen
    with pytest.raises(TypeError):
        ray.get([gen])


@pytest.mark.parametrize("name", ["send", "throw"])
def test_what_other_generators_have_is_refused(ray, count_to, name):
    with pytest.raises(NotImplementedError):
        getattr(count_to.remote(1), name)(None)
    with pytest.raises(NotImplementedError):
        count_to.remote(1).close()


def test_generators_cannot_be_passed_on(ray, count_to):
    with pytest.raises(TypeError):
        ray.put(count_to.remote(1))
    with pytest.raises(TypeError):
        count_to.remote(count_to.remote(1))


# -- waiting


def test_wait_for_generators_and_references_together(ray, make_gate):
    first, second = make_gate(), make_gate()

    @ray.remote
    def stream(wait):
        wait()
        yield "item"

    @ray.remote
    def value(wait):
        wait()
        return "value"

    gen, ref = stream.remote(first.waiter()), value.remote(second.waiter())
    assert ray.wait([gen, ref], timeout=0) == ([], [gen, ref])
    first.open()
    assert ray.wait([ref, gen], timeout=60) == ([gen], [ref])
    second.open()
    ready, rest = ray.wait([ref, gen], num_returns=2, timeout=60)
    assert (ready, rest) == ([ref, gen], [])
    assert ray.get(next(ready[1])) == "item"


def test_a_generator_at_its_end_is_ready(ray, count_to):
    gen = count_to.remote(1)
    list(gen)
    assert ray.wait([gen], timeout=60) == ([gen], [])


def test_the_same_generator_twice_is_refused(ray, count_to):
    gen = count_to.remote(1)
    with pytest.raises(ValueError):
        ray.wait([gen, gen])


def test_async_iteration(ray, count_to):
    async def main():
        found = [await ref async for ref in count_to.remote(3)]
        gen = count_to.remote(1)
        found.append(await (await gen.__anext__()))
        with pytest.raises(StopAsyncIteration):
            await gen.__anext__()
        return found

    assert asyncio.run(main()) == [0, 1, 2, 0]


def test_several_streams_are_read_together(ray, count_to):
    async def read(n):
        return [await ref async for ref in count_to.remote(n)]

    async def main():
        return await asyncio.gather(read(3), read(2), read(1))

    assert asyncio.run(main()) == [[0, 1, 2], [0, 1], [0]]


# -- errors


def test_an_exception_is_the_last_item(ray):
    @ray.remote
    def failing():
        yield 1
        raise ValueError("mid")

    gen = failing.remote()
    assert outcomes(ray, gen) == [1, "ValueError"]
    assert gen.is_finished()


def test_an_exception_before_the_first_item(ray):
    @ray.remote
    def failing():
        raise KeyError("none")
        yield

    assert outcomes(ray, failing.remote()) == ["KeyError"]


def test_an_argument_that_failed_is_the_only_item(ray, count_to):
    @ray.remote
    def broken():
        raise ValueError("no argument")

    assert outcomes(ray, count_to.remote(broken.remote())) == ["ValueError"]


def test_an_item_that_cannot_be_pickled_ends_the_stream(ray):
    @ray.remote
    def unpicklable():
        import threading

        yield 1
        yield threading.Lock()
        yield 3

    found = outcomes(ray, unpicklable.remote())
    assert found[0] == 1
    assert len(found) == 2


def test_a_dead_worker_is_the_last_item(ray, gate):
    wait = gate.waiter()

    @ray.remote(max_retries=0)
    def dying():
        yield 1
        wait()
        os._exit(1)

    gen = dying.remote()
    first = next(gen)
    gate.open()
    assert outcomes(ray, [first]) == [1]
    assert outcomes(ray, gen) == ["WorkerCrashedError"]
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(gen.completed())


def test_a_worker_that_dies_in_mid_stream_is_replaced(ray, gate, tally):
    """Items that were there stay what they are, and none comes twice."""
    wait, add = gate.waiter(), tally.adder()

    @ray.remote(max_retries=1)
    def dying():
        run = add()
        for number in range(5):
            if number == 3 and run == 1:
                wait()
                os._exit(1)
            yield number, run

    gen = dying.remote()
    refs = [next(gen) for _ in range(3)]
    gate.open()
    refs += gen
    assert len(set(refs)) == 5
    assert ray.get(refs) == [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2)]


def test_big_items_survive_a_run_that_is_repeated(ray, gate, tally):
    import numpy as np

    wait, add = gate.waiter(), tally.adder()

    @ray.remote(max_retries=1)
    def dying():
        run = add()
        for number in range(4):
            if number == 2 and run == 1:
                wait()
                os._exit(1)
            yield np.full(300_000, number, dtype=np.uint8)

    gen = dying.remote()
    first = next(gen)
    assert ray.get(first)[0] == 0
    del first
    next(gen)
    gate.open()
    assert [int(ray.get(ref).sum()) for ref in gen] == [600_000, 900_000]


def test_retried_exceptions_repeat_no_items(ray, tally):
    add = tally.adder()

    @ray.remote(max_retries=3, retry_exceptions=[ValueError])
    def failing():
        run = add()
        for number in range(4):
            if number == 2 and run < 3:
                raise ValueError("again")
            yield number

    assert outcomes(ray, failing.remote()) == [0, 1, 2, 3]
    assert tally.count == 3


def test_exceptions_that_are_not_to_be_retried_end_the_stream(ray, tally):
    add = tally.adder()

    @ray.remote(max_retries=3, retry_exceptions=[ValueError])
    def failing():
        add()
        yield 1
        raise KeyError("once")

    assert outcomes(ray, failing.remote()) == [1, "KeyError"]
    assert tally.count == 1


def test_the_last_of_several_retries_fails(ray, tally):
    add = tally.adder()

    @ray.remote(max_retries=1, retry_exceptions=True)
    def failing():
        add()
        yield 1
        raise ValueError("always")

    assert outcomes(ray, failing.remote()) == [1, "ValueError"]
    assert tally.count == 2


# -- a fixed number of returns


def test_a_generator_may_make_a_fixed_number_of_returns(ray, count_to):
    assert ray.get(count_to.options(num_returns=3).remote(3)) == [0, 1, 2]


def test_of_too_many_the_first_are_taken(ray, count_to):
    assert ray.get(count_to.options(num_returns=2).remote(4)) == [0, 1]
    assert ray.get(count_to.options(num_returns=1).remote(4)) == 0


def test_of_too_few_the_rest_are_errors(ray, count_to):
    refs = count_to.options(num_returns=3).remote(2)
    assert outcomes(ray, refs) == [0, 1, "ValueError"]
    with pytest.raises(ValueError, match="num_returns=3"):
        ray.get(refs[2])


def test_after_an_exception_the_rest_are_errors(ray):
    @ray.remote(num_returns=3, max_retries=0)
    def failing():
        yield 1
        raise KeyError("part-way")

    assert outcomes(ray, failing.remote()) == [1, "KeyError", "KeyError"]


def test_a_returned_generator_counts_too(ray):
    @ray.remote
    def made():
        return (number for number in range(3))

    assert ray.get(made.remote()) == 0
    assert ray.get(made.options(num_returns=3).remote()) == [0, 1, 2]


# -- dynamic


@pytest.mark.filterwarnings("ignore")
def test_dynamic_returns_are_one_value_with_all_references(ray, count_to):
    ref = count_to.options(num_returns="dynamic").remote(3)
    assert isinstance(ref, ray.ObjectRef)
    value = ray.get(ref)
    assert type(value).__name__ == "DynamicObjectRefGenerator"
    assert len(value) == 3
    assert [ray.get(item) for item in value] == [0, 1, 2]
    assert len(value) == 0
    assert [ray.get(item) for item in ray.get(ref)] == [0, 1, 2]


@pytest.mark.filterwarnings("ignore")
def test_dynamic_returns_may_be_passed_on(ray, count_to):
    @ray.remote
    def total(items):
        return sum(ray.get(list(items)))

    assert ray.get(total.remote(count_to.options(num_returns="dynamic").remote(4))) == 6


@pytest.mark.filterwarnings("ignore")
def test_of_dynamic_returns_an_exception_is_the_last(ray):
    @ray.remote(max_retries=0)
    def failing():
        yield 1
        raise ValueError("late")

    ref = failing.options(num_returns="dynamic").remote()
    assert outcomes(ray, ray.get(ref)) == [1, "ValueError"]


# -- what items are


def test_big_items_go_through_the_store(ray):
    import numpy as np

    @ray.remote
    def big(n):
        for number in range(n):
            yield np.full(1_000_000, number, dtype=np.uint8)

    assert [int(ray.get(ref)[-1]) for ref in big.remote(5)] == [0, 1, 2, 3, 4]


def test_items_may_be_passed_on_before_the_stream_ends(ray, gate):
    wait = gate.waiter()

    @ray.remote
    def held():
        yield 20
        wait()

    @ray.remote
    def double(value, inside):
        return 2 * value + ray.get(inside[0])

    gen = held.remote()
    ref = next(gen)
    assert ray.get(double.remote(ref, [ref])) == 60
    gate.open()


def test_items_may_hold_references(ray):
    @ray.remote
    def holding():
        for number in range(3):
            yield [ray.put(number), ray.put(bytes(200_000))]

    gen = holding.remote()
    ray.get(gen.completed())
    found = [ray.get(ref) for ref in gen]
    assert [ray.get(pair[0]) for pair in found] == [0, 1, 2]
    assert [len(ray.get(pair[1])) for pair in found] == [200_000] * 3


def test_items_may_hold_the_references_of_arguments(ray):
    @ray.remote
    def echo(refs):
        for ref in refs:
            yield [ref]

    refs = [ray.put(number) for number in range(3)]
    assert [ray.get(item) for item in echo.remote(refs)] == [[ref] for ref in refs]


def test_an_item_lives_as_long_as_its_reference(ray, count_to, glass):
    gen = count_to.remote(3)
    ray.get(gen.completed())
    kept, dropped = next(gen), next(gen)
    watch = glass(dropped)
    del dropped
    gc.collect()
    eventually(watch.gone)
    del gen
    assert ray.get(kept) == 0


def test_what_was_not_taken_is_freed_with_the_generator(ray, glass):
    import numpy as np

    @ray.remote
    def holding(inner):
        yield inner
        yield [inner[0], np.zeros(300_000)]

    inner = ray.put("inside")
    watch = glass(inner)
    gen = holding.remote([inner])
    ray.get(gen.completed())
    del inner
    gc.collect()
    assert not watch.gone()
    del gen
    gc.collect()
    eventually(watch.gone)


# -- dropping and backpressure


def test_a_task_whose_stream_is_dropped_runs_to_its_end(ray, gate, tally):
    wait, add = gate.waiter(), tally.adder()

    @ray.remote
    def held():
        yield 1
        wait()
        for number in range(5):
            add()
            yield number

    gen = held.remote()
    done = gen.completed()
    next(gen)
    del gen
    gc.collect()
    gate.open()
    assert ray.get(done) is None
    assert tally.count == 5


def test_a_producer_pauses_while_items_are_not_taken(ray, tally):
    add = tally.adder()

    @ray.remote(_generator_backpressure_num_objects=2)
    def adding():
        for number in range(6):
            add()
            yield number

    gen = adding.remote()
    eventually(lambda: tally.count == 2)
    assert ray.get(next(gen)) == 0
    eventually(lambda: tally.count == 3)
    assert [ray.get(next(gen)) for _ in range(2)] == [1, 2]
    eventually(lambda: tally.count == 5)
    time.sleep(0.1)  # Time for what must not happen.
    assert tally.count == 5
    assert [ray.get(ref) for ref in gen] == [3, 4, 5]


def test_with_a_backpressure_of_one_items_are_made_as_they_are_taken(ray, tally):
    add = tally.adder()

    @ray.remote
    def adding():
        for _ in range(4):
            yield add()

    gen = adding.options(_generator_backpressure_num_objects=1).remote()
    for number in range(1, 5):
        eventually(lambda number=number: tally.count == number)
        assert ray.get(next(gen)) == number
    assert list(gen) == []


def test_a_paused_producer_goes_on_when_its_stream_is_dropped(ray, tally):
    add = tally.adder()

    @ray.remote(_generator_backpressure_num_objects=1)
    def adding():
        for _ in range(5):
            add()
            yield

    gen = adding.remote()
    eventually(lambda: tally.count == 1)
    done = gen.completed()
    del gen
    gc.collect()
    assert ray.get(done, timeout=60) is None
    assert tally.count == 5


def test_a_cancelled_generator_ends_with_an_error(ray, gate):
    wait = gate.waiter()

    @ray.remote
    def held():
        yield 1
        wait()
        yield 2

    gen = held.remote()
    assert ray.get(next(gen)) == 1
    ray.cancel(gen)
    assert outcomes(ray, gen) == ["TaskCancelledError"]


@pytest.mark.mray_only("Ray cancels no generator that waits for its items to be taken")
def test_a_paused_generator_may_be_cancelled(ray):
    @ray.remote(_generator_backpressure_num_objects=1)
    def endless():
        while True:
            yield 1

    gen = endless.remote()
    assert ray.get(next(gen)) == 1
    ray.wait([gen])
    ray.cancel(gen)
    assert outcomes(ray, gen)[-1] == "TaskCancelledError"


def test_wrong_backpressure_is_refused(ray, count_to):
    with pytest.raises(ValueError, match="_generator_backpressure_num_objects"):
        count_to.options(_generator_backpressure_num_objects=0).remote(1)
    free = count_to.options(_generator_backpressure_num_objects=-1).remote(2)
    assert [ray.get(ref) for ref in free] == [0, 1]


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


def test_many_items_come_in_order(ray, count_to):
    gen = count_to.remote(2000)
    assert ray.get(list(gen)) == list(range(2000))


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


# -- results of plain tasks


def test_a_result_is_there_while_the_worker_runs_the_next_task(ray, gate):
    wait = gate.waiter()

    @ray.remote(num_cpus=4)
    def quick():
        return 1

    @ray.remote(num_cpus=4)
    def held():
        wait()
        return 2

    first, second = quick.remote(), held.remote()
    assert ray.get(first, timeout=60) == 1
    gate.open()
    assert ray.get(second, timeout=60) == 2
