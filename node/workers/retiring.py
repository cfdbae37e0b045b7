"""Ends idle workers that nobody needs any more, having asked them.

Only a worker knows whether others hold what it owns, which would die with it. The pool has taken it
out meanwhile; it gets it back where it has to stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mray.node.workers.processes import Processes
from mray.rpc.pump import Pump
from mray.wire.messages import DeathCause, MayRetire, Message, Refused

#: A worker that says nothing for so long is ended as if it had nothing.
_ANSWER_S: Final = 30.0


class Retiring:
    """See the module. ``keep(process_id)`` is called for each that stays."""

    def __init__(self, pump: Pump, processes: Processes, keep: Callable[[bytes], None]) -> None:
        self._pump = pump
        self._processes = processes
        self._keep = keep

    def retire(self, process_id: bytes, cause: DeathCause, grace_s: float) -> None:
        """End a worker, unless it refuses."""

        def answered(reply: Message) -> None:
            process = self._processes.get(process_id)
            if process is None or process.intent is not None or process.ended:
                return  # It has ended or been ended meanwhile.
            if isinstance(reply, Refused):
                self._keep(process_id)
            else:
                self._processes.kill(process_id, cause, grace_s)

        self._pump.request(process_id, MayRetire, answered, _ANSWER_S)
