"""What this process counted and measured: a table that is cheap to write, read now and then.

Covers: series of metrics by their tags, which of them changed, the end of the table. Does not
validate what users say (util/metrics.py), does not send (runtime/metrics.py), sums nothing over
processes (the node does).

A record is one dict entry under a lock and no message. The lock may be taken again by its own
thread, because a finalizer that records can run while it is held.
"""

from __future__ import annotations

import logging
import os
import threading
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final

from mray.wire.messages import MetricFamily, MetricPoint

log = logging.getLogger("mray.metrics")

#: Series of a process at most: about 300 bytes each here and in a report.
SERIES_MAX: Final = 10_000

#: Names and values of tags in the order of the names.
Tags = tuple[tuple[str, str], ...]


class Family:
    """The series of one metric."""

    __slots__ = ("about", "boundaries", "changed", "kind", "name", "series")

    def __init__(self, name: str, kind: str, about: str, boundaries: tuple[float, ...]) -> None:
        self.name = name
        self.kind = kind
        self.about = about
        #: Ascending upper ends of buckets; only histograms have any.
        self.boundaries = boundaries
        #: As in MetricPoint.values.
        self.series: dict[Tags, list[float]] = {}
        #: Those to be told; all are in ``series``.
        self.changed: dict[Tags, None] = {}


class Recorder:
    """See the module. From any thread."""

    def __init__(self, series_max: int = SERIES_MAX) -> None:
        self._series_max = series_max
        self._lock = threading.RLock()
        self._families: dict[tuple[str, str, tuple[float, ...]], Family] = {}
        self._count = 0
        self._refused = 0
        #: Whether something changed since take().
        self._dirty = False
        self._on_change: Callable[[], None] | None = None

    def family(
        self, name: str, kind: str, about: str = "", boundaries: Sequence[float] = ()
    ) -> Family:
        """The family of this name, kind (counter, gauge, histogram) and these boundaries."""
        ends = tuple(sorted({float(end) for end in boundaries}))
        with self._lock:
            key = name, kind, ends
            family = self._families.get(key)
            if family is None:
                family = self._families[key] = Family(name, kind, about, ends)
            return family

    def add(self, family: Family, tags: Tags, value: float) -> None:
        """Count ``value`` more."""
        with self._lock:
            values = family.series.get(tags)
            if values is None:
                values = self._new(family, tags, 1)
                if values is None:
                    return
            values[0] += value
            self._note(family, tags)

    def set(self, family: Family, tags: Tags, value: float) -> None:
        """It is ``value`` now."""
        with self._lock:
            values = family.series.get(tags)
            if values is None:
                values = self._new(family, tags, 1)
                if values is None:
                    return
            values[0] = float(value)
            self._note(family, tags)

    def observe(self, family: Family, tags: Tags, value: float) -> None:
        """One more value, for the bucket where it belongs."""
        with self._lock:
            values = family.series.get(tags)
            if values is None:
                values = self._new(family, tags, len(family.boundaries) + 2)
                if values is None:
                    return
            values[bisect_left(family.boundaries, value)] += 1.0
            values[-1] += value
            self._note(family, tags)

    def report_to(self, on_change: Callable[[], None] | None) -> None:
        """Call ``on_change`` (from any thread; it must not wait) at the first record after each
        take(); at once where something was recorded before. None: nobody."""
        with self._lock:
            self._on_change = on_change
            if on_change is not None and self._dirty:
                on_change()

    def take(self) -> tuple[list[MetricFamily], int]:
        """What changed since the last time, as it stands; and how many records were refused in
        all, for want of room."""
        told = []
        with self._lock:
            self._dirty = False
            for family in self._families.values():
                if family.changed:
                    points = [
                        MetricPoint(dict(tags), list(family.series[tags]))
                        for tags in family.changed
                    ]
                    family.changed.clear()
                    told.append(
                        MetricFamily(
                            family.name, family.kind, family.about, list(family.boundaries), points
                        )
                    )
            return told, self._refused

    def clear(self) -> None:
        """Begin at nothing: what was told counts there as that of a process that has ended."""
        with self._lock:
            for family in self._families.values():
                family.series.clear()
                family.changed.clear()
            self._count = self._refused = 0
            self._dirty = False

    def begin_in_fork(self) -> None:
        """In the child of a fork: what the parent counted is the parent's."""
        self._lock = threading.RLock()
        self._on_change = None
        self.clear()

    def check(self) -> None:
        """Raise AssertionError if the table contradicts itself."""
        with self._lock:
            families = self._families.values()
            assert self._count == sum(len(family.series) for family in families)
            assert all(family.changed.keys() <= family.series.keys() for family in families)
            assert self._dirty or not any(family.changed for family in families)

    def _new(self, family: Family, tags: Tags, size: int) -> list[float] | None:
        if self._count >= self._series_max:
            self._refused += 1
            if self._refused == 1:
                log.warning(
                    "this process has %d series of metrics, and %s%s is left out, as all further "
                    "ones are: tags should have few different values",
                    self._count, family.name, dict(tags),
                )  # fmt: skip
            if not self._dirty:
                self._wake()
            return None
        self._count += 1
        values = family.series[tags] = [0.0] * size
        return values

    def _note(self, family: Family, tags: Tags) -> None:
        family.changed[tags] = None
        if not self._dirty:
            self._wake()

    def _wake(self) -> None:
        self._dirty = True
        if self._on_change is not None:
            self._on_change()


#: That of this process.
recorder: Final = Recorder()
os.register_at_fork(after_in_child=recorder.begin_in_fork)
