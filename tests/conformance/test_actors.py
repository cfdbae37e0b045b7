"""Actors: making them, calling them, naming them, passing them on."""

from __future__ import annotations

import os

import pytest

pytestmark = pytest.mark.conformance


def test_an_actor_keeps_state_between_calls(ray):
    @ray.remote
    class Counter:
        def __init__(self, start, *, step=1):
            self.value, self.step = start, step

        def add(self, times=1):
            self.value += times * self.step
            return self.value

    counter = Counter.remote(10, step=2)
    assert ray.get([counter.add.remote(), counter.add.remote(times=3)]) == [12, 18]


def test_actors_of_one_class_share_nothing(ray):
    @ray.remote
    class Box:
        def __init__(self):
            self.items = []

        def add(self, item):
            self.items.append(item)
            return self.items

        def pid(self):
            return os.getpid()

    a, b = Box.remote(), Box.remote()
    ray.get(a.add.remote(1))
    assert ray.get(b.add.remote(2)) == [2]
    assert len({ray.get(a.pid.remote()), ray.get(b.pid.remote()), os.getpid()}) == 3


def test_calls_of_one_caller_run_in_order(ray):
    @ray.remote
    class Log:
        def __init__(self):
            self.lines = []

        def write(self, line):
            self.lines.append(line)

        def read(self):
            return self.lines

    log = Log.remote()
    for i in range(300):
        log.write.remote(i)
    assert ray.get(log.read.remote()) == list(range(300))


def test_order_is_kept_though_an_argument_comes_late(ray, gate):
    wait_open = gate.waiter()

    @ray.remote
    def held():
        wait_open()
        return "late"

    @ray.remote
    class Log:
        def __init__(self):
            self.lines = []

        def write(self, line):
            self.lines.append(line)
            return list(self.lines)

    log = Log.remote()
    log.write.remote(held.remote())
    last = log.write.remote("next")
    assert ray.wait([last], timeout=0.05) == ([], [last])
    gate.open()
    assert ray.get(last, timeout=60) == ["late", "next"]


def test_a_method_may_return_several_values(ray):
    @ray.remote
    class Pairs:
        @ray.method(num_returns=2)
        def declared(self):
            return 1, 2

        def plain(self):
            return 3, 4

    pairs = Pairs.remote()
    first, second = pairs.declared.remote()
    assert ray.get([first, second]) == [1, 2]
    third, fourth = pairs.plain.options(num_returns=2).remote()
    assert ray.get([third, fourth]) == [3, 4]
    assert ray.get(pairs.plain.remote()) == (3, 4)


def test_inherited_static_and_class_methods_work(ray):
    class Base:
        kind = "base"

        def name(self):
            return self.kind

        @staticmethod
        def twice(x):
            return 2 * x

        @classmethod
        def label(cls):
            return cls.__name__

    @ray.remote
    class Derived(Base):
        kind = "derived"

        def name(self):
            return "really " + super().name()

    actor = Derived.remote()
    refs = [actor.name.remote(), actor.twice.remote(4), actor.label.remote()]
    assert ray.get(refs) == ["really derived", 8, "Derived"]


def test_options_of_the_decorator_and_of_one_actor_hold(ray):
    @ray.remote(num_cpus=1)
    class Named:
        def name(self):
            return ray.get_runtime_context().get_actor_name()

    assert ray.get(Named.options(name="by options", num_cpus=0).remote().name.remote()) == (
        "by options"
    )


def test_classes_and_methods_cannot_be_called_directly(ray):
    @ray.remote
    class Plain:
        def method(self):
            return 1

    with pytest.raises(TypeError, match="remote"):
        Plain()
    with pytest.raises(TypeError, match="remote"):
        Plain.remote().method()


def test_wrong_calls_raise_at_the_call(ray):
    @ray.remote
    class Plain:
        def __init__(self, a):
            self.a = a

        def method(self, b):
            return self.a + b

    with pytest.raises(TypeError, match="missing a required argument"):
        Plain.remote()
    actor = Plain.remote(1)
    with pytest.raises(TypeError, match="too many positional arguments"):
        actor.method.remote(1, 2)
    with pytest.raises(AttributeError):
        actor.no_such_method.remote()
    with pytest.raises(ValueError, match="nonsense"):
        Plain.options(nonsense=1)


