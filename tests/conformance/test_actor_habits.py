"""Small habits of actors, async and threaded ones too, that programs rely on."""

from __future__ import annotations

import importlib

import pytest

pytestmark = pytest.mark.conformance

TIMEOUT_S = 60


@pytest.fixture(scope="module")
def get(ray):
    return lambda ref: ray.get(ref, timeout=TIMEOUT_S)


@pytest.fixture(scope="module")
def thing(ray):
    """An actor with all kinds of methods."""

    class Plain:
        factor = 3

        def __init__(self, first=1, *rest, key=2, **more):
            self.given = (first, rest, key, more)

        def all_given(self):
            return self.given

        @staticmethod
        def static(value):
            return value

        @classmethod
        def of_class(cls, value):
            return cls.factor * value

        def __len__(self):
            return 7

        def __call__(self, value):
            return value + 1

        def _private(self):
            return "private"

        @ray.method
        def marked(self):
            return "marked"

        def me(self):
            return ray.get_runtime_context().current_actor

        def fail(self, error):
            raise error

        def two(self):
            return 1, 2

    return ray.remote(Plain)


@pytest.fixture(scope="module")
def actor(thing):
    return thing.remote(1, 2, key=4, other=5)


def test_constructors_take_all_kinds_of_arguments(get, actor, thing):
    assert get(actor.all_given.remote()) == (1, (2,), 4, {"other": 5})
    assert get(thing.remote().all_given.remote()) == (1, (), 2, {})


def test_methods_of_the_class_are_called_like_others(get, actor):
    assert get(actor.static.remote(5)) == 5
    assert get(actor.of_class.remote(5)) == 15


def test_special_methods_are_called_by_name(get, actor):
    assert get(actor.__len__.remote()) == 7
    assert get(actor.__call__.remote(1)) == 2
    assert get(actor._private.remote()) == "private"


def test_a_method_may_be_marked_without_options(get, actor):
    assert get(actor.marked.remote()) == "marked"


def test_every_actor_can_say_that_it_is_ready(get, actor):
    assert get(actor.__ray_ready__.remote()) is True


def test_every_actor_runs_functions_on_itself(get, actor):
    assert get(actor.__ray_call__.remote(lambda self, x: (self.factor, x), 5)) == (3, 5)


def test_a_handle_takes_attributes(actor):
    actor.note = "mine"
    assert actor.note == "mine"


def test_handles_of_one_actor_are_equal(get, actor):
    me = get(actor.me.remote())
    assert me == actor
    assert hash(me) == hash(actor)
    assert {me: 1}[actor] == 1


@pytest.mark.parametrize("name", ["missing", "given", "__missing__"])
def test_what_is_no_method_is_no_attribute(actor, name):
    with pytest.raises(AttributeError):
        getattr(actor, name)


def test_wrong_arguments_are_told_at_once(actor, thing):
    for call in (
        lambda: actor.static.remote(),
        lambda: actor.two.remote(1),
        lambda: actor.two.remote(x=1),
        lambda: thing.remote(1, first=2),
    ):
        with pytest.raises(TypeError):
            call()


def test_too_few_returns_are_an_error(ray, get, actor):
    assert get(actor.two.options(num_returns=2).remote()) == [1, 2]
    assert actor.two.options(num_returns=0).remote() is None
    with pytest.raises(ValueError):
        get(actor.two.options(num_returns=3).remote())


@pytest.mark.parametrize(
    "error",
    [
        StopIteration("x"),
        GeneratorExit("x"),
        TimeoutError("x"),
        ExceptionGroup("group", [ValueError(1), KeyError(2)]),
    ],
)
def test_errors_keep_their_types(get, actor, error):
    with pytest.raises(type(error)):
        get(actor.fail.remote(error))


def test_an_abstract_class_has_no_actors(ray):
    import abc

    class Abstract(abc.ABC):
        @abc.abstractmethod
        def method(self): ...

    with pytest.raises(TypeError):
        ray.remote(Abstract).remote()


def test_an_actor_class_has_no_subclasses(ray, engine, thing):
    error = importlib.import_module(f"{engine.__name__}.actor").ActorClassInheritanceException
    assert issubclass(error, TypeError)
    with pytest.raises(error):

        class Sub(thing):
            pass


def test_a_name_is_taken_once(ray, get, thing):
    first = thing.options(name="once").remote()
    get(first.__ray_ready__.remote())
    with pytest.raises(ray.exceptions.ActorAlreadyExistsError):
        thing.options(name="once").remote()
    assert thing.options(name="once", get_if_exists=True).remote() == first


def test_a_detached_actor_needs_no_name(ray, get, thing):
    actor = thing.options(lifetime="detached").remote()
    assert get(actor.static.remote(1)) == 1
    ray.kill(actor)


