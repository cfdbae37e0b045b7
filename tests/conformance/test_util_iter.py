"""Parallel iterators: shards made by actors, transformed there, gathered here."""

from __future__ import annotations

import importlib
import os

import pytest

pytestmark = pytest.mark.conformance


@pytest.fixture
def module(ray):
    return importlib.import_module(f"{ray.__name__}.util.iter")


def test_items_are_dealt_out_and_gathered_in_turn(module):
    items = module.from_items([1, 2, 3, 4, 5], num_shards=2)
    assert items.num_shards() == 2
    assert repr(items) == "ParallelIterator[from_items[int, 5, shards=2]]"
    assert [list(shard) for shard in items.shards()] == [[1, 3, 5], [2, 4]]
    assert list(items.get_shard(1)) == [2, 4]
    for _ in range(2):
        assert list(items.gather_sync()) == [1, 2, 3, 4, 5]
    assert items.take(3) == [1, 2, 3]
    with pytest.raises(TypeError):
        iter(items)


def test_ranges_and_iterators(module):
    numbers = module.from_range(10, num_shards=3)
    assert list(numbers.gather_sync()) == [0, 3, 6, 1, 4, 7, 2, 5, 8, 9]
    assert module.from_range(3, num_shards=1, repeat=True).take(7) == [0, 1, 2, 0, 1, 2, 0]
    made = module.from_iterators([range(2), lambda: iter([7])])
    assert list(made.gather_sync()) == [0, 7, 1]


def test_transforms_run_in_the_actors(module):
    pids = module.from_range(4).for_each(lambda _: os.getpid()).gather_sync()
    assert len({*pids, os.getpid()}) == 3
    items = module.from_range(8)
    even = items.for_each(lambda n: n * 10).filter(lambda n: n % 20 == 0)
    assert list(even.gather_sync()) == [0, 40, 20, 60]
    assert list(items.batch(3).gather_sync()) == [[0, 1, 2], [4, 5, 6], [3], [7]]
    assert list(items.batch(3).flatten().gather_sync()) == list(items.gather_sync())
    assert list(module.from_items([1, 2]).combine(lambda n: [n, -n]).gather_sync()) == [
        1,
        2,
        -1,
        -2,
    ]
    doubled = module.from_items([1, 2]).transform(lambda items: (2 * n for n in items))
    assert list(doubled.gather_sync()) == [2, 4]


def test_gathering_in_other_ways(module):
    items = module.from_range(10)
    assert sorted(items.gather_async()) == list(range(10))
    assert sorted(items.gather_async(batch_ms=5, num_async=3)) == list(range(10))
    assert list(module.from_items([1, 2, 3]).batch_across_shards()) == [[1, 2], [3]]
    assert sorted(items.local_shuffle(3, seed=1).gather_sync()) == list(range(10))
    assert list(items.select_shards([1]).gather_sync()) == [5, 6, 7, 8, 9]
    both = module.from_items([1, 2]).union(module.from_items([3, 4]))
    assert list(both.gather_sync()) == [1, 2, 3, 4]


def test_repartition_keeps_every_item(module):
    parts = module.from_range(20).for_each(lambda n: n * 2).repartition(3)
    assert parts.num_shards() == 3
    assert sorted(parts.gather_sync()) == [2 * n for n in range(20)]


def test_local_iterators(module):
    local = module.from_items([1, 2, 3, 4]).gather_sync()
    assert local.take(1) == [1]
    assert next(local) == 2
    assert list(local) == [3, 4]
    local = module.from_items([1, 2, 3, 4]).gather_sync()
    assert list(local.for_each(lambda n: n + 1).filter(lambda n: n % 2).batch(2)) == [[3, 5]]
    nested = module.from_items([1, 2]).gather_sync().combine(lambda n: [n, n]).batch(2).flatten()
    assert sorted(nested.shuffle(2, seed=0)) == [1, 1, 2, 2]


def test_what_a_transform_raises_is_raised(module):
    def fail(value):
        raise KeyError(value)

    with pytest.raises(KeyError):
        list(module.from_items([1]).for_each(fail).gather_sync())


def test_actors_of_ones_own(ray, module):
    base = module.ParallelIteratorWorker

    class Source(base):
        def __init__(self, count):
            base.__init__(self, range(count), False)

    actors = [ray.remote(Source).remote(count) for count in (1, 3)]
    assert list(module.from_actors(actors).gather_sync()) == [0, 0, 1, 2]


@pytest.mark.mray_only("one gathering disturbs the other in Ray")
def test_two_gatherings_at_once(module):
    items = module.from_range(4)
    first, second = items.gather_sync(), items.gather_sync()
    assert [next(first), next(second), next(first)] == [0, 0, 2]
    assert list(second) == [2, 1, 3]


@pytest.mark.mray_only("Ray has it")
def test_what_is_missing_is_refused(module):
    with pytest.raises(ValueError, match="not supported"):
        module.from_range(2).for_each(abs, max_concurrency=2)
