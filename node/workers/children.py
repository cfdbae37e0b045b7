"""Our children and what becomes of them: who has ended, with which status.

Covers: SIGCHLD, waitpid for every child, orphans that the kernel hands to us because the node
daemon is their subreaper. Starts nothing and decides nothing. Nobody else in this process may wait
for children.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Final

from mray.rpc.pump import Pump

OnExit = Callable[[int], None]
#: Statuses of children that nobody asked for yet: a worker may end before we are told its pid.
_UNCLAIMED_MAX: Final = 1000


class Children:
    """One per process, made and used in the pump's thread, which must be the main one."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._watched: dict[int, OnExit] = {}
        self._unclaimed: dict[int, int] = {}
        self._former = signal.signal(signal.SIGCHLD, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._pump.call_soon(self.reap)

    def watch(self, pid: int, on_exit: OnExit) -> None:
        """Call ``on_exit(wait status)`` when the child ends, or soon where it has ended already."""
        status = self._unclaimed.pop(pid, None)
        if status is None or os.path.exists(f"/proc/{pid}"):  # Else the status is a former one's.
            self._watched[pid] = on_exit
        else:
            self._pump.call_soon(lambda: on_exit(status))

    def knows(self, pid: int) -> bool:
        """Whether the child is watched."""
        return pid in self._watched

    def reap(self) -> None:
        """Take the statuses of all that have ended."""
        ended = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            ended.append((pid, status))
        for pid, status in ended:
            on_exit = self._watched.pop(pid, None)
            if on_exit is None:
                self._unclaimed[pid] = status
            else:
                on_exit(status)
        while len(self._unclaimed) > _UNCLAIMED_MAX:
            del self._unclaimed[next(iter(self._unclaimed))]

    def close(self) -> None:
        """Give the signal back."""
        signal.signal(signal.SIGCHLD, self._former)
