"""Tasks of which so many at most are under way, and whose ends are told in a thread of its own.

For libraries that hand out more work than is to run at once and, when told of an end, run code of
their users and hand out more: the runtime's own threads must not do that. Knows nothing of what
the tasks are.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any

from mray import current
from mray.cancelling import cancel
from mray.exceptions import RayTaskError
from mray.object_ref import ObjectRef

#: See call_sites.py.
CALLS_FOR_USERS = True

log = logging.getLogger("mray")

#: Starts a task; None says that it is not wanted any more.
Start = Callable[[], ObjectRef[Any] | None]
#: Told of the end of a task, in the thread.
Tell = Callable[[Future[Any]], object]


class PacedTasks:
    """Starts tasks, ``limit`` at a time. The thread lives from the first task until end()."""

    def __init__(self, limit: int, thread_name: str) -> None:
        self._limit = limit
        self._thread = threading.Thread(target=self._run, name=thread_name, daemon=True)
        #: Guards the next four. Taken again by who submits while his arguments are pickled.
        self._lock = threading.RLock()
        self._waiting: deque[tuple[Start, Tell]] = deque()
        self._running_count = 0
        #: The tasks under way, by what is done when they are.
        self._refs: dict[Future[Any], ObjectRef[Any]] = {}
        self._ended = False
        #: Tasks that are done; None to look whether the end has come.
        self._done: SimpleQueue[tuple[Tell, Future[Any]] | None] = SimpleQueue()

    def submit(self, start: Start, tell: Tell) -> None:
        """Start a task when there is room, and tell of its end.

        What ``start`` raises is told as if the task had raised it. RuntimeError after end().
        """
        with self._lock:
            if self._ended:
                raise RuntimeError("no tasks can be submitted any more: it was shut down")
            self._waiting.append((start, tell))
            if self._thread.ident is None:
                self._thread.start()
            self._start_next()

    def _start_next(self) -> None:
        """Start what there is room for. The lock is held."""
        while self._waiting and self._running_count < self._limit:
            start, tell = self._waiting.popleft()
            done: Future[Any]
            try:
                ref = start()
            except Exception as error:
                done = Future()
                done.set_exception(error)
            else:
                if ref is None:
                    continue
                done = ref.future()
                self._refs[done] = ref
            self._running_count += 1
            done.add_done_callback(partial(self._arrived, tell))

    def _arrived(self, tell: Tell, done: Future[Any]) -> None:
        self._done.put((tell, done))

    def _run(self) -> None:
        """The thread."""
        while True:
            item = self._done.get()
            if item is not None:
                tell, done = item
                with self._lock:
                    self._running_count -= 1
                    self._refs.pop(done, None)
                    self._start_next()
                try:
                    tell(done)
                except Exception:  # One caller's failing callback must not silence all others.
                    log.exception("%s: a callback raised", self._thread.name)
                del item, tell, done
            with self._lock:
                if self._ended and not self._waiting and not self._running_count:
                    return

    def drop_waiting(self) -> list[Tell]:
        """Start nothing that has not been started; whom to tell of what is dropped."""
        with self._lock:
            dropped = [tell for _, tell in self._waiting]
            self._waiting.clear()
        return dropped

    def take_back(self) -> None:
        """Cancel the tasks under way that have not begun. Their ends are told as all others."""
        with self._lock:
            refs = list(self._refs.values())
        if refs:
            cancels = current.get().cancels
            for ref in refs:
                cancels.take_back(ref._entry)

    def cancel_running(self) -> None:
        """Cancel the tasks under way, as mray.cancel() does. Their ends are told as all others."""
        with self._lock:
            refs = list(self._refs.values())
        for ref in refs:
            cancel(ref)

    def end(self) -> None:
        """Take no more tasks; the thread ends when those submitted are done. Idempotent."""
        with self._lock:
            self._ended = True
        self._done.put(None)

    def join(self) -> None:
        """After end(): wait until all that was submitted is done and told."""
        if self._thread.ident is not None:
            self._thread.join()


def settle(future: Future[Any], done: Future[Any]) -> None:
    """Give a running ``future`` the outcome of a task.

    As with the standard library's process pools, an error is what the call raised, and how it came
    about is its cause.
    """
    error = done.exception()
    if error is None:
        future.set_result(done.result())
        return
    cause = error.cause if isinstance(error, RayTaskError) else None
    if cause is not None:
        cause.__cause__ = error
    future.set_exception(cause or error)
