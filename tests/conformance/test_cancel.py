"""cancel(): tasks and calls of actors, before, while and after they run."""

from __future__ import annotations

import time
from typing import Any

import pytest

pytestmark = pytest.mark.conformance


@pytest.fixture
def hold(tmp_path: Any) -> Any:
    """Code for remote functions that says it has begun and then takes its time, in small steps:
    Ray interrupts between two steps of Python only."""
    path = str(tmp_path / "begun")

    class Hold:
        def body(self) -> Any:
            def run(seconds: float = 60.0, name: str = "") -> str:
                import time

                with open(path + name, "w"):
                    pass
                give_up_at = time.monotonic() + seconds
                while time.monotonic() < give_up_at:
                    time.sleep(0.01)
                return "done"

            return run

        def wait(self, name: str = "") -> None:
            import os

            give_up_at = time.monotonic() + 60
            while not os.path.exists(path + name):
                assert time.monotonic() < give_up_at, "it never begins"
                time.sleep(0.01)

    return Hold()


def cancelled(ray: Any, ref: Any) -> Any:
    """The error of a cancelled task."""
    with pytest.raises(ray.exceptions.TaskCancelledError) as caught:
        ray.get(ref, timeout=60)
    return caught.value


def test_a_running_task_is_interrupted_and_its_worker_serves_on(ray, hold):
    run = hold.body()

    @ray.remote
    def task():
        return run()

    @ray.remote
    def quick():
        return 1

    ref = task.remote()
    hold.wait()
    assert ray.cancel(ref) is None
    assert isinstance(cancelled(ray, ref), ray.exceptions.RayTaskError)
    assert ray.get([quick.remote() for _ in range(20)], timeout=60) == [1] * 20


def test_the_task_sees_keyboard_interrupt_and_may_clean_up(ray, hold, tally):
    run, add = hold.body(), tally.adder()

    @ray.remote
    def task():
        try:
            run()
        except KeyboardInterrupt:
            add()
            raise

    ref = task.remote()
    hold.wait()
    ray.cancel(ref)
    cancelled(ray, ref)
    assert tally.count == 1


def test_a_task_that_catches_the_interrupt_may_return_or_raise_something_else(ray, hold):
    run = hold.body()

    @ray.remote
    def returns():
        try:
            run(name="a")
        except KeyboardInterrupt:
            return "caught"

    @ray.remote
    def raises():
        try:
            run(name="b")
        except KeyboardInterrupt:
            raise KeyError("mine") from None

    refs = [returns.remote(), raises.remote()]
    for name, ref in zip("ab", refs, strict=True):
        hold.wait(name)
        ray.cancel(ref)
    assert ray.get(refs[0], timeout=60) == "caught"
    with pytest.raises(KeyError):
        ray.get(refs[1], timeout=60)


def test_a_done_task_keeps_its_value_and_a_put_object_too(ray):
    @ray.remote
    def task():
        return 1

    ref, stored = task.remote(), ray.put(2)
    ray.get(ref)
    for force in (False, True):
        ray.cancel(ref, force=force)
        ray.cancel(stored, force=force)
    assert ray.get([ref, stored]) == [1, 2]


@pytest.mark.mray_only("in Ray the second interrupt may hit the worker's own code: it then hangs")
def test_cancelling_twice_is_as_cancelling_once(ray, hold):
    run = hold.body()

    @ray.remote
    def task():
        return run()

    ref = task.remote()
    hold.wait()
    ray.cancel(ref)
    ray.cancel(ref)
    cancelled(ray, ref)
    ray.cancel(ref)
    cancelled(ray, ref)


@pytest.mark.parametrize("force", [False, True])
def test_a_queued_task_never_runs(ray, hold, tally, gate, force):
    wait, add = gate.waiter(), tally.adder()

    @ray.remote(num_cpus=4)
    def blocker():
        wait()

    @ray.remote
    def task():
        add()

    before = blocker.remote()
    refs = [task.remote() for _ in range(50)]
    for ref in refs:
        ray.cancel(ref, force=force)
    for ref in refs:
        cancelled(ray, ref)
    gate.open()
    ray.get(before, timeout=60)
    assert tally.count == 0