def test_an_exception_in_a_method_does_not_end_the_actor(ray):
    @ray.remote
    class Moody:
        def fail(self):
            raise KeyError("on purpose")

        def work(self):
            return "fine"

    actor = Moody.remote()
    failed = actor.fail.remote()
    assert ray.get(actor.work.remote()) == "fine"
    with pytest.raises(KeyError) as caught:
        ray.get(failed)
    assert isinstance(caught.value, ray.exceptions.RayTaskError)
    assert "fail" in str(caught.value)


def test_a_handle_works_in_a_task(ray):
    @ray.remote
    class Counter:
        def __init__(self):
            self.value = 0

        def add(self):
            self.value += 1
            return self.value

    @ray.remote
    def use(counter, times):
        return [ray.get(counter.add.remote()) for _ in range(times)]

    counter = Counter.remote()
    assert ray.get(use.remote(counter, 3)) == [1, 2, 3]
    assert ray.get(counter.add.remote()) == 4


def test_a_handle_works_inside_a_container_and_as_a_result(ray):
    @ray.remote
    class Counter:
        def value(self):
            return 7

    @ray.remote
    def forward(box):
        return box["counter"]

    counter = Counter.remote()
    returned = ray.get(forward.remote({"counter": counter}))
    assert returned == counter
    assert hash(returned) == hash(counter)
    assert ray.get(returned.value.remote()) == 7


def test_an_actor_made_by_a_task_lives_as_long_as_its_handle(ray):
    @ray.remote
    class Counter:
        def value(self):
            return 7

    @ray.remote
    def make():
        return Counter.remote()

    counter = ray.get(make.remote(), timeout=60)
    assert ray.get(counter.value.remote(), timeout=60) == 7


def test_actors_call_one_another(ray):
    @ray.remote(num_cpus=0)
    class Link:
        def __init__(self, following=None):
            self.following = following

        def depth(self):
            return 1 + (ray.get(self.following.depth.remote()) if self.following else 0)

    chain = None
    for _ in range(4):
        chain = Link.remote(chain)
    assert ray.get(chain.depth.remote(), timeout=60) == 4


def test_an_actor_submits_tasks(ray):
    @ray.remote
    def square(x):
        return x * x

    @ray.remote
    class Farm:
        def run(self, n):
            return ray.get([square.remote(i) for i in range(n)])

    assert ray.get(Farm.remote().run.remote(5)) == [0, 1, 4, 9, 16]


def test_an_actor_knows_itself(ray):
    @ray.remote
    class Self:
        def identify(self):
            context = ray.get_runtime_context()
            return context.get_actor_id(), context.get_task_id(), context.current_actor

        def answer(self):
            return 42

    actor = Self.remote()
    actor_id, first_task, handle = ray.get(actor.identify.remote())
    _, second_task, _ = ray.get(actor.identify.remote())
    assert actor_id in repr(actor)
    assert first_task != second_task
    assert ray.get(handle.answer.remote()) == 42


def test_a_named_actor_is_found_by_its_name(ray):
    @ray.remote
    class Store:
        def __init__(self):
            self.value = None

        def set(self, value):
            self.value = value

        def get(self):
            return self.value

    @ray.remote
    def write():
        ray.get(ray.get_actor("the store").set.remote("written"))

    store = Store.options(name="the store").remote()
    ray.get(write.remote())
    assert ray.get_actor("the store") == store
    assert ray.get(store.get.remote()) == "written"


def test_a_name_can_be_taken_only_once(ray):
    @ray.remote
    class Plain:
        def one(self):
            return 1

    first = Plain.options(name="taken").remote()
    with pytest.raises(ValueError, match="taken"):
        Plain.options(name="taken").remote()
    assert Plain.options(name="taken", get_if_exists=True).remote() == first


