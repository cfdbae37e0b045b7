"""Concurrency groups of actors, and calls that overtake others."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.conformance

TIMEOUT_S = 60


@pytest.fixture(scope="module")
def grouped(ray):
    """A sync actor with two groups."""

    @ray.remote(concurrency_groups={"io": 2, "one": 1})
    class Grouped:
        def __init__(self):
            import threading

            self.local = threading.local()
            self.said = []

        @ray.method(concurrency_group="io")
        def io(self):
            import threading

            return threading.get_ident()

        def default(self):
            import threading

            return threading.get_ident()

        @ray.method(concurrency_group="io")
        def wait_io(self, wait):
            wait()
            return self.default()

        def wait(self, wait):
            wait()

        @ray.method(concurrency_group="one")
        def say(self, word):
            self.said.append(word)

        def all_said(self):
            return self.said

        def set(self, value):
            self.local.value = value

        def get(self):
            return getattr(self.local, "value", None)

        @ray.method(concurrency_group="one")
        def stream(self, wait):
            yield 1
            wait()
            yield 2

    return Grouped


@pytest.fixture(scope="module")
def coroutines(ray):
    """An async actor with a group."""

    @ray.remote(concurrency_groups={"io": 2})
    class Coroutines:
        def __init__(self):
            self.count = 0

        @ray.method(concurrency_group="io")
        async def io(self):
            import threading

            return threading.get_ident()

        async def default(self):
            import threading

            return threading.get_ident()

        async def spin(self, wait):
            wait()

        @ray.method(concurrency_group="io")
        async def park(self, path):
            import asyncio
            import os

            self.count += 1
            while not os.path.exists(path):
                await asyncio.sleep(0.01)

        async def parked(self):
            return self.count

    return Coroutines


def test_each_group_has_threads_of_its_own(ray, grouped):
    actor = grouped.remote()
    io = set(ray.get([actor.io.remote() for _ in range(20)], timeout=TIMEOUT_S))
    default = set(ray.get([actor.default.remote() for _ in range(20)], timeout=TIMEOUT_S))
    assert len(io) <= 2
    assert len(default) == 1
    assert not io & default


def test_a_busy_default_group_holds_up_no_other(ray, grouped, gate):
    actor = grouped.remote()
    busy = actor.wait.remote(gate.waiter())
    assert ray.get(actor.io.remote(), timeout=TIMEOUT_S)
    gate.open()
    ray.get(busy, timeout=TIMEOUT_S)


def test_a_busy_group_holds_up_no_other(ray, grouped, gate):
    actor = grouped.remote()
    busy = [actor.wait_io.remote(gate.waiter()) for _ in range(3)]
    assert ray.get(actor.default.remote(), timeout=TIMEOUT_S)
    assert ray.wait(busy, num_returns=1, timeout=0.2) == ([], busy)
    gate.open()
    assert len(set(ray.get(busy, timeout=TIMEOUT_S))) == 2


def test_a_call_may_name_its_group(ray, grouped, gate):
    actor = grouped.remote()
    own = ray.get(actor.default.remote(), timeout=TIMEOUT_S)
    busy = actor.wait.remote(gate.waiter())
    named = actor.default.options(concurrency_group="io").remote()
    assert ray.get(named, timeout=TIMEOUT_S) != own
    gate.open()
    ray.get(busy, timeout=TIMEOUT_S)


def test_thread_locals_stay_in_a_group(ray, grouped):
    actor = grouped.remote()
    in_one = {"concurrency_group": "one"}
    ray.get(actor.set.remote("default"), timeout=TIMEOUT_S)
    ray.get(actor.set.options(**in_one).remote("one"), timeout=TIMEOUT_S)
    assert ray.get(actor.get.remote(), timeout=TIMEOUT_S) == "default"
    assert ray.get(actor.get.options(**in_one).remote(), timeout=TIMEOUT_S) == "one"
    elsewhere = actor.get.options(concurrency_group="io").remote()
    assert ray.get(elsewhere, timeout=TIMEOUT_S) is None


def test_calls_of_a_group_of_one_keep_their_order(ray, grouped):
    actor = grouped.remote()
    ray.get([actor.say.remote(n) for n in range(100)], timeout=TIMEOUT_S)
    assert ray.get(actor.all_said.remote(), timeout=TIMEOUT_S) == list(range(100))


def test_a_generator_runs_in_its_group(ray, grouped, gate):
    actor = grouped.remote()
    stream = actor.stream.remote(gate.waiter())
    assert ray.get(next(stream), timeout=TIMEOUT_S) == 1
    assert ray.get(actor.default.remote(), timeout=TIMEOUT_S)
    later = actor.say.remote("later")
    assert ray.wait([later], timeout=0.2) == ([], [later])
    gate.open()
    assert ray.get(next(stream), timeout=TIMEOUT_S) == 2
    ray.get(later, timeout=TIMEOUT_S)


def test_a_call_that_waits_for_its_group_can_be_cancelled(ray, grouped, make_gate):
    actor = grouped.remote()
    held, never = make_gate(), make_gate()
    busy = actor.stream.remote(held.waiter())
    assert ray.get(next(busy), timeout=TIMEOUT_S) == 1
    queued = actor.wait.options(concurrency_group="one").remote(never.waiter())
    ray.cancel(queued)
    held.open()
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(queued, timeout=TIMEOUT_S)


def test_a_handle_found_by_name_knows_the_groups(ray, grouped, gate):
    actor = grouped.options(name="grouped").remote()
    busy = actor.wait.remote(gate.waiter())
    found = ray.get_actor("grouped")
    assert ray.get(found.io.remote(), timeout=TIMEOUT_S)
    gate.open()
    ray.get(busy, timeout=TIMEOUT_S)


def test_max_concurrency_is_that_of_the_default_group(ray, make_gate):
    @ray.remote(concurrency_groups={"io": 1}, max_concurrency=2)
    class Both:
        def wait(self, wait):
            wait()
            return 1

        def free(self):
            return 2

    actor = Both.remote()
    gates = [make_gate(), make_gate()]
    first = actor.wait.remote(gates[0].waiter())
    assert ray.get(actor.free.remote(), timeout=TIMEOUT_S) == 2
    second = actor.wait.options(concurrency_group="io").remote(gates[1].waiter())
    assert ray.get(actor.free.remote(), timeout=TIMEOUT_S) == 2
    for gate in gates:
        gate.open()
    assert ray.get([first, second], timeout=TIMEOUT_S) == [1, 1]


def test_groups_of_an_async_actor_have_loops_of_their_own(ray, coroutines, gate):
    actor = coroutines.remote()
    io = set(ray.get([actor.io.remote() for _ in range(10)], timeout=TIMEOUT_S))
    default = set(ray.get([actor.default.remote() for _ in range(10)], timeout=TIMEOUT_S))
    assert len(io) == len(default) == 1
    assert io != default
    busy = actor.spin.remote(gate.waiter())  # The loop itself is held up.
    assert ray.get(actor.io.remote(), timeout=TIMEOUT_S) in io
    gate.open()
    ray.get(busy, timeout=TIMEOUT_S)


def test_a_group_of_an_async_actor_has_its_own_limit(ray, coroutines, tmp_path):
    actor = coroutines.remote()
    opens = str(tmp_path / "open")
    parked = [actor.park.remote(opens) for _ in range(4)]
    while ray.get(actor.parked.remote(), timeout=TIMEOUT_S) < 2:
        pass
    assert ray.wait(parked, num_returns=1, timeout=0.2) == ([], parked)
    assert ray.get(actor.parked.remote(), timeout=TIMEOUT_S) == 2
    open(opens, "w").close()
    ray.get(parked, timeout=TIMEOUT_S)
    assert ray.get(actor.parked.remote(), timeout=TIMEOUT_S) == 4


def test_a_call_in_a_group_of_an_async_actor_can_be_cancelled(ray, coroutines, tmp_path):
    actor = coroutines.remote()
    parked = actor.park.remote(str(tmp_path / "never"))
    while not ray.get(actor.parked.remote(), timeout=TIMEOUT_S):
        pass
    ray.cancel(parked)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(parked, timeout=TIMEOUT_S)
    assert ray.get(actor.io.remote(), timeout=TIMEOUT_S)


@pytest.mark.parametrize("kind", ["threads", "group", "coroutines"])
def test_calls_beside_the_one_that_ends_the_actor_are_finished(ray, engine, make_gate, kind):
    if kind == "coroutines":

        @ray.remote
        class Ends:
            async def beside(self, path):
                import asyncio
                import os

                with open(path + "-began", "w"):
                    pass
                while not os.path.exists(path):
                    await asyncio.sleep(0.01)
                return "finished"

            async def end(self):
                ray.actor.exit_actor()

    else:

        @ray.remote(max_concurrency=2, concurrency_groups={"io": 1})
        class Ends:
            def beside(self, path):
                import os
                import time

                with open(path + "-began", "w"):
                    pass
                while not os.path.exists(path):
                    time.sleep(0.01)
                return "finished"

            def end(self):
                ray.actor.exit_actor()

    import importlib
    import os
    import tempfile

    importlib.import_module(f"{engine.__name__}.actor")
    path = os.path.join(tempfile.mkdtemp(), "go")
    actor = Ends.remote()
    beside = actor.beside.remote(path)
    while not os.path.exists(path + "-began"):
        ray.wait([beside], timeout=0.02)
    group = {"concurrency_group": "io"} if kind == "group" else {}
    end = actor.end.options(**group).remote()
    assert ray.wait([beside], timeout=0.2) == ([], [beside])
    open(path, "w").close()
    assert ray.get(beside, timeout=TIMEOUT_S) == "finished"
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(end, timeout=TIMEOUT_S)


@pytest.mark.mray_only("Ray waits for what runs")
@pytest.mark.parametrize("kind", ["grouped", "coroutines"])
def test_a_signal_ends_an_actor_whatever_its_groups_do(request, ray, gate, wait_exit, kind):
    import os
    import signal

    actor = request.getfixturevalue(kind).remote()
    pid = ray.get(actor.__ray_call__.remote(_pid()), timeout=TIMEOUT_S)
    busy = actor.wait_io if kind == "grouped" else actor.spin.options(concurrency_group="io")
    calls = [busy.remote(gate.waiter())]
    calls.append((actor.wait if kind == "grouped" else actor.spin).remote(gate.waiter()))
    assert ray.wait(calls, timeout=0.3) == ([], calls)
    os.kill(pid, signal.SIGTERM)
    assert wait_exit(pid)


def _pid():
    def pid(actor):
        import os

        return os.getpid()

    return pid


# -- what is refused


def test_options_cannot_change_the_groups(ray, grouped):
    with pytest.raises(ValueError):
        grouped.options(concurrency_groups={"other": 1}).remote()


@pytest.mark.parametrize("groups", ["io", {"io": "a"}, {1: 1}])
def test_groups_are_names_with_limits(ray, groups):
    class Actor:
        pass

    with pytest.raises((TypeError, AttributeError)):
        ray.remote(concurrency_groups=groups)(Actor).remote()


def test_a_method_of_a_group_that_is_not_there_is_refused(ray):
    class Actor:
        @ray.method(concurrency_group="other")
        def method(self):
            return None

    with pytest.raises((ValueError, AssertionError)):
        ray.remote(concurrency_groups={"io": 1})(Actor).remote()


@pytest.mark.mray_only("in Ray such a call ends the actor")
def test_a_call_in_a_group_that_is_not_there_is_refused(ray, grouped):
    actor = grouped.remote()
    with pytest.raises(ValueError, match=r"no concurrency group 'other'; it has \['io', 'one'\]"):
        actor.io.options(concurrency_group="other")
    assert ray.get(actor.io.remote(), timeout=TIMEOUT_S)


# -- order


@pytest.fixture(scope="module")
def recorder(ray):
    @ray.remote
    class Recorder:
        def __init__(self):
            self.values = []

        def add(self, value):
            self.values.append(value)
            return list(self.values)

    return Recorder


@pytest.fixture
def late(ray, gate):
    """The result of a task that is held at the gate."""

    @ray.remote
    def value(wait):
        wait()
        return "late"

    return value.remote(gate.waiter())


@pytest.mark.parametrize("options", [{}, {"allow_out_of_order_execution": False}])
def test_calls_wait_behind_one_whose_argument_is_not_there(ray, recorder, late, gate, options):
    actor = recorder.options(**options).remote()
    ray.get(actor.add.remote("first"), timeout=TIMEOUT_S)
    calls = [actor.add.remote(late), actor.add.remote("early")]
    assert ray.wait(calls[1:], timeout=0.2)[0] == []
    gate.open()
    assert ray.get(calls[1], timeout=TIMEOUT_S) == ["first", "late", "early"]


@pytest.mark.parametrize(
    "options", [{"allow_out_of_order_execution": True}, {"max_concurrency": 2}]
)
def test_calls_overtake_one_whose_argument_is_not_there(ray, recorder, late, gate, options):
    actor = recorder.options(**options).remote()
    calls = [actor.add.remote(late), actor.add.remote("early")]
    assert ray.get(calls[1], timeout=TIMEOUT_S) == ["early"]
    gate.open()
    assert ray.get(calls[0], timeout=TIMEOUT_S) == ["early", "late"]


def test_calls_of_async_actors_overtake(ray, late, gate):
    @ray.remote(max_concurrency=1)
    class Coroutines:
        async def echo(self, value):
            return value

    actor = Coroutines.remote()
    calls = [actor.echo.remote(late), actor.echo.remote("early")]
    assert ray.get(calls[1], timeout=TIMEOUT_S) == "early"
    gate.open()
    assert ray.get(calls[0], timeout=TIMEOUT_S) == "late"


def test_order_cannot_be_promised_where_calls_run_side_by_side(ray, recorder):
    with pytest.raises(ValueError):
        recorder.options(max_concurrency=2, allow_out_of_order_execution=False).remote()


def test_a_failed_argument_fails_its_call_and_no_other(ray, recorder):
    @ray.remote
    def fails():
        raise KeyError("no")

    actor = recorder.options(allow_out_of_order_execution=True).remote()
    calls = [actor.add.remote(fails.remote()), actor.add.remote(1)]
    assert ray.get(calls[1], timeout=TIMEOUT_S) == [1]
    with pytest.raises(KeyError):
        ray.get(calls[0], timeout=TIMEOUT_S)


def test_a_call_that_waits_for_its_argument_aside_can_be_cancelled(ray, recorder, late, gate):
    actor = recorder.options(allow_out_of_order_execution=True).remote()
    waiting = actor.add.remote(late)
    ray.cancel(waiting)
    with pytest.raises(ray.exceptions.TaskCancelledError):
        ray.get(waiting, timeout=TIMEOUT_S)
    gate.open()
    ray.get(late, timeout=TIMEOUT_S)
    assert ray.get(actor.add.remote(1), timeout=TIMEOUT_S) == [1]