def test_a_task_that_waits_for_its_arguments_never_runs(ray, gate, tally):
    wait, add = gate.waiter(), tally.adder()

    @ray.remote
    def slow():
        wait()
        return 1

    @ray.remote
    def task(value):
        add()

    argument = slow.remote()
    ref = task.remote(argument)
    after = task.remote(ref)
    ray.cancel(ref)
    cancelled(ray, ref)
    cancelled(ray, after)
    gate.open()
    assert ray.get(argument, timeout=60) == 1
    assert tally.count == 0


def test_what_depends_on_a_cancelled_task_fails_with_it(ray, hold, tally):
    run, add = hold.body(), tally.adder()

    @ray.remote
    def task():
        return run()

    @ray.remote
    def after(value):
        add()

    ref = task.remote()
    chain = [after.remote(ref)]
    for _ in range(3):
        chain.append(after.remote(chain[-1]))
    fan = [after.remote(ref) for _ in range(30)]
    hold.wait()
    ray.cancel(ref)
    for each in (*chain, *fan):
        cancelled(ray, each)
    assert tally.count == 0


def test_a_task_for_resources_that_nobody_has_can_be_cancelled(ray):
    @ray.remote(resources={"not here": 1})
    def task():
        return 1

    ref = task.remote()
    ray.cancel(ref)
    cancelled(ray, ref)


def test_all_returns_of_a_cancelled_task_fail(ray, hold):
    run = hold.body()

    @ray.remote(num_returns=3)
    def task():
        run()
        return 1, 2, 3

    refs = task.remote()
    hold.wait()
    ray.cancel(refs[1])
    for ref in refs:
        cancelled(ray, ref)


@pytest.mark.parametrize("force", [False, True])
def test_a_cancelled_task_is_not_retried(ray, hold, tally, force):
    run, add = hold.body(), tally.adder()

    @ray.remote(max_retries=5, retry_exceptions=True)
    def task():
        add()
        return run()

    ref = task.remote()
    hold.wait()
    ray.cancel(ref, force=force)
    cancelled(ray, ref)

    @ray.remote
    def later():
        return 1

    assert ray.get([later.remote() for _ in range(8)], timeout=60) == [1] * 8
    assert tally.count == 1


def test_force_ends_the_worker(ray, tmp_path, wait_exit, hold):
    path, run = str(tmp_path / "pid"), hold.body()

    @ray.remote
    def task():
        import os

        with open(path, "w") as file:
            file.write(str(os.getpid()))
        while True:
            try:
                run()
            except KeyboardInterrupt:
                continue

    ref = task.remote()
    hold.wait()
    ray.cancel(ref, force=True)
    cancelled(ray, ref)
    with open(path) as file:
        assert wait_exit(int(file.read()))


def test_resources_come_back(ray, hold):
    run = hold.body()

    @ray.remote(num_cpus=4)
    def task(name):
        return run(name=name)

    for turn, force in enumerate((False, True, False)):
        ref = task.remote(str(turn))
        hold.wait(str(turn))
        ray.cancel(ref, force=force)
        cancelled(ray, ref)

    @ray.remote(num_cpus=4)
    def whole():
        return 1

    assert ray.get(whole.remote(), timeout=60) == 1


def test_arguments_being_read_are_given_up(ray, hold, tally):
    run, add = hold.body(), tally.adder()

    class Slow:
        def __reduce__(self):
            return run, (5.0,)

    @ray.remote
    def task(value):
        add()

    ref = task.remote(Slow())
    hold.wait()
    ray.cancel(ref)
    cancelled(ray, ref)
    assert tally.count == 0


def test_a_task_that_waits_in_get_is_cancelled(ray, gate, tmp_path, hold):
    wait, run = gate.waiter(), hold.body()

    @ray.remote(num_cpus=0)
    def slow():
        wait()

    @ray.remote
    def task(refs):
        run(0.0)
        return ray.get(refs[0])

    argument = slow.remote()
    ref = task.remote([argument])
    hold.wait()
    ray.cancel(ref)
    cancelled(ray, ref)
    gate.open()
    ray.get(argument, timeout=60)


