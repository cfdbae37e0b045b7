"""How long objects live: while anything holds them, and hardly longer.

Each test looks at objects of the driver through a `glass`, which keeps nothing alive. Objects are
of two sizes: small ones stay with their owner, big ones are in the store.
"""

from __future__ import annotations

import gc

import pytest

pytestmark = pytest.mark.conformance

#: Bytes of an object that stays with its owner, and of one in the store.
SIZES = [10, 500_000]


@pytest.fixture(params=SIZES, ids=["small", "big"])
def value(request):
    return b"v" * request.param


def test_an_object_lives_as_long_as_a_ref(ray, glass, value):
    ref = ray.put(value)
    seen = glass(ref)
    other = ref
    del ref
    gc.collect()
    assert not seen.gone()
    assert ray.get(other) == value
    del other
    assert seen.wait_gone()


def test_a_result_lives_as_long_as_a_ref(ray, glass, value):
    @ray.remote
    def make():
        return value

    ref = make.remote()
    ray.get(ref)
    seen = glass(ref)
    assert not seen.gone()
    del ref
    assert seen.wait_gone()


def test_one_of_several_results_is_freed_by_itself(ray, glass, value):
    @ray.remote(num_returns=3)
    def make():
        return value, value, value

    refs = make.remote()
    ray.get(refs)
    seen = [glass(ref) for ref in refs]
    del refs[1]
    assert seen[1].wait_gone()
    assert not seen[0].gone()
    assert not seen[2].gone()
    refs.clear()
    assert seen[0].wait_gone()
    assert seen[2].wait_gone()


def test_the_argument_of_a_waiting_task_lives_until_it_has_run(ray, glass, gate, value):
    wait_open = gate.waiter()

    @ray.remote
    def held():
        wait_open()

    @ray.remote
    def size(_after, given):
        return len(given)

    ref = ray.put(value)
    seen = glass(ref)
    answer = size.remote(held.remote(), ref)
    del ref
    gc.collect()
    assert not seen.gone()
    gate.open()
    assert ray.get(answer, timeout=60) == len(value)
    assert seen.wait_gone()


def test_a_ref_inside_the_argument_of_a_running_task_is_held(ray, glass, make_gate, value):
    began, proceed = make_gate(), make_gate()
    say_begun, wait_open = began.waiter(), proceed.waiter()

    @ray.remote
    def read(box):
        say_begun()
        wait_open()
        return len(ray.get(box["deep"][0]))

    ref = ray.put(value)
    seen = glass(ref)
    answer = read.remote({"deep": [ref]})
    del ref
    began.wait_arrival()
    gc.collect()
    assert not seen.gone()
    proceed.open()
    assert ray.get(answer, timeout=60) == len(value)
    assert seen.wait_gone()


@pytest.mark.parametrize("depth", [1, 3, 30])
def test_an_object_lives_inside_others_at_any_depth(ray, glass, value, depth):
    ref = ray.put(value)
    seen = glass(ref)
    outer = ref
    for _ in range(depth):
        outer = ray.put([outer])
    del ref
    gc.collect()
    assert not seen.gone()
    inner = outer
    for _ in range(depth):
        (inner,) = ray.get(inner)
    del outer
    assert ray.get(inner) == value
    assert not seen.gone()
    del inner
    assert seen.wait_gone()


def test_an_object_inside_two_others_lives_until_both_are_gone(ray, glass, value):
    ref = ray.put(value)
    seen = glass(ref)
    first, second = ray.put([ref]), ray.put((1, ref))
    del ref, first
    gc.collect()
    assert not seen.gone()
    del second
    assert seen.wait_gone()


def test_an_actor_keeps_what_it_stores(ray, glass, value):
    @ray.remote
    class Keeper:
        def keep(self, box):
            self.box = box

        def size(self):
            return len(ray.get(self.box[0]))

        def drop(self):
            self.box = None

    keeper = Keeper.remote()
    ref = ray.put(value)
    seen = glass(ref)
    ray.get(keeper.keep.remote([ref]))
    del ref
    gc.collect()
    assert not seen.gone()
    assert ray.get(keeper.size.remote()) == len(value)
    ray.get(keeper.drop.remote())
    assert seen.wait_gone()


