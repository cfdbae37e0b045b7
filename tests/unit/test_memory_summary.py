"""memory_summary(): the text that programs written for Ray search."""

from __future__ import annotations

import msgspec
import pytest

from mray.memory_report import join
from mray.memory_summary import summary

from .memory_cluster import ACTOR, DRIVER, MIB, memory, node, object_id, report, stored, told, view


@pytest.fixture
def found():
    site = "/home/ada/a_project_with_a_long_name/training/step_by_step.py:120 in step"
    return memory(
        told(
            DRIVER,
            10,
            [
                view(1, {"LOCAL_REFERENCE": 1}, size_bytes=20 * MIB, call_site=site),
                view(2, {"USED_BY_PENDING_TASK": 1, "LOCAL_REFERENCE": 1}, size_bytes=7),
                view(3, {"LOCAL_REFERENCE": 1}, name="f", state="pending",
                     reason="waits for 1 argument(s): g"),
                view(4, {"LOCAL_REFERENCE": 1}, name="f", state="pending",
                     reason="runs in worker pid 3"),
                view(5, {"LOCAL_REFERENCE": 1}, name="f", size_bytes=9),
                view(6, {"LOCAL_REFERENCE": 1}, name="f", size_bytes=9, state="error"),
                view(7, {"ACTOR_HANDLE": 1}, name="Keeper"),
            ],
        ),
        told(ACTOR, 12, [view(1, {"CAPTURED_IN_OBJECT": 1})]),
        store=[stored(1, 20 * MIB)],
    )  # fmt: skip


def lines_of(text: str, number: int) -> list[str]:
    return [line for line in text.splitlines() if object_id(number).hex() in line]


def test_one_line_a_reference_with_kind_size_and_whole_id(found):
    text = summary(found, made_at="now")
    driver, actor = lines_of(text, 1)
    assert driver.split()[:3] == ["10.0.0.1", "10", "Driver"]
    assert "(put object) | /home/ada/" in driver
    assert f"{20 * MIB} B" in driver
    assert "LOCAL_REFERENCE" in driver
    assert "Worker" in actor
    assert "CAPTURED_IN_OBJECT" in actor
    (used,) = lines_of(text, 2)
    assert "USED_BY_PENDING_TASK" in used
    assert "LOCAL_REFERENCE" not in used
    assert "ACTOR_HANDLE" in lines_of(text, 7)[0]


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (1, "-"), (3, "WAITING_FOR_DEPENDENCIES"), (4, "SUBMITTED_TO_WORKER"), (5, "FINISHED"),
        (6, "FAILED"), (7, "-"),
    ],
)  # fmt: skip
def test_the_status_of_what_makes_it(found, number, status):
    assert status in lines_of(summary(found, made_at="now"), number)[0].split()


def test_totals_of_the_stores(found):
    text = summary(found, made_at="now", stats_only=True)
    assert "Plasma memory usage 20 MiB, 1 objects, 20.0% full" in text
    assert "Spilled" not in text
    assert object_id(1).hex() not in text


def test_what_was_spilled_and_restored_since_the_start():
    told_so = report(told(DRIVER, 10, []))
    stats = msgspec.structs.replace(
        told_so.store, spilled_bytes_total=30 * MIB, spilled_objects_total=3, spill_s=2.0,
        restored_bytes_total=10 * MIB, restored_objects_total=1,
    )  # fmt: skip
    some = join([node(msgspec.structs.replace(told_so, store=stats))])
    text = summary(some, made_at="now", stats_only=True)
    assert "Spilled 30 MiB, 3 objects, avg write throughput 15 MiB/s" in text
    assert "Restored 10 MiB, 1 objects\n" in text


def test_a_long_call_site_is_wrapped_or_not(found):
    wrapped = summary(found, made_at="now")
    (whole, *_) = lines_of(summary(found, made_at="now", line_wrap=False), 1)
    assert "step_by_step.py:120 in step" in whole
    assert "step_by_step.py:120 in step" not in lines_of(wrapped, 1)[0]
    assert max(map(len, wrapped.splitlines())) < len(whole)


def test_groups_orders_units_and_limits(found):
    text = summary(
        found, made_at="now", group_by="STACK_TRACE", sort_by="PID", units="MB", num_entries=1
    )
    assert "--- call site: (deserialized) ---" in text
    assert "20 MB" in lines_of(text, 1)[0]
    assert "0.000007 MB" in text
    by_kind = summary(found, made_at="now", sort_by="REFERENCE_TYPE", num_entries=2)
    assert "ACTOR_HANDLE" in lines_of(by_kind, 7)[0]
    assert "and 6 more" in by_kind
    assert not lines_of(by_kind, 5)


@pytest.mark.parametrize(
    "wrong", [{"group_by": "COLOUR"}, {"sort_by": "size"}, {"units": "TB"}], ids=str
)
def test_unknown_words_are_refused(found, wrong):
    with pytest.raises(ValueError, match="is none of"):
        summary(found, made_at="now", **wrong)


def test_what_is_missing_is_said():
    silent = told(ACTOR, 12, None, title="Keeper")
    some = join([node(report(silent, told(DRIVER, 10, [], more=3))), node("it is DEAD")])
    text = summary(some, made_at="now")
    assert "Not shown: actor Keeper 12 on 10.0.0.1 did not answer in time" in text
    assert "Not shown: node 10.0.0.1 (6d1111111111) could not be asked: it is DEAD" in text
    assert "Not shown: 3 more objects" in text