def test_another_process_and_another_thread_may_cancel(ray, hold):
    from concurrent.futures import ThreadPoolExecutor

    run = hold.body()

    @ray.remote
    def task(name):
        return run(name=name)

    @ray.remote
    def canceller(refs):
        ray.cancel(refs[0])

    ref = task.remote("a")
    hold.wait("a")
    ray.get(canceller.remote([ref]), timeout=60)
    cancelled(ray, ref)
    ref = task.remote("b")
    hold.wait("b")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(ray.cancel, ref).result()
    cancelled(ray, ref)


@pytest.mark.parametrize("recursive", [True, False])
def test_children_are_cancelled_only_if_asked(ray, hold, recursive):
    run = hold.body()

    @ray.remote(num_cpus=0)
    class Box:
        def put(self, refs):
            self.refs = refs

        def get(self):
            return self.refs

    @ray.remote(num_cpus=0)
    def child():
        return run(1.5 if not recursive else 60.0, "child")

    @ray.remote(num_cpus=0)
    def parent(box):
        ref = child.remote()
        ray.get(box.put.remote([ref]))
        run(0.0, "parent")
        return ray.get(ref)

    box = Box.remote()
    ref = parent.remote(box)
    hold.wait("parent")
    hold.wait("child")
    (born,) = ray.get(box.get.remote(), timeout=60)
    ray.cancel(ref, recursive=recursive)
    cancelled(ray, ref)
    if recursive:
        cancelled(ray, born)
    else:
        assert ray.get(born, timeout=60) == "done"


def test_grandchildren_are_cancelled_too(ray, hold, tally):
    run, add = hold.body(), tally.adder()

    @ray.remote(num_cpus=0)
    def grandchild():
        try:
            run(name="grandchild")
        except KeyboardInterrupt:
            add()
            raise

    @ray.remote(num_cpus=0)
    def child():
        return ray.get(grandchild.remote())

    @ray.remote(num_cpus=0)
    def parent():
        return ray.get(child.remote())

    ref = parent.remote()
    hold.wait("grandchild")
    ray.cancel(ref)
    cancelled(ray, ref)
    give_up_at = time.monotonic() + 60
    while tally.count < 1:
        assert time.monotonic() < give_up_at, "the grandchild runs on"
        time.sleep(0.01)


def test_races_with_completion_end_with_the_value_or_the_error(ray):
    @ray.remote
    def task(number):
        return number

    for number in range(60):
        ref = task.remote(number)
        if number % 3:
            time.sleep(number % 7 * 0.0003)
        ray.cancel(ref)
        try:
            assert ray.get(ref, timeout=60) == number
        except ray.exceptions.TaskCancelledError:
            continue


def test_a_late_cancel_never_hits_the_next_task(ray):
    """The interrupt of one task must not end another on the same worker."""

    @ray.remote(num_cpus=4)
    def brief(number):
        return number

    refs = []
    for number in range(150):
        refs.append((brief.remote(number), brief.remote(-number)))
        ray.cancel(refs[-1][0])
    for number, (_, innocent) in enumerate(refs):
        assert ray.get(innocent, timeout=60) == -number


def test_wrong_arguments_are_refused(ray):
    @ray.remote
    class Actor:
        def method(self):
            return 1

    actor = Actor.remote()
    for wrong in (actor, actor.method, 3, None, [ray.put(1)], "x"):
        with pytest.raises(TypeError):
            ray.cancel(wrong)
    ref = actor.method.remote()
    with pytest.raises(ValueError, match="force"):
        ray.cancel(ref, force=True)
    assert ray.get(ref, timeout=60) == 1


# -- actors


def test_a_queued_call_of_an_actor_never_runs(ray, hold, tally):
    run, add = hold.body(), tally.adder()

    @ray.remote
    class Actor:
        def first(self):
            run(1.0)
            return 1

        def second(self):
            add()

        def third(self):
            return 3

    actor = Actor.remote()
    first, second, third = actor.first.remote(), actor.second.remote(), actor.third.remote()
    hold.wait()
    ray.cancel(second)
    assert ray.get([first, third], timeout=60) == [1, 3]
    cancelled(ray, second)
    assert tally.count == 0