def test_an_actor_keeps_refs_of_its_constructor(ray, glass, value):
    @ray.remote
    class Keeper:
        def __init__(self, box):
            self.box = box

        def size(self):
            return len(ray.get(self.box[0]))

    ref = ray.put(value)
    seen = glass(ref)
    keeper = Keeper.remote([ref])
    del ref
    assert ray.get(keeper.size.remote(), timeout=60) == len(value)
    assert not seen.gone()
    ray.kill(keeper)
    assert seen.wait_gone()


def test_what_an_actor_kept_is_freed_with_its_last_handle(ray, glass, value):
    @ray.remote
    class Keeper:
        def keep(self, box):
            self.box = box

    keeper = Keeper.remote()
    ref = ray.put(value)
    seen = glass(ref)
    ray.get(keeper.keep.remote([ref]))
    del ref
    assert not seen.gone()
    del keeper
    assert seen.wait_gone()


def test_what_a_worker_borrowed_is_freed_when_it_dies(ray, glass, value):
    @ray.remote
    class Keeper:
        def keep(self, box):
            self.box = box

        def die(self):
            import os

            os._exit(1)

    keeper = Keeper.remote()
    ref = ray.put(value)
    seen = glass(ref)
    ray.get(keeper.keep.remote([ref]))
    del ref
    assert not seen.gone()
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(keeper.die.remote(), timeout=60)
    assert seen.wait_gone()


def test_arguments_of_a_task_that_raises_are_freed(ray, glass, value):
    @ray.remote
    def fail(given, box):
        raise ValueError("on purpose")

    direct, nested = ray.put(value), ray.put(value)
    seen = [glass(direct), glass(nested)]
    failed = fail.remote(direct, [nested])
    del direct, nested
    try:
        ray.get(failed, timeout=60)
    except ValueError:
        pass
    else:
        raise AssertionError("the task did not fail")
    del failed
    gc.collect()
    assert all(one.wait_gone() for one in seen)


def test_arguments_of_a_task_whose_worker_dies_are_freed(ray, glass, value):
    @ray.remote(max_retries=0)
    def die(given, box):
        import os

        os._exit(1)

    direct, nested = ray.put(value), ray.put(value)
    seen = [glass(direct), glass(nested)]
    failed = die.remote(direct, [nested])
    del direct, nested
    with pytest.raises(ray.exceptions.WorkerCrashedError):
        ray.get(failed, timeout=60)
    del failed
    assert all(one.wait_gone() for one in seen)


def test_arguments_live_through_a_retry(ray, glass, tally, value):
    count = tally.adder()

    @ray.remote(max_retries=1)
    def die_once(given, box):
        import os

        if count() == 1:
            os._exit(1)
        return len(given) + len(ray.get(box[0]))

    direct, nested = ray.put(value), ray.put(value)
    seen = [glass(direct), glass(nested)]
    answer = die_once.remote(direct, [nested])
    del direct, nested
    assert ray.get(answer, timeout=60) == 2 * len(value)
    assert all(one.wait_gone() for one in seen)


def test_a_ref_that_comes_back_in_a_result_is_held_by_the_result(ray, glass, value):
    @ray.remote
    def same(box):
        return box

    ref = ray.put(value)
    seen = glass(ref)
    back = same.remote([ref])
    del ref
    ray.wait([back], timeout=60)
    gc.collect()
    assert not seen.gone()
    (inner,) = ray.get(back)
    del back
    gc.collect()
    assert ray.get(inner) == value
    del inner
    assert seen.wait_gone()


def test_a_ref_that_a_task_returns_can_be_read_when_the_task_is_long_over(ray, value):
    @ray.remote
    def make():
        return value

    @ray.remote
    def nested():
        return [ray.put(value), make.remote()]

    @ray.remote
    def twice_nested():
        return [nested.remote()]

    outer = twice_nested.remote()
    (inner,) = ray.get(outer, timeout=60)
    del outer
    refs = ray.get(inner, timeout=60)
    del inner
    assert ray.get(refs, timeout=60) == [value, value]


