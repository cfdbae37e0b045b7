"""The node's memory with its threshold, as heartbeats tell it."""

from __future__ import annotations

import msgspec

from mray.config import Config
from mray.memory.gauge import Gauge
from mray.memory.usage import MemoryReader, MemoryReading


class FakeReader(MemoryReader):
    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes

    def read(self) -> MemoryReading:
        return MemoryReading(10, self.limit_bytes, "", 5000, 2000, 0)


def test_the_threshold_follows_a_limit_that_changes() -> None:
    reader = FakeReader(1000)
    gauge = Gauge(Config().memory_monitor, reader)
    assert (gauge.reading.used_bytes, gauge.threshold_bytes) == (10, 950)
    reader.limit_bytes = 2000
    assert gauge.threshold_bytes == 950
    gauge.look()
    assert (gauge.reading.limit_bytes, gauge.threshold_bytes) == (2000, 1900)


def test_without_a_monitor_there_is_no_threshold() -> None:
    rules = msgspec.structs.replace(Config().memory_monitor, memory_monitor_refresh_ms=0)
    assert Gauge(rules, FakeReader(1000)).threshold_bytes == 0