def test_a_call_that_waits_for_its_arguments_is_taken_back_and_those_behind_it_run(ray, gate):
    wait = gate.waiter()

    @ray.remote
    def slow():
        wait()

    @ray.remote
    class Actor:
        def call(self, value=None):
            return 1

    actor = Actor.remote()
    argument = slow.remote()
    held, behind = actor.call.remote(argument), actor.call.remote()
    ray.cancel(held)
    cancelled(ray, held)
    assert ray.get(behind, timeout=60) == 1
    gate.open()
    ray.get(argument, timeout=60)


def test_a_running_call_is_not_interrupted_and_its_result_is_dropped(ray, hold, tally):
    run, add = hold.body(), tally.adder()

    @ray.remote
    class Actor:
        def call(self):
            run(0.5)
            add()
            return 1

        def alive(self):
            return "alive"

    actor = Actor.remote()
    ref = actor.call.remote()
    hold.wait()
    ray.cancel(ref)
    cancelled(ray, ref)
    assert tally.count == 1
    assert ray.get(actor.alive.remote(), timeout=60) == "alive"


def test_a_running_call_that_raises_keeps_its_error(ray, hold):
    run = hold.body()

    @ray.remote
    class Actor:
        def call(self):
            run(0.5)
            raise KeyError("mine")

    ref = Actor.remote().call.remote()
    hold.wait()
    ray.cancel(ref)
    with pytest.raises(KeyError):
        ray.get(ref, timeout=60)


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_call_may_ask_whether_it_was_cancelled(ray, hold, concurrency):
    run = hold.body()

    @ray.remote
    class Actor:
        def call(self):
            before = ray.get_runtime_context().is_canceled()
            run(0.0)
            while not ray.get_runtime_context().is_canceled():
                time.sleep(0.01)
            self.seen = before

        def ask(self):
            return self.seen, ray.get_runtime_context().is_canceled()

    actor = Actor.options(max_concurrency=concurrency).remote()
    ref = actor.call.remote()
    hold.wait()
    ray.cancel(ref)
    cancelled(ray, ref)
    assert ray.get(actor.ask.remote(), timeout=60) == (False, False)


def test_a_task_may_ask_and_a_driver_may_not(ray, hold):
    run = hold.body()

    @ray.remote
    def task():
        before = ray.get_runtime_context().is_canceled()
        try:
            run()
        except KeyboardInterrupt:
            return before, ray.get_runtime_context().is_canceled()

    ref = task.remote()
    hold.wait()
    ray.cancel(ref)
    assert ray.get(ref, timeout=60) == (False, True)
    with pytest.raises(RuntimeError):
        ray.get_runtime_context().is_canceled()


def test_coroutines_of_async_actors_are_cancelled(ray, hold, tally):
    run, add = hold.body(), tally.adder()

    @ray.remote
    class Actor:
        async def sleeps(self):
            import asyncio

            run(0.0, "sleeps")
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                add()
                raise

        async def swallows(self):
            import asyncio

            run(0.0, "swallows")
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return "swallowed"

        async def quick(self):
            return 1

    actor = Actor.remote()
    for name in ("sleeps", "swallows"):
        ref = getattr(actor, name).remote()
        hold.wait(name)
        ray.cancel(ref)
        cancelled(ray, ref)
    give_up_at = time.monotonic() + 60
    while tally.count < 1:
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
    done = actor.quick.remote()
    assert ray.get(done, timeout=60) == 1
    ray.cancel(done)
    assert ray.get(done, timeout=60) == 1


