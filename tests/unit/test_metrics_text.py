"""The text that Prometheus reads: read back by its own client."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from mray.metrics_text import facts, joined, render
from mray.wire.messages import MetricFamily, MetricPoint


def counter(name: str = "c_total", *points: MetricPoint, about: str = "") -> MetricFamily:
    return MetricFamily(name, "counter", about, [], list(points))


def samples(families):
    """What Prometheus makes of it: (name, labels, value)."""
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(render(families))
        for sample in family.samples
    ]


def test_a_family_line_by_line():
    family = counter("c_total", MetricPoint({"k": "v"}, [2.0]), about="what\nit \\ is")
    assert render([family]) == (
        '# HELP c_total what\\nit \\\\ is\n# TYPE c_total counter\nc_total{k="v"} 2.0\n'
    )


def test_buckets_hold_all_below_them():
    point = MetricPoint({"k": "v"}, [2.0, 0.0, 3.0, 44.5])
    family = MetricFamily("h", "histogram", "", [0.5, 10.0], [point])
    assert samples([family]) == [
        ("h_bucket", {"k": "v", "le": "0.5"}, 2.0),
        ("h_bucket", {"k": "v", "le": "10.0"}, 2.0),
        ("h_bucket", {"k": "v", "le": "+Inf"}, 5.0),
        ("h_sum", {"k": "v"}, 44.5),
        ("h_count", {"k": "v"}, 5.0),
    ]


def test_a_tag_named_as_the_buckets_moves_aside():
    family = MetricFamily("h", "histogram", "", [1.0], [MetricPoint({"le": "x"}, [0.0, 1.0, 2.0])])
    assert samples([family])[0] == ("h_bucket", {"le2": "x", "le": "1.0"}, 0.0)


@given(st.text(), st.text())
def test_values_of_tags_and_descriptions_come_back_whole(value, about):
    (family,) = text_string_to_metric_families(
        render([counter("c_total", MetricPoint({"k": value}, [1.0]), about=about.strip())])
    )
    (sample,) = family.samples
    assert sample.labels == {"k": value}


@given(st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=4))
def test_any_names_of_tags_make_a_page_with_as_many_labels(tags):
    ((_, labels, _),) = samples([counter("c_total", MetricPoint(tags, [1.0]))])
    assert len(labels) == len(tags)


@pytest.mark.parametrize("value", [0.0, -1.5, 1e300, math.inf, -math.inf, 5e-324])
def test_numbers_come_back(value):
    assert samples([counter("c_total", MetricPoint({}, [value]))]) == [("c_total", {}, value)]
    nan = samples([counter("c_total", MetricPoint({}, [math.nan]))])
    assert math.isnan(nan[0][2])


def test_nodes_share_a_family_and_keep_their_labels():
    families, left_out = joined(
        [
            ({"NodeId": "1"}, [counter("c_total", MetricPoint({"NodeId": "mine"}, [1.0]))]),
            ({"NodeId": "2"}, [counter("a_total"), counter("c_total", MetricPoint({}, [2.0]))]),
        ]
    )
    assert left_out == []
    assert [family.name for family in families] == ["a_total", "c_total"]
    assert samples(families) == [
        ("c_total", {"NodeId2": "mine", "NodeId": "1"}, 1.0),
        ("c_total", {"NodeId": "2"}, 2.0),
    ]


def test_what_nodes_disagree_on_is_left_out_and_named():
    gauge = MetricFamily("c_total", "gauge", "", [], [MetricPoint({}, [9.0])])
    families, left_out = joined(
        [({"N": "1"}, [counter("c_total", MetricPoint({}, [1.0]))]), ({"N": "2"}, [gauge])]
    )
    assert left_out == ["c_total"]
    assert samples(families) == [("c_total", {"N": "1"}, 1.0)]


def test_json_has_no_nan_and_no_infinity():
    points = [MetricPoint({"k": "v"}, [1.0, math.inf, math.nan])]
    families = [
        MetricFamily("g", "gauge", "what", [], [MetricPoint({}, [math.nan])]),
        MetricFamily("h", "histogram", "", [1.0], points),
    ]
    assert facts(families) == [
        {"name": "g", "kind": "gauge", "about": "what", "points": [{"tags": {}, "value": None}]},
        {
            "name": "h",
            "kind": "histogram",
            "about": "",
            "points": [{"tags": {"k": "v"}, "buckets": [1.0, None], "sum": None}],
            "boundaries": [1.0],
        },
    ]
