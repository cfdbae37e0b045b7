"""What generators yield: a number of returns, dynamic returns, big items, items with references;
streams that are dropped, backpressure, cancelled generators."""

from __future__ import annotations

import gc
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


def test_a_cancelled_generator_ends_with_an_error(ray):
    @ray.remote
    def busy():
        yield 1
        while True:  # Ray interrupts between steps of Python only.
            time.sleep(0.01)

    gen = busy.remote()
    assert ray.get(next(gen)) == 1
    ray.cancel(gen)
    assert outcomes(ray, gen) == ["TaskCancelledError"]


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


def test_many_items_come_in_order(ray, count_to):
    gen = count_to.remote(2000)
    assert ray.get(list(gen)) == list(range(2000))
