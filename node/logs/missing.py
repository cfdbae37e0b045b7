"""What workers printed and the disk had no room for: told when it begins and when it is over.

The daemon's log and the drivers' terminals hear of the beginning; that log may lie on the same disk
and lose it, so it is told how much is missing of each worker that writes again. What is missing in
all goes to the head, for `mray status`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from mray.wire.messages import LostOutput, OutputLost

log = logging.getLogger("mray.logs")


class MissingOutput:
    """``say(worker, text)`` shows a line to the worker's driver."""

    def __init__(self, say: Callable[[bytes, str], None]) -> None:
        self._say = say
        #: Workers that could not write when they told last. One that prints nothing stays there.
        self._silent: set[bytes] = set()
        #: Of living workers, lines and bytes that are told of already.
        self._told: dict[bytes, tuple[int, int]] = {}
        #: Of living workers, lines and bytes by their last word; and of all that ever were.
        self._heard: dict[bytes, tuple[int, int]] = {}
        self._lines = 0
        self._bytes = 0
        #: Why somebody could not write, where nobody has written since.
        self._trouble = ""

    def lost(self) -> LostOutput:
        """All of it."""
        return LostOutput(self._lines, self._bytes, self._trouble)

    def heard(self, sender: bytes, message: OutputLost) -> None:
        """A worker cannot write, or can again."""
        lines, size_bytes = self._heard.get(sender, (0, 0))
        self._heard[sender] = (message.lines, message.size_bytes)
        self._lines += message.lines - lines
        self._bytes += message.size_bytes - size_bytes
        if message.trouble:
            if not self._trouble:
                log.warning("what workers print is lost: %s", message.trouble)
            self._trouble = message.trouble
            if sender not in self._silent:
                self._silent.add(sender)
                self._say(
                    sender,
                    f"[mray] what is printed is lost from here on: {message.trouble}; "
                    "tasks go on, and lines are kept again when there is room",
                )
            return
        self._trouble = ""
        self._silent.discard(sender)
        lines, size_bytes = self._told.get(sender, (0, 0))
        self._told[sender] = (message.lines, message.size_bytes)
        log.warning(
            "what worker %s prints is kept again: %d lines (%d bytes) were lost",
            sender.hex()[:8], message.lines - lines, message.size_bytes - size_bytes,
        )  # fmt: skip

    def gone(self, worker: bytes) -> None:
        """A worker has ended."""
        self._silent.discard(worker)
        self._told.pop(worker, None)
        self._heard.pop(worker, None)
        if not self._silent:
            self._trouble = ""  # Whoever is next to print finds out.
