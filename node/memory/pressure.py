"""What the processes of a node are told when its memory passes the soft mark.

Owns who has callbacks for that (mray.on_memory_pressure), until when each may run them, and the
warning to drivers. Runs in the loop; the monitor's thread reads ``busy``, a dict of single values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from mray.node.memory.monitor import Reading
from mray.node.workers.peers import Peers
from mray.rpc.pump import Pump
from mray.units import format_bytes
from mray.wire.messages import (
    HandlesPressure,
    MemoryNews,
    MemoryPressure,
    Message,
    PressureHandled,
)

#: What callbacks get, from the message to the first signal.
_CALLBACKS_S: Final = 1.0


class PressureNews:
    """See the module. ``busy``: by process, until when its callbacks may run (monotonic seconds).
    ``warn_every_s``: drivers are warned no more often, 0 for never."""

    def __init__(
        self, pump: Pump, peers: Peers, busy: dict[bytes, float], warn_every_s: float
    ) -> None:
        self._pump = pump
        self._peers = peers
        self._busy = busy
        self._warn_every_s = warn_every_s
        self._warned_at = float("-inf")
        #: Processes that have callbacks.
        self._listeners: set[bytes] = set()
        #: While memory is short.
        self._message: MemoryPressure | None = None
        self.handlers: dict[type[Message], Callable[[bytes, Any], None]] = {
            HandlesPressure: self._handles,
            PressureHandled: lambda sender, message: self._handled(sender),
        }

    def began(self, reading: Reading, soft_share: float) -> None:
        """Memory has passed the soft mark."""
        soft_mark_bytes = int(reading.threshold_bytes * soft_share)
        message = self._message = MemoryPressure(
            reading.used_bytes, reading.limit_bytes, reading.threshold_bytes, soft_mark_bytes
        )
        now = self._pump.clock()
        self._listeners &= {peer.process_id for peer in self._peers}
        for peer in self._peers:
            if peer.process_id in self._listeners:
                self._busy[peer.process_id] = now + _CALLBACKS_S
            if peer.kind in ("worker", "driver"):
                self._pump.send(peer.process_id, message)
        if not self._warn_every_s or now < self._warned_at + self._warn_every_s:
            return
        self._warned_at = now
        text = (
            f"Memory begins to be short: {format_bytes(reading.used_bytes)} of "
            f"{format_bytes(reading.limit_bytes)} used. No new tasks start above "
            f"{format_bytes(soft_mark_bytes)}, and workers are ended above "
            f"{format_bytes(reading.threshold_bytes)}. `mray oom explain` shows who would be first"
        )
        for peer in self._peers:
            if peer.kind == "driver":
                self._pump.send(peer.process_id, MemoryNews(text))

    def ended(self) -> None:
        """Memory is fine again."""
        self._message = None
        self._busy.clear()

    def forget(self, process_id: bytes) -> None:
        """A process has ended."""
        self._listeners.discard(process_id)
        self._handled(process_id)

    def _handles(self, sender: bytes, message: HandlesPressure) -> None:
        if not message.has_callbacks:
            self._listeners.discard(sender)
            return
        self._listeners.add(sender)
        if self._message is not None:  # It came late: its callbacks get their chance too.
            self._busy[sender] = self._pump.clock() + _CALLBACKS_S
            self._pump.send(sender, self._message)

    def _handled(self, process_id: bytes) -> None:
        self._busy.pop(process_id, None)
