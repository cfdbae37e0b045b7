"""Says what a command waits for, once it has waited for two seconds and a person is watching."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Final

_QUIET_S: Final = 2.0


@contextlib.contextmanager
def waiting(text: str) -> Iterator[None]:
    """Show ``text`` with a spinner on standard error while the body runs, after two seconds.

    Nothing at all where standard error is no terminal.
    """
    if not sys.stderr.isatty():
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_spin, args=(text, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _spin(text: str, over: threading.Event) -> None:
    if over.wait(_QUIET_S):
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        over.wait()
