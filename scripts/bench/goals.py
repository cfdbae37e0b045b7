"""What mray aims for, row by row, and whether a figure is there."""

from __future__ import annotations

from dataclasses import dataclass

import start_up


@dataclass(frozen=True)
class Goal:
    """At least `ratio` times better than Ray, or `limit` in the row's own unit."""

    ratio: float = 0.0
    limit: float = 0.0

    def text(self, unit: str, less_is_better: bool) -> str:
        """As it stands in the table."""
        if self.ratio:
            return f"{self.ratio:g}x"
        return f"{'<=' if less_is_better else '>='} {self.limit:g} {unit}".rstrip()

    def is_met(self, value: float, ratio: float | None, less_is_better: bool) -> bool | None:
        """None where it cannot be told: a ratio without Ray's figure."""
        if self.ratio:
            return None if ratio is None else ratio >= self.ratio
        return value <= self.limit if less_is_better else value >= self.limit


GOALS = {
    "single client get calls (Plasma Store)": Goal(20),
    "single client put calls (Plasma Store)": Goal(50),
    "multi client put calls (Plasma Store)": Goal(20),
    "single client put gigabytes": Goal(limit=8),
    "multi client put gigabytes": Goal(limit=8),
    "single client get object containing 10k refs": Goal(10),
    "single client get of 10k small refs": Goal(10),
    "single client wait 1k refs": Goal(20),
    "single client tasks sync": Goal(10),
    "single client tasks async": Goal(20),
    "single client tasks and get batch": Goal(20),
    "multi client tasks async": Goal(15),
    "single client tasks with 8 MB ref arg sync": Goal(8),
    "single client tasks with 8 MB value arg sync": Goal(2),
    "single client tasks returning 8 MB sync": Goal(2),
    "streaming generator items": Goal(10),
    "1:1 actor calls sync": Goal(5),
    "1:1 actor calls async": Goal(12),
    "1:1 actor calls concurrent": Goal(8),
    "1:n actor calls async": Goal(10),
    "n:n actor calls async": Goal(10),
    "n:n actor calls with arg async": Goal(10),
    "actor create + call + kill": Goal(15),
    "placement group create+remove": Goal(5),
    "1:1 async-actor calls sync": Goal(8),
    "1:1 async-actor calls async": Goal(15),
    "1:1 async-actor calls with args async": Goal(10),
    start_up.IMPORT: Goal(limit=0.15),
    start_up.INIT: Goal(limit=0.6),
    start_up.START: Goal(limit=1.0),
    start_up.STOP: Goal(limit=1.0),
    start_up.PROCESSES: Goal(limit=5),
    start_up.PSS: Goal(limit=90),
    start_up.CPU: Goal(limit=0.5),
}
