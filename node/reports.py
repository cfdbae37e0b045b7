"""What a node tells of itself to whoever asks: what its processes run, who they are, its figures.

Puts the parts together that answer; each has its dialogue. Nothing else depends on them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from mray.memory.gauge import Gauge
from mray.node.daemon import Daemon
from mray.node.metrics.figures import node_figures
from mray.node.metrics.service import NodeMetricsService
from mray.node.objects.server import StoreServer
from mray.node.sched.leases import Leases
from mray.node.workers.peers import Peers
from mray.node.workers.processes import Processes
from mray.node.workers.stacks import NodeStacks
from mray.node.workers.task_report import NodeTaskReports
from mray.node.workers.views import WorkerViews
from mray.wire.messages import MetricFamily, NodeInfo


class NodeReports:
    """See the module. ``title_of``: what a worker ran when it last said so."""

    def __init__(
        self,
        daemon: Daemon,
        info: NodeInfo,
        peers: Peers,
        processes: Processes,
        leases: Leases,
        store: StoreServer,
        gauge: Gauge,
        title_of: Callable[[bytes], str],
    ) -> None:
        pump = daemon.pump
        NodeTaskReports(pump, peers)
        NodeStacks(pump, peers, title_of)
        ended = WorkerViews(pump, leases.pool, processes, leases.holds, peers).ended

        def figures(refused: int, series: int) -> list[MetricFamily]:
            return node_figures(
                total=info.resources,
                free=leases.free(),
                pending=sum(count for _, count in leases.pending()),
                store=store.stats(0, objects=False),
                used_bytes=gauge.reading.used_bytes,
                limit_bytes=gauge.reading.limit_bytes,
                threshold_bytes=gauge.threshold_bytes,
                workers=Counter(worker.state for worker in leases.pool.workers.values()),
                ended=ended.by_cause,
                evicted=ended.by_evictor,
                refused=refused,
                series=series,
            )

        NodeMetricsService(daemon, info, peers, figures)