def test_bad_names_are_refused(ray):
    @ray.remote
    class Plain:
        pass

    with pytest.raises(ValueError):
        Plain.options(name="").remote()
    with pytest.raises(TypeError):
        Plain.options(name=5).remote()
    with pytest.raises(ValueError, match="nobody"):
        ray.get_actor("nobody")


def test_names_are_apart_in_namespaces(ray):
    @ray.remote(num_cpus=0)
    class Plain:
        def __init__(self, value):
            self.value = value

        def get(self):
            return self.value

    here = Plain.options(name="twin", namespace="here").remote(1)
    there = Plain.options(name="twin", namespace="there").remote(2)
    assert ray.get_actor("twin", namespace="here") == here
    assert ray.get(ray.get_actor("twin", namespace="there").get.remote()) == 2
    with pytest.raises(ValueError):
        ray.get_actor("twin")
    del there


def test_calls_overlap_where_concurrency_is_allowed(ray, gate):
    wait_open = gate.waiter()

    @ray.remote(max_concurrency=2)
    class Pair:
        def hold(self):
            wait_open()
            return "held"

        def quick(self):
            return "quick"

    pair = Pair.remote()
    held = pair.hold.remote()
    assert ray.get(pair.quick.remote(), timeout=60) == "quick"
    assert ray.wait([held], timeout=0) == ([], [held])
    gate.open()
    assert ray.get(held, timeout=60) == "held"


def test_calls_do_not_overlap_by_default(ray, gate):
    wait_open = gate.waiter()

    @ray.remote
    class Single:
        def hold(self):
            wait_open()

        def quick(self):
            return "quick"

    single = Single.remote()
    single.hold.remote()
    quick = single.quick.remote()
    assert ray.wait([quick], timeout=0.05) == ([], [quick])
    gate.open()
    assert ray.get(quick, timeout=60) == "quick"


def test_more_actors_than_cpus_run_at_once_by_default(ray):
    @ray.remote
    class Plain:
        def pid(self):
            return os.getpid()

    actors = [Plain.remote() for _ in range(6)]
    assert len(set(ray.get([a.pid.remote() for a in actors], timeout=60))) == 6


def test_an_actor_waits_for_resources_that_another_holds(ray):
    @ray.remote(num_cpus=4)
    class Greedy:
        def one(self):
            return 1

    first = Greedy.remote()
    ray.get(first.one.remote(), timeout=60)
    second = Greedy.remote()
    waiting = second.one.remote()
    assert ray.wait([waiting], timeout=0.1) == ([], [waiting])
    ray.kill(first)
    assert ray.get(waiting, timeout=60) == 1
    ray.kill(second)


def test_big_arguments_and_results_of_methods_arrive(ray):
    import numpy as np

    @ray.remote
    class Doubler:
        def double(self, array):
            return 2 * array

    array = np.arange(500_000)
    assert np.array_equal(ray.get(Doubler.remote().double.remote(array)), 2 * array)


def test_a_method_may_be_held_and_called_later(ray):
    @ray.remote
    class Adder:
        def add(self, a, b):
            return a + b

    adder = Adder.remote()
    add = adder.add
    assert ray.get([add.remote(1, 2), add.remote(3, b=4)]) == [3, 7]


def test_the_constructor_of_an_async_actor_runs_on_its_loop(ray):
    @ray.remote
    class Ticking:
        def __init__(self):
            import asyncio

            self.loop = asyncio.get_running_loop()
            self.ticked = asyncio.Event()
            self.ticker = asyncio.create_task(self.tick())

        async def tick(self):
            self.ticked.set()

        async def same_loop(self):
            import asyncio

            await self.ticked.wait()
            return asyncio.get_running_loop() is self.loop

    assert ray.get(Ticking.remote().same_loop.remote(), timeout=60)


def test_the_constructor_of_an_async_actor_may_be_a_coroutine(ray):
    @ray.remote
    class Waits:
        async def __init__(self, value):
            import asyncio

            await asyncio.sleep(0)
            self.value = value

        async def read(self):
            return self.value

    assert ray.get(Waits.remote(value=7).read.remote(), timeout=60) == 7
