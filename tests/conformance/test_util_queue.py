"""Queue: one queue for many processes, with limits, timeouts, batches and an end."""

from __future__ import annotations

import asyncio
import importlib
import queue

import pytest

pytestmark = pytest.mark.conformance


@pytest.fixture
def module(ray):
    return importlib.import_module(f"{ray.__name__}.util.queue")


@pytest.fixture
def make_queue(module):
    queues = []

    def make(*args, **kwargs):
        queues.append(module.Queue(*args, **kwargs))
        return queues[-1]

    yield make
    for made in queues:
        made.shutdown(force=True)


def test_items_come_out_in_order(make_queue):
    q = make_queue()
    for item in (1, "two", [3], None):
        q.put(item)
    assert [q.get() for _ in range(4)] == [1, "two", [3], None]


def test_a_queue_knows_its_size(make_queue):
    q = make_queue(2)
    assert (q.size(), q.qsize(), len(q), q.empty(), q.full()) == (0, 0, 0, True, False)
    q.put(1)
    assert (q.size(), q.empty(), q.full()) == (1, False, False)
    q.put(2)
    assert (q.size(), q.empty(), q.full()) == (2, False, True)
    unbounded = make_queue()
    unbounded.put(1)
    assert not unbounded.full()
    assert unbounded.maxsize == 0


def test_errors_are_those_of_the_standard_library_too(module, make_queue):
    q = make_queue(1)
    with pytest.raises(queue.Empty):
        q.get_nowait()
    with pytest.raises(module.Empty):
        q.get(block=False)
    with pytest.raises(module.Empty):
        q.get(timeout=0.05)
    q.put_nowait(1)
    with pytest.raises(queue.Full):
        q.put_nowait(2)
    with pytest.raises(module.Full):
        q.put(2, block=False)
    with pytest.raises(module.Full):
        q.put(2, timeout=0.05)
    assert q.get(timeout=10) == 1
    assert q.empty(), "what did not fit in time is not put later"


@pytest.mark.parametrize("call", ["put", "get"])
def test_a_negative_timeout_is_refused(make_queue, call):
    arguments = (1,) if call == "put" else ()
    with pytest.raises(ValueError):
        getattr(make_queue(), call)(*arguments, timeout=-1)


@pytest.mark.mray_only("Ray finds no item and no room without waiting a while")
def test_a_timeout_of_nothing_takes_what_is_there(make_queue):
    q = make_queue(1)
    q.put(1, timeout=0)
    assert q.get(timeout=0) == 1


def test_get_waits_for_an_item(ray, make_queue):
    q = make_queue()

    @ray.remote
    def take(q):
        return q.get()

    taken = take.remote(q)
    assert ray.wait([taken], timeout=0.05)[0] == []
    q.put("late")
    assert ray.get(taken) == "late"


def test_put_waits_for_room(ray, make_queue):
    q = make_queue(1)
    q.put(1)

    @ray.remote
    def add(q):
        q.put(2)

    added = add.remote(q)
    assert ray.wait([added], timeout=0.05)[0] == []
    assert q.get() == 1
    ray.get(added)
    assert q.get() == 2


def test_producers_and_consumers_in_many_processes(ray, make_queue):
    q = make_queue(5)

    @ray.remote
    def produce(q, first):
        for item in range(first, first + 50):
            q.put(item)

    @ray.remote
    def consume(q):
        return [q.get() for _ in range(50)]

    producers = [produce.remote(q, first) for first in (0, 50)]
    consumers = [consume.remote(q) for _ in range(2)]
    first, second = ray.get(consumers)
    ray.get(producers)
    assert sorted(first + second) == list(range(100))
    assert q.empty()


def test_batches_are_all_or_nothing(module, make_queue):
    q = make_queue(4)
    q.put_nowait_batch([1, 2, 3])
    with pytest.raises(module.Full):
        q.put_nowait_batch([4, 5])
    assert q.size() == 3
    with pytest.raises(module.Empty):
        q.get_nowait_batch(4)
    assert q.get_nowait_batch(2) == [1, 2]
    assert q.get_nowait_batch(0) == []
    assert q.get_nowait_batch(1) == [3]


def test_wrong_batches_are_refused(make_queue):
    q = make_queue()
    with pytest.raises(TypeError):
        q.put_nowait_batch(1)
    with pytest.raises(TypeError):
        q.get_nowait_batch(1.5)
    with pytest.raises(ValueError):
        q.get_nowait_batch(-1)


def test_async_methods_in_the_driver(module, make_queue):
    q = make_queue(1)

    async def run():
        await q.put_async(1)
        with pytest.raises(module.Full):
            await q.put_async(2, block=False)
        with pytest.raises(module.Full):
            await q.put_async(2, timeout=0.05)
        assert await q.get_async() == 1
        with pytest.raises(module.Empty):
            await q.get_async(block=False)
        with pytest.raises(module.Empty):
            await q.get_async(timeout=0.05)
        with pytest.raises(ValueError):
            await q.put_async(1, timeout=-1)
        with pytest.raises(ValueError):
            await q.get_async(timeout=-1)
        taken = [asyncio.ensure_future(q.get_async()) for _ in range(3)]
        for item in range(3):
            await q.put_async(item)
        assert sorted(await asyncio.gather(*taken)) == [0, 1, 2]

    asyncio.run(run())


def test_async_methods_in_an_actor(ray, make_queue):
    q = make_queue()

    @ray.remote
    class Echo:
        async def run(self, q, answers):
            for _ in range(3):
                await answers.put_async(await q.get_async() * 10)

    answers = make_queue()
    done = Echo.remote().run.remote(q, answers)
    for item in (1, 2, 3):
        q.put(item)
    assert [answers.get() for _ in range(3)] == [10, 20, 30]
    ray.get(done)


def test_a_reference_is_put_as_its_value(ray, make_queue):
    q = make_queue()
    q.put(ray.put("value"))
    q.put([ray.put("inside")])
    assert q.get() == "value"
    [ref] = q.get()
    assert ray.get(ref) == "inside"


def test_actor_options_reach_the_actor(ray, make_queue):
    q = make_queue(actor_options={"name": "the queue", "num_cpus": 1})
    q.put(1)
    assert ray.get_actor("the queue") == q.actor
    with pytest.raises(ValueError):
        make_queue(actor_options={"no_such_option": 1})


def test_shutdown_ends_the_actor(ray, make_queue):
    for force in (False, True):
        q = make_queue()
        q.put(1)
        actor = q.actor
        q.shutdown(force=force)
        assert q.actor is None
        with pytest.raises(ray.exceptions.RayActorError):
            ray.get(actor.__ray_ready__.remote(), timeout=30)
        q.shutdown()
        with pytest.raises((RuntimeError, AttributeError)):
            q.get()


def test_shutdown_does_not_wait_for_ever_for_who_waits(ray, make_queue):
    q = make_queue()

    @ray.remote
    def take(q):
        q.get()

    taken = take.remote(q)
    assert ray.wait([taken], timeout=0.05)[0] == []
    q.shutdown(grace_period_s=0.2)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(taken, timeout=30)
