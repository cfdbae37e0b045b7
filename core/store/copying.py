"""Copies bytes, big ones with several threads.

Owns a small pool of helper threads, made at the first big copy. Does not know objects or arenas.

One core cannot fill the memory bus: 800 MB into warm pages ran at 21 GB/s with one thread and 37
with two here, and at 5.2 and 9.9 on a slower machine. numpy lets go of the interpreter while it
copies; slices of memoryviews do not, but cost nothing to set up. Threads take pieces from a common
counter, so that a helper that wakes late does less and is not waited for.

A helper keeps off the processor of the thread that it helps: the kernel wakes it just there, and
was seen to leave the two together for six copies of 40 ms on end while another one was idle.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from mray.units import MIB

#: From this size on, other threads may run during the copy, and help. Below, waking a helper
#: (30-60 us) costs more than it saves.
BIG_BYTES = 4 * MIB
#: 4 MiB take 0.2-0.8 ms: short enough to share out evenly, long enough to pay for the hand-over.
_PIECE_BYTES = 4 * MIB
_LINE_BYTES = 64
#: From this size on, glibc copies four streams at once (16 times its threshold for stores past the
#: cache, which is 3/4 of the shared cache): 800 MB in two pieces ran at 22.6 GB/s, in pieces of any
#: smaller size at 17. On a bigger cache the size is merely shared out in equal parts.
_STREAMED_BYTES = 384 * MIB
_THREADS_MAX = 4

_libc = ctypes.CDLL(None)


class _Job:
    """One copy, shared by the threads that work on it."""

    __slots__ = (
        "_closed",
        "_counter",
        "_error",
        "_helping",
        "_idle",
        "_lock",
        "_pieces",
        "_run",
        "cpu",
    )

    def __init__(self, run: Callable[[int], None], pieces: int) -> None:
        self._run: Callable[[int], None] | None = run
        self._pieces = pieces
        #: The processor that the calling thread runs on.
        self.cpu: int = _libc.sched_getcpu()
        #: Numbers of pieces not taken yet. next() on it is atomic.
        self._counter = itertools.count()
        self._lock = threading.Lock()
        #: Helpers at work, and whether no more may begin; guarded by _lock.
        self._helping = 0
        self._closed = False
        #: Clear while helpers work.
        self._idle = threading.Event()
        self._idle.set()
        self._error: BaseException | None = None

    def help(self) -> None:
        """Work in a helper thread, unless the copy is over."""
        with self._lock:
            if self._closed:
                return
            self._helping += 1
            self._idle.clear()
        try:
            self._work()
        except BaseException as error:
            self._error = error
        with self._lock:
            self._helping -= 1
            if not self._helping:
                self._idle.set()

    def lead(self) -> None:
        """Work in the calling thread; no helper writes any more when this returns or raises."""
        interrupt: BaseException | None = None
        try:
            self._work()
        except BaseException as error:
            interrupt = error
        while not self._end():
            try:
                self._idle.wait()
            except BaseException as error:
                # Ctrl-C: not before the helpers are done, which takes less than a millisecond.
                interrupt = error
        # A helper that has not come to this job yet shall not keep the buffers.
        self._run = None
        if interrupt is not None:
            raise interrupt
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        run = self._run
        while (
            run is not None and not self._closed and (piece := next(self._counter)) < self._pieces
        ):
            run(piece)

    def _end(self) -> bool:
        with self._lock:
            self._closed = True
            return not self._helping


class CopyPool:
    """Helper threads, started at the first big copy and ended by ``close``. Usable again after."""

    def __init__(self, threads: int | None = None) -> None:
        """``threads`` copy at once, the caller among them; default the cores, at most 4."""
        if threads is None:
            threads = min(len(os.sched_getaffinity(0)), _THREADS_MAX)
        self._helper_count = threads - 1
        self._lock = threading.Lock()
        self._pid = 0
        self._helpers: list[threading.Thread] = []
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()

    def copy(self, target: memoryview, source: memoryview) -> None:
        """Copy all of ``source`` to the start of ``target``.

        Both are contiguous; ``target`` is writable and holds bytes. Raises ValueError if it is too
        short.
        """
        size = source.nbytes
        if size > len(target):
            raise ValueError(f"{size} bytes do not fit into {len(target)}")
        if size < BIG_BYTES:
            target[:size] = source.cast("B") if source.ndim != 1 or source.format != "B" else source
            return
        # Imported here: `import mray` shall not cost numpy, and a small copy does not need it.
        import numpy

        to: Any = numpy.frombuffer(target, numpy.uint8, size)
        of: Any = numpy.frombuffer(source, numpy.uint8)
        piece_bytes = _PIECE_BYTES
        share_bytes = -(-size // (self._helper_count + 1))
        if share_bytes >= _STREAMED_BYTES:
            piece_bytes = -(-share_bytes // _LINE_BYTES) * _LINE_BYTES
        pieces = -(-size // piece_bytes)

        def run(piece: int) -> None:
            low = piece * piece_bytes
            numpy.copyto(to[low : low + piece_bytes], of[low : low + piece_bytes])

        job = _Job(run, pieces)
        helpers = min(self._helper_count, pieces - 1)
        if helpers:
            jobs = self._started()
            for _ in range(helpers):
                jobs.put(job)
        job.lead()

    def close(self) -> None:
        """End the helpers and wait for them."""
        with self._lock:
            helpers, self._helpers = self._helpers, []
            jobs, self._jobs = self._jobs, SimpleQueue()
            if self._pid != os.getpid():
                return
        for _ in helpers:
            jobs.put(None)
        for helper in helpers:
            helper.join()

    def _started(self) -> SimpleQueue[_Job | None]:
        if self._pid != os.getpid():
            # First use, or a forked child: threads do not survive a fork, and what a lock or queue
            # of the parent was in the middle of is unknown.
            self._lock = threading.Lock()
            self._helpers = []
            self._jobs = SimpleQueue()
            self._pid = os.getpid()
        with self._lock:
            jobs = self._jobs
            while len(self._helpers) < self._helper_count:
                number = len(self._helpers) + 1
                helper = threading.Thread(
                    target=_help,
                    args=(jobs, os.sched_getaffinity(0)),
                    name=f"mray-copy-{number}",
                    daemon=True,
                )
                helper.start()
                self._helpers.append(helper)
            return jobs


def _help(jobs: SimpleQueue[_Job | None], allowed: set[int]) -> None:
    avoided = -1
    while (job := jobs.get()) is not None:
        if job.cpu != avoided:
            avoided = job.cpu
            _keep_to(allowed - {avoided} or allowed)
        job.help()
        # Not kept while waiting for the next: it holds both buffers.
        del job


def _keep_to(cpus: set[int]) -> None:
    """Run this thread on some of these processors, if the system still lets it."""
    try:
        os.sched_setaffinity(0, cpus)
    except OSError:
        # They were taken from this process meanwhile: the kernel has chosen others, which will do.
        return
