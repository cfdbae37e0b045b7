"""The node's own figures."""

from __future__ import annotations

from mray.metrics_text import render
from mray.node.metrics.figures import ABOUT, node_figures
from mray.resources import to_fixed
from mray.wire.messages import StoreStats


def figures(**changed):
    known = {
        "total": to_fixed({"CPU": 4, "GPU": 1}),
        "free": to_fixed({"CPU": 1.5}),
        "pending": 3,
        "store": StoreStats(0, 100, 60, 5, 2, spilled_bytes=7, overflow_bytes=1),
        "used_bytes": 10,
        "limit_bytes": 20,
        "threshold_bytes": 19,
        "workers": {"idle": 1, "actor": 2},
        "ended": {"exit": 4},
        "evicted": {"monitor": 1},
        "refused": 0,
        "series": 6,
    }
    found = node_figures(**{**known, **changed})
    return {
        (family.name, *point.tags.values()): point.values[0]
        for family in found
        for point in family.points
    }


def test_every_figure_is_told_and_described():
    told = figures()
    assert {name for name, *_ in told} == set(ABOUT)
    assert told["ray_resources", "CPU", "USED"] == 2.5
    assert told["ray_resources", "CPU", "AVAILABLE"] == 1.5
    assert told["ray_resources", "GPU", "AVAILABLE"] == 0
    assert told["ray_object_store_available_memory",] == 40
    assert told["mray_object_store_spilled_bytes",] == 8
    assert told["mray_leases_pending",] == 3
    assert told["mray_workers", "actor"] == 2
    assert told["mray_workers_ended_total", "exit"] == 4
    assert told["ray_memory_manager_worker_eviction_total", "monitor"] == 1


def test_what_never_happened_has_no_line():
    assert not [name for name, *_ in figures(evicted={}, ended={}) if "ended" in name]


def test_counters_say_so_by_their_name():
    for name, (kind, about) in ABOUT.items():
        # Ray calls the whole of a node's memory so.
        assert (kind == "counter") == name.endswith("_total") or name == "ray_node_mem_total"
        assert about.endswith(".")
    assert render([]) == ""
