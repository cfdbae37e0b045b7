"""A process's dialogue with the head, which may go away for a while.

Owns the requests to the head that are not answered: while it is away they wait, and they are sent
again when it is back, under the same ids; a head that has begun anew may have them or not. What the
process is told of (actors, groups) it asks for again then: see ``on_back``. The node daemon says
when the head is away, back, or given up; calls, objects and leases need no head.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mray.rpc.patience import PatientRequests
from mray.rpc.pump import OnReply
from mray.units import format_duration
from mray.wire.messages import Address, HeadAway, HeadBack, Message

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime

log = logging.getLogger("mray.runtime")

#: Beyond the time of a request, or that nodes wait for the head: to learn how that ended.
_MARGIN_S: Final = 10.0
#: The exit code of a driver whose head does not come back.
LOST_EXIT_CODE: Final = 1


class HeadLink:
    """See the module. Within the loop, but for what says otherwise."""

    def __init__(self, runtime: Runtime) -> None:
        self.rt = runtime
        self._requests = PatientRequests(runtime.pump, runtime.head.process_id)
        self._away_at: float | None = None
        self._why = ""
        #: Called each time the head is back, after what it was asked has been sent again.
        self.on_back: list[Callable[[], None]] = []
        self._once: list[Callable[[], None]] = []
        runtime.pump.on(HeadAway, self._is_away)
        runtime.pump.on(HeadBack, self._is_back)

    @property
    def away(self) -> bool:
        """Whether the head does not answer, as far as the node knows. From any thread."""
        return self._away_at is not None

    def margin_s(self, peer: Address) -> float:
        """How much longer than its own time a request to ``peer`` may take. From any thread."""
        if peer.process_id != self.rt.head.process_id:
            return _MARGIN_S
        return self.rt.config.liveness.gcs_rpc_server_reconnect_timeout_s + _MARGIN_S

    def say(self, make: Callable[[int], Message], timeout_s: float) -> None:
        """Ask the head something whose answer is of no interest, and wait for that ``timeout_s`` at
        most, also for a head that is away. From any thread but the loop's."""
        answered = threading.Lock()
        answered.acquire()
        self.rt.post(lambda: self.ask(make, lambda reply: answered.release(), timeout_s))
        self.rt.block_on(answered, timeout_s)

    def why(self) -> str:
        """That the head is away, for people; "" while it is not. From any thread."""
        away_at = self._away_at
        if away_at is None:
            return ""
        away_s = format_duration(max(0.0, self.rt.pump.clock() - away_at))
        return f"the head of the cluster is away, for {away_s} now ({self._why})"

    def ask(self, make: Callable[[int], Message], on_reply: OnReply, timeout_s: float) -> None:
        """A request to the head. ``timeout_s`` is for a head that is there."""
        self.reach()
        self._requests.ask(make, on_reply, timeout_s)

    def reach(self) -> bool:
        """Connect to the head, which is never dead for good: it may be started again. True."""
        self.rt.pump.door.dial(self.rt.head, self.rt.node.node_id)
        return True

    def once_back(self, call: Callable[[], None]) -> None:
        """Call when the head is there: now, or once it is back."""
        if self._away_at is None:
            call()
        else:
            self._once.append(call)

    def _is_away(self, sender: bytes, message: HeadAway) -> None:
        if sender != self.rt.node.node_id:
            return
        if message.final:
            self._lost(message.text)
            return
        self._away_at, self._why = self.rt.pump.clock() - message.away_s, message.text
        self._requests.gone()
        log.debug("%s", message.text)

    def _is_back(self, sender: bytes, message: HeadBack) -> None:
        if sender != self.rt.node.node_id:
            return
        self._away_at, self._why = None, ""
        if message.head is not None:
            self.rt.head = message.head
            self.rt.pump.door.redial(message.head.process_id, message.head.tcp)
        self.reach()
        self._requests.back()
        once, self._once = self._once, []
        for call in [*self.on_back, *once]:
            call()

    def _lost(self, text: str) -> None:
        """The node ends, and with it all that this process could do. As in Ray, a driver does not
        outlive that: its program may be anywhere, and would wait or fail for other reasons."""
        self._requests.give_up(text)
        if self.rt.mode != "driver" or os.getpid() != self.rt.pid:
            return
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                continue  # Closed, or nobody reads: nothing to keep.
        os.write(2, f"mray: this program ends: {text}\n".encode())
        os._exit(LOST_EXIT_CODE)
