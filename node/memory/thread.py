"""The thread of the memory monitor: reads memory, carries out the monitor's effects, signals.

A thread of its own, so that a node daemon whose loop is busy or blocked still acts. It kills by
itself, through pidfds; what the loop has to do it is told by ``call_soon``. Decides nothing:
monitor.py and policy.py do.

Cost of a look: one file of our groups or /proc/meminfo; who uses what is read when somebody has to
go, and once a second for the peaks of tasks. With 50 actors both take 0.2 % of a CPU.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, assert_never

from mray.memory.usage import MemoryReader
from mray.node.memory.census import Census, Count
from mray.node.memory.monitor import (
    Admit,
    Effect,
    Kill,
    Monitor,
    Pick,
    PressStore,
    Reading,
    Reread,
    Say,
)
from mray.process import open_pidfd, read_stat

log = logging.getLogger("mray.node")

#: How often it is read who uses what while memory is fine, for the peaks of tasks: so that it takes
#: 0.1 % of a CPU, within bounds.
_SAMPLE_PAUSE: Final = 1000
_SAMPLE_MIN_S: Final = 0.25
_SAMPLE_MAX_S: Final = 1.0
#: A look that fails (a bug, or /proc gone) must not end the monitor, nor fill the log.
_AFTER_ERROR_S: Final = 5.0


class MonitorThread:
    """Runs until ``stop()``. All callbacks but ``make_monitor`` are called in this thread.

    ``on_kill(kill, count)`` comes before the first signal to a victim: from then on its end is
    expected. ``on_admit``, ``on_press`` and ``on_say`` carry out the effects of these names.
    ``on_idle(count, is_short)`` comes with each count of who uses what: idle workers that keep some
    can go.
    """

    def __init__(
        self,
        make_monitor: Callable[[Reading], Monitor],
        census: Census,
        reader: MemoryReader,
        usage_threshold: float,
        min_free_bytes: int,
        *,
        on_kill: Callable[[Kill, Count], None],
        on_admit: Callable[[bool], None],
        on_press: Callable[[int], None],
        on_say: Callable[[Say], None],
        on_idle: Callable[[Count, bool], None],
    ) -> None:
        self._census = census
        self._reader = reader
        self._usage_threshold = usage_threshold
        self._min_free_bytes = min_free_bytes
        self._on_kill = on_kill
        self._on_admit = on_admit
        self._on_press = on_press
        self._on_say = on_say
        self._on_idle = on_idle
        self._monitor = make_monitor(self.read())
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self._sample_at = 0.0
        self._pressed = False
        self._press_goes_on = False
        #: The victim's tree: pid -> pidfd, until all of it is gone.
        self._victims: dict[int, int] = {}
        self._victim_id = b""
        self._thread = threading.Thread(target=self._run, name="mray-memory", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; nothing is killed any more when this returns."""
        self._stopping = True
        self._wake()
        self._thread.join()
        os.close(self._wake_fd)

    def pressed(self) -> None:
        """The store has given back what it can. From any thread."""
        self._pressed = True
        self._wake()

    def press_goes_on(self) -> None:
        """The store is getting on with it. From any thread."""
        self._press_goes_on = True

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    # -- the loop

    def _run(self) -> None:
        while not self._stopping:
            wait_s = _AFTER_ERROR_S
            try:
                self._look()
                wait_s = self._monitor.deadline() - time.monotonic()
            except Exception:
                log.exception("the memory monitor failed at a look; it goes on")
                self._forget_victims()
            self._wait(max(0.0, wait_s))
        self._forget_victims()

    def _look(self) -> None:
        now = time.monotonic()
        if self._press_goes_on:
            self._press_goes_on = False
            self._monitor.press_goes_on(now)
        if self._pressed:
            self._pressed = False
            self._monitor.pressed()
        if self._victim_id and not self._victims:
            self._victim_gone(now)
        if now >= self._monitor.deadline():
            self._perform(self._monitor.read(self.read(), now))
        if now >= self._sample_at:
            begin = time.monotonic()
            self._on_idle(self._census.take(), not self._monitor.is_open)
            end = time.monotonic()
            pause_s = (end - begin) * _SAMPLE_PAUSE
            self._sample_at = end + min(_SAMPLE_MAX_S, max(_SAMPLE_MIN_S, pause_s))

    def read(self) -> Reading:
        """The node's memory, and the threshold that follows from its limit now."""
        now = self._reader.read()
        return Reading.of(
            now.used_bytes, now.limit_bytes, self._usage_threshold, self._min_free_bytes
        )

    def _perform(self, effects: Sequence[Effect]) -> None:
        queue = deque(effects)
        count: Count | None = None
        while queue:
            effect = queue.popleft()
            match effect:
                case Admit(is_open):
                    self._on_admit(is_open)
                case PressStore(excess_bytes):
                    self._on_press(excess_bytes)
                case Pick():
                    count = self._census.take(complete=True)
                    queue.extend(self._monitor.picked(count.snapshot, time.monotonic()))
                case Reread():
                    queue.extend(self._monitor.reread(self.read(), time.monotonic()))
                case Kill():
                    self._kill(effect, count)
                case Say():
                    self._on_say(effect)
                case other:
                    assert_never(other)

    def _wait(self, timeout_s: float) -> None:
        """Until the time is over, somebody calls, or a process of the victim's tree is gone."""
        poll = select.poll()
        poll.register(self._wake_fd, select.POLLIN)
        by_fd = {fd: pid for pid, fd in self._victims.items()}
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(timeout_s * 1000):
            if fd == self._wake_fd:
                os.eventfd_read(fd)
            else:
                os.close(self._victims.pop(by_fd[fd]))

    # -- killing

    def _kill(self, kill: Kill, count: Count | None) -> None:
        candidate = kill.choice.candidate
        if count is not None:
            self._on_kill(kill, count)
            self._forget_victims()
            self._victim_id = candidate.worker_id
            tree = count.trees.get(candidate.worker_id)
            self._open(candidate.pid, tree.tree_pids if tree is not None else ())
        number = signal.Signals(kill.number)
        # SIGTERM is for the worker, which ends its children or leaves them; SIGKILL for them all.
        pids = list(self._victims) if number == signal.SIGKILL else [candidate.pid]
        for pid in pids:
            fd = self._victims.get(pid)
            if fd is None:
                continue
            try:
                signal.pidfd_send_signal(fd, number)
            except ProcessLookupError:
                continue  # It has ended by itself: the descriptor says so too.
        log.warning("sent %s to %s for want of memory", number.name, pids)

    def _open(self, root: int, pids: Sequence[int]) -> None:
        """Hold the tree's processes, so that no pid that is used again is ever signalled."""
        for pid in dict.fromkeys((root, *pids)):
            stat = read_stat(pid)
            fd = open_pidfd(pid, stat.start_time) if stat is not None else None
            if fd is not None:
                self._victims[pid] = fd

    def _victim_gone(self, now: float) -> None:
        worker_id, self._victim_id = self._victim_id, b""
        self._monitor.gone(worker_id, now)

    def _forget_victims(self) -> None:
        for fd in self._victims.values():
            os.close(fd)
        self._victims.clear()
        self._victim_id = b""
