"""put, get and wait."""

from __future__ import annotations

import threading

import pytest

pytestmark = pytest.mark.conformance


def test_what_is_put_can_be_got(ray):
    for value in (0, None, "text", b"", [1, [2]], {"k": (1, 2)}):
        assert ray.get(ray.put(value)) == value


def test_a_put_value_is_a_copy(ray):
    value = [1, 2]
    ref = ray.put(value)
    value.append(3)
    assert ray.get(ref) == [1, 2]


def test_two_gets_of_a_mutable_value_share_nothing(ray):
    ref = ray.put([1])
    ray.get(ref).append(2)
    assert ray.get(ref) == [1]


def test_get_of_a_list_keeps_order_and_duplicates(ray):
    a, b = ray.put("a"), ray.put("b")
    assert ray.get([b, a, b]) == ["b", "a", "b"]


def test_get_of_no_refs_is_an_empty_list(ray):
    assert ray.get([]) == []


def test_get_of_many_refs(ray):
    refs = [ray.put(i) for i in range(10_000)]
    assert ray.get(refs) == list(range(10_000))


def test_get_of_one_ref_many_times(ray):
    ref, big = ray.put("one"), ray.put(b"x" * 500_000)
    assert ray.get([ref] * 1000) == ["one"] * 1000
    assert ray.get([big, ref] * 20) == [b"x" * 500_000, "one"] * 20


def test_get_of_many_results_of_tasks_keeps_order(ray):
    @ray.remote
    def number(n):
        return n

    assert ray.get([number.remote(n) for n in range(500)], timeout=60) == list(range(500))


def test_get_raises_the_error_of_one_though_others_are_pending(ray, gate):
    wait_open = gate.waiter()

    @ray.remote
    def held():
        wait_open()

    @ray.remote
    def fail():
        raise KeyError("on purpose")

    with pytest.raises(KeyError):
        ray.get([held.remote(), fail.remote(), held.remote()], timeout=60)


def test_many_threads_get_one_pending_ref(ray, gate):
    wait_open = gate.waiter()

    @ray.remote
    def held():
        wait_open()
        return [1]

    ref = held.remote()
    got = []
    threads = [threading.Thread(target=lambda: got.append(ray.get(ref))) for _ in range(10)]
    for thread in threads:
        thread.start()
    gate.open()
    for thread in threads:
        thread.join(60)
    assert got == [[1]] * 10
    assert len({id(value) for value in got}) == 10


def test_an_error_that_was_got_can_be_got_again(ray):
    @ray.remote
    def fail():
        raise KeyError("on purpose")

    ref = fail.remote()
    for _ in range(3):
        with pytest.raises(KeyError):
            ray.get(ref, timeout=60)
    with pytest.raises(KeyError):
        ray.get([ray.put(1), ref], timeout=60)


def test_get_refuses_what_is_neither_a_ref_nor_a_list(ray):
    ref = ray.put(1)
    for wrong in (None, 1, "text", ref.binary(), (ref,), {ref}, {1: ref}, iter([ref])):
        with pytest.raises(ValueError):
            ray.get(wrong)
    with pytest.raises(TypeError):
        ray.get(ref, 1)


def test_get_refuses_a_list_with_something_else_in_it(ray):
    ref = ray.put(1)
    for wrong in (None, 2, [ref], ref.hex()):
        with pytest.raises(TypeError):
            ray.get([ref, wrong])


def test_put_refuses_a_ref(ray):
    with pytest.raises(TypeError):
        ray.put(ray.put(1))


def test_a_list_of_refs_can_be_put_and_stays_refs(ray):
    refs = [ray.put(i) for i in range(3)]
    inner = ray.get(ray.put(refs))
    assert inner == refs
    assert ray.get(inner) == [0, 1, 2]


def test_get_with_a_timeout_raises_and_loses_nothing(ray, gate):
    wait_open = gate.waiter()

    @ray.remote
    def held():
        wait_open()
        return "done"

    ref = held.remote()
    with pytest.raises(ray.exceptions.GetTimeoutError):
        ray.get(ref, timeout=0.05)
    with pytest.raises(TimeoutError):
        ray.get([ray.put(1), ref], timeout=0)
    gate.open()
    assert ray.get(ref, timeout=60) == "done"


def test_get_with_timeout_zero_returns_what_is_there(ray):
    assert ray.get(ray.put(1), timeout=0) == 1


def test_get_without_timeout_waits(ray, gate):
    wait_open = gate.waiter()

    @ray.remote
    def held():
        wait_open()
        return "done"

    ref = held.remote()
    got = []
    reader = threading.Thread(target=lambda: got.append(ray.get(ref)))
    reader.start()
    gate.wait_arrival()
    reader.join(60)
    assert got == ["done"]


