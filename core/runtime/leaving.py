"""How a worker leaves: its actor's last word, exit handlers, what is queued, and the end.

What the user's code does here has a time limit: nobody but this process knows that it is only
ending, and nothing else could end it before its job does.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime

log = logging.getLogger("mray.worker")


def leave_in_order(rt: Runtime, actor: Any, limit_s: float, code: int) -> NoReturn:
    """Call ``__ray_shutdown__`` of the actor, if it has one, then the exit handlers; let queued
    replies leave, and end without joining user threads. The user's part takes ``limit_s`` at most.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # It is ending: nothing may cut that short.
    if os.getpid() != rt.pid:
        os._exit(code)  # A task forked, and this is the child: it has no loop and owns nothing.
    first = threading.Lock()

    def overdue() -> None:
        if first.acquire(blocking=False):
            log.error(
                "what was to run at the end of this worker has not ended within %g s "
                "(actor_graceful_shutdown_timeout_ms): it is cut off",
                limit_s,
            )
            _tell_last(rt)
            os._exit(code)  # Not closed: the main thread may be at the loop's sockets.

    watch = threading.Timer(limit_s, overdue)
    watch.daemon = True
    try:
        watch.start()
    except RuntimeError:
        log.warning("no thread can be made: what runs at the end of this worker has no time limit")
    _say_goodbye(actor)
    atexit._run_exitfuncs()
    if not first.acquire(blocking=False):
        threading.Event().wait()  # The other thread ends the process.
    _tell_last(rt)
    rt.close()
    os._exit(code)


def _say_goodbye(actor: Any) -> None:
    hook = getattr(actor, "__ray_shutdown__", None)
    if not callable(hook):
        return
    try:
        hook()
    except BaseException:  # The user's code, SystemExit too: the process ends anyway.
        log.exception("__ray_shutdown__ of the actor failed")


def _tell_last(rt: Runtime) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    rt.post(rt.task_reports.flush)
    rt.post(rt.metrics.end)
    rt.flush()
