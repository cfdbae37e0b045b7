"""The last processes that died, with their causes: for what arrives after the news of their end.

A cause may carry the last lines of standard error, up to 16 KiB. Those are of use for the message
that the news of the death has overtaken, and it comes at once: only the newest keep them. So a
program whose workers crash again and again costs each process 6 MB here, not 200.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from mray.wire.messages import ProcessDied

#: About 600 bytes each.
DEATHS_MAX: Final = 10_000
#: Of them, those whose causes are whole.
WHOLE_MAX: Final = 100


class LastDeaths(dict[bytes, ProcessDied]):
    """By process id, the oldest first. Change it by ``add`` alone."""

    def __init__(self) -> None:
        super().__init__()
        self._whole: deque[bytes] = deque()

    def add(self, message: ProcessDied) -> None:
        """A process is dead; what was heard of its end last counts."""
        self[message.process_id] = message
        self._whole.append(message.process_id)
        if len(self._whole) > WHOLE_MAX:
            self._cut(self._whole.popleft())
        if len(self) > DEATHS_MAX:
            del self[next(iter(self))]

    def _cut(self, process_id: bytes) -> None:
        message = self.get(process_id)
        if message is not None and (message.cause.stderr_tail or message.cause.oom):
            cause = msgspec.structs.replace(message.cause, stderr_tail=[], oom=b"")
            self[process_id] = msgspec.structs.replace(message, cause=cause)
