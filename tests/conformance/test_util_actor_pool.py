"""ActorPool, as_completed and map_unordered: values handed to actors, results as they come."""

from __future__ import annotations

import importlib

import pytest

pytestmark = pytest.mark.conformance


@pytest.fixture
def make_pool(ray):
    pool_type = importlib.import_module(f"{ray.__name__}.util").ActorPool

    @ray.remote
    class Worker:
        def double(self, value):
            return 2 * value

        def wait(self, hold, value):
            hold()
            return value

        def fail(self, value):
            raise ValueError(value)

        def die(self):
            import os

            os._exit(1)

    return lambda count: pool_type([Worker.remote() for _ in range(count)])


def double(actor, value):
    return actor.double.remote(value)


def test_the_pool_is_found_in_its_module_too(ray):
    module = importlib.import_module(f"{ray.__name__}.util.actor_pool")
    assert module.ActorPool is ray.util.ActorPool


def test_map_gives_results_in_order(make_pool):
    assert list(make_pool(2).map(double, range(10))) == [2 * n for n in range(10)]


def test_map_unordered_gives_what_is_done_first(make_pool, gate):
    hold = gate.waiter()

    def call(actor, value):
        return actor.wait.remote(hold, value) if value == 0 else actor.double.remote(value)

    results = make_pool(2).map_unordered(call, range(4))
    assert [next(results) for _ in range(3)] == [2, 4, 6]
    gate.open()
    assert list(results) == [0]


def test_map_drops_results_that_nobody_fetched(make_pool):
    pool = make_pool(2)
    for value in range(5):
        pool.submit(double, value)
    assert list(pool.map(double, [10, 11])) == [20, 22]
    for value in range(5):
        pool.submit(double, value)
    assert sorted(pool.map_unordered(double, [10, 11])) == [20, 22]


def test_an_iterator_that_is_not_read_leaves_its_results_in_the_pool(make_pool):
    pool = make_pool(1)
    pool.map(double, [1, 2])
    assert pool.has_next()
    assert pool.get_next() == 2


def test_submitted_values_wait_for_a_free_actor(make_pool):
    pool = make_pool(1)
    assert pool.has_free()
    assert not pool.has_next()
    pool.submit(double, 1)
    pool.submit(double, 2)
    assert not pool.has_free()
    assert pool.get_next() == 2
    assert not pool.has_free(), "the second value took the actor"
    assert pool.get_next() == 4
    assert pool.has_free()
    assert not pool.has_next()


def test_no_results_left_is_a_stop_iteration(make_pool):
    pool = make_pool(1)
    with pytest.raises(StopIteration):
        pool.get_next()
    with pytest.raises(StopIteration):
        pool.get_next_unordered()


def test_get_next_times_out_and_keeps_the_result(make_pool, gate):
    pool = make_pool(1)
    hold = gate.waiter()
    pool.submit(lambda actor, value: actor.wait.remote(hold, value), 7)
    with pytest.raises(TimeoutError):
        pool.get_next(timeout=0.05)
    with pytest.raises(TimeoutError):
        pool.get_next_unordered(timeout=0.05)
    gate.open()
    assert pool.get_next() == 7


def test_a_late_result_can_be_given_up(make_pool, gate):
    pool = make_pool(2)
    hold = gate.waiter()
    pool.submit(lambda actor, value: actor.wait.remote(hold, value), 7)
    pool.submit(double, 4)
    with pytest.raises(TimeoutError):
        pool.get_next(timeout=0.05, ignore_if_timedout=True)
    assert pool.get_next() == 8
    assert not pool.has_next()
    assert pool.pop_idle() is not None
    assert pool.pop_idle() is not None, "the actor of the call that was given up"


@pytest.mark.mray_only("Ray fails with an UnboundLocalError of its own")
def test_the_oldest_late_result_can_be_given_up(make_pool, gate):
    pool = make_pool(2)
    hold = gate.waiter()
    for value in (1, 2):
        pool.submit(lambda actor, value: actor.wait.remote(hold, value), value)
    with pytest.raises(TimeoutError):
        pool.get_next_unordered(timeout=0.05, ignore_if_timedout=True)
    gate.open()
    assert pool.get_next_unordered() == 2
    assert not pool.has_next()


