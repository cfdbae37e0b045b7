"""When a process reports its metrics."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mray.metrics_recorder import Recorder
from mray.runtime.metrics import MetricsPart


class World:
    """A runtime with nothing but time and a node."""

    def __init__(self, interval_ms: int) -> None:
        self.now = 50.0
        self.timers: list[tuple[float, object]] = []
        #: When each report left, and how many series it had.
        self.told: list[tuple[float, int]] = []
        self.config = SimpleNamespace(
            metrics=SimpleNamespace(metrics_report_interval_ms=interval_ms)
        )
        self.node = SimpleNamespace(address="node")
        self.pump = SimpleNamespace(
            clock=lambda: self.now, at=lambda when, call: self.timers.append((when, call))
        )
        self.records = Recorder()
        self.part = MetricsPart(self, self.records)  # type: ignore[arg-type]
        self.family = self.records.family("c", "counter")

    def post(self, call) -> None:
        call()

    def tell(self, node, message) -> None:
        self.told.append((self.now, sum(len(family.points) for family in message.families)))

    def record(self, *keys: str) -> None:
        for key in keys:
            self.records.add(self.family, (("k", key),), 1)

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while self.timers and min(self.timers)[0] <= end:
            self.now, call = self.timers.pop(0)
            call()  # type: ignore[operator]
        self.now = end


@pytest.fixture
def make():
    def made(interval_ms: int = 2000) -> World:
        world = World(interval_ms)
        world.part.start()
        return world

    return made


def test_the_first_record_leaves_at_once_and_the_next_together(make):
    world = make()
    world.record("a", "b", "c")
    assert world.told == [(50.0, 1)]
    world.wait(0.2)
    assert world.told[1:] == [(50.1, 2)]


def test_after_a_pause_a_record_leaves_at_once(make):
    world = make()
    world.record("a")
    world.wait(5)
    assert not world.timers
    world.record("a")
    assert world.told == [(50.0, 1), (55.0, 1)]


def test_many_series_are_told_less_often_and_in_time(make):
    world = make()
    world.record("a")
    world.record(*(f"{number}" for number in range(1000)))
    world.wait(0.1)
    assert world.told[1] == (50.1, 1000)
    world.record("a")
    world.wait(0.4)
    assert len(world.told) == 2
    world.wait(0.2)
    assert world.told[2][0] == pytest.approx(50.6)


def test_the_setting_bounds_the_wait(make):
    world = make(10)
    world.record("a")
    world.record("b")
    world.wait(0.01)
    assert [at for at, _ in world.told] == [50.0, pytest.approx(50.01)]
