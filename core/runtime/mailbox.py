"""Where other threads leave notes for the event loop.

Owns one queue, in order, and the wake-up. Appending takes no lock, so a finalizer may do it in any
thread at any point. What a note is, its type says: an Entry (an ObjectRef of it is gone), a Task
(submitted), a Found (ObjectRefs were made by unpickling), else a call.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from mray.serialization.envelope import is_error


class Mailbox:
    """The notes of one process."""

    __slots__ = ("asleep", "posts", "resolved", "wake")

    def __init__(self, wake: Callable[[], None]) -> None:
        self.posts: deque[Any] = deque()
        #: Tasks whose last argument has become ready; filled by the event loop itself.
        self.resolved: deque[Any] = deque()
        #: The loop has looked here and waits: a note from now on must ``wake`` it. Without that it
        #: reads the note before it waits. Set by the loop alone.
        self.asleep = False
        self.wake = wake


class Waiter:
    """A thread's wait for some of several entries. Fired by the event loop only."""

    __slots__ = ("_done", "_fail_fast", "left", "lock")

    def __init__(self, left: int, fail_fast: bool) -> None:
        self.left = left
        self._fail_fast = fail_fast
        self._done = False
        #: Released when the wait is over.
        self.lock = threading.Lock()
        self.lock.acquire()

    def fire(self, entry: Any) -> None:
        """One of the entries is ready."""
        self.left -= 1
        if self.left <= 0 or (self._fail_fast and entry.data is not None and is_error(entry.data)):
            self.release()

    def release(self) -> None:
        """End the wait."""
        if not self._done:
            self._done = True
            self.lock.release()


class Watcher:
    """Calls a function when an entry is ready, in the event loop's thread."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[Any], None]) -> None:
        self._call = call

    def fire(self, entry: Any) -> None:
        """The entry is ready."""
        self._call(entry)
