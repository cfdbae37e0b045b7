"""RangeSet: coalescing, cutting, first fit, over one block and over many."""

from __future__ import annotations

import random

import pytest

from mray.node.objects.ranges import RangeSet


def ranges_of(*ranges: tuple[int, int]) -> RangeSet:
    made = RangeSet()
    for start, length in ranges:
        made.add(start, length)
    return made


def test_neighbours_become_one() -> None:
    made = ranges_of((0, 10), (20, 10))
    made.add(10, 10)
    assert list(made) == [(0, 30)]
    assert made.total == 30
    made.check()


def test_touching_one_side_only_grows_that_range() -> None:
    made = ranges_of((0, 10), (30, 10))
    made.add(10, 5)
    made.add(25, 5)
    assert list(made) == [(0, 15), (25, 15)]
    made.check()


@pytest.mark.parametrize(("start", "length"), [(5, 10), (15, 6), (0, 40), (22, 2), (20, 10)])
def test_an_overlap_is_refused_and_changes_nothing(start: int, length: int) -> None:
    made = ranges_of((0, 10), (20, 10))
    with pytest.raises(ValueError, match="overlaps"):
        made.add(start, length)
    assert list(made) == [(0, 10), (20, 10)]
    made.check()


@pytest.mark.parametrize(("start", "length"), [(0, 0), (0, -1), (-1, 5)])
def test_an_empty_or_negative_range_is_refused(start: int, length: int) -> None:
    with pytest.raises(ValueError, match="no range"):
        RangeSet().add(start, length)


def test_first_fit_takes_the_lowest_that_is_long_enough() -> None:
    made = ranges_of((0, 10), (20, 30), (60, 30))
    assert made.first_fit(11) == 20
    assert made.first_fit(10) == 0
    assert made.first_fit(31) == -1


def test_cut_returns_the_pieces_it_found() -> None:
    made = ranges_of((0, 10), (20, 10), (40, 10))
    assert made.cut(5, 40) == [(5, 5), (20, 10), (40, 5)]
    assert list(made) == [(0, 5), (45, 5)]
    assert made.cut(6, 30) == []
    made.check()


def test_cutting_the_middle_leaves_both_ends() -> None:
    made = ranges_of((0, 100))
    assert made.cut(40, 20) == [(40, 20)]
    assert list(made) == [(0, 40), (60, 40)]
    made.check()


def test_last_is_the_highest_range() -> None:
    assert RangeSet().last() is None
    assert ranges_of((0, 1), (5, 2)).last() == (5, 2)


def test_thousands_of_ranges_stay_in_order_and_count() -> None:
    order = list(range(0, 40_000, 4))
    random.Random(7).shuffle(order)
    made = ranges_of(*[(start, 2) for start in order])
    made.check()
    assert len(made) == 10_000
    assert list(made) == [(start, 2) for start in range(0, 40_000, 4)]
    made.add(20_002, 2)
    assert made.first_fit(3) == 20_000
    for start in order:
        made.cut(start, 4)
    assert list(made) == []
    assert made.total == 0
    made.check()
