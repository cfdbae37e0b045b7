"""`mray memory` as text: what stands in 20 lines of 80 columns."""

from __future__ import annotations

import pytest

from mray.memory_report import join
from mray.memory_text import age_text, details, overview, short_ids, size_text

from .memory_cluster import (
    ACTOR,
    DRIVER,
    MIB,
    WORKER,
    memory,
    node,
    object_id,
    report,
    stored,
    told,
    view,
)


def made_up():
    """A training job: a big array that an actor keeps, results, a leak, something pending."""
    mine = [
        view(1, {"LOCAL_REFERENCE": 1, "BORROWED": 1}, size_bytes=40 * MIB, in_store=True,
             borrowers=[(ACTOR, 1)], call_site="/home/ada/job/train.py:12", age_s=7300.0),
        view(2, {"USED_BY_PENDING_TASK": 1}, size_bytes=3 * MIB, in_store=True, name="load",
             call_site="/home/ada/job/train.py:20 in Trainer.load_everything", age_s=75.0),
        view(3, {"LOCAL_REFERENCE": 1}, state="pending", reason="runs in worker pid 4130",
             name="step", call_site="/home/ada/job/train.py:31 in main", age_s=3.25),
        *(
            view(number, {"LOCAL_REFERENCE": 1}, size_bytes=number, name="step",
                 call_site="/home/ada/job/train.py:31 in main", age_s=3.25)
            for number in range(100, 110)
        ),
    ]  # fmt: skip
    return memory(
        told(DRIVER, 4101, mine),
        told(ACTOR, 4120, [view(1, {"LOCAL_REFERENCE": 1}, state="unread")], title="Keeper.keep"),
        told(
            WORKER,
            4130,
            [view(1, {"OUT_OF_BAND": 1}, WORKER, size_bytes=MIB, call_site="/home/ada/util.py:5")],
            title="step",
        ),
        store=[stored(1, 40 * MIB), stored(2, 3 * MIB)],
    )


GOLDEN = """\
Objects  14, 44 MiB
Store    43 MiB of 100 MiB used (43 %), 2 objects; spilled 0 B
Held by  USED_BY_PENDING_TASK 1, LOCAL_REFERENCE 13, OUT_OF_BAND 1, BORROWED 1

  SIZE    AGE  OBJECT              CALL SITE    WHY ALIVE
40 MiB    2 h  0100000000000000d0  train.py:12  LOCAL_REFERENCE 4101 +1
 3 MiB  1 min  0200000000000000d0  train.py:20  USED_BY_PENDING_TASK 4101
 1 MiB  1 min  0100000000000000e1  util.py:5    OUT_OF_BAND 4130
 109 B  3.2 s  6d00000000000000d0  train.py:31  LOCAL_REFERENCE 4101
 108 B  3.2 s  6c00000000000000d0  train.py:31  LOCAL_REFERENCE 4101
 107 B  3.2 s  6b00000000000000d0  train.py:31  LOCAL_REFERENCE 4101
 106 B  3.2 s  6a00000000000000d0  train.py:31  LOCAL_REFERENCE 4101
 105 B  3.2 s  6900000000000000d0  train.py:31  LOCAL_REFERENCE 4101
and 6 more: -n N shows more, --json all

  SIZE  OBJECTS  CALL SITE
40 MiB        1  /home/ada/job/train.py:12
 3 MiB        1  /home/ada/job/train.py:20 in Trainer.load_everything
 1 MiB        1  /home/ada/util.py:5
 1 KiB       11  /home/ada/job/train.py:31 in main
"""


def test_the_whole_text_fits_20_lines_of_80_columns():
    found = made_up()
    lines = overview(found, found.objects, width=80)
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 80
    assert lines == GOLDEN.splitlines()


def test_a_wide_terminal_shows_why_in_a_sentence():
    found = made_up()
    lines = overview(found, found.objects, width=140)
    line = next(line for line in lines if "40 MiB    2 h" in line)
    assert line.endswith(
        "LOCAL_REFERENCE: 1 reference in driver 4101; 1 reference in actor Keeper 4120"
    )
    assert max(map(len, lines)) <= 140


