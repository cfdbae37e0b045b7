"""multiprocessing.Pool over actors: the map family, callbacks, timeouts, and its ends."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import queue

import pytest

pytestmark = pytest.mark.conformance


@pytest.fixture
def module(ray):
    return importlib.import_module(f"{ray.__name__}.util.multiprocessing")


@pytest.fixture(scope="module")
def shared_pool(ray):
    pool = importlib.import_module(f"{ray.__name__}.util.multiprocessing").Pool(2)
    yield pool
    pool.terminate()


@pytest.fixture
def failure(ray):
    return importlib.import_module(f"{ray.__name__}.util.multiprocessing.pool").PoolTaskError


@pytest.fixture
def make_pool(module):
    pools = []

    def make(*args, **kwargs):
        pools.append(module.Pool(*args, **kwargs))
        return pools[-1]

    yield make
    for pool in pools:
        pool.terminate()


def make_double():
    return lambda value: 2 * value


def make_picky():
    """Fails with a 2."""

    def picky(value):
        if value == 2:
            raise ValueError("it was 2")
        return value

    return picky


def test_the_package_has_the_names_of_the_standard_library(module):
    assert module.TimeoutError is multiprocessing.TimeoutError
    assert callable(module.JoinableQueue)
    pool_module = importlib.import_module(f"{module.__name__}.pool")
    assert pool_module.Pool is module.Pool


def test_apply_calls_with_arguments_in_another_process(shared_pool):
    def call(a, b=2, *, c=3):
        return a, b, c

    assert shared_pool.apply(call, (1,)) == (1, 2, 3)
    assert shared_pool.apply(call, [1, 5], {"c": 6}) == (1, 5, 6)
    assert shared_pool.apply(os.getpid) != os.getpid()
    assert shared_pool.apply_async(call, (1,), {"b": 7}).get(timeout=30) == (1, 7, 3)


def test_calls_take_turns_over_the_processes(shared_pool):
    assert len({shared_pool.apply(os.getpid) for _ in range(6)}) == 2


@pytest.mark.parametrize("chunksize", [None, 1, 3, 100])
def test_map_keeps_the_order(shared_pool, chunksize):
    expected = [2 * n for n in range(11)]
    assert shared_pool.map(make_double(), range(11), chunksize=chunksize) == expected
    assert shared_pool.map(make_double(), iter(range(11)), chunksize) == expected
    assert shared_pool.map_async(make_double(), range(11), chunksize).get() == expected


def test_starmap_unpacks_its_items(shared_pool):
    def join(a, b):
        return f"{a}{b}"

    pairs = [(1, "a"), (2, "b"), (3, "c")]
    assert shared_pool.starmap(join, pairs) == ["1a", "2b", "3c"]
    assert shared_pool.starmap(join, iter(pairs), 2) == ["1a", "2b", "3c"]
    assert shared_pool.starmap_async(join, pairs).get() == ["1a", "2b", "3c"]


def test_maps_over_nothing(shared_pool):
    assert shared_pool.map(make_double(), []) == []
    assert shared_pool.starmap(make_double(), []) == []
    assert list(shared_pool.imap(make_double(), [])) == []
    assert list(shared_pool.imap_unordered(make_double(), iter([]))) == []


@pytest.mark.parametrize("chunksize", [1, 3])
def test_imap_keeps_the_order(shared_pool, chunksize):
    expected = [2 * n for n in range(10)]
    assert list(shared_pool.imap(make_double(), range(10), chunksize)) == expected
    assert list(shared_pool.imap(make_double(), iter(range(10)), chunksize)) == expected
    got = shared_pool.imap_unordered(make_double(), range(10), chunksize)
    assert sorted(got) == expected


def test_imap_reads_its_items_as_it_is_read(shared_pool):
    taken = []

    def items():
        for n in range(20):
            taken.append(n)
            yield n

    results = shared_pool.imap(make_double(), items())
    assert len(taken) == 2, "one for each process"
    assert next(results) == 0
    assert len(taken) <= 4
    assert list(results) == [2 * n for n in range(1, 20)]
    with pytest.raises(StopIteration):
        next(results)


def test_imap_unordered_gives_what_is_done_first(shared_pool, gate):
    hold = gate.waiter()

    def call(value):
        if value == 0:
            hold()
        return value

    results = shared_pool.imap_unordered(call, range(2))
    assert results.next(timeout=60) == 1
    with pytest.raises(multiprocessing.TimeoutError):
        results.next(timeout=0.05)
    gate.open()
    assert list(results) == [0]


def test_imap_times_out_and_goes_on(shared_pool, gate):
    hold = gate.waiter()

    def call(value):
        if value == 0:
            hold()
        return value

    results = shared_pool.imap(call, range(6))
    with pytest.raises(multiprocessing.TimeoutError):
        results.next(timeout=0.05)
    gate.open()
    assert list(results) == list(range(6))


def test_imap_gives_an_error_in_the_place_of_a_result(shared_pool, failure):
    for call in (shared_pool.imap, shared_pool.imap_unordered):
        results = list(call(make_picky(), [1, 2, 3]))
        [error] = [result for result in results if isinstance(result, failure)]
        assert isinstance(error.underlying, ValueError)
        assert sorted(result for result in results if result is not error) == [1, 3]


def test_what_a_call_raises_is_raised(shared_pool):
    for call in (
        lambda: shared_pool.apply(make_picky(), (2,)),
        lambda: shared_pool.map(make_picky(), [1, 2, 3]),
        lambda: shared_pool.starmap(make_picky(), [(1,), (2,)]),
        lambda: shared_pool.map_async(make_picky(), [2, 2]).get(timeout=30),
    ):
        with pytest.raises(ValueError, match="it was 2"):
            call()
    assert shared_pool.map(make_picky(), [1, 3]) == [1, 3], "the pool still works"


@pytest.mark.mray_only("Ray does not tell where it was raised")
def test_an_error_tells_where_it_was_raised(shared_pool):
    with pytest.raises(ValueError, match="it was 2") as caught:
        shared_pool.map(make_picky(), [2])
    [note] = caught.value.__notes__
    assert "in picky" in note


def test_a_result_knows_whether_it_is_ready(shared_pool, gate):
    hold = gate.waiter()
    result = shared_pool.apply_async(hold)
    assert not result.ready()
    result.wait(timeout=0.05)
    with pytest.raises(ValueError):
        result.successful()
    with pytest.raises(multiprocessing.TimeoutError):
        result.get(timeout=0.05)
    gate.open()
    result.wait()
    assert result.ready()
    assert result.successful()
    assert result.get() is None
    failed = shared_pool.map_async(make_picky(), [1, 2, 3])
    failed.wait()
    assert not failed.successful()


def test_callbacks_have_the_result(shared_pool):
    called = queue.Queue()
    callbacks = {"callback": called.put, "error_callback": lambda error: called.put(("no", error))}
    shared_pool.apply_async(make_double(), (4,), **callbacks).get()
    assert called.get(timeout=30) == 8
    shared_pool.map_async(make_double(), [1, 2], 1, **callbacks).wait()
    assert sorted(called.get(timeout=30)) == [2, 4]
    shared_pool.starmap_async(make_double(), [(3,)], **callbacks).wait()
    assert called.get(timeout=30) == [6]
    shared_pool.map_async(make_double(), [], **callbacks).wait()
    if called.empty():
        assert called.get(timeout=30) == []
    else:
        assert called.get() == []
    assert called.empty()


def test_an_error_callback_has_the_first_error_once(shared_pool):
    called = queue.Queue()
    callbacks = {
        "callback": lambda result: called.put(("no", result)),
        "error_callback": called.put,
    }
    result = shared_pool.map_async(make_picky(), [2, 1, 2, 3], 1, **callbacks)
    with pytest.raises(ValueError):
        result.get(timeout=30)
    error = called.get(timeout=30)
    assert isinstance(getattr(error, "underlying", error), ValueError)
    assert called.empty()


def test_an_initializer_runs_in_every_process(make_pool):
    def start(value):
        import os

        os.environ["SET_BY_THE_INITIALIZER"] = value

    def look(_):
        import os

        return os.getpid(), os.environ["SET_BY_THE_INITIALIZER"]

    pool = make_pool(2, initializer=start, initargs=("here",))
    seen = set(pool.map(look, range(4), chunksize=1))
    assert len(seen) == 2
    assert {value for _, value in seen} == {"here"}


def test_an_initializer_that_fails_fails_the_pool(ray, make_pool):
    def start():
        raise RuntimeError("no start")

    with pytest.raises(ray.exceptions.RayActorError, match="no start"):
        make_pool(1, initializer=start)


def test_processes_are_replaced_after_their_chunks(make_pool):
    pool = make_pool(1, maxtasksperchild=2)
    pids = pool.map(lambda _: os.getpid(), range(6), chunksize=1)
    assert len(set(pids)) == 3
    assert pids[0] == pids[1] != pids[2]


def test_the_number_of_processes_is_that_of_the_cpus_at_most(make_pool):
    pids = make_pool().map(lambda _: os.getpid(), range(40), chunksize=1)
    assert len(set(pids)) == 4
    for wrong in (0, -1, 5):
        with pytest.raises(ValueError):
            make_pool(wrong)


def test_options_of_the_actors(ray, make_pool):
    name = ray.__name__

    def held():
        import importlib

        return importlib.import_module(name).get_runtime_context().get_assigned_resources()

    assert make_pool(1, ray_remote_args={"num_cpus": 2}).apply(held) == {"CPU": 2}
    with pytest.raises(ValueError):
        make_pool(1, ray_remote_args={"no_such_option": 1})


def test_close_lets_calls_finish(make_pool, gate):
    pool = make_pool(2)
    hold = gate.waiter()

    def call(value):
        hold()
        return value

    result = pool.map_async(call, range(4), chunksize=1)
    with pytest.raises(ValueError):
        pool.join()
    pool.close()
    for refused in (
        lambda: pool.apply(make_double(), (1,)),
        lambda: pool.map(make_double(), [1]),
        lambda: pool.imap(make_double(), [1]),
        pool.__enter__,
    ):
        with pytest.raises(ValueError):
            refused()
    gate.open()
    pool.join()
    assert result.get(timeout=30) == [0, 1, 2, 3]
    pool.close()
    pool.join()


def test_terminate_ends_what_runs(ray, make_pool, make_gate, wait_exit, tmp_path):
    pool = make_pool(1)
    pid = pool.apply(os.getpid)
    result = pool.apply_async(make_gate().waiter())
    pool.terminate()
    assert wait_exit(pid)
    with pytest.raises(ray.exceptions.RayActorError):
        result.get(timeout=60)
    pool.join()


def test_a_with_statement_terminates(module, wait_exit):
    with module.Pool(1) as pool:
        pid = pool.apply(os.getpid)
    assert wait_exit(pid)
    with pytest.raises(ValueError):
        pool.map(make_double(), [1])


def test_a_process_that_dies_fails_its_calls(ray, make_pool):
    pool = make_pool(1)
    with pytest.raises(ray.exceptions.RayActorError):
        pool.apply(os._exit, (1,))


def test_a_pool_within_a_pool(module, shared_pool):
    name = module.__name__

    def inner(value):
        import importlib

        with importlib.import_module(name).Pool(1) as pool:
            return pool.map(lambda item: item + value, [1, 2])

    assert shared_pool.map(inner, [10, 20]) == [[11, 12], [21, 22]]


def test_a_pool_in_a_task(ray, module):
    name = module.__name__

    @ray.remote
    def task():
        import importlib

        with importlib.import_module(name).Pool(2) as pool:
            return sum(pool.imap_unordered(lambda item: item, range(5)))

    assert ray.get(task.remote()) == 10


def test_a_time_below_zero_is_over(ray, make_gate):
    gate = make_gate()
    with importlib.import_module(f"{ray.__name__}.util.multiprocessing").Pool(1) as pool:
        result = pool.apply_async(gate.waiter())
        with pytest.raises(multiprocessing.TimeoutError):
            result.get(timeout=-1)
        gate.open()
        assert result.get(timeout=60) is None
