"""The figures of scripts/bench: medians, ratios, goals, and the table they are printed in."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from mray import microbenchmark

BENCH = Path(__file__).resolve().parents[2] / "scripts" / "bench"


@pytest.fixture(scope="module")
def report() -> Iterator[ModuleType]:
    """The module, which is a script's neighbour and in no package."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        yield importlib.import_module("report")
    for name in set(sys.modules) - before:
        if str(BENCH) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_more_is_better_in_a_rate_and_less_in_a_time(report: ModuleType) -> None:
    rate, time = report.Row("single client tasks sync", "/s"), report.Row("import", "s")
    for row, mray, ray in ((rate, 500.0, 100.0), (time, 0.1, 0.5)):
        row.add("mray", mray)
        row.add("ray", ray)
        assert row.ratio == pytest.approx(5)


def test_the_median_of_the_repeats_counts(report: ModuleType) -> None:
    row = report.Row("single client tasks sync", "/s")
    for value in (10.0, 1000.0, 30.0):
        row.add("mray", value, sd=1.0)
    assert row.value("mray") == 30.0
    assert row.sd("mray") > 100


def test_the_spread_within_a_run_stands_for_a_single_one(report: ModuleType) -> None:
    row = report.Row("single client tasks sync", "/s")
    row.add("mray", 10.0, sd=2.0)
    assert row.sd("mray") == 2.0


@pytest.mark.parametrize(
    ("name", "mray", "ray", "met"),
    [
        ("single client tasks sync", 1000.0, 100.0, True),
        ("single client tasks sync", 999.0, 100.0, False),
        ("single client tasks sync", 1000.0, None, None),
        ("single client put gigabytes", 8.0, 30.0, True),
        ("stop", 1.1, 6.5, False),
        ("stop", 1.0, None, True),
        ("n:n async-actor calls async", 1.0, 1.0, None),
    ],
)
def test_goals_are_ratios_or_limits(
    report: ModuleType, name: str, mray: float, ray: float | None, met: bool | None
) -> None:
    row = report.Row(name, "")
    row.add("mray", mray)
    if ray is not None:
        row.add("ray", ray)
    assert row.is_met is met


def test_every_goal_belongs_to_a_row(report: ModuleType) -> None:
    assert set(report.GOALS) <= set(microbenchmark.ROWS) | set(report.start_up.UNITS)


def test_the_table_is_aligned_and_explains_what_is_missing(report: ModuleType) -> None:
    rate = report.Row("single client tasks sync", "/s")
    rate.add("mray", 4000.0, sd=400.0)
    rate.add("ray", 375.0)
    broken = report.Row("stop", "s", errors={"ray": "ray: no end after 120 s"})
    assert report.table([rate, broken], ["mray", "ray"]) == (
        "                                mray     ray  unit  ratio    goal\n"
        "single client tasks sync  4,000 ±10%     375  /s    10.7x     10x  reached\n"
        "stop                               -  failed  s         -  <= 1 s\n"
        "\n"
        "stop: ray: no end after 120 s"
    )


def test_json_holds_every_figure(report: ModuleType) -> None:
    row = report.Row("import", "s")
    row.add("mray", 0.1)
    facts = json.loads(report.to_json([row], {"cpus": 2}))
    assert facts["cpus"] == 2
    (fact,) = facts["rows"]
    assert fact["engines"]["mray"] == {"value": 0.1, "sd": 0.0, "values": [0.1], "error": ""}
    assert (fact["ratio"], fact["goal_reached"]) == (None, True)
