"""Has a process tell its node what mray.util.metrics recorded: in batches, and when it ends.

No timer runs and nothing is sent while nothing is recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mray.metrics_recorder import Recorder, recorder
from mray.wire.messages import ReportMetrics

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime


class MetricsPart:
    """See the module."""

    def __init__(self, runtime: Runtime, records: Recorder = recorder) -> None:
        self._rt = runtime
        self._records = records
        self._interval_s = runtime.config.metrics.metrics_report_interval_ms / 1000

    def start(self) -> None:
        """From now on report, also what was recorded before."""
        self._records.report_to(lambda: self._rt.post(self._arm))

    def end(self) -> None:
        """Tell the rest and begin anew, for a runtime to come. Within the loop."""
        self._records.report_to(None)
        self.flush()
        self._records.clear()

    def flush(self) -> None:
        """Tell what changed. Within the loop."""
        families, refused = self._records.take()
        if families or refused:
            self._rt.tell(self._rt.node.address, ReportMetrics(families, refused))

    def _arm(self) -> None:
        self._rt.pump.after(self._interval_s, self.flush)
