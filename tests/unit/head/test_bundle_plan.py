"""Which nodes bundles go to."""

from __future__ import annotations

import pytest

from mray.node.head.bundle_plan import spread_over
from mray.node.head.placement import Room
from mray.resources import to_fixed

A, B, C = b"a", b"b", b"c"


def rooms(*cpus: float) -> list[Room]:
    return [
        Room(
            node_id=node_id,
            is_head=False,
            total=to_fixed({"CPU": 4}),
            available=to_fixed({"CPU": cpu}),
        )
        for node_id, cpu in zip((A, B, C), cpus, strict=False)
    ]


def bundles(*cpus: float) -> dict[int, dict[str, int]]:
    return {index: to_fixed({"CPU": cpu}) for index, cpu in enumerate(cpus)}


@pytest.mark.parametrize(
    ("strategy", "asked", "free", "places"),
    [
        ("PACK", (1, 1), (4, 4), {0: A, 1: A}),
        ("PACK", (2, 3), (4, 4), {0: B, 1: A}),
        ("PACK", (3, 3, 3), (4, 4), None),
        ("SPREAD", (1, 1), (4, 4), {0: A, 1: B}),
        ("SPREAD", (1, 1), (4, 0), {0: A, 1: A}),
        ("STRICT_PACK", (2, 2), (3, 4), {0: B, 1: B}),
        ("STRICT_PACK", (2, 3), (4, 4), None),
        ("STRICT_SPREAD", (1, 1, 1), (4, 4, 4), {0: A, 1: B, 2: C}),
        ("STRICT_SPREAD", (1, 1), (4,), None),
        ("STRICT_SPREAD", (1, 4), (4, 1), {0: B, 1: A}),
    ],
)
def test_each_strategy_finds_its_nodes(
    strategy: str, asked: tuple[int, ...], free: tuple[int, ...], places: dict[int, bytes] | None
) -> None:
    assert spread_over(bundles(*asked), strategy, rooms(*free)) == places


def test_what_is_free_does_not_count_where_idle_nodes_are_meant() -> None:
    assert spread_over(bundles(4), "PACK", rooms(0)) is None
    assert spread_over(bundles(4), "PACK", rooms(0), idle=True) == {0: A}


def test_bundles_that_stay_count_for_the_others() -> None:
    strict = spread_over(bundles(1), "STRICT_SPREAD", rooms(4, 4), taken=[A])
    assert strict == {0: B}
    assert spread_over(bundles(1), "STRICT_PACK", rooms(4, 4), taken=[B]) == {0: B}
    assert spread_over(bundles(1), "PACK", rooms(4, 4), taken=[B]) == {0: B}


def test_the_preferred_node_comes_first() -> None:
    assert spread_over(bundles(1), "STRICT_PACK", rooms(4, 4), prefer=B) == {0: B}