@pytest.mark.parametrize("name", ["max_calls"])
def test_options_refuses_what_belongs_to_the_decorator(ray, name):
    @ray.remote
    def task():
        return None

    with pytest.raises(ValueError):
        task.options(**{name: 1}).remote()


def test_classes_of_one_name_are_told_apart(ray, get):
    def make(count):
        if count:

            class Twin:
                def method(self, one):
                    return one

        else:

            class Twin:
                def method(self):
                    return 0

        return ray.remote(Twin).remote()

    without, with_one = make(0), make(1)
    assert get(without.method.remote()) == 0
    assert get(with_one.method.remote(1)) == 1
    with pytest.raises(TypeError):
        with_one.method.remote()


# -- async actors


@pytest.fixture(scope="module")
def coroutines(ray):
    import asyncio

    @ray.remote
    class Coroutines:
        def __init__(self):
            self.loop = asyncio.get_running_loop()

        async def echo(self, value):
            return value

        def plain(self):
            return asyncio.get_running_loop() is self.loop

        async def cancels_itself(self):
            raise asyncio.CancelledError

        async def first(self, refs):
            return await refs[0]

        async def gather(self, refs):
            return await asyncio.gather(*refs)

        async def group(self, refs):
            async def one(ref):
                return await ref

            async with asyncio.TaskGroup() as tasks:
                made = [tasks.create_task(one(ref)) for ref in refs]
            return [task.result() for task in made]

        async def in_time(self, refs, seconds):
            try:
                return await asyncio.wait_for(refs[0], seconds)
            except TimeoutError:
                return "too late"

        async def wrapped(self, refs):
            return await asyncio.wrap_future(refs[0].future())

        async def blocking(self, refs):
            return ray.get(refs[0])

        async def is_canceled(self):
            return ray.get_runtime_context().is_canceled()

        async def items(self, count):
            for index in range(count):
                yield index

    return Coroutines.remote()


@pytest.fixture(scope="module")
def one(ray):
    @ray.remote
    def one(value=1):
        return value

    return one


def test_plain_methods_of_async_actors_run_on_the_loop_of_the_constructor(get, coroutines):
    assert get(coroutines.plain.remote())


def test_a_coroutine_that_is_cancelled_by_itself_counts_as_cancelled(ray, get, coroutines):
    with pytest.raises(ray.exceptions.TaskCancelledError):
        get(coroutines.cancels_itself.remote())


@pytest.mark.parametrize("method", ["first", "wrapped", "blocking"])
def test_async_actors_wait_for_references_in_many_ways(get, coroutines, one, method):
    assert get(getattr(coroutines, method).remote([one.remote(4)])) == 4


@pytest.mark.parametrize("method", ["gather", "group"])
def test_async_actors_wait_for_several_references(get, coroutines, one, method):
    refs = [one.remote(n) for n in range(3)]
    assert get(getattr(coroutines, method).remote(refs)) == [0, 1, 2]


def test_a_wait_in_an_async_actor_may_have_a_limit(ray, get, coroutines, gate):
    @ray.remote
    def held(wait):
        wait()
        return 1

    ref = held.remote(gate.waiter())
    assert get(coroutines.in_time.remote([ref], 0.1)) == "too late"
    gate.open()
    assert get(coroutines.in_time.remote([ref], TIMEOUT_S)) == 1


def test_async_actors_cannot_ask_whether_they_are_cancelled(get, coroutines):
    with pytest.raises(RuntimeError):
        get(coroutines.is_canceled.remote())


def test_drivers_wait_with_asyncio_too(get, ray, coroutines, one):
    import asyncio

    async def driver():
        first = await one.remote(5)
        several = await asyncio.gather(one.remote(1), one.remote(2))
        in_time = await asyncio.wait_for(one.remote(9), TIMEOUT_S)
        items = [await ref async for ref in coroutines.items.remote(3)]
        return first, several, in_time, items

    assert asyncio.run(driver()) == (5, [1, 2], 9, [0, 1, 2])


# -- threaded actors


def test_calls_of_threaded_actors_run_at_the_same_time(ray, get):
    import threading

    @ray.remote(max_concurrency=3)
    class Threads:
        def __init__(self):
            self.barrier = threading.Barrier(3)

        def meet(self):
            self.barrier.wait(60)
            return ray.get_runtime_context().get_task_id()

    actor = Threads.remote()
    assert len(set(get([actor.meet.remote() for _ in range(3)]))) == 3


@pytest.mark.parametrize("round_", range(3))
def test_a_threaded_actor_ends_with_its_last_handle(ray, get, wait_exit, round_):
    @ray.remote(max_concurrency=4)
    class Threads:
        def pid(self):
            import os

            return os.getpid()

    actor = Threads.remote()
    pid = get([actor.pid.remote() for _ in range(20)])[0]
    del actor
    assert wait_exit(pid)
