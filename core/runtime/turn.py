"""Who turns the event loop: the main thread while it waits, a stand-in while it does not.

A call's way through a process is then one thread's, without handing over to another and back (each
hand-over costs a wake-up, 10 to 25 us, of a call of 200). While user code runs, the stand-in takes
the loop over after a few milliseconds, so that nothing waits for a long task or computation.
Exactly one of them turns the loop: whoever holds ``lock``.

The stand-in sleeps on a lock while the main thread turns, looks every 2 ms while it comes and goes,
and waits in the loop itself while the main thread stays away: it costs nothing when all is idle.

Signals: Python runs handlers in the main thread between any two steps, and one that raises must not
do so in the middle of a machine's decision. A driver's main thread therefore turns the loop only
while no signal but SIGINT has a handler of the user's, and puts off KeyboardInterrupt until it has
left the loop. A worker's handlers are mray's own.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from mray.rpc.pump import Pump

log = logging.getLogger("mray.runtime")

#: User code that runs for one to two of these is given a stand-in.
_LOOK_EVERY_S = 0.002
#: Signals that programs give handlers of their own, which may raise.
_USER_SIGNALS = (
    int(signal.SIGTERM), int(signal.SIGALRM), int(signal.SIGUSR1), int(signal.SIGUSR2),
    int(signal.SIGHUP), int(signal.SIGVTALRM), int(signal.SIGPROF), int(signal.SIGQUIT),
    int(signal.SIGCHLD),
)  # fmt: skip
# The C functions behind signal's: turning numbers into enum members and back costs 15 us a get().
_SIGINT = int(signal.SIGINT)
_getsignal: Callable[[int], Any] = _signal.getsignal
_set_signal: Callable[[int, Any], Any] = _signal.signal
_default_int_handler = signal.default_int_handler
#: Looks without work before the stand-in goes to sleep.
_LOOKS_IDLE_MAX = 25


class Turn:
    """See the module. Made in the main thread."""

    def __init__(self, pump: Pump, *, guarded: bool) -> None:
        self._pump = pump
        #: Heed the user's signal handlers.
        self._guarded = guarded and threading.current_thread() is threading.main_thread()
        self._pid = os.getpid()
        self._interrupted = False
        #: The main thread is in lead(), and what that shall raise.
        self.leading = False
        self._error: BaseException | None = None
        self._main = threading.get_ident()
        #: Held by the thread that turns the loop.
        self.lock = threading.Lock()
        #: The thread that turns the loop, 0 for none. Between two rounds too: a finalizer may run
        #: there, and would wait for the lock that its own thread holds.
        self.turning = 0
        #: The main thread wants the loop back.
        self._wanted = False
        #: Grows whenever the main thread goes into user code.
        self._departures = 0
        self._asleep = False
        #: The stand-in waits for its next look; another thread cannot wait for the loop that long.
        self._looking = False
        self._urgent = False
        self._sleep = threading.Lock()
        self._sleep.acquire()

    def here(self) -> bool:
        """Whether the present thread may turn the loop, and is not within it already."""
        me = threading.get_ident()
        if me != self._main or me == self.turning or os.getpid() != self._pid:
            return False
        if not self._guarded:
            return True
        if _getsignal(_SIGINT) is not _default_int_handler:
            return False
        # Handlers that run no Python are plain numbers, or None.
        return not any(map(callable, map(_getsignal, _USER_SIGNALS)))

    def _interrupt(self, number: int, frame: Any) -> None:
        self._interrupted = True
        self._pump.door.wake()

    def lead(
        self, until: Callable[[], bool], deadline: float | None = None, once: bool = False
    ) -> bool:
        """In the main thread: turn the loop until something holds or the time is over; ``once``:
        one time, without waiting.

        Only when here(). Raises KeyboardInterrupt in a driver, in a worker what interrupt() gives.
        """
        if not self._guarded:
            self.leading = True
            try:
                done = self._lead(until, deadline, once)
            finally:
                self.leading = False
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            return done
        _set_signal(_SIGINT, self._interrupt)
        try:
            done = self._lead(lambda: self._interrupted or until(), deadline, once)
        finally:
            _set_signal(_SIGINT, _default_int_handler)
        if self._interrupted:
            self._interrupted = False
            raise KeyboardInterrupt
        return done

    def glance(self) -> None:
        """Turn the loop once, without waiting, if the present thread may and no other does."""
        if not self.lock.locked() and self.here():
            self.lead(_never, once=True)

    def interrupt(self, error: BaseException) -> None:
        """In the main thread of a worker, in lead(): have that raise."""
        self._error = error
        self._pump.door.wake()

    def hurry(self) -> None:
        """Another thread waits for the loop: the stand-in shall not let it wait."""
        self._urgent = True
        if self._looking:
            self._looking = False
            self._rouse()

    def _lead(self, until: Callable[[], bool], deadline: float | None, once: bool) -> bool:
        if not self.lock.acquire(blocking=False):
            self._wanted = True
            self._pump.door.wake()
            self.lock.acquire()
            self._wanted = False
        over = False

        def done() -> bool:
            # Asked again after it held: acquiring a lock holds but once.
            nonlocal over
            over = over or self._error is not None or until()
            return over

        self.turning = self._main
        try:
            if once:
                if self._pump.running:
                    self._once(0.0)
                return True
            while not done():
                if not self._pump.running:
                    return False
                left_s = None
                if deadline is not None:
                    left_s = deadline - time.monotonic()
                    if left_s <= 0:
                        return False
                self._once(left_s, done)
            return True
        finally:
            self._departures += 1
            self.turning = 0
            self.lock.release()
            if self._asleep:
                self._asleep = False
                self._rouse()

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
            self._looking = True
            if not self._sleep.acquire(timeout=_LOOK_EVERY_S):
                self._looking = False
            departures = self._departures
            if self.lock.locked():
                idle_looks += 1
            elif departures == seen or self._urgent:
                self._urgent = False
                self._replace()
            else:
                idle_looks = 0
            seen = departures

    def _replace(self) -> None:
        if not self.lock.acquire(blocking=False):
            return
        self.turning = threading.get_ident()
        try:
            while self._pump.running and not self._wanted:
                self._once(None)
        finally:
            self.turning = 0
            self.lock.release()

    def stop(self) -> None:
        """The loop has ended: let the stand-in see it."""
        self._rouse()

    def _rouse(self) -> None:
        try:
            self._sleep.release()
        except RuntimeError:
            return  # roused already

    def _once(self, timeout_s: float | None, done: Callable[[], bool] | None = None) -> None:
        try:
            self._pump.run_once(timeout_s, done)
        except Exception:
            # One round is lost, not the process: its users would hang without a word.
            log.exception("a round of the event loop failed")


def _never() -> bool:
    return False
