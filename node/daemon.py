"""The life of a daemon: parameters, logging, signals, readiness, whom to die with, exit codes.

What a daemon does in between is given by ``run_head(daemon)`` and ``run_node(daemon)``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from mray.bootstrap import DaemonParams
from mray.config import Config
from mray.rpc.pump import Pump
from mray.session import Session
from mray.wire.messages import DeathCause


class StartFailed(Exception):
    """Raised by run_head/run_node before ready(): told to whoever started the daemon.

    ``kind`` is an exception's name. Any other exception before ready() is told with its type.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Daemon:
    """One per process; its thread runs the pump. ``run_node(daemon) -> int`` gets one and must:

    1. wire handlers on ``daemon.pump`` (the door listens on params.ipc already; a node that wants
       tcp calls ``pump.door.listen_tcp``), start the registration with the head,
    2. set ``daemon.on_stop``,
    3. call ``daemon.ready(...)`` once it serves, from within the running pump or before,
    4. ``return daemon.run()``, which turns the pump until ``daemon.finish(code)``.
    """

    kind: str
    params: DaemonParams
    config: Config
    session: Session
    pump: Pump
    log: logging.Logger
    #: Called once, in the pump's thread, when the daemon is to end: (reason, grace_s). On SIGTERM,
    #: SIGINT, Shutdown, or the owner's death. It must call finish() within the grace.
    on_stop: Callable[[str, float], None]

    def ready(self, **facts: Any) -> None:
        """Tell the starter: {"ok": true, **facts}. Once. The starter gone: stop()."""
        raise NotImplementedError

    def watch_pid(self, pid: int, start_time: int, on_death: Callable[[], None]) -> None:
        """Call ``on_death`` in the pump's thread when this very process ends (at once if gone)."""
        raise NotImplementedError

    def watch_child(self, pid: int, on_exit: Callable[[DeathCause], None]) -> Callable[[], None]:
        """Call ``on_exit`` with the cause when our child ends, reaping it; returns the undo."""
        raise NotImplementedError

    def stop(self, reason: str, grace_s: float = 5.0) -> None:
        """Begin the end: calls on_stop, once. In the pump's thread."""
        raise NotImplementedError

    def finish(self, code: int = 0) -> None:
        """End run() with this exit code."""
        raise NotImplementedError

    def run(self) -> int:
        """Turn the pump until finish(); returns the exit code."""
        raise NotImplementedError
