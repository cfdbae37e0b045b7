"""A store that is smaller than the live data: everything stays readable."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.conformance

#: Bytes of the store; the least that Ray accepts is a little below.
STORE = 78_643_200
MB = 1_000_000


@pytest.fixture(scope="module")
def ray(engine):
    """A cluster of its own, with a small store."""
    engine.init(address="local", num_cpus=4, log_to_driver=False, object_store_memory=STORE)
    yield engine
    engine.shutdown()


def filled(number, mega_bytes=10):
    import numpy as np

    return np.full(mega_bytes * MB // 8, number, dtype=np.int64)


def test_puts_beyond_the_capacity_can_all_be_read(ray):
    refs = [ray.put(filled(n)) for n in range(20)]
    for n, ref in enumerate(refs):
        got = ray.get(ref, timeout=60)
        assert (got == n).all()
        del got
    for n in (19, 0, 10, 5):
        assert ray.get(refs[n], timeout=60)[-1] == n


def test_objects_are_readable_in_any_order_again_and_again(ray):
    import random

    refs = [ray.put(filled(n, 5)) for n in range(30)]
    order = list(range(30)) * 2
    random.Random(1).shuffle(order)
    for n in order:
        assert ray.get(refs[n], timeout=60)[0] == n


def test_results_beyond_the_capacity_can_all_be_read(ray):
    @ray.remote
    def make(number):
        import numpy as np

        return np.full(10 * 1_000_000 // 8, number, dtype=np.int64)

    refs = [make.remote(n) for n in range(20)]
    ready, rest = ray.wait(refs, num_returns=20, timeout=100)
    assert rest == []
    assert ready == refs
    for n, ref in enumerate(refs):
        assert (ray.get(ref, timeout=60) == n).all()


def test_spilled_objects_are_arguments_of_tasks_and_actors(ray):
    @ray.remote
    def first(array):
        return int(array[0])

    @ray.remote
    class Reader:
        def read(self, array):
            return int(array[-1])

        def read_inside(self, box):
            return int(ray.get(box[0])[-1])

    refs = [ray.put(filled(n)) for n in range(16)]
    assert ray.get([first.remote(ref) for ref in refs], timeout=100) == list(range(16))
    reader = Reader.remote()
    assert ray.get([reader.read.remote(ref) for ref in refs], timeout=100) == list(range(16))
    assert ray.get([reader.read_inside.remote([ref]) for ref in refs], timeout=100) == list(
        range(16)
    )


def test_a_task_takes_several_spilled_objects_at_once(ray):
    @ray.remote
    def total(*arrays):
        return sum(int(array[0]) for array in arrays)

    refs = [ray.put(filled(n)) for n in range(14)]
    answers = [total.remote(*refs[n : n + 4]) for n in range(0, 12, 2)]
    assert ray.get(answers, timeout=100) == [sum(range(n, n + 4)) for n in range(0, 12, 2)]


def test_a_chain_of_tasks_whose_results_are_all_kept(ray):
    @ray.remote
    def step(array):
        return array + 1

    refs = [ray.put(filled(0))]
    for _ in range(15):
        refs.append(step.remote(refs[-1]))
    assert ray.get(refs[-1], timeout=100)[0] == 15
    for n, ref in enumerate(refs):
        assert ray.get(ref, timeout=60)[0] == n


def test_what_is_being_read_stays_as_it_is(ray):
    held = ray.get(ray.put(filled(7)))
    refs = [ray.put(filled(n)) for n in range(12)]
    assert (held == 7).all()
    for n, ref in enumerate(refs):
        assert ray.get(ref, timeout=60)[0] == n
    assert (held == 7).all()


def test_nested_objects_survive_spilling(ray):
    outer = ray.put([ray.put(filled(n)) for n in range(15)])
    inner = ray.get(outer)
    del outer
    for n, ref in enumerate(inner):
        assert ray.get(ref, timeout=60)[0] == n


def test_many_middling_objects_beyond_the_capacity(ray):
    refs = [ray.put(bytes([n % 256]) * 300_000) for n in range(500)]
    for n, ref in enumerate(refs):
        value = ray.get(ref, timeout=60)
        assert value[0] == n % 256
        assert len(value) == 300_000


def test_one_object_of_most_of_the_store_after_another(ray):
    refs = [ray.put(filled(n, 60)) for n in range(3)]
    for n, ref in enumerate(refs):
        got = ray.get(ref, timeout=60)
        assert got[0] == got[-1] == n
        del got


def test_spilled_objects_go_when_their_refs_go(ray, glass):
    refs = [ray.put(filled(n)) for n in range(20)]
    seen = [glass(ref) for ref in refs]
    refs.clear()
    assert all(one.wait_gone() for one in seen)
    again = [ray.put(filled(n)) for n in range(20)]
    assert ray.get(again[0], timeout=60)[0] == 0


def test_threads_put_and_get_beyond_the_capacity(ray):
    from concurrent.futures import ThreadPoolExecutor

    def work(number):
        refs = [ray.put(filled(number * 100 + n, 3)) for n in range(10)]
        return [int(ray.get(ref, timeout=60)[0]) for ref in refs]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(4)))
    assert results == [[number * 100 + n for n in range(10)] for number in range(4)]


def test_workers_put_beyond_the_capacity(ray):
    @ray.remote
    def produce(number):
        import numpy as np

        refs = [ray.put(np.full(625_000, number * 10 + n)) for n in range(6)]
        return refs, [int(ray.get(ref)[0]) for ref in refs]

    made = ray.get([produce.remote(n) for n in range(6)], timeout=100)
    for number, (refs, seen) in enumerate(made):
        assert seen == [number * 10 + n for n in range(6)]
        assert [int(ray.get(ref, timeout=60)[0]) for ref in refs] == seen
