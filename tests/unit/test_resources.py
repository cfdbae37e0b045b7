"""Arithmetic of resource vectors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mray.resources import UNIT, fits, give_back, missing, take, to_fixed, to_float

VECTORS = st.dictionaries(st.sampled_from("abc"), st.integers(0, 10**12))


def test_amounts_are_counted_in_ten_thousandths_and_zeros_left_out() -> None:
    assert to_fixed({"CPU": 0.1, "GPU": 2, "x": 0}) == {"CPU": 1000, "GPU": 20_000}
    assert to_float({"CPU": 1000}) == {"CPU": 0.1}


@pytest.mark.parametrize("amount", [-1, -0.00001, 0.00001, float("nan"), float("inf")])
def test_amounts_that_cannot_be_are_refused_by_name(amount: float) -> None:
    with pytest.raises(ValueError, match="'gadget'"):
        to_fixed({"gadget": amount})


@pytest.mark.parametrize(
    ("need", "available", "verdict"),
    [({}, {}, True), ({"a": 1}, {"a": 1}, True), ({"a": 2}, {"a": 1}, False),
     ({"a": 1}, {"b": 1}, False), ({"a": 0}, {}, True)],
)  # fmt: skip
def test_fits(need: dict[str, int], available: dict[str, int], verdict: bool) -> None:
    assert fits(need, available) is verdict


@given(VECTORS, VECTORS)
def test_what_is_given_back_is_what_was_taken(need: dict[str, int], there: dict[str, int]) -> None:
    before = dict(there)
    take(need, there)
    give_back(need, there)
    assert {k: v for k, v in there.items() if v} == {k: v for k, v in before.items() if v}


def test_a_worker_that_wakes_up_takes_its_cpu_below_zero() -> None:
    there = {"CPU": 0}
    take({"CPU": 10_000}, there)
    assert there == {"CPU": -10_000}


def test_missing_says_what_was_asked_and_what_is_there() -> None:
    assert missing({"CPU": 20_000, "a": 1}, {"CPU": 10_000, "a": 5}) == {"CPU": (2.0, 1.0)}


def test_what_no_message_could_tell_is_refused() -> None:
    assert to_fixed({"memory": 2.0**42}) == {"memory": 2**42 * UNIT}
    with pytest.raises(ValueError, match=r"memory.*more than"):
        to_fixed({"memory": 1e16})
