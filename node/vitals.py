"""What a node tells its head of itself, again and again: the heartbeat.

Owns nothing but where each figure comes from. When one is sent is sched/head_link.py's.
"""

from __future__ import annotations

from mray.memory.gauge import Gauge
from mray.node.logs.tailer import Tailer
from mray.node.objects.server import StoreServer
from mray.node.sched.cluster_view import ClusterView
from mray.node.sched.head_link import HeadLink
from mray.node.sched.leases import Leases
from mray.node.workers.processes import Processes
from mray.wire.messages import Heartbeat


class Vitals:
    """See the module."""

    def __init__(
        self,
        node_id: bytes,
        head: HeadLink,
        leases: Leases,
        store: StoreServer,
        processes: Processes,
        gauge: Gauge,
        tailer: Tailer,
        view: ClusterView,
    ) -> None:
        self._node_id = node_id
        self._head = head
        self._leases = leases
        self._store = store
        self._processes = processes
        self._gauge = gauge
        self._tailer = tailer
        self._view = view

    def heartbeat(self) -> Heartbeat:
        """As it is now."""
        return Heartbeat(
            self._node_id,
            self._leases.free(),
            self._leases.pending(),
            self._store.used_bytes,
            len(self._processes),
            self._store.spilled_bytes,
            memory_used_bytes=self._gauge.reading.used_bytes,
            memory_limit_bytes=self._gauge.reading.limit_bytes,
            memory_threshold_bytes=self._gauge.threshold_bytes,
            spilling=self._store.spill_figures(),
            epoch=self._head.epoch,
            draining=self._view.nodes[self._node_id].draining,
            lost_output=self._tailer.lost_output(),
        )