def test_asked_for_entries_are_all_shown():
    found = made_up()
    lines = overview(found, found.objects, width=80, entries=14)
    assert sum("LOCAL_REFERENCE 4101" in line for line in lines) == 12
    assert max(map(len, lines)) <= 80


def test_groups_in_place_of_objects():
    found = made_up()
    lines = overview(found, found.objects, width=80, group_by="owner")
    assert lines[-3:] == [
        "  SIZE  OBJECTS  OWNER",
        "43 MiB       13  driver 4101",
        " 1 MiB        1  worker 4130",
    ]


def test_totals_alone():
    found = made_up()
    assert overview(found, found.objects, width=80, stats_only=True) == GOLDEN.splitlines()[:3]


def test_an_empty_cluster():
    assert overview(memory(told(DRIVER, 1, [])), [], width=80) == [
        "Objects  0, 0 B",
        "Store    0 B of 100 MiB used (0 %), 0 objects; spilled 0 B",
        "Held by  nothing",
        "",
        "no objects to show",
    ]


def test_who_did_not_answer_is_named():
    found = join([node(report(told(WORKER, 4130, None, title="step"))), node("no answer in time")])
    text = "\n".join(overview(found, found.objects, width=200))
    assert "Silent   worker 4130 did not answer in time: what they hold is not shown" in text
    assert "Missing  node 10.0.0.1 (6d1111111111) could not be asked: no answer in time" in text


def test_details_name_each_holder():
    found = made_up()
    assert details(found.objects[0]) == [
        f"Object {object_id(1).hex()}",
        "  size       40 MiB",
        "  state      ready",
            "  stored on  6d1111111111",
        "  age        2 h",
        "  made by    put at /home/ada/job/train.py:12",
        "  owner      driver 4101",
        "  why alive  1 reference in driver 4101; 1 reference in actor Keeper 4120",
        "  held by    driver 4101 on 10.0.0.1: LOCAL_REFERENCE 1, BORROWED 1",
        "  held by    actor Keeper 4120 on 10.0.0.1: LOCAL_REFERENCE 1",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"),
        (59.6, "1 min"), (3599.0, "1 h"), (7300.0, "2 h"), (86_300.0, "1 d"), (1e6, "12 d"),
    ],
)  # fmt: skip
def test_ages_are_one_number_and_one_unit(seconds, text):
    assert age_text(seconds) == text


@pytest.mark.parametrize(
    ("count", "units", "text"),
    [
        (None, "auto", "?"), (-2, "auto", "?"), (1536, "auto", "1.5 KiB"), (1536, "B", "1,536 B"),
        (1536, "KB", "1.5 KiB"), (3 * MIB, "MB", "3.0 MiB"), (3 * MIB, "GB", "0.003 GiB"),
    ],
)  # fmt: skip
def test_sizes_in_units(count, units, text):
    assert size_text(count, units) == text


def test_short_ids_tell_objects_of_two_owners_apart_and_are_prefixes():
    views = [view(1, {"LOCAL_REFERENCE": 1}), view(2, {"LOCAL_REFERENCE": 1})]
    of_one = short_ids(memory(told(DRIVER, 1, views)).objects)
    assert {len(short) for short in of_one.values()} == {8}
    theirs = view(1, {"LOCAL_REFERENCE": 1}, WORKER)
    of_two = short_ids(memory(told(DRIVER, 1, views), told(WORKER, 2, [theirs])).objects)
    assert len(set(of_two.values())) == 3
    assert all(whole.startswith(short) for whole, short in of_two.items())


def test_call_sites_count_objects_that_are_not_listed():
    one = view(1, {"LOCAL_REFERENCE": 1}, size_bytes=10, call_site="/a/job.py:9")
    found = memory(told(DRIVER, 1, [one], more=3))
    lines = overview(found, found.objects, width=80)
    assert lines[0] == "Objects  1, 10 B, and 3 smaller ones that are not listed"
    assert lines[-1] == "40 B        4  /a/job.py:9"
