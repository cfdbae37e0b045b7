"""The one process-global of mray: the slot holding this process's runtime.

Owns the slot and nothing else; ``mray.api`` fills it (drivers) or ``mray.runtime.worker`` does.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime

#: This process's runtime, None before init() and after shutdown().
runtime: Runtime | None = None


class _Start:
    """Set by mray.api: how to start a runtime when the API is used before init()."""

    def __init__(self) -> None:
        self.auto_init: object = None
        #: This process is a fork of one that had a runtime.
        self.forked = False


start = _Start()


def _forked() -> None:
    """A fork has neither the threads nor the right to the sockets of its parent's runtime: without
    one, what it asks is refused or goes to a runtime of its own, and does not wait for ever."""
    global runtime
    if runtime is not None:
        runtime = None
        start.forked = True


os.register_at_fork(after_in_child=_forked)


def get() -> Runtime:
    """The runtime; starts a local cluster (or joins the one in MRAY_ADDRESS) if there is none."""
    if runtime is None:
        assert callable(start.auto_init)
        start.auto_init()
    assert runtime is not None
    return runtime
