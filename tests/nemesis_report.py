"""What a soak test measured, as figures and as a text of aligned lines.

Throughput is what was acknowledged in slots of time. ``recovery_s`` is how long after a moment it
was back: the begin of the first stretch of ``WINDOW_S`` with 90 % of the baseline. Where a fault
comes every few seconds each such stretch has others in it; so a long recovery is an upper limit
for one fault, and what it costs all of them together is what counts.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .nemesis import Fault

WINDOW_S = 5.0
#: The part of the baseline that counts as back.
BACK = 0.9


class Tail:
    """The lines of JSON that another process appends to a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0

    def lines(self) -> list[dict[str, Any]]:
        """Those that came since the last time."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")[0]
        self._read += len(whole) + bool(whole)
        return [json.loads(line) for line in whole.splitlines()]


class Timeline:
    """Acknowledged calls by slot, of all drivers and kinds. Slot n begins at ``n * slot_s``."""

    def __init__(self, slot_s: float) -> None:
        self.slot_s = slot_s
        self.kinds: Counter[str] = Counter()
        self._slots: dict[int, int] = defaultdict(int)

    def add(self, slots: Mapping[str, Mapping[str, int]]) -> None:
        """What one driver tells of some slots; the numbers come as strings, from JSON."""
        for slot, counts in slots.items():
            self._slots[int(slot)] += sum(counts.values())
            self.kinds.update(counts)

    def rate(self, begin_at: float, end_at: float) -> float:
        """Acknowledged per second in the whole slots between; 0 where there are none."""
        slots = range(math.ceil(begin_at / self.slot_s), math.floor(end_at / self.slot_s))
        total = sum(self._slots.get(slot, 0) for slot in slots)
        return total / (len(slots) * self.slot_s) if slots else 0.0

    def rates(self, begin_at: float, end_at: float, step_s: float) -> list[float]:
        """The same for each full step between."""
        count = int((end_at - begin_at) // step_s)
        return [self.rate(begin_at + n * step_s, begin_at + (n + 1) * step_s) for n in range(count)]

    def recovery_s(
        self, since: float, until: float, wanted: float, window_s: float = WINDOW_S
    ) -> float | None:
        """After which time the rate was ``wanted`` over a window; None: not before ``until``."""
        at = since
        while at + window_s <= until:
            if self.rate(at, at + window_s) >= wanted:
                return at - since
            at += self.slot_s
        return None


@dataclass
class Daemon:
    """Figures of one daemon, or driver, first and last seen."""

    what: str
    began_at: float
    seen_at: float
    first: tuple[int, int, int]
    last: tuple[int, int, int]


@dataclass
class Report:
    """All that is told. Times of ``Timeline`` and faults are those of the monotonic clock."""

    seed: int
    timeline: Timeline
    faults: list[Fault]
    #: Of the quiet time, the faults, and the time after all was healed.
    quiet: tuple[float, float]
    harm: tuple[float, float]
    calm: tuple[float, float]
    refused: Counter[str]
    wrong: list[str]
    errors: list[str]
    #: Acknowledged calls that never ran, or ran too often, or out of order: what a check said.
    lost: list[str]
    #: By driver and kind ("any" among them), seconds.
    gaps: Mapping[str, Mapping[str, float]]
    daemons: list[Daemon] = field(default_factory=list)

    @property
    def baseline(self) -> float:
        return self.timeline.rate(*self.quiet)

    @property
    def recovered_s(self) -> float | None:
        """After the last fault was healed."""
        return self._recovery_s(self.calm[0])

    def _recovery_s(self, since: float) -> float | None:
        return self.timeline.recovery_s(since, self.calm[1], BACK * self.baseline)

    def longest_gap_s(self) -> float:
        return max((gaps.get("any", 0.0) for gaps in self.gaps.values()), default=0.0)

    def __str__(self) -> str:
        return "\n".join([*self._head(), *self._faults(), *self._calls(), *self._daemons()])

    def _head(self) -> list[str]:
        harm = self.timeline.rates(*self.harm, WINDOW_S)
        back = self.recovered_s
        low = min(harm, default=0.0)
        part = sum(rate >= BACK * self.baseline for rate in harm) / max(1, len(harm))
        return [
            f"soak, seed {self.seed}: {len(self.faults)} faults "
            f"in {self.harm[1] - self.harm[0]:.0f} s",
            "",
            f"wrong answers                     {len(self.wrong)}",
            f"lost acknowledged calls           {len(self.lost)}",
            f"unexpected errors, hangs          {len(self.errors)}",
            f"throughput, quiet                 {self.baseline:.0f}/s",
            f"throughput, with faults           {self.timeline.rate(*self.harm):.0f}/s; "
            f"worst {WINDOW_S:.0f} s: {low:.0f}/s; {BACK:.0%} or more for {part:.0%} of the time",
            f"throughput, after all is healed   {self.timeline.rate(*self.calm):.0f}/s; back after "
            + (f"{back:.1f} s" if back is not None else "no time that was waited for"),
        ]

    def _faults(self) -> list[str]:
        columns = f"{'p50':>8}{'p99':>8}{'max':>8}"
        lines = [
            "",
            f"back at {BACK:.0%} after{'begin':>19}{'of the end':>27}",
            f"{'fault':<14}{'count':>6}{columns}   {columns}",
        ]
        kinds = [*dict.fromkeys(fault.what for fault in self.faults)]
        for kind in [*sorted(kinds), "all"]:
            some = [fault for fault in self.faults if kind in ("all", fault.what)]
            begun = [self._recovery_s(fault.began_at) for fault in some]
            ended = [self._recovery_s(fault.ended_at or fault.began_at) for fault in some]
            lines.append(f"{kind:<14}{len(some):>6}{_spread(begun)}   {_spread(ended)}")
        return lines

    def _calls(self) -> list[str]:
        columns = f"{'acknowledged':>12}{'refused':>9}"
        lines = ["", f"{'calls':<14}{columns}   longest time without, by driver"]
        for kind in sorted(self.timeline.kinds):
            gaps = [f"{gaps.get(kind, 0.0):.1f}" for gaps in self.gaps.values()]
            lines.append(
                f"{kind:<14}{self.timeline.kinds[kind]:>12}{self.refused[kind]:>9}   "
                + "  ".join(f"{gap:>5} s" for gap in gaps)
            )
        gaps = [f"{gaps.get('any', 0.0):.1f}" for gaps in self.gaps.values()]
        lines.append(
            f"{'any':<14}{sum(self.timeline.kinds.values()):>12}{sum(self.refused.values()):>9}   "
            + "  ".join(f"{gap:>5} s" for gap in gaps)
        )
        return lines

    def _daemons(self) -> list[str]:
        lines = [
            "",
            f"{'process':<28}{'seen for':>9}{'memory, MiB':>18}{'descriptors':>14}{'threads':>12}",
        ]
        for each in sorted(self.daemons, key=lambda each: each.began_at - each.seen_at):
            (rss, fds, threads), (rss_then, fds_then, threads_then) = each.first, each.last
            lines.append(
                f"{each.what:<28}{each.seen_at - each.began_at:>7.0f} s"
                f"{f'{rss / 2**20:.1f} -> {rss_then / 2**20:.1f}':>18}"
                f"{f'{fds} -> {fds_then}':>14}{f'{threads} -> {threads_then}':>12}"
            )
        return lines


def _spread(times: Iterable[float | None]) -> str:
    """p50, p99 and maximum; what never came back is the worst."""
    found = sorted(math.inf if each is None else each for each in times)
    if not found:
        return ""
    p99 = found[min(len(found) - 1, math.ceil(0.99 * len(found)) - 1)]
    values = (statistics.median_low(found), p99, found[-1])
    return "".join(f"{'never':>8}" if value == math.inf else f"{value:>6.1f} s" for value in values)