def test_calls_queued_in_an_async_actor_are_cancelled(ray, gate, hold, tally):
    run, add = hold.body(), tally.adder()

    @ray.remote
    class Actor:
        async def long(self):
            import asyncio

            run(0.0)
            await asyncio.sleep(1.0)
            return 1

        async def queued(self):
            add()

    actor = Actor.options(max_concurrency=1).remote()
    first = actor.long.remote()
    hold.wait()
    refs = [actor.queued.remote() for _ in range(5)]
    for ref in refs:
        ray.cancel(ref)
    for ref in refs:
        cancelled(ray, ref)
    assert ray.get(first, timeout=60) == 1
    assert tally.count == 0


def test_a_cancelled_call_is_not_retried_over_a_restart(ray, hold, tally):
    run, add = hold.body(), tally.adder()

    @ray.remote(max_restarts=1, max_task_retries=5)
    class Actor:
        def call(self):
            add()
            run(60.0)

        def alive(self):
            return 1

    actor = Actor.remote()
    ray.get(actor.alive.remote(), timeout=60)
    ref = actor.call.remote()
    hold.wait()
    ray.cancel(ref)
    time.sleep(0.2)  # Ray: the actor has heard of it.
    ray.kill(actor, no_restart=False)
    with pytest.raises((ray.exceptions.TaskCancelledError, ray.exceptions.RayActorError)):
        ray.get(ref, timeout=60)
    assert ray.get(actor.alive.remote(), timeout=60) == 1
    assert tally.count == 1


def test_children_of_a_call_are_cancelled_with_it(ray, hold, tally):
    run, add = hold.body(), tally.adder()

    @ray.remote(num_cpus=0)
    def child():
        try:
            run(name="child")
        except KeyboardInterrupt:
            add()
            raise

    @ray.remote
    class Actor:
        def call(self):
            return ray.get(child.remote())

    ref = Actor.remote().call.remote()
    hold.wait("child")
    ray.cancel(ref)
    cancelled(ray, ref)
    give_up_at = time.monotonic() + 60
    while tally.count < 1:
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


@pytest.mark.mray_only("Ray waits for the end of a sleep or of another system call")
def test_a_sleep_is_cut_short(ray, hold):
    run = hold.body()

    @ray.remote
    def task():
        run(0.0)
        time.sleep(600)

    @ray.remote
    def locked():
        import threading

        run(0.0, "locked")
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()

    for each, name in ((task, ""), (locked, "locked")):
        ref = each.remote()
        hold.wait(name)
        ray.cancel(ref)
        cancelled(ray, ref)


@pytest.mark.mray_only("Ray's error of a task that never ran names no task")
def test_the_error_names_the_task(ray, hold):
    run = hold.body()

    @ray.remote
    def ran():
        return run()

    @ray.remote(resources={"not here": 1})
    def never():
        return 1

    refs = [ran.remote(), never.remote()]
    hold.wait()
    for name, ref in zip(("ran", "never"), refs, strict=True):
        ray.cancel(ref)
        error = cancelled(ray, ref)
        assert name in str(error)
        assert ref.task_id().hex() in str(error)


@pytest.mark.mray_only("in Ray children that are submitted while their parent is cancelled live on")
def test_what_a_cancelled_task_still_submits_is_cancelled(ray, hold):
    run = hold.body()

    @ray.remote(num_cpus=0)
    def child():
        return run()

    @ray.remote(num_cpus=0)
    def parent():
        try:
            run(name="parent")
        except KeyboardInterrupt:
            try:
                ray.get(child.remote())
            except ray.exceptions.TaskCancelledError:
                return "cancelled"

    ref = parent.remote()
    hold.wait("parent")
    ray.cancel(ref)
    assert ray.get(ref, timeout=60) == "cancelled"


@pytest.mark.mray_only("in Ray a stopped process cannot be cancelled")
def test_force_ends_a_worker_that_is_stopped(ray, hold, tmp_path, wait_exit):
    import os
    import signal

    path, run = str(tmp_path / "pid"), hold.body()

    @ray.remote
    def task():
        import os

        with open(path, "w") as file:
            file.write(str(os.getpid()))
        return run()

    ref = task.remote()
    hold.wait()
    with open(path) as file:
        pid = int(file.read())
    os.kill(pid, signal.SIGSTOP)
    ray.cancel(ref, force=True)
    cancelled(ray, ref)
    assert wait_exit(pid)
