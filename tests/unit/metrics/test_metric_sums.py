"""Sums over the processes of a node: what stays, what goes, what is refused."""

from __future__ import annotations

import pytest

from mray.node.metrics.sums import TEXT_MAX, Sums
from mray.wire.messages import MetricFamily, MetricPoint

A, B, C = b"a", b"b", b"c"


@pytest.fixture
def sums():
    made = Sums(taken={"ray_own"}, series_max=4, entries_max=6)
    yield made
    made.check()


def family(name="c", kind="counter", value=1.0, tags=None, about="", boundaries=(), values=None):
    points = [MetricPoint(tags or {}, values or [value])]
    return MetricFamily(name, kind, about, list(boundaries), points)


def report(sums, process_id, *families, refused=0):
    return sums.report(process_id, list(families), refused)


def totals(sums):
    return {
        (told.name, *point.tags.values()): point.values
        for told in sums.families()
        for point in told.points
    }


def test_counters_add_up_and_what_the_dead_counted_stays(sums):
    report(sums, A, family(value=2.0))
    report(sums, B, family(value=3.0))
    assert totals(sums) == {("ray_c_total",): [5.0]}
    sums.process_ended(A)
    report(sums, B, family(value=4.0))
    assert totals(sums) == {("ray_c_total",): [6.0]}
    sums.process_ended(B)
    assert totals(sums) == {("ray_c_total",): [6.0]}


def test_a_report_that_comes_again_changes_nothing(sums):
    for _ in range(2):
        report(sums, A, family(value=2.0))
    assert totals(sums) == {("ray_c_total",): [2.0]}


def test_gauges_add_up_over_the_living(sums):
    report(sums, A, family("g", "gauge", 2.0))
    report(sums, B, family("g", "gauge", 5.0))
    assert totals(sums) == {("ray_g",): [7.0]}
    sums.process_ended(A)
    assert totals(sums) == {("ray_g",): [5.0]}
    sums.process_ended(B)
    assert sums.families() == []
    assert sums.series_count == 0


def test_histograms_add_up_by_bucket(sums):
    def told(*values):
        return family("h", "histogram", boundaries=[1.0], values=list(values))

    report(sums, A, told(1.0, 0.0, 0.5))
    report(sums, B, told(1.0, 2.0, 9.5))
    sums.process_ended(A)
    assert totals(sums) == {("ray_h",): [2.0, 2.0, 10.0]}


def test_series_are_told_apart_by_their_tags(sums):
    report(sums, A, family(tags={"k": "1"}), family(tags={"k": "2"}, value=7.0))
    assert totals(sums) == {("ray_c_total", "1"): [1.0], ("ray_c_total", "2"): [7.0]}


def test_a_name_that_says_total_is_not_doubled(sums):
    report(sums, A, family("c_total"))
    assert list(totals(sums)) == [("ray_c_total",)]


def test_the_first_description_that_says_something_is_shown(sums):
    report(sums, A, family())
    report(sums, B, family(about="what is counted"))
    report(sums, C, family(about="another"))
    assert sums.families()[0].about == "what is counted"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (family("own", "gauge"), "a figure of the node itself"),
        (family("a b"), "does not take the name"),
        (family("x" * TEXT_MAX), "does not take the name"),
        (family(kind="summary"), "no kind of metric"),
        (family(about="x" * (TEXT_MAX + 1)), "too long a description"),
        (family("h", "histogram", boundaries=range(1001), values=[0.0] * 1003), "too many"),
        (family(tags={"k": "x" * TEXT_MAX}), "too long tags"),
        (family(values=[1.0, 2.0]), "has 1 values a series, not 2"),
        (family("h", "histogram", boundaries=[1.0], values=[1.0]), "has 3 values a series, not 1"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_one_warning(sums, wrong, why):
    (warning,) = report(sums, A, wrong)
    assert why in warning
    assert report(sums, B, wrong) == []
    assert sums.refused_count == 2
    assert sums.families() == []


def test_a_name_belongs_to_who_was_first(sums):
    report(sums, A, family("h", "histogram", boundaries=[1.0], values=[1.0, 0.0, 1.0]))
    other = family("h", "histogram", boundaries=[2.0], values=[1.0, 0.0, 1.0])
    (warning,) = report(sums, B, other)
    assert "the first stays" in warning
    (warning,) = report(sums, B, family("c"), family("c_total", "gauge"))
    assert "ray_c_total is a counter" in warning
    assert totals(sums) == {("ray_h",): [1.0, 0.0, 1.0], ("ray_c_total",): [1.0]}


def test_too_many_series_are_refused_with_one_warning(sums):
    many = [family(tags={"k": str(number)}) for number in range(7)]
    (warning,) = report(sums, A, *many)
    assert "keeps 4 series and no more" in warning
    assert report(sums, B, *many[4:]) == []
    assert sums.series_count == 4
    assert sums.refused_count == 6


def test_too_many_processes_with_series_are_refused(sums):
    four = [family(tags={"k": str(number)}) for number in range(4)]
    report(sums, A, *four)
    (warning,) = report(sums, B, *four)
    assert "keeps 6 series of processes and no more" in warning
    sums.process_ended(A)
    report(sums, B, *four)
    assert list(totals(sums).values()) == [[2.0]] * 4


def test_what_processes_refused_is_counted_once(sums):
    report(sums, A, refused=3)
    report(sums, A, refused=5)
    report(sums, B, refused=1)
    sums.process_ended(A)
    assert sums.refused_count == 6


def test_the_end_of_who_never_reported_is_no_news(sums):
    sums.process_ended(A)
    assert sums.families() == []