def test_many_threads_get_and_submit_at_once(ray):
    @ray.remote
    def add(a, b):
        return a + b

    shared = ray.put(100)
    results = {}

    def work(number):
        results[number] = [ray.get(add.remote(shared, number)) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {n: [100 + n] * 20 for n in range(8)}


def test_wait_returns_one_ready_ref_by_default(ray):
    refs = [ray.put(i) for i in range(3)]
    ready, rest = ray.wait(refs)
    assert len(ready) == 1
    assert set(ready) | set(rest) == set(refs)
    assert len(rest) == 2


def test_wait_never_returns_more_than_asked_for(ray):
    refs = [ray.put(i) for i in range(5)]
    ready, rest = ray.wait(refs, num_returns=3)
    assert (len(ready), len(rest)) == (3, 2)


def test_wait_keeps_the_order_of_its_list(ray):
    refs = [ray.put(i) for i in range(10)]
    ready, rest = ray.wait(refs, num_returns=10)
    assert ready == refs
    assert rest == []


def test_wait_parts_ready_from_pending_and_keeps_order(ray, make_gate):
    gates = [make_gate() for _ in range(3)]

    def held(gate):
        wait_open = gate.waiter()

        @ray.remote
        def task():
            wait_open()

        return task.remote()

    refs = [held(gate) for gate in gates]
    gates[1].open()
    assert ray.wait(refs, timeout=60) == ([refs[1]], [refs[0], refs[2]])
    gates[2].open()
    assert ray.wait(refs, num_returns=2, timeout=60) == ([refs[1], refs[2]], [refs[0]])
    gates[0].open()
    assert ray.wait(refs, num_returns=3, timeout=60) == (refs, [])


def test_wait_returns_at_its_timeout_with_what_is_ready(ray, gate):
    wait_open = gate.waiter()

    @ray.remote
    def held():
        wait_open()

    pending, done = held.remote(), ray.put(1)
    assert ray.wait([pending], timeout=0) == ([], [pending])
    assert ray.wait([pending], timeout=0.05) == ([], [pending])
    assert ray.wait([pending, done], num_returns=2, timeout=0.05) == ([done], [pending])


def test_wait_counts_a_failed_task_as_ready(ray):
    @ray.remote
    def fail():
        raise ValueError("on purpose")

    ref = fail.remote()
    assert ray.wait([ref], timeout=60) == ([ref], [])


def test_wait_on_nothing_returns_nothing(ray):
    assert ray.wait([]) == ([], [])


def test_wait_refuses_bad_arguments(ray):
    ref = ray.put(1)
    with pytest.raises(ValueError):
        ray.wait([ref, ref])
    with pytest.raises(ValueError):
        ray.wait([ref], num_returns=0)
    with pytest.raises(ValueError):
        ray.wait([ref], num_returns=2)
    with pytest.raises(ValueError):
        ray.wait([ref], timeout=-1)
    with pytest.raises(ValueError):
        ray.wait([ref], num_returns=-1)
    for wrong in (ref, (ref,), {ref}, iter([ref]), None, [1], [ref, None], [[ref]]):
        with pytest.raises(TypeError):
            ray.wait(wrong)
    with pytest.raises(TypeError):
        ray.wait([ref], 1)


def test_wait_does_not_need_the_value_here(ray):
    ref = ray.put(b"x" * 500_000)
    assert ray.wait([ref], fetch_local=False) == ([ref], [])
    assert ray.wait([ref], timeout=0) == ([ref], [])


def test_wait_sees_refs_become_ready_one_by_one(ray, make_gate):
    gates = [make_gate() for _ in range(3)]
    waiters = [gate.waiter() for gate in gates]

    @ray.remote
    def held(wait_open):
        wait_open()

    left = [held.remote(waiter) for waiter in waiters]
    for number in (2, 0, 1):
        gates[number].open()
        ready, left = ray.wait(left, timeout=60)
        assert len(ready) == 1
    assert left == []


def test_wait_of_many_threads_on_the_same_refs(ray, gate):
    wait_open = gate.waiter()

    @ray.remote
    def held():
        wait_open()

    refs = [held.remote() for _ in range(3)]
    seen = []
    threads = [
        threading.Thread(target=lambda: seen.append(ray.wait(refs, num_returns=3, timeout=60)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    gate.open()
    for thread in threads:
        thread.join(60)
    assert seen == [(refs, [])] * 8


def test_wait_in_a_task_on_refs_of_another_owner(ray, make_gate):
    first, second = make_gate(), make_gate()
    wait_first, wait_second = first.waiter(), second.waiter()

    @ray.remote
    def held(wait_open):
        wait_open()
        return "done"

    @ray.remote
    def watch(refs):
        ready, rest = ray.wait(refs, timeout=60)
        return ray.get(ready), len(rest), ray.wait(rest, timeout=0)[0]

    refs = [held.remote(wait_first), held.remote(wait_second)]
    watching = watch.remote(refs)
    first.open()
    assert ray.get(watching, timeout=60) == (["done"], 1, [])


def test_waiting_in_turn_sees_every_ref_once(ray):
    @ray.remote
    def number(n):
        return n

    pending = [number.remote(n) for n in range(50)]
    seen = []
    while pending:
        ready, pending = ray.wait(pending, timeout=60)
        assert ready
        seen += ray.get(ready)
    assert sorted(seen) == list(range(50))


def test_big_values_can_be_put_and_got(ray):
    import numpy as np

    array = np.arange(3_000_000)
    ref = ray.put(array)
    assert np.array_equal(ray.get(ref), array)
    assert ray.wait([ref], timeout=60) == ([ref], [])


def test_a_timeout_of_minus_one_waits_as_long_as_it_takes(ray, make_gate):
    import threading

    gate = make_gate()
    wait = gate.waiter()

    @ray.remote
    def held():
        wait()
        return 5

    ref = held.remote()
    opener = threading.Thread(target=gate.wait_arrival)
    opener.start()
    assert ray.get(ref, timeout=-1) == 5
    assert ray.get([ref], timeout=-1) == [5]
    opener.join()
