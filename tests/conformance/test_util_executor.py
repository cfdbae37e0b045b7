"""Executor: what concurrent.futures promises, over tasks."""

from __future__ import annotations

import concurrent.futures
import functools
import gc
import os
import threading

import pytest

pytestmark = [pytest.mark.conformance, pytest.mark.mray_only("Ray has no executor")]


@pytest.fixture
def executor(ray):
    with ray.util.Executor() as made:
        yield made


def test_calls_run_in_other_processes(executor):
    assert isinstance(executor, concurrent.futures.Executor)
    assert executor.submit(os.getpid).result(timeout=60) != os.getpid()
    assert executor.submit(pow, 2, exp=5, mod=None).result(timeout=60) == 32
    assert executor.submit(functools.partial(max, 3), 5).result(timeout=60) == 5
    assert executor.submit(lambda function, /, **given: given, 1, function=2).result() == {
        "function": 2
    }


def test_many_calls_and_the_tools_of_the_standard_library(executor):
    futures = [executor.submit(lambda n: n * n, n) for n in range(300)]
    done, left = concurrent.futures.wait(futures, timeout=60)
    assert not left
    assert sorted(f.result() for f in done) == [n * n for n in range(300)]
    assert len(list(concurrent.futures.as_completed(futures, timeout=60))) == 300


def test_an_error_is_what_the_call_raised(executor):
    def fail():
        raise KeyError("lost")

    error = executor.submit(fail).exception(timeout=60)
    assert type(error) is KeyError
    assert "fail" in str(error.__cause__)
    with pytest.raises(TypeError):
        executor.submit(fail, "an argument too many").result(timeout=60)
    with pytest.raises(TypeError):
        executor.submit(len, threading.Lock()).result(timeout=60)


@pytest.mark.parametrize("chunksize", [1, 4])
def test_map_keeps_the_order(executor, chunksize):
    def add(a, b):
        return a + b

    assert list(executor.map(add, range(10), range(10, 30), chunksize=chunksize)) == [
        10 + 2 * n for n in range(10)
    ]
    assert list(executor.map(add, [], [], chunksize=chunksize)) == []
    with pytest.raises(ValueError):
        executor.map(add, [1], [1], chunksize=0)


@pytest.mark.parametrize("chunksize", [1, 2])
def test_map_times_out(executor, gate, chunksize):
    hold = gate.waiter()

    def call(n):
        if n == 1:
            hold()
        return n

    results = executor.map(call, range(4), timeout=0.3, chunksize=chunksize)
    with pytest.raises(TimeoutError):
        list(results)
    gate.open()


def test_what_waits_can_be_cancelled(ray, gate):
    hold = gate.waiter()
    with ray.util.Executor(max_workers=1) as executor:
        first, second, third = (executor.submit(hold) for _ in range(3))
        assert first.running()
        assert not first.cancel()
        assert second.cancel()
        assert second.cancelled()
        gate.open()
        assert third.result(timeout=60) is None
        assert concurrent.futures.wait([first, second, third], timeout=60).not_done == set()


def test_shutdown_can_cancel_what_waits(ray, hold):
    body = hold.body()
    executor = ray.util.Executor(max_workers=1)
    first, second = executor.submit(body, 0.2), executor.submit(body)
    hold.wait()
    executor.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(concurrent.futures.CancelledError):
        second.result(timeout=60)
    with pytest.raises(RuntimeError):
        executor.submit(body)
    assert first.result(timeout=60) == "done"
    executor.shutdown()


def test_shutdown_waits_for_all_calls(ray, tally):
    count = tally.adder()
    executor = ray.util.Executor(max_workers=2)
    for _ in range(10):
        executor.submit(count)
    executor.shutdown()
    assert tally.count == 10
    executor.shutdown()


def test_a_dropped_executor_finishes_its_calls(ray):
    executor = ray.util.Executor(max_workers=1)
    futures = [executor.submit(abs, -n) for n in range(5)]
    del executor
    gc.collect()
    assert [f.result(timeout=60) for f in futures] == list(range(5))


def test_a_callback_may_submit_and_wait(executor):
    results = []
    done = threading.Event()

    def again(future):
        results.append(future.result())
        executor.submit(abs, -2).add_done_callback(
            lambda f: (results.append(f.result()), done.set())
        )

    executor.submit(abs, -1).add_done_callback(again)
    assert done.wait(60)
    assert results == [1, 2]


def test_references_stand_for_their_values(ray, executor):
    assert executor.submit(sum, ray.put([1, 2])).result(timeout=60) == 3


def test_options_of_the_tasks(ray):
    def held():
        import mray

        return mray.get_runtime_context().get_assigned_resources()

    with ray.util.Executor(remote_args={"num_cpus": 2}) as executor:
        assert executor.submit(held).result(timeout=60) == {"CPU": 2}
    for wrong in ({"max_workers": 0}, {"remote_args": {"no_such_option": 1}}):
        with pytest.raises(ValueError):
            ray.util.Executor(**wrong)


@pytest.mark.parametrize("wait", [True, False])
def test_shutdown_can_cancel_all_that_has_not_begun(ray, hold, tally, wait):
    """All are under way: those behind the first are with its worker or in the owner's queue."""
    body, count = hold.body(), tally.adder()

    def call(seconds):
        count()
        return body(seconds)

    executor = ray.util.Executor(max_workers=100, remote_args={"num_cpus": 4})
    first = executor.submit(call, 0.3)
    hold.wait()
    futures = [executor.submit(call, 60) for _ in range(50)]
    executor.shutdown(wait=wait, cancel_futures=True)
    assert not concurrent.futures.wait([first, *futures], timeout=30).not_done
    assert first.result() == "done"
    assert all(future.cancelled() for future in futures)
    assert tally.count == 1
    executor.shutdown()
