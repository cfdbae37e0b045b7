"""Who turns a worker's event loop: its main thread when it has nothing else to do.

A task's way through a worker is then receive, run, reply in one thread, without handing over to
another and back (each hand-over costs a wake-up, 10 to 25 us, of a call of 200). While user code
runs, a stand-in thread takes the loop over after a few milliseconds, so that a long task does not
keep the process from answering. Exactly one of them turns the loop: whoever holds ``lock``.

The stand-in sleeps on a lock while nothing runs, looks every 2 ms while tasks come and go, and
costs nothing when the worker is idle. Only workers do this: a driver's main thread may be
interrupted by the user's signal handlers in the middle of a machine's decision.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from mray.rpc.pump import Pump

log = logging.getLogger("mray.runtime")

#: User code that runs for one to two of these is given a stand-in.
_LOOK_EVERY_S = 0.002
#: Looks without work before the stand-in goes to sleep.
_LOOKS_IDLE_MAX = 25


class Turn:
    """See the module. Made in the main thread."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._main = threading.get_ident()
        #: Held by the thread that turns the loop.
        self.lock = threading.Lock()
        #: The thread that turns the loop, 0 for none.
        self.turning = 0
        #: The main thread wants the loop back.
        self._wanted = False
        #: Grows whenever the main thread goes into user code.
        self._departures = 0
        self._asleep = False
        self._sleep = threading.Lock()
        self._sleep.acquire()

    def here(self) -> bool:
        """Whether the present thread is the main thread, and not within the loop already."""
        me = threading.get_ident()
        return me == self._main and me != self.turning

    def lead(self, until: Callable[[], bool], deadline: float | None = None) -> bool:
        """In the main thread: turn the loop until something holds or the time is over."""
        if not self.lock.acquire(blocking=False):
            self._wanted = True
            self._pump.door.wake()
            self.lock.acquire()
            self._wanted = False
        try:
            while not until():
                if not self._pump.running:
                    return until()
                left_s = None
                if deadline is not None:
                    left_s = deadline - time.monotonic()
                    if left_s <= 0:
                        return False
                self._once(left_s)
            return True
        finally:
            self._departures += 1
            self.lock.release()
            if self._asleep:
                self._asleep = False
                self._sleep.release()

    def stand_in(self) -> None:
        """The life of the stand-in thread."""
        pump = self._pump
        seen, idle_looks = -1, 0
        while pump.running:
            if idle_looks > _LOOKS_IDLE_MAX:
                idle_looks = 0
                self._asleep = True
                self._sleep.acquire()
                seen = -1
            time.sleep(_LOOK_EVERY_S)
            departures = self._departures
            if self.lock.locked():
                idle_looks += 1
            elif departures == seen:
                self._replace()
            else:
                idle_looks = 0
            seen = departures

    def _replace(self) -> None:
        if not self.lock.acquire(blocking=False):
            return
        try:
            while self._pump.running and not self._wanted:
                self._once(None)
        finally:
            self.lock.release()

    def stop(self) -> None:
        """The loop has ended: let the stand-in see it."""
        if self._asleep:
            self._asleep = False
            self._sleep.release()

    def _once(self, timeout_s: float | None) -> None:
        self.turning = threading.get_ident()
        try:
            self._pump.run_once(timeout_s)
        except Exception:
            # One round is lost, not the process: its users would hang without a word.
            log.exception("a round of the event loop failed")
        finally:
            self.turning = 0
