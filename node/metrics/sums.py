"""What the processes of a node counted and measured, summed over them.

Covers: reports, ends of processes, names as Prometheus gets them, limits. Figures of the node
itself are figures.py's.

Counters and histograms add up over all processes that ever reported: what one that ended had
counted stays. Gauges add up over those that live. A process reports what stands, not what came
since, so a report may come again. A name belongs to who reported it first: a report that says
another kind or other boundaries is refused, as is what would be too much.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Final

from mray.machine import InvariantError
from mray.wire.messages import MetricFamily, MetricPoint

#: Of all families together: distinct tags; those by process that reported them; names.
SERIES_MAX: Final = 10_000
ENTRIES_MAX: Final = 100_000
#: The name, the text about it or the tags of one series: no more characters.
TEXT_MAX: Final = 4096
_BOUNDARIES_MAX: Final = 1000
_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
#: As Ray exports what users count.
_PREFIX: Final = "ray_"

_Tags = tuple[tuple[str, str], ...]


class _Series:
    """One series: what living processes reported, and the sum of those that ended."""

    __slots__ = ("ended", "living")

    def __init__(self) -> None:
        self.living: dict[bytes, list[float]] = {}
        #: Always empty for gauges.
        self.ended: list[float] = []


class _Family:
    __slots__ = ("about", "boundaries", "kind", "series")

    def __init__(self, told: MetricFamily) -> None:
        self.kind = told.kind
        self.about = told.about
        self.boundaries = told.boundaries
        self.series: dict[_Tags, _Series] = {}


class Sums:
    """See the module. ``taken``: names of the node's own figures."""

    def __init__(
        self,
        taken: Collection[str] = (),
        series_max: int = SERIES_MAX,
        entries_max: int = ENTRIES_MAX,
    ) -> None:
        self._taken = taken
        self._series_max = series_max
        self._entries_max = entries_max
        self._families: dict[str, _Family] = {}
        #: By process: each series that it reported, once.
        self._of_process: dict[bytes, dict[tuple[str, _Tags], None]] = {}
        self._series_count = 0
        self._entry_count = 0
        #: Names of which it has been told that they are refused. Bounded by the limit of series.
        self._told: set[str] = set()
        #: Records refused here so far, and what living processes say that they refused.
        self.refused_count = 0
        self._refused_by: dict[bytes, int] = {}

    @property
    def series_count(self) -> int:
        """Series that are kept."""
        return self._series_count

    def report(self, process_id: bytes, families: list[MetricFamily], refused: int) -> list[str]:
        """Take a living process's report. Returns what to warn of: each thing once."""
        warnings: list[str] = []
        if refused > 0:
            self.refused_count += refused - self._refused_by.get(process_id, 0)
            self._refused_by[process_id] = refused
        for told in families:
            name = exported_name(told)
            family = self._families.get(name)
            wrong = self._wrong(name, told, family)
            if wrong:
                self.refused_count += len(told.points)
                self._warn(warnings, name[:100], wrong)
                continue
            # Made at last with its first series: a refused one leaves no name behind.
            family = family or _Family(told)
            family.about = family.about or told.about
            for point in told.points:
                wrong = self._take(process_id, name, family, point)
                if wrong:
                    self.refused_count += 1
                    self._warn(warnings, wrong, f"of the metric {name[:100]}: {wrong}")
        return warnings

    def process_ended(self, process_id: bytes) -> None:
        """Keep what it counted, drop what it measured."""
        self._refused_by.pop(process_id, None)
        for name, tags in self._of_process.pop(process_id, {}):
            family = self._families[name]
            series = family.series[tags]
            values = series.living.pop(process_id)
            self._entry_count -= 1
            if family.kind != "gauge":
                series.ended = _sum(series.ended, values)
            elif not series.living:
                del family.series[tags]
                self._series_count -= 1
                if not family.series:
                    del self._families[name]

    def families(self) -> list[MetricFamily]:
        """All of it, by name and tags."""
        return [
            MetricFamily(
                name,
                family.kind,
                family.about,
                family.boundaries,
                [
                    MetricPoint(dict(tags), _total(family.series[tags]))
                    for tags in sorted(family.series)
                ],
            )
            for name, family in sorted(self._families.items())
        ]

    def check(self) -> None:
        """Raise InvariantError if the tables contradict each other."""
        entries = {
            (process_id, name, tags)
            for name, family in self._families.items()
            for tags, series in family.series.items()
            for process_id in series.living
        }
        noted = {(p, *key) for p, keys in self._of_process.items() for key in keys}
        if entries != noted or len(entries) != self._entry_count:
            raise InvariantError("entries of processes and of series differ")
        if self._series_count != sum(1 for _ in self._all_series()):
            raise InvariantError("series are miscounted")
        if self._series_count > self._series_max or self._entry_count > self._entries_max:
            raise InvariantError("more is kept than may be")
        for family, series in self._all_series():
            if family.kind == "gauge" and series.ended:
                raise InvariantError("a gauge keeps what has ended")
            if not series.living and not series.ended:
                raise InvariantError("a series of nobody is kept")

    def _all_series(self) -> Iterator[tuple[_Family, _Series]]:
        for family in self._families.values():
            for series in family.series.values():
                yield family, series

    def _wrong(self, name: str, told: MetricFamily, family: _Family | None) -> str:
        """Why nothing of it can be taken, or ""."""
        if told.kind not in ("counter", "gauge", "histogram"):
            return f"there is no kind of metric called {told.kind[:100]!r}"
        if not _NAME.fullmatch(name) or len(name) > TEXT_MAX:
            return f"Prometheus does not take the name {name[:100]!r}"
        if name in self._taken:
            return f"{name} is a figure of the node itself"
        if len(told.about) > TEXT_MAX or len(told.boundaries) > _BOUNDARIES_MAX:
            return f"the metric {name[:100]} has too long a description, or too many boundaries"
        if family is not None and (family.kind, family.boundaries) != (told.kind, told.boundaries):
            return (
                f"the metric {name} is a {family.kind} with boundaries {family.boundaries[:20]}, "
                f"and not a {told.kind} with {told.boundaries[:20]}: the first stays"
            )
        return ""

    def _take(self, process_id: bytes, name: str, family: _Family, point: MetricPoint) -> str:
        """Keep one point; why not, or ""."""
        size = len(family.boundaries) + 2 if family.kind == "histogram" else 1
        if len(point.values) != size:
            return f"a {family.kind} has {size} values a series, not {len(point.values)}"
        if sum(len(key) + len(value) for key, value in point.tags.items()) > TEXT_MAX:
            return "a series has too long tags"
        tags = tuple(sorted(point.tags.items()))
        series = family.series.get(tags)
        if series is None or process_id not in series.living:
            if series is None and self._series_count >= self._series_max:
                return f"the node keeps {self._series_max} series and no more"
            if self._entry_count >= self._entries_max:
                return f"the node keeps {self._entries_max} series of processes and no more"
            if series is None:
                series = family.series[tags] = _Series()
                self._families[name] = family
                self._series_count += 1
            self._entry_count += 1
            self._of_process.setdefault(process_id, {})[name, tags] = None
        series.living[process_id] = point.values
        return ""

    def _warn(self, warnings: list[str], about: str, text: str) -> None:
        if about not in self._told and len(self._told) < self._series_max:
            self._told.add(about)
            warnings.append(f"{text}; left out")


def exported_name(told: MetricFamily) -> str:
    """The name that Prometheus gets: what is counted ends in _total."""
    name = _PREFIX + told.name
    return f"{name}_total" if told.kind == "counter" and not name.endswith("_total") else name


def _total(series: _Series) -> list[float]:
    total = series.ended
    for values in series.living.values():
        total = _sum(total, values)
    return total


def _sum(one: list[float], other: list[float]) -> list[float]:
    return [a + b for a, b in zip(one, other, strict=True)] if one else other
