"""`mray metrics`: the figures of all nodes as one text."""

from __future__ import annotations

import json

from mray.rpc.client import AskError
from mray.wire.messages import GetMetrics, MetricFamily, MetricPoint, NodeMetrics


def told(labels, value=2.0, kind="counter"):
    points = [MetricPoint({"route": "a"}, [value])]
    return NodeMetrics(7, labels, [MetricFamily("ray_c_total", kind, "what", [], points)])


def test_the_text_has_the_labels_of_the_node(mray, cluster):
    cluster.answers[GetMetrics] = told({"NodeId": "6d"})
    outcome = mray("metrics")
    assert outcome == (
        0,
        "# HELP ray_c_total what\n"
        "# TYPE ray_c_total counter\n"
        'ray_c_total{route="a",NodeId="6d"} 2.0\n',
        "",
    )


def test_json_is_by_node(mray, cluster):
    cluster.answers[GetMetrics] = told({"NodeId": "6d"})
    assert json.loads(mray("metrics", "--json").out) == [
        {
            "labels": {"NodeId": "6d"},
            "metrics": [
                {
                    "name": "ray_c_total",
                    "kind": "counter",
                    "about": "what",
                    "points": [{"tags": {"route": "a"}, "value": 2.0}],
                }
            ],
        }
    ]


def test_a_node_that_does_not_answer_is_named(mray, cluster):
    cluster.answers[GetMetrics] = AskError("RpcError", "no answer in time")
    outcome = mray("metrics")
    assert (outcome.code, outcome.out) == (1, "")
    assert "does not answer" in outcome.err
