"""epoll for an asyncio loop in the main thread: where asyncio would sleep, this thread turns mray's
event loop instead.

A call of an async actor then comes in, runs and is answered in one thread, as in other workers:
handing it to asyncio's thread and back costs two wake-ups. While coroutines keep the thread, the
stand-in of turn.py turns the loop as ever. Owns that choice; calls are async_serving.py's.
"""

from __future__ import annotations

import selectors
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime
    from mray.runtime.turn import Turn


class LeadingSelector(selectors.EpollSelector):
    """See the module. ``turn`` is the runtime's."""

    def __init__(self, runtime: Runtime, turn: Turn) -> None:
        super().__init__()
        self._rt = runtime
        self._turn = turn
        self._pump = runtime.pump
        self._posts = runtime.mailbox.posts
        #: asyncio has something to do.
        self._due = False
        #: For a descriptor of its own, that is.
        self._ready = False
        self._watched = False

    def select(self, timeout: float | None = None) -> list[Any]:
        """As EpollSelector.select(). mray's loop is turned until asyncio has something to do."""
        turn = self._turn
        if timeout is not None and timeout <= 0:
            # Between two rounds of coroutines: what they have left shall not wait for the last.
            if self._posts:
                self._rt.send_now()
            return super().select(0)
        if not turn.here() or not self._pump.running:
            return super().select(timeout)
        self._due = self._ready = False
        turn.lead(self._is_due, None if timeout is None else time.monotonic() + timeout)
        return super().select(0) if self._ready else []

    def nudge(self) -> None:
        """In the loop's thread: asyncio has got something to do."""
        self._due = True

    def _is_due(self) -> bool:
        # Here, since only who turns the loop may touch what it watches.
        if not self._watched:
            self._watched = True
            self._pump.door.watch(self.fileno(), self._come)
        return self._due

    def _come(self) -> None:
        """A descriptor of asyncio's is ready. Whoever turns the loop hears it once: the stand-in
        would hear it without end while the main thread is busy."""
        self._watched = False
        self._pump.door.unwatch(self.fileno())
        self._due = self._ready = True
