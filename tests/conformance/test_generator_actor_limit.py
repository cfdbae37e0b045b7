"""_actor_generator_backpressure_num_objects: one limit for all generators of an actor."""

from __future__ import annotations

import time

import pytest

pytestmark = pytest.mark.conformance

TIMEOUT_S = 60
NAME = "_actor_generator_backpressure_num_objects"


@pytest.fixture(scope="module")
def threads(ray):
    @ray.remote(max_concurrency=4)
    class Threads:
        def __init__(self):
            self.made = {}

        def items(self, name, count):
            for index in range(count):
                self.made[name] = index + 1
                yield index

        def counts(self):
            return dict(self.made)

    return Threads


@pytest.fixture(scope="module")
def coroutines(ray):
    @ray.remote
    class Coroutines:
        def __init__(self):
            self.made = {}

        async def items(self, name, count):
            for index in range(count):
                self.made[name] = index + 1
                yield index

        async def counts(self):
            return dict(self.made)

    return Coroutines


@pytest.fixture(params=["threads", "coroutines"])
def kind(request):
    return request.getfixturevalue(request.param)


def settled(ray, actor):
    """How many items there are once no more are made for a while."""
    last, since = None, time.monotonic()
    while time.monotonic() - since < 0.3:
        now = ray.get(actor.counts.remote(), timeout=TIMEOUT_S)
        if now != last:
            last, since = now, time.monotonic()
    return last


def test_one_generator_pauses_at_the_limit(ray, kind):
    actor = kind.options(**{NAME: 3}).remote()
    stream = actor.items.remote("a", 20)
    assert settled(ray, actor)["a"] <= 4
    assert [ray.get(ref, timeout=TIMEOUT_S) for ref in stream] == list(range(20))


def test_all_generators_together_pause_at_the_limit(ray, kind):
    actor = kind.options(**{NAME: 4}).remote()
    first, second = actor.items.remote("a", 20), actor.items.remote("b", 20)
    assert 4 <= sum(settled(ray, actor).values()) <= 6
    taken = [[], []]
    streams = [first, second]
    while any(len(items) < 20 for items in taken):
        for items, stream in zip(taken, streams, strict=True):
            if len(items) < 20 and ray.wait([stream], timeout=0.05)[0]:
                items.append(ray.get(next(stream), timeout=TIMEOUT_S))
    assert taken == [list(range(20))] * 2


def test_a_generators_own_limit_holds_beside_that_of_its_actor(ray, kind):
    actor = kind.options(**{NAME: 100}).remote()
    limited = actor.items.options(_generator_backpressure_num_objects=2)
    stream = limited.remote("a", 20)
    assert settled(ray, actor)["a"] <= 3
    assert [ray.get(ref, timeout=TIMEOUT_S) for ref in stream] == list(range(20))


def test_room_of_a_generator_that_nobody_wants_is_given_back(ray, kind):
    actor = kind.options(**{NAME: 2}).remote()
    unwanted = actor.items.remote("a", 20)
    settled(ray, actor)
    stream = actor.items.remote("b", 5)
    del unwanted
    assert [ray.get(ref, timeout=TIMEOUT_S) for ref in stream] == list(range(5))


def test_without_a_limit_generators_run_ahead(ray, kind):
    actor = kind.options(**{NAME: -1}).remote()
    stream = actor.items.remote("a", 20)
    assert settled(ray, actor)["a"] == 20
    assert len(list(stream)) == 20


@pytest.mark.parametrize("value", [0, -2])
def test_the_limit_is_a_number_of_items(ray, threads, value):
    with pytest.raises(ValueError):
        threads.options(**{NAME: value}).remote()
