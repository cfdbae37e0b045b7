"""Random reports and ends of processes against a naive sum."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mray.node.metrics.sums import Sums
from mray.wire.messages import MetricFamily, MetricPoint

KINDS = {"c": "counter", "g": "gauge", "h": "histogram"}
PROCESSES = st.sampled_from([b"a", b"b", b"c"])
TAGS = st.sampled_from(["x", "y"])
#: Whole numbers: their sums are exact, in any order.
AMOUNTS = st.integers(0, 100).map(float)


class Reports(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.sums = Sums()
        #: By process, name and tag.
        self.living: dict[tuple[bytes, str, str], list[float]] = {}
        self.ended: dict[tuple[str, str], list[float]] = {}

    @rule(process=PROCESSES, name=st.sampled_from("cgh"), tag=TAGS, amount=AMOUNTS)
    def report(self, process: bytes, name: str, tag: str, amount: float) -> None:
        values = [amount, 1.0, amount] if name == "h" else [amount]
        boundaries = [1.0] if name == "h" else []
        point = MetricPoint({"k": tag}, values)
        told = MetricFamily(name, KINDS[name], "", boundaries, [point])
        assert self.sums.report(process, [told], 0) == []
        self.living[process, name, tag] = values

    @rule(process=PROCESSES)
    def end(self, process: bytes) -> None:
        self.sums.process_ended(process)
        for key in [key for key in self.living if key[0] == process]:
            values = self.living.pop(key)
            if key[1] != "g":
                self.ended[key[1:]] = plus(self.ended.get(key[1:]), values)

    @invariant()
    def agrees(self) -> None:
        self.sums.check()
        wanted = dict(self.ended)
        for (_, name, tag), values in self.living.items():
            wanted[name, tag] = plus(wanted.get((name, tag)), values)
        told = {
            (family.name[4], point.tags["k"]): point.values
            for family in self.sums.families()
            for point in family.points
        }
        assert told == wanted
        assert self.sums.series_count == len(wanted)


def plus(one: list[float] | None, other: list[float]) -> list[float]:
    return other if one is None else [a + b for a, b in zip(one, other, strict=True)]


TestReports = Reports.TestCase
TestReports.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
