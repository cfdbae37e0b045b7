"""The node's memory as it was at the last look, with the threshold that holds for it.

For whoever tells of memory often and need not be exact to the moment: heartbeats. Whoever acts on
memory reads it himself.
"""

from __future__ import annotations

from mray.config.sections import MemoryMonitor
from mray.memory.threshold import threshold_bytes
from mray.memory.usage import MemoryReader


class Gauge:
    """``rules`` has the share and the bytes that make the threshold."""

    def __init__(self, rules: MemoryMonitor, reader: MemoryReader | None = None) -> None:
        self._rules = rules
        self._reader = reader or MemoryReader()
        self.look()

    def look(self) -> None:
        """Read anew; limits may have changed as well."""
        self.reading = self._reader.read()
        #: 0 where the monitor is off: nothing is killed then.
        self.threshold_bytes = 0
        if self._rules.memory_monitor_refresh_ms:
            self.threshold_bytes = threshold_bytes(
                self.reading.limit_bytes,
                self._rules.memory_usage_threshold,
                self._rules.min_memory_free_bytes,
            )
