"""Generators as tasks: items as they are made, errors, the end,
retries in mid stream. Their items: test_generator_items.py, as methods: test_generator_actors.py.

Ray drives generators with send(), which `yield from range(n)` does not bear: the loops here are
written out.
"""

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
