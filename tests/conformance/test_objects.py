"""Objects and references: what an ObjectRef can do, values of every size, shared memory."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import pickle
import threading

import pytest

pytestmark = pytest.mark.conformance


# -- the reference itself


def test_a_ref_has_an_id_of_28_bytes(ray):
    ref = ray.put(1)
    assert len(ref.binary()) == 28
    assert ref.hex() == ref.binary().hex()
    assert repr(ref) == str(ref) == f"ObjectRef({ref.hex()})"
    assert not ref.is_nil()
    assert isinstance(ref, ray.ObjectRef)


def test_refs_are_equal_when_their_ids_are(ray):
    one, other = ray.put(1), ray.put(1)
    (again,) = ray.get(ray.put([one]))
    assert one == again
    assert hash(one) == hash(again)
    assert one != other
    assert one != 1
    assert len({one, other, again}) == 2


def test_refs_are_keys_of_dicts_that_travel(ray):
    @ray.remote
    def look(table):
        return {name: ray.get(ref) for ref, name in table.items()}

    table = {ray.put(n): f"number {n}" for n in range(3)}
    assert ray.get(look.remote(table)) == {"number 0": 0, "number 1": 1, "number 2": 2}
    assert ray.get(ray.put(table)) == table


def test_a_copy_of_a_ref_is_as_good(ray):
    ref = ray.put("value")
    copies = [copy.copy(ref), copy.deepcopy([ref])[0]]
    del ref
    assert ray.get(copies) == ["value", "value"]


def test_a_ref_is_not_a_sequence_of_values(ray):
    with pytest.raises(TypeError):
        list(ray.put([1, 2]))
    with pytest.raises(TypeError):
        ray.put(1) < ray.put(2)  # noqa: B015


def test_a_ref_can_be_awaited(ray):
    @ray.remote
    def double(x):
        return 2 * x

    async def main():
        first = await double.remote(1)
        several = await asyncio.gather(*(double.remote(n) for n in range(5)))
        waited = await asyncio.wait_for(ray.put("put"), 60)
        done, pending = await asyncio.wait([asyncio.ensure_future(double.remote(5))])
        assert not pending
        return first, several, waited, done.pop().result()

    assert asyncio.run(main()) == (2, [0, 2, 4, 6, 8], "put", 10)


def test_awaiting_a_failed_task_raises_its_error(ray):
    @ray.remote
    def fail():
        raise KeyError("on purpose")

    async def main():
        with pytest.raises(KeyError):
            await fail.remote()

    asyncio.run(main())


def test_a_ref_makes_a_concurrent_future(ray, gate):
    wait_open = gate.waiter()

    @ray.remote
    def held():
        wait_open()
        return "done"

    @ray.remote
    def fail():
        raise KeyError("on purpose")

    future = held.remote().future()
    assert isinstance(future, concurrent.futures.Future)
    assert not future.done()
    gate.open()
    assert future.result(60) == "done"
    assert ray.put(1).future().result(60) == 1
    with pytest.raises(KeyError):
        fail.remote().future().result(60)


def test_refs_inside_instances_travel(ray):
    class Box:
        def __init__(self, **refs):
            self.__dict__.update(refs)

    @ray.remote
    def read(box):
        return ray.get(box.left) + ray.get(box.right["deep"])

    box = Box(left=ray.put(1), right={"deep": ray.put(2)})
    assert ray.get(read.remote(box)) == 3
    assert ray.get(ray.get(ray.put(box)).left) == 1


# -- put


def test_put_refuses_a_ref_and_says_so(ray):
    with pytest.raises(TypeError, match="ObjectRef"):
        ray.put(ray.put(1))
    with pytest.raises(TypeError):
        ray.put()


def test_put_knows_no_other_owner(ray):
    with pytest.raises(ValueError, match="_owner"):
        ray.put(1, _owner=object())


def test_put_takes_its_value_by_name(ray):
    assert ray.get(ray.put(value=7)) == 7


def test_put_refuses_what_cannot_be_pickled(ray):
    with pytest.raises(TypeError, match="lock"):
        ray.put({"deep": [threading.Lock()]})
    assert ray.get(ray.put("and works on")) == "and works on"


def test_nothing_and_next_to_nothing_can_be_put(ray):
    import numpy as np

    @ray.remote
    def echo(value):
        return value

    for value in (None, b"", "", (), [], {}, False):
        assert (
            ray.get([ray.put(value), echo.remote(value), echo.remote(ray.put(value))])
            == [value] * 3
        )
    assert ray.get(ray.put(np.zeros(0))).shape == (0,)
    assert ray.get(ray.put(np.zeros((3, 0)))).shape == (3, 0)


def test_a_huge_list_of_small_things_can_be_put(ray):
    values = list(range(300_000))
    assert ray.get(ray.put(values)) == values


def test_an_object_that_is_changed_later_does_not_change_the_stored_one(ray):
    import numpy as np

    array = np.zeros(200_000)
    ref = ray.put(array)
    array[:] = 1
    assert ray.get(ref).sum() == 0


# -- sizes


@pytest.mark.parametrize("size", [0, 1, 1000, 99_000, 100 * 1024, 103_000, 1_000_000, 9_999_999])
def test_values_of_every_size_travel_every_way(ray, size):
    @ray.remote
    def echo(value):
        return value

    @ray.remote
    def inside(box):
        return len(ray.get(box[0]))

    value = bytes(size)
    ref = ray.put(value)
    assert ray.get([ref, echo.remote(value), echo.remote(ref)], timeout=60) == [value] * 3
    assert ray.get(inside.remote([ref]), timeout=60) == size


@pytest.mark.parametrize("size", [10, 500_000])
def test_actors_take_and_give_values_of_every_size(ray, size):
    @ray.remote
    class Echo:
        def __init__(self, first):
            self.first = first

        def get_first(self):
            return self.first

        def echo(self, value):
            return value

    value = b"a" * size
    echo = Echo.remote(ray.put(value))
    assert (
        ray.get(
            [echo.get_first.remote(), echo.echo.remote(value), echo.echo.remote(ray.put(value))],
            timeout=60,
        )
        == [value] * 3
    )


def test_small_and_big_results_of_one_task_come_together(ray):
    @ray.remote(num_returns=4)
    def make():
        return 1, b"x" * 500_000, None, b"y" * 2_000_000

    small, big, none, bigger = ray.get(make.remote())
    assert (small, none) == (1, None)
    assert (len(big), len(bigger)) == (500_000, 2_000_000)


def test_a_task_may_have_thousands_of_results(ray):
    @ray.remote(num_returns=3000)
    def make():
        return list(range(3000))

    refs = make.remote()
    assert len(set(refs)) == 3000
    assert ray.get(refs, timeout=60) == list(range(3000))


def test_a_task_without_results_returns_no_ref(ray, tally):
    count = tally.adder()

    @ray.remote(num_returns=0)
    def run():
        count()

    assert run.remote() is None


def test_a_wrong_count_of_results_fails_every_one(ray):
    @ray.remote(num_returns=3)
    def too_few():
        return 1, 2

    @ray.remote(num_returns=2)
    def too_many():
        return 1, 2, 3

    for ref in [*too_few.remote(), *too_many.remote()]:
        with pytest.raises(ValueError, match="num_returns"):
            ray.get(ref, timeout=60)


@pytest.mark.parametrize("value", [5, None, 1.5])
def test_one_value_where_several_are_due_is_a_type_error(ray, value):
    @ray.remote(num_returns=2)
    def not_several():
        return value

    for ref in not_several.remote():
        with pytest.raises(TypeError):
            ray.get(ref, timeout=60)


def test_all_that_has_a_length_gives_several_results(ray):
    import numpy as np

    @ray.remote(num_returns=2)
    def give(value):
        return value

    for value in ([1, 2], (1, 2), range(1, 3), np.array([1, 2]), {1: "a", 2: "b"}, b"\x01\x02"):
        assert ray.get(give.remote(value), timeout=60) == [1, 2]


# -- many refs


def test_a_task_takes_a_thousand_refs(ray):
    import numpy as np

    @ray.remote
    def total(*values):
        return int(sum(v if isinstance(v, int) else v.sum() for v in values))

    refs = [ray.put(n) for n in range(1000)]
    big = ray.put(np.ones(100_000))
    assert ray.get(total.remote(*refs, big, big), timeout=60) == 499_500 + 200_000


def test_an_object_holds_ten_thousand_refs(ray):
    refs = ray.get(ray.put([ray.put(n) for n in range(10_000)]))
    assert ray.get(refs, timeout=60) == list(range(10_000))


def test_a_task_makes_and_reads_thousands_of_refs(ray):
    @ray.remote
    def make(count):
        return [ray.put(n) for n in range(count)]

    @ray.remote
    def total(refs):
        return sum(ray.get(refs))

    refs = make.remote(2000)
    assert sum(ray.get(ray.get(refs, timeout=60), timeout=60)) == 1_999_000
    assert ray.get(total.remote(refs), timeout=60) == 1_999_000


def test_refs_nest_a_hundred_deep(ray):
    @ray.remote
    def unwrap(box, depth):
        for _ in range(depth):
            (inner,) = box
            box = ray.get(inner)
        return box

    outer = ray.put("deep")
    for _ in range(100):
        outer = ray.put([outer])
    assert ray.get(unwrap.remote([outer], 101), timeout=60) == "deep"
    inner = outer
    for _ in range(100):
        (inner,) = ray.get(inner)
    assert ray.get(inner) == "deep"


# -- shared memory


def _addresses(ray):
    """A remote function: the inode and offset in its file of the memory an array lies in."""

    @ray.remote
    def where(array):
        import os

        address = array.__array_interface__["data"][0]
        with open("/proc/self/maps") as maps:
            for line in maps:
                span, _, offset, device, inode = line.split()[:5]
                start, end = (int(part, 16) for part in span.split("-"))
                if start <= address < end:
                    return os.getpid(), device, inode, int(offset, 16) + address - start
        return None

    return where


def test_readers_of_one_node_share_the_memory_of_an_array(ray, make_gate):
    import numpy as np

    where = _addresses(ray)
    ref = ray.put(np.ones(1_000_000))
    mine = ray.get(ref)
    places = ray.get([where.remote(ref) for _ in range(4)], timeout=60)
    here = ray.get(where.remote(ref), timeout=60)
    assert {place[1:] for place in places} == {here[1:]}
    assert here[2] != "0", "the array lies in memory of the process alone"
    assert not mine.flags.writeable


def test_nothing_is_copied_for_a_get_of_a_big_array(ray):
    import numpy as np

    ref = ray.put({"a": [np.zeros(2_000_000)]})
    first, second = ray.get(ref), ray.get(ref)
    assert first["a"][0].ctypes.data == second["a"][0].ctypes.data


def test_one_array_many_times_in_a_value_stays_one(ray):
    import numpy as np

    got = ray.get(ray.put([np.zeros(42)] * 99))
    assert len(got) == 99
    assert all(part is got[0] for part in got)


def test_a_copy_of_a_read_only_array_may_be_written(ray):
    import numpy as np

    @ray.remote
    def write(array):
        try:
            array[0] = 1
        except ValueError as error:
            refusal = str(error)
        array = array.copy()
        array[0] = 1
        return refusal, float(array[0])

    ref = ray.put(np.zeros(200_000))
    assert ray.get(write.remote(ref), timeout=60) == ("assignment destination is read-only", 1.0)
    assert ray.get(ref)[0] == 0.0


# -- many threads


def test_many_threads_use_everything_at_once(ray):
    import numpy as np

    @ray.remote
    def total(array, plus):
        return int(array.sum()) + plus

    @ray.remote
    class Counter:
        def __init__(self):
            self.count = 0

        def add(self, box):
            self.count += ray.get(box[0])
            return self.count

    counter = Counter.remote()
    shared = ray.put(np.ones(50_000))
    failures = []

    def work(number):
        try:
            for turn in range(10):
                mine = ray.put(turn)
                answers = [total.remote(shared, mine), total.remote(np.ones(20_000), number)]
                ray.wait(answers, num_returns=2, timeout=60)
                assert ray.get(answers, timeout=60) == [50_000 + turn, 20_000 + number]
                ray.get(counter.add.remote([ray.put(1)]), timeout=60)
                nested = ray.put([mine, shared])
                inner = ray.get(nested)
                assert ray.get(inner[0]) == turn
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert failures == []
    assert ray.get(counter.add.remote([ray.put(0)]), timeout=60) == 80


def test_threads_of_a_task_use_the_api(ray):
    @ray.remote
    def one(n):
        return n

    @ray.remote
    def fan_out():
        from concurrent.futures import ThreadPoolExecutor

        def work(n):
            return ray.get(one.remote(ray.put(n)))

        with ThreadPoolExecutor(8) as pool:
            return sum(pool.map(work, range(40)))

    assert ray.get(fan_out.remote(), timeout=60) == sum(range(40))


def test_a_ref_pickled_inside_a_value_by_the_engine_is_counted(ray, glass):
    ref = ray.put(b"x" * 300_000)
    seen = glass(ref)
    outer = ray.put({"ref": ref, "refs": [ref] * 10})
    del ref
    assert not seen.gone()
    value = ray.get(outer)
    assert value["ref"] == value["refs"][9]
    del outer, value
    assert seen.wait_gone()


@pytest.mark.filterwarnings("ignore:.*out of band")
def test_a_ref_pickled_by_plain_pickle_is_the_same_ref_again(ray):
    ref = ray.put(5)
    again = pickle.loads(pickle.dumps(ref))
    assert again == ref
    assert ray.get(again, timeout=60) == 5
