"""ObjectRefs as arguments: direct ones are resolved first, ones inside a value stay refs."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.conformance


def test_a_direct_ref_arrives_as_its_value(ray):
    @ray.remote
    def echo(value):
        return value

    assert ray.get(echo.remote(ray.put([1, 2]))) == [1, 2]


def test_keyword_and_starred_refs_arrive_as_their_values(ray):
    @ray.remote
    def echo(*values, last=None):
        return values, last

    a, b, c = (ray.put(x) for x in "abc")
    assert ray.get(echo.remote(a, *[b], last=c)) == (("a", "b"), "c")


def test_refs_inside_values_stay_refs(ray):
    @ray.remote
    def kinds(*boxes):
        a_list, a_tuple, a_dict = boxes
        refs = [a_list[0], a_tuple[0], a_dict["k"]]
        return [isinstance(ref, ray.ObjectRef) for ref in refs], ray.get(refs)

    ref = ray.put("v")
    assert ray.get(kinds.remote([ref], (ref,), {"k": ref})) == ([True] * 3, ["v"] * 3)


def test_one_ref_may_be_given_several_times(ray):
    @ray.remote
    def echo(a, b, c=None):
        return a, b, c

    ref = ray.put(5)
    assert ray.get(echo.remote(ref, ref, c=ref)) == (5, 5, 5)


def test_results_flow_through_a_chain_without_get(ray):
    @ray.remote
    def increment(x):
        return x + 1

    ref = ray.put(0)
    for _ in range(50):
        ref = increment.remote(ref)
    assert ray.get(ref, timeout=60) == 50


def test_results_flow_through_a_tree_without_get(ray):
    @ray.remote
    def add(a, b):
        return a + b

    layer = [ray.put(i) for i in range(16)]
    while len(layer) > 1:
        layer = [add.remote(a, b) for a, b in zip(layer[::2], layer[1::2], strict=True)]
    assert ray.get(layer[0], timeout=60) == 120


def test_a_task_waits_for_its_arguments_and_holds_up_no_other(ray, gate):
    wait_open = gate.waiter()

    @ray.remote
    def held():
        wait_open()
        return 1

    @ray.remote
    def echo(value):
        return value

    source = held.remote()
    waiting = [echo.remote(source) for _ in range(8)]
    assert ray.get(echo.remote("free"), timeout=60) == "free"
    assert ray.wait(waiting, timeout=0)[0] == []
    gate.open()
    assert ray.get(waiting, timeout=60) == [1] * 8


def test_an_argument_lives_though_the_driver_drops_its_ref(ray, gate):
    import numpy as np

    wait_open = gate.waiter()

    @ray.remote
    def held():
        wait_open()

    @ray.remote
    def total(_after, small, big):
        return small + int(big.sum())

    small, big = ray.put(1), ray.put(np.ones(500_000, dtype=np.int64))
    result = total.remote(held.remote(), small, big)
    del small, big
    gate.open()
    assert ray.get(result, timeout=60) == 500_001


def test_a_nested_argument_lives_though_the_driver_drops_its_ref(ray, gate):
    wait_open = gate.waiter()

    @ray.remote
    def held():
        wait_open()

    @ray.remote
    def read(_after, box):
        return ray.get(box[0])

    result = read.remote(held.remote(), [ray.put("kept")])
    gate.open()
    assert ray.get(result, timeout=60) == "kept"


def test_big_values_and_big_refs_are_the_same_to_a_task(ray):
    import numpy as np

    @ray.remote
    def total(array):
        return int(array.sum())

    array = np.arange(1_000_000)
    expected = int(array.sum())
    assert ray.get([total.remote(array), total.remote(ray.put(array))]) == [expected] * 2


def test_an_array_argument_from_the_store_is_read_only(ray):
    import numpy as np

    @ray.remote
    def write(array):
        array[0] = 1

    with pytest.raises(ValueError, match="read-only"):
        ray.get(write.remote(ray.put(np.zeros(500_000))))


def test_one_big_return_feeds_many_tasks(ray):
    import numpy as np

    @ray.remote
    def make():
        return np.ones(1_000_000)

    @ray.remote
    def total(array, factor):
        return int(array.sum()) * factor

    source = make.remote()
    assert ray.get([total.remote(source, i) for i in range(10)], timeout=60) == [
        1_000_000 * i for i in range(10)
    ]


def test_refs_captured_by_a_closure_stay_valid(ray):
    ref = ray.put("captured")

    @ray.remote
    def read():
        return ray.get(ref)

    assert [ray.get(read.remote()) for _ in range(3)] == ["captured"] * 3


def test_actor_constructors_and_methods_resolve_refs_too(ray):
    @ray.remote
    class Keeper:
        def __init__(self, value, box):
            self.value, self.box = value, box

        def show(self, more):
            return self.value, ray.get(self.box[0]), more

    keeper = Keeper.remote(ray.put("direct"), [ray.put("nested")])
    assert ray.get(keeper.show.remote(ray.put("more"))) == ("direct", "nested", "more")


def test_several_returns_feed_different_tasks(ray):
    @ray.remote(num_returns=2)
    def split(values):
        return values[:1], values[1:]

    @ray.remote
    def length(values):
        return len(values)

    head, tail = split.remote([1, 2, 3])
    assert ray.get([length.remote(head), length.remote(tail)]) == [1, 2]