def test_in_order_after_unordered_is_refused(make_pool, gate):
    pool = make_pool(2)
    hold = gate.waiter()
    pool.submit(lambda actor, value: actor.wait.remote(hold, value), 0)
    pool.submit(double, 1)
    assert pool.get_next_unordered() == 2
    with pytest.raises(ValueError):
        pool.get_next()
    gate.open()
    assert pool.get_next_unordered() == 0


def test_what_a_call_raises_is_raised_and_its_actor_is_free_again(make_pool):
    pool = make_pool(1)
    pool.submit(lambda actor, value: actor.fail.remote(value), 3)
    pool.submit(double, 4)
    with pytest.raises(ValueError, match="3"):
        pool.get_next()
    assert pool.get_next() == 8
    assert pool.has_free()


def test_a_dead_actor_leaves_the_pool(ray, make_pool):
    pool = make_pool(1)
    pool.submit(lambda actor, value: actor.die.remote(), None)
    with pytest.raises(ray.exceptions.ActorDiedError):
        pool.get_next()
    assert not pool.has_free()
    assert pool.pop_idle() is None


def test_actors_come_and_go(make_pool):
    pool, other = make_pool(1), make_pool(1).pop_idle()
    own = pool.pop_idle()
    assert own is not None
    assert pool.pop_idle() is None
    pool.submit(double, 5)
    assert not pool.has_next()
    pool.push(other)
    assert pool.has_next(), "what waited has the new actor"
    with pytest.raises(ValueError):
        pool.push(other)
    assert pool.get_next() == 10
    with pytest.raises(ValueError):
        pool.push(other)
    pool.push(own)
    assert list(pool.map(double, [1, 2, 3])) == [2, 4, 6]


def test_a_call_may_have_several_results(ray):
    @ray.remote
    class Splitter:
        @ray.method(num_returns=2)
        def split(self, value):
            return value, -value

    pool = ray.util.ActorPool([Splitter.remote() for _ in range(2)])
    assert list(pool.map(lambda actor, value: actor.split.remote(value), [1, 2, 3])) == [
        [1, -1], [2, -2], [3, -3],
    ]  # fmt: skip


@pytest.fixture
def double_task(ray):
    return ray.remote(lambda value: 2 * value)


def test_as_completed_gives_every_value_once(ray, double_task):
    refs = [double_task.remote(n) for n in range(25)]
    assert sorted(ray.util.as_completed(refs)) == [2 * n for n in range(25)]
    assert list(ray.util.as_completed([])) == []
    assert len(refs) == 25


def test_as_completed_gives_what_is_done_first(ray, gate):
    hold = gate.waiter()

    @ray.remote
    def wait(value):
        if value == 0:
            hold()
        return value

    refs = [wait.remote(n) for n in range(4)]
    results = ray.util.as_completed(refs, chunk_size=1)
    assert sorted(next(results) for _ in range(3)) == [1, 2, 3]
    gate.open()
    assert list(results) == [0]


def test_as_completed_gives_references_if_asked(ray, double_task):
    refs = [double_task.remote(n) for n in range(3)]
    given = list(ray.util.as_completed(refs, yield_obj_refs=True, timeout=30))
    assert set(given) == set(refs)


def test_map_unordered_limits_the_calls_under_way(ray, double_task):
    taken = []

    def items():
        for n in range(20):
            taken.append(n)
            yield n

    results = ray.util.map_unordered(double_task, items(), backpressure_size=4, chunk_size=1)
    assert taken == []
    got = [next(results)]
    assert len(taken) == 4
    got += results
    assert sorted(got) == [2 * n for n in range(20)]
    every = ray.util.map_unordered(double_task, range(30), backpressure_size=None)
    assert sorted(every) == [2 * n for n in range(30)]


def test_map_unordered_raises_what_a_task_raises(ray):
    @ray.remote
    def fail(value):
        raise KeyError(value)

    with pytest.raises(KeyError):
        list(ray.util.map_unordered(fail, [1]))


@pytest.mark.parametrize(
    "options", [{"chunk_size": 0}, {"num_returns": 1}, {"backpressure_size": 0}]
)
def test_wrong_sizes_are_refused(ray, double_task, options):
    with pytest.raises(ValueError):
        list(ray.util.map_unordered(double_task, [1], **options))
    if "backpressure_size" not in options:
        with pytest.raises(ValueError):
            list(ray.util.as_completed([ray.put(1)], **options))
