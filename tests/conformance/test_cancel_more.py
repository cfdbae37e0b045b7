"""cancel() of tasks: their children, races, and what goes beyond Ray."""

from __future__ import annotations

import time

import pytest

pytestmark = pytest.mark.conformance


@pytest.mark.parametrize("recursive", [True, False])
def test_children_are_cancelled_only_if_asked(ray, hold, recursive, cancelled):
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
    cancelled(ref)
    if recursive:
        cancelled(born)
    else:
        assert ray.get(born, timeout=60) == "done"


def test_grandchildren_are_cancelled_too(ray, hold, tally, cancelled):
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
    cancelled(ref)
    give_up_at = time.monotonic() + 60
    while tally.count < 1:
        assert time.monotonic() < give_up_at, "the grandchild runs on"
        time.sleep(0.01)


@pytest.mark.mray_only("Ray loses a task in such a race now and then: its get() hangs")
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


@pytest.mark.mray_only("Ray waits for the end of a sleep or of another system call")
def test_a_sleep_is_cut_short(ray, hold, cancelled):
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
        cancelled(ref)


@pytest.mark.mray_only("Ray's error of a task that never ran names no task")
def test_the_error_names_the_task(ray, hold, cancelled):
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
        error = cancelled(ref)
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
def test_force_ends_a_worker_that_is_stopped(ray, hold, tmp_path, wait_exit, cancelled):
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
    cancelled(ref)
    assert wait_exit(pid)
