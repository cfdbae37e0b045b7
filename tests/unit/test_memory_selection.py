"""Sorting, filtering, grouping of a memory report, and which objects are leaks."""

from __future__ import annotations

import pytest

from mray.memory_selection import chosen, grouped, leaks, ordered

from .memory_cluster import ACTOR, DRIVER, memory, object_id, stored, told, view


@pytest.fixture
def objects():
    return memory(
        told(
            DRIVER,
            10,
            [
                view(1, {"LOCAL_REFERENCE": 1}, size_bytes=100, age_s=5.0, call_site="/a/job.py:7"),
                view(2, {"BORROWED": 1}, size_bytes=300, age_s=900.0, borrowers=[(ACTOR, 1)],
                     call_site="/a/job.py:7"),
                view(3, {"LOCAL_REFERENCE": 4}, state="pending", name="step", age_s=1000.0),
            ],
        ),
        told(
            ACTOR,
            12,
            [
                view(2, {"LOCAL_REFERENCE": 2}),
                view(4, {"OUT_OF_BAND": 1}, ACTOR, size_bytes=200, age_s=60.0),
            ],
            title="Keeper.keep",
        ),
        store=[stored(2, 300)],
    ).objects  # fmt: skip


def numbers(found) -> list[int]:
    return [bytes.fromhex(one.object_id)[0] for one in found]


@pytest.mark.parametrize(
    ("by", "order"),
    [
        ("size", [2, 4, 1, 3]),
        ("age", [3, 2, 4, 1]),
        ("count", [3, 2, 1, 4]),
        ("pid", [1, 2, 3, 4]),
        ("kind", [1, 2, 3, 4]),
    ],
)
def test_sorting(objects, by, order):
    assert numbers(ordered(objects, by)) == order


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        ([], [2, 4, 1, 3]),
        ([("pid", "=", "12")], [2, 4]),
        ([("pid", "!=", "12")], [1, 3]),
        ([("owner_pid", "=", "10"), ("state", "=", "READY")], [2, 1]),
        ([("kind", "=", "local_reference")], [2, 1, 3]),
        ([("kind", "=", "OUT_OF_BAND")], [4]),
        ([("type", "=", "driver")], [2, 1, 3]),
        ([("call_site", "=", "job.py")], [2, 1]),
        ([("call_site", "=", "")], [4, 3]),
        ([("name", "=", "step")], [3]),
        ([("title", "=", "keeper")], [2, 4]),
        ([("object_id", "=", object_id(1).hex()[:8])], [1]),
        ([("owner_id", "=", ACTOR.hex()[:12])], [4]),
        ([("job_id", "=", "01")], [2, 4, 1, 3]),
        ([("node_id", "=", "ff")], []),
    ],
)
def test_filtering(objects, wanted, left):
    assert numbers(chosen(objects, wanted)) == left


def test_unknown_words_are_named_with_what_there_is(objects):
    with pytest.raises(ValueError, match="cannot sort by 'colour': one of size, age"):
        ordered(objects, "colour")
    with pytest.raises(ValueError, match="cannot filter by 'colour': one of object_id"):
        chosen([], [("colour", "=", "red")])
    with pytest.raises(ValueError, match="cannot group by 'colour': one of callsite"):
        grouped(objects, "colour")


@pytest.mark.parametrize(
    ("by", "sums"),
    [
        ("callsite", [("/a/job.py:7", 2, 400), ("(not recorded)", 2, 200)]),
        ("owner", [("driver 10", 3, 400), ("actor Keeper 12", 1, 200)]),
        ("kind", [("LOCAL_REFERENCE", 3, 400), ("OUT_OF_BAND", 1, 200)]),
    ],
)
def test_grouping(objects, by, sums):
    groups = grouped(objects, by)
    assert [(group.key, len(group.objects), group.size_bytes) for group in groups] == sums


def test_grouping_by_node(objects):
    assert [len(group.objects) for group in grouped(objects, "node")] == [4]


def test_leaks_are_held_by_no_live_reference_and_with_an_age_also_the_unread(objects):
    assert numbers(leaks(objects)) == [4]
    assert numbers(leaks(objects, 600.0)) == [2, 4]
    assert numbers(leaks(objects, 0.0)) == [2, 4, 1]
