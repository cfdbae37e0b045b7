"""The processes of this node that have ended: the last of them with their cause, and how many.

For `mray list workers` and for counting; nothing depends on it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import Final

import msgspec

from mray.wire.messages import DeathCause, WorkerView

#: About 1 KiB each, with the last lines of standard error. The newest are kept.
ENDED_MAX: Final = 1000


class Ended:
    """See the module."""

    def __init__(self, ended_max: int = ENDED_MAX) -> None:
        self._ended: deque[tuple[float, str, WorkerView]] = deque(maxlen=ended_max)
        #: Workers by the kind of their cause, ever.
        self.by_cause: Counter[str] = Counter()
        #: Those that ended for want of memory, by who ended them: monitor or kernel.
        self.by_evictor: Counter[str] = Counter()

    def add(self, kind: str, view: WorkerView, cause: DeathCause, now: float) -> None:
        """A worker or driver (``kind``) has ended. ``view``: as it was while it lived."""
        self._ended.append((now, kind, msgspec.structs.replace(view, state="dead", cause=cause)))
        if kind != "worker":
            return
        self.by_cause[cause.kind] += 1
        if cause.kind == "kernel_oom":
            self.by_evictor["kernel"] += 1
        elif cause.oom:
            self.by_evictor["monitor"] += 1

    def views(self, kind: str, now: float) -> Iterator[WorkerView]:
        """The last that ended, the newest first."""
        for at, own_kind, view in reversed(self._ended):
            if own_kind == kind:
                yield msgspec.structs.replace(view, ended_s=now - at)
