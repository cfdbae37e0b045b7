"""Many arguments, many results, many objects in one get."""

from __future__ import annotations

import numpy as np
import psutil
import pytest

import mray

from .conftest import Size, Timed

pytestmark = [pytest.mark.load, pytest.mark.timeout(300), pytest.mark.usefixtures("cluster")]


def test_many_arguments_of_one_task(size: Size, timed: Timed) -> None:
    count = size(2_000, 10_000)

    @mray.remote
    def total(*numbers: int) -> int:
        return sum(numbers)

    refs = [mray.put(number) for number in range(count)]
    with timed(f"{count} arguments"):
        assert mray.get(total.remote(*refs), timeout=60) == count * (count - 1) // 2


def test_many_results_of_one_task(size: Size, timed: Timed) -> None:
    count = size(500, 3_000)

    @mray.remote(num_returns=count)
    def numbers() -> list[int]:
        return list(range(count))

    with timed(f"{count} results"):
        assert mray.get(numbers.remote(), timeout=30) == list(range(count))


def test_many_objects_in_one_get_are_not_copied(size: Size, timed: Timed) -> None:
    count, cells = size(2_000, 10_000), 20_000  # 160 KB each: in the store.
    refs = [mray.put(np.full(cells, number)) for number in range(count)]
    before = psutil.Process().memory_full_info().uss
    with timed(f"{count} objects of 160 KB"):
        arrays = mray.get(refs, timeout=60)
    grown = psutil.Process().memory_full_info().uss - before
    assert [int(array[number % cells]) for number, array in enumerate(arrays)] == list(range(count))
    assert grown < 0.2 * count * cells * 8, "read in place, not copied"


def test_many_small_objects_in_one_get(size: Size, timed: Timed) -> None:
    count = size(2_000, 10_000)

    @mray.remote
    def make(number: int) -> np.ndarray:
        return np.full(10_000, number)  # 80 KB: in the reply.

    with timed(f"{count} results of 80 KB, made and fetched"):
        arrays = mray.get([make.remote(number) for number in range(count)], timeout=120)
    assert [int(array[-1]) for array in arrays] == list(range(count))


def test_nothing_of_it_stays(size: Size) -> None:
    import gc

    from ..waiting import eventually

    gc.collect()

    def used() -> float:
        room = mray.available_resources().get("object_store_memory", 0.0)
        return mray.cluster_resources().get("object_store_memory", 0.0) - room

    eventually(lambda: used() == 0, 30, "the store is empty again")
