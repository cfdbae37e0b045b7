"""cancel() of tasks: before, while and after they run."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.conformance


def test_a_running_task_is_interrupted_and_its_worker_serves_on(ray, hold, cancelled):
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
    assert isinstance(cancelled(ref), ray.exceptions.RayTaskError)
    assert ray.get([quick.remote() for _ in range(20)], timeout=60) == [1] * 20


def test_the_task_sees_keyboard_interrupt_and_may_clean_up(ray, hold, tally, cancelled):
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
    cancelled(ref)
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
def test_cancelling_twice_is_as_cancelling_once(ray, hold, cancelled):
    run = hold.body()

    @ray.remote
    def task():
        return run()

    ref = task.remote()
    hold.wait()
    ray.cancel(ref)
    ray.cancel(ref)
    cancelled(ref)
    ray.cancel(ref)
    cancelled(ref)


@pytest.mark.parametrize("force", [False, True])
def test_a_queued_task_never_runs(ray, hold, tally, force, cancelled):
    run, add = hold.body(), tally.adder()

    @ray.remote(num_cpus=4)
    def blocker():
        run()

    @ray.remote
    def task():
        add()

    before = blocker.remote()
    hold.wait()  # Until then there may be a worker for the others.
    refs = [task.remote() for _ in range(50)]
    for ref in refs:
        ray.cancel(ref, force=force)
    for ref in refs:
        cancelled(ref)
    ray.cancel(before)
    cancelled(before)
    assert tally.count == 0


def test_a_task_that_waits_for_its_arguments_never_runs(ray, gate, tally, cancelled):
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
    cancelled(ref)
    cancelled(after)
    gate.open()
    assert ray.get(argument, timeout=60) == 1
    assert tally.count == 0


def test_what_depends_on_a_cancelled_task_fails_with_it(ray, hold, tally, cancelled):
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
        cancelled(each)
    assert tally.count == 0


def test_a_task_for_resources_that_nobody_has_can_be_cancelled(ray, cancelled):
    @ray.remote(resources={"not here": 1})
    def task():
        return 1

    ref = task.remote()
    ray.cancel(ref)
    cancelled(ref)


def test_all_returns_of_a_cancelled_task_fail(ray, hold, cancelled):
    run = hold.body()

    @ray.remote(num_returns=3)
    def task():
        run()
        return 1, 2, 3

    refs = task.remote()
    hold.wait()
    ray.cancel(refs[1])
    for ref in refs:
        cancelled(ref)


@pytest.mark.parametrize("force", [False, True])
def test_a_cancelled_task_is_not_retried(ray, hold, tally, force, cancelled):
    run, add = hold.body(), tally.adder()

    @ray.remote(max_retries=5, retry_exceptions=True)
    def task():
        add()
        return run()

    ref = task.remote()
    hold.wait()
    ray.cancel(ref, force=force)
    cancelled(ref)

    @ray.remote
    def later():
        return 1

    assert ray.get([later.remote() for _ in range(8)], timeout=60) == [1] * 8
    assert tally.count == 1


def test_force_ends_the_worker(ray, tmp_path, wait_exit, hold, cancelled):
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
    cancelled(ref)
    with open(path) as file:
        assert wait_exit(int(file.read()))


def test_resources_come_back(ray, hold, cancelled):
    run = hold.body()

    @ray.remote(num_cpus=4)
    def task(name):
        return run(name=name)

    for turn, force in enumerate((False, True, False)):
        ref = task.remote(str(turn))
        hold.wait(str(turn))
        ray.cancel(ref, force=force)
        cancelled(ref)

    @ray.remote(num_cpus=4)
    def whole():
        return 1

    assert ray.get(whole.remote(), timeout=60) == 1


def test_arguments_being_read_are_given_up(ray, hold, tally, cancelled):
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
    cancelled(ref)
    assert tally.count == 0


def test_a_task_that_waits_in_get_is_cancelled(ray, gate, tmp_path, hold, cancelled):
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
    cancelled(ref)
    gate.open()
    ray.get(argument, timeout=60)


def test_another_process_and_another_thread_may_cancel(ray, hold, cancelled):
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
    cancelled(ref)
    ref = task.remote("b")
    hold.wait("b")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(ray.cancel, ref).result()
    cancelled(ref)


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
