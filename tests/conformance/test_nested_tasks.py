"""Tasks that submit tasks, and the refs they make."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.conformance


def test_a_task_gets_results_of_its_own_tasks(ray):
    @ray.remote
    def square(x):
        return x * x

    @ray.remote
    def sum_of_squares(n):
        return sum(ray.get([square.remote(i) for i in range(n)]))

    assert ray.get(sum_of_squares.remote(20)) == sum(i * i for i in range(20))


def test_nesting_deeper_than_there_are_cpus_does_not_deadlock(ray):
    @ray.remote(num_cpus=1)
    def descend(task, depth):
        return 0 if depth == 0 else 1 + ray.get(task.remote(task, depth - 1))

    assert ray.get(descend.remote(descend, 8), timeout=60) == 8


def test_wide_nesting_over_all_cpus_does_not_deadlock(ray):
    @ray.remote(num_cpus=1)
    def leaf(x):
        return x

    @ray.remote(num_cpus=1)
    def parent(x):
        return sum(ray.get([leaf.remote(x), leaf.remote(x)]))

    assert ray.get([parent.remote(i) for i in range(12)], timeout=60) == [2 * i for i in range(12)]


def test_a_task_that_holds_all_cpus_can_wait_for_its_child(ray):
    @ray.remote(num_cpus=1)
    def child():
        return "child"

    @ray.remote(num_cpus=4)
    def parent():
        ready, _ = ray.wait([child.remote()])
        return ray.get(ready[0])

    assert ray.get(parent.remote(), timeout=60) == "child"


def test_a_ref_returned_by_a_task_outlives_the_task(ray):
    @ray.remote
    def put_one(value):
        return ray.put(value)

    inner = ray.get(put_one.remote([1, 2]))
    assert isinstance(inner, ray.ObjectRef)
    assert ray.get(inner, timeout=60) == [1, 2]


def test_a_big_object_put_by_a_task_can_be_got_through_its_ref(ray):
    import numpy as np

    @ray.remote
    def put_big():
        return [ray.put(np.full(500_000, 7))]

    (inner,) = ray.get(put_big.remote())
    assert int(ray.get(inner, timeout=60).sum()) == 3_500_000


def test_a_task_may_return_the_ref_of_a_task_still_running(ray, gate):
    wait_open = gate.waiter()

    @ray.remote
    def slow():
        wait_open()
        return "late"

    @ray.remote
    def start():
        return slow.remote()

    inner = ray.get(start.remote(), timeout=60)
    assert ray.wait([inner], timeout=0) == ([], [inner])
    gate.open()
    assert ray.get(inner, timeout=60) == "late"


def test_a_task_works_on_refs_of_its_driver(ray):
    @ray.remote
    def total(refs):
        return sum(ray.get(refs))

    assert ray.get(total.remote([ray.put(i) for i in range(10)])) == 45


def test_refs_pass_through_several_tasks(ray):
    @ray.remote
    def forward(box):
        return box

    box = [ray.put("payload")]
    for _ in range(4):
        box = ray.get(forward.remote(box))
    assert ray.get(box[0]) == "payload"


def test_errors_of_a_child_come_through_its_parent(ray):
    @ray.remote
    def child():
        raise ValueError("from the child")

    @ray.remote
    def parent():
        return ray.get(child.remote())

    with pytest.raises(ValueError, match="from the child"):
        ray.get(parent.remote())


def test_a_parent_may_catch_the_error_of_its_child(ray):
    @ray.remote
    def child():
        raise ValueError("from the child")

    @ray.remote
    def parent():
        try:
            ray.get(child.remote())
        except ValueError:
            return "caught"

    assert ray.get(parent.remote()) == "caught"


def test_a_task_may_define_remote_functions(ray):
    @ray.remote
    def define_and_run():
        @ray.remote
        def inner(x):
            return x + 1

        return ray.get(inner.remote(1))

    assert ray.get(define_and_run.remote()) == 2


def test_a_task_may_start_actors(ray):
    class Counter:
        def __init__(self):
            self.value = 0

        def add(self):
            self.value += 1
            return self.value

    @ray.remote
    def count_to(n):
        counter = ray.remote(Counter).remote()
        return [ray.get(counter.add.remote()) for _ in range(n)]

    assert ray.get(count_to.remote(3), timeout=60) == [1, 2, 3]


def test_children_know_their_job(ray):
    @ray.remote
    def job():
        return ray.get_runtime_context().get_job_id()

    @ray.remote
    def parent():
        return ray.get(job.remote())

    assert ray.get(parent.remote()) == ray.get_runtime_context().get_job_id()
