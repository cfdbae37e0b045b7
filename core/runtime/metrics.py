"""Has a process tell its node what mray.util.metrics recorded: in batches, and when it ends.

No timer runs and nothing is sent while nothing is recorded. The first record after a pause leaves
at once and the next ones together, 0.1 s later: a process that is killed takes no more than that.
Where many series change, reports come less often, so that they take about 1 % of a CPU at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mray.metrics_recorder import Recorder, recorder
from mray.wire.messages import ReportMetrics

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime

#: Between two reports at least.
_GAP_S: Final = 0.1
#: As long a pause for each series of the last report: a hundred times what it takes to tell.
_GAP_A_SERIES_S: Final = 0.0005


class MetricsPart:
    """See the module."""

    def __init__(self, runtime: Runtime, records: Recorder = recorder) -> None:
        self._rt = runtime
        self._records = records
        self._gap_most_s = runtime.config.metrics.metrics_report_interval_ms / 1000
        #: When the next report may leave, in the pump's time.
        self._next_at = 0.0

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
            count = sum(len(family.points) for family in families)
            gap_s = min(self._gap_most_s, max(_GAP_S, count * _GAP_A_SERIES_S))
            self._next_at = self._rt.pump.clock() + gap_s
            self._rt.tell(self._rt.node.address, ReportMetrics(families, refused))

    def _arm(self) -> None:
        pump = self._rt.pump
        if pump.clock() >= self._next_at:
            self.flush()
        else:
            pump.at(self._next_at, self.flush)
