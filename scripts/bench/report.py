"""Figures of several runs put together, as a table and as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field

import start_up
from goals import GOALS


@dataclass
class Row:
    """One row: what each engine did in each repeat, and why one has no figure."""

    name: str
    unit: str
    values: dict[str, list[float]] = field(default_factory=dict)
    #: Spread within one run; the spread over the repeats stands in for it where there are several.
    sds: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def less_is_better(self) -> bool:
        return self.name in start_up.UNITS

    def add(self, engine: str, value: float, sd: float = 0.0) -> None:
        """One repeat's figure."""
        self.values.setdefault(engine, []).append(value)
        self.sds.setdefault(engine, []).append(sd)

    def value(self, engine: str) -> float | None:
        """The median of the repeats."""
        values = self.values.get(engine)
        return statistics.median(values) if values else None

    def sd(self, engine: str) -> float:
        """The spread of the repeats, or within the only one."""
        values = self.values.get(engine, [])
        return statistics.pstdev(values) if len(values) > 1 else self.sds.get(engine, [0.0])[0]

    @property
    def ratio(self) -> float | None:
        """How many times better than Ray mray is."""
        mray, ray = self.value("mray"), self.value("ray")
        if not mray or not ray:
            return None
        return ray / mray if self.less_is_better else mray / ray

    @property
    def is_met(self) -> bool | None:
        """Whether mray reaches its goal; None without a goal or a figure to tell by."""
        goal, mray = GOALS.get(self.name), self.value("mray")
        if goal is None or mray is None:
            return None
        return goal.is_met(mray, self.ratio, self.less_is_better)


def _number(value: float) -> str:
    """With three digits that count."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _cell(row: Row, engine: str) -> str:
    value = row.value(engine)
    if value is None:
        return "failed" if engine in row.errors else "-"
    spread = row.sd(engine)
    text = _number(value) if not spread else f"{_number(value)} ±{100 * spread / value:.0f}%"
    return text


def table(rows: Iterable[Row], engines: list[str]) -> str:
    """Aligned text, one line a row, with the reasons of missing figures below."""
    lines = [["", *engines, "unit", *(["ratio"] if len(engines) > 1 else []), "goal", ""]]
    reasons = []
    for row in rows:
        goal = GOALS.get(row.name)
        met = {True: "reached", False: "missed", None: ""}[row.is_met]
        ratio = "-" if row.ratio is None else f"{_number(row.ratio)}x"
        lines.append(
            [
                row.name,
                *(_cell(row, engine) for engine in engines),
                row.unit,
                *([ratio] if len(engines) > 1 else []),
                goal.text(row.unit, row.less_is_better) if goal else "",
                met,
            ]
        )
        reasons += [f"{row.name}: {error}" for error in row.errors.values()]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    # Names and units read from the left, figures from the right.
    left = {0, 1 + len(engines), len(widths) - 1}
    texts = [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([*texts, *([""] if reasons else []), *reasons])


def to_json(rows: Iterable[Row], facts: dict[str, object]) -> str:
    """All figures with `facts` about the run."""
    return json.dumps(
        {
            **facts,
            "rows": [
                {
                    "name": row.name,
                    "unit": row.unit,
                    "less_is_better": row.less_is_better,
                    "engines": {
                        engine: {
                            "value": row.value(engine),
                            "sd": row.sd(engine),
                            "values": row.values.get(engine, []),
                            "error": row.errors.get(engine, ""),
                        }
                        for engine in {**row.values, **row.errors}
                    },
                    "ratio": row.ratio,
                    "goal_reached": row.is_met,
                }
                for row in rows
            ],
        },
        indent=2,
    )
