"""Long chains, wide fans, deep nesting; and what lists of tasks say of them."""

from __future__ import annotations

import pytest

import mray
from mray.util.state import list_tasks, summarize_tasks

from ..waiting import eventually
from .conftest import Size, Timed

pytestmark = [pytest.mark.load, pytest.mark.timeout(600), pytest.mark.usefixtures("cluster")]


def test_a_long_chain(size: Size, timed: Timed) -> None:
    count = size(500, 5_000)

    @mray.remote
    def add_one(number: int) -> int:
        return number + 1

    with timed(f"a chain of {count}"):
        last = mray.put(0)
        for _ in range(count):
            last = add_one.remote(last)
        assert mray.get(last, timeout=120) == count


def test_a_wide_fan(size: Size, timed: Timed) -> None:
    count = size(2_000, 50_000)

    @mray.remote
    def read(value: list[int], number: int) -> int:
        return value[number % 10] + number

    with timed(f"a fan of {count}"):
        value = mray.put(list(range(10)))
        results = mray.get([read.remote(value, number) for number in range(count)], timeout=300)
    assert results == [number % 10 + number for number in range(count)]


def test_deep_nesting(size: Size, timed: Timed) -> None:
    depth = size(20, 100)

    @mray.remote(num_cpus=1)
    def descend(left: int) -> int:
        return 0 if left == 0 else 1 + mray.get(descend.remote(left - 1))

    with timed(f"{depth} tasks, each waiting for the next"):
        assert mray.get(descend.remote(depth), timeout=200) == depth


def test_tasks_are_listed_in_time(size: Size, timed: Timed) -> None:
    count = size(1_000, 100_000)

    def one(number: int) -> None:
        return None

    listed = mray.remote(one).options(name="listed")
    mray.get([listed.remote(number) for number in range(count)], timeout=300)
    kept = min(count, 100_000)

    def counted() -> int:
        summary = summarize_tasks()["cluster"]["summary"]
        return int(summary.get("listed", {}).get("state_counts", {}).get("FINISHED", 0))

    eventually(lambda: counted() >= 0.9 * kept, 60, "the head has heard of them")
    with timed(f"a list of {kept} tasks, 1,000 asked for"):
        found = list_tasks(filters=[("name", "=", "listed")], limit=1_000)
    assert len(found) == min(count, 1_000)
    assert {task.state for task in found} == {"FINISHED"}
