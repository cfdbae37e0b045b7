"""Values for the shell's completion, found in bounded time: a shell must never hang at a Tab."""

from __future__ import annotations

import threading
from collections.abc import Callable


def within(timeout_s: float, find: Callable[[], list[str]]) -> list[str]:
    """What ``find`` returns, or nothing where it fails or takes longer than ``timeout_s``.

    A late ``find`` is left to itself: the process is about to end.
    """
    found: list[str] = []

    def work() -> None:
        # Whatever is wrong, a completion is no place to say so.
        try:
            found.extend(find())
        except Exception:
            return

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(timeout_s)
    return [] if thread.is_alive() else found