def test_a_ref_handed_down_a_chain_of_tasks_is_held_to_the_end(ray, glass, value):
    @ray.remote
    def hand_down(box, depth):
        if depth:
            return ray.get(hand_down.remote(box, depth - 1))
        return len(ray.get(box[0]))

    ref = ray.put(value)
    seen = glass(ref)
    answer = hand_down.remote([ref], 3)
    del ref
    assert ray.get(answer, timeout=60) == len(value)
    assert seen.wait_gone()


def test_a_ref_goes_from_one_actor_to_another(ray, glass, value):
    @ray.remote
    class Keeper:
        def keep(self, box):
            self.box = box

        def hand_to(self, other):
            ray.get(other.keep.remote(self.box))
            self.box = None

        def size(self):
            return len(ray.get(self.box[0]))

    first, second = Keeper.remote(), Keeper.remote()
    ref = ray.put(value)
    seen = glass(ref)
    ray.get(first.keep.remote([ref]))
    del ref
    ray.get(first.hand_to.remote(second), timeout=60)
    ray.kill(first)
    assert ray.get(second.size.remote(), timeout=60) == len(value)
    assert not seen.gone()
    del second
    assert seen.wait_gone()


def test_a_ref_inside_an_exception_can_be_read(ray, value):
    class Carrier(Exception):
        def __init__(self, ref):
            super().__init__(ref)
            self.ref = ref

    @ray.remote
    def fail():
        raise Carrier(ray.put(value))

    failed = fail.remote()
    with pytest.raises(Carrier) as caught:
        ray.get(failed, timeout=60)
    del failed
    assert ray.get(caught.value.ref, timeout=60) == value


def test_a_ref_in_a_closure_is_pinned_until_the_job_ends(ray, glass, value):
    captured = [ray.put(value)]
    seen = glass(captured[0])

    @ray.remote
    def read():
        return len(ray.get(captured[0]))

    assert ray.get(read.remote(), timeout=60) == len(value)
    captured.clear()
    del read
    gc.collect()
    assert not seen.gone()


def test_refs_in_a_cycle_go_with_the_cycle(ray, glass, value):
    class Node:
        pass

    left, right = Node(), Node()
    left.other, right.other = right, left
    left.ref = ray.put(value)
    seen = glass(left.ref)
    assert not seen.gone()
    del left, right
    gc.collect()
    assert seen.wait_gone()


def test_refs_of_other_threads_count(ray, glass, value):
    import threading

    refs, proceed = [], threading.Event()

    def hold():
        ref = ray.put(value)
        refs.append(glass(ref))
        made.set()
        proceed.wait(60)

    made = threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    assert made.wait(60)
    assert not refs[0].gone()
    proceed.set()
    thread.join(60)
    assert refs[0].wait_gone()


def test_a_get_on_its_way_holds_its_object(ray, gate, value):
    wait_open = gate.waiter()

    @ray.remote
    def make():
        wait_open()
        return value

    refs = [make.remote()]
    import threading

    got = []
    thread = threading.Thread(target=lambda: got.append(ray.get(refs.pop(), timeout=60)))
    thread.start()
    gate.wait_arrival()
    thread.join(60)
    assert got == [value]


def test_an_array_outlives_its_ref(ray):
    import numpy as np

    parts = []
    for n in range(10):
        ref = ray.put(np.full(100_000, n))
        parts.append(ray.get(ref)[5:10])
        del ref
    others = [ray.put(np.zeros(100_000)) for _ in range(10)]
    assert [part.tolist() for part in parts] == [[n] * 5 for n in range(10)]
    del others


def test_results_dropped_before_they_are_made_disturb_nothing(ray, gate, value):
    wait_open = gate.waiter()

    @ray.remote
    def make():
        wait_open()
        return value

    for _ in range(5):
        make.remote()
    kept = make.remote()
    gate.open()
    assert ray.get(kept, timeout=60) == value


def test_weights_of_many_generations_leave_room_for_the_next(ray):
    import numpy as np

    @ray.remote
    def step(weights):
        return weights + 1

    weights = ray.put(np.zeros(1_000_000))
    for _ in range(50):
        weights = step.remote(weights)
    assert ray.get(weights, timeout=120)[0] == 50
