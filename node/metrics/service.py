"""The metrics of a node: takes reports of its processes, answers GetMetrics, serves the page.

Sums are sums.py's, the node's own figures figures.py's, HTTP is page.py's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mray.metrics_text import joined, render
from mray.node.daemon import Daemon
from mray.node.metrics.figures import ABOUT
from mray.node.metrics.page import MetricsPage
from mray.node.metrics.sums import Sums
from mray.node.workers.peers import Peer, Peers
from mray.wire.messages import (
    DeathCause,
    GetMetrics,
    MetricFamily,
    NodeInfo,
    NodeMetrics,
    ReportMetrics,
)

#: Gives the node's own figures: called with how many records were refused, and series are kept.
Figures = Callable[[int, int], list[MetricFamily]]

_SESSION_LABEL_MAX: Final = 200


class NodeMetricsService:
    """See the module. Registers its handlers."""

    def __init__(self, daemon: Daemon, info: NodeInfo, peers: Peers, figures: Figures) -> None:
        self._pump = daemon.pump
        self._log = daemon.log
        self._peers = peers
        self._figures = figures
        self._sums = Sums(taken=frozenset(ABOUT))
        self._labels = {
            "NodeAddress": info.ip,
            "NodeId": info.node_id.hex(),
            "SessionName": info.session_dir.rstrip("/").rpartition("/")[2][:_SESSION_LABEL_MAX],
        }
        peers.on_removed.append(self._ended)
        self._pump.on(ReportMetrics, self._report)
        self._pump.on(GetMetrics, self._get)
        self._listen(daemon)

    def _listen(self, daemon: Daemon) -> None:
        settings = daemon.config.metrics
        host, port = settings.metrics_export_host, settings.metrics_export_port
        if not port:
            return
        try:
            MetricsPage(self._pump, host, port, self._page)
        except OSError as error:
            # Another node of this machine may have the port. Work goes on without the page.
            text = "no metrics at http://%s:%d/metrics: %s; `mray metrics` has them all the same"
            self._log.warning(text, host, port, error)
        else:
            self._log.info("metrics are at http://%s:%d/metrics", host, port)

    def _report(self, sender: bytes, message: ReportMetrics) -> None:
        if sender not in self._peers:
            # Read after its end was seen, or it never registered: nobody would say when it ends.
            self._log.debug("a report of metrics of %s, who is not here", sender.hex()[:8])
            return
        for warning in self._sums.report(sender, message.families, message.refused):
            self._log.warning("metrics of process %s: %s", sender.hex()[:8], warning)

    def _ended(self, peer: Peer, cause: DeathCause) -> None:
        self._sums.process_ended(peer.process_id)

    def _families(self) -> list[MetricFamily]:
        own = self._figures(self._sums.refused_count, self._sums.series_count)
        return sorted(own + self._sums.families(), key=lambda family: family.name)

    def _get(self, sender: bytes, message: GetMetrics) -> None:
        self._pump.send(sender, NodeMetrics(message.rid, self._labels, self._families()))

    def _page(self) -> str:
        families, _ = joined([(self._labels, self._families())])
        return render(families)
