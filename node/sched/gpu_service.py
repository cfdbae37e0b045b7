"""Tells workers which GPUs they hold. The shell of gpus.py.

A worker asks when a task with GPUs begins, or an actor is made: only then does it matter, and a
lease may have changed hands since it asked last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mray.node.sched.holds import Holds
from mray.wire.messages import GetGpus, GpusHeld, Message


class GpuService:
    """``send`` takes a message to a process."""

    def __init__(self, holds: Holds, send: Callable[[bytes, Message], Any]) -> None:
        self._holds = holds
        self._send = send
        self.handlers: dict[type[Message], Callable[[bytes, Any], None]] = {GetGpus: self._asked}

    def _asked(self, sender: bytes, message: GetGpus) -> None:
        hold = self._holds.by_worker.get(sender)
        self._send(sender, GpusHeld(message.rid, hold.gpus if hold is not None else []))
