"""Figures in the text format that Prometheus reads (0.0.4), and as values for JSON.

Owns the format. What there is to show, and under which names, others decide.

Written here and not taken from a library: it is three rules of quoting and one of buckets, and a
node daemon would load a web server with its 10 MB along. Tests read it back with prometheus-client.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Any, Final

from mray.wire.messages import MetricFamily, MetricPoint

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_BAD_LABEL: Final = re.compile(r"[^a-zA-Z0-9_]")
_VALUE_QUOTES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
_ABOUT_QUOTES: Final = str.maketrans({"\\": "\\\\", "\n": "\\n"})


def joined(
    nodes: Iterable[tuple[Mapping[str, str], list[MetricFamily]]],
) -> tuple[list[MetricFamily], list[str]]:
    """The families of several nodes as one list by name, each series with its node's labels; and
    the names of which nodes say different kinds or boundaries, where the first one's count."""
    families: dict[str, MetricFamily] = {}
    left_out: dict[str, None] = {}
    for labels, told in nodes:
        for family in told:
            first = families.setdefault(
                family.name,
                MetricFamily(family.name, family.kind, family.about, family.boundaries, []),
            )
            if (first.kind, first.boundaries) != (family.kind, family.boundaries):
                left_out[family.name] = None
                continue
            first.points.extend(_labelled(point, labels) for point in family.points)
    return [families[name] for name in sorted(families)], sorted(left_out)


def _labelled(point: MetricPoint, labels: Mapping[str, str]) -> MetricPoint:
    """With the node's labels; a tag of the same name is the user's and moves aside."""
    tags = {(f"{key}2" if key in labels else key): value for key, value in point.tags.items()}
    return MetricPoint({**tags, **labels}, point.values)


def render(families: Iterable[MetricFamily]) -> str:
    """The whole page."""
    lines: list[str] = []
    for family in families:
        if family.about:
            lines.append(f"# HELP {family.name} {family.about.translate(_ABOUT_QUOTES)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        for point in family.points:
            labels = _labels(point.tags, reserved="le" if family.kind == "histogram" else "")
            if family.kind == "histogram":
                lines += _buckets(family, labels, point.values)
            else:
                lines.append(f"{family.name}{_braced(labels)} {_number(point.values[0])}")
    return "".join(f"{line}\n" for line in lines)


def _buckets(family: MetricFamily, labels: list[str], values: list[float]) -> list[str]:
    """Prometheus wants each bucket with all below it."""
    counts = list(accumulate(values[:-1]))
    lines = []
    for end, count in zip([*family.boundaries, math.inf], counts, strict=True):
        braced = _braced([*labels, f'le="{_number(end)}"'])
        lines.append(f"{family.name}_bucket{braced} {_number(count)}")
    lines.append(f"{family.name}_sum{_braced(labels)} {_number(values[-1])}")
    lines.append(f"{family.name}_count{_braced(labels)} {_number(counts[-1])}")
    return lines


def _labels(tags: Mapping[str, str], reserved: str) -> list[str]:
    found: dict[str, str] = {}
    for key, value in tags.items():
        name = _BAD_LABEL.sub("_", key)
        # Neither a digit first nor two underscores, which Prometheus keeps for itself.
        if not name or name[0].isdigit() or name.startswith("__"):
            name = f"_{name.lstrip('_')}"
        # Two tags may come to one name, and a series has each name once.
        base, count = name, 1
        while name in found or name == reserved:
            count += 1
            name = f"{base}{count}"
        found[name] = value
    return [f'{name}="{value.translate(_VALUE_QUOTES)}"' for name, value in found.items()]


def _braced(labels: list[str]) -> str:
    return f"{{{','.join(labels)}}}" if labels else ""


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(float(value))


def facts(families: Iterable[MetricFamily]) -> list[dict[str, Any]]:
    """For JSON, which knows neither NaN nor infinity: they become None."""
    found = []
    for family in families:
        points = []
        for point in family.points:
            fact: dict[str, Any] = {"tags": point.tags}
            values = [value if math.isfinite(value) else None for value in point.values]
            if family.kind == "histogram":
                fact["buckets"], fact["sum"] = values[:-1], values[-1]
            else:
                fact["value"] = values[0]
            points.append(fact)
        fact = {"name": family.name, "kind": family.kind, "about": family.about, "points": points}
        if family.kind == "histogram":
            fact["boundaries"] = family.boundaries
        found.append(fact)
    return found
