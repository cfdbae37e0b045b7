"""A head that stands still (SIGSTOP) and so holds its port and its socket against the next one.

Owns the question whether a session's head is such a one, and its end. A stopped process keeps its
listening sockets, and nobody else can have them: whoever is to take its place at the same port has
to end it first. That loses nothing: all that it confirmed is in its storage, from which the next
head begins; and were it to wake up, its storage would refuse it. Does not start the next head.
"""

from __future__ import annotations

import os
import select
import signal
from typing import Final

from mray.process import open_pidfd, read_stat
from mray.session_files import ProcessRecord, Session

#: A process that is stopped for a moment (a snapshot is taken of it) goes on within this time.
WATCH_S: Final = 1.0
#: After SIGKILL only the kernel's work is left.
_KILL_WAIT_S: Final = 5.0
#: Not "t": a debugger that looks at the head is not to lose it.
_STOPPED: Final = "T"


def still_head(session: Session) -> ProcessRecord | None:
    """The session's head, if it is stopped at this moment."""
    for record in session.processes():
        if record.kind == "head" and is_still(record):
            return record
    return None


def is_still(record: ProcessRecord) -> bool:
    """Whether this very process is stopped at this moment."""
    stat = read_stat(record.pid)
    return stat is not None and stat.start_time == record.start_time and stat.state == _STOPPED


def end_still(record: ProcessRecord, watch_s: float = WATCH_S) -> bool:
    """End a head that stands still, and goes on standing still for ``watch_s``. False: it does not.

    A head that has ended by itself meanwhile is a success too. TimeoutError where the kernel does
    not end it.
    """
    pidfd = open_pidfd(record.pid, record.start_time)
    if pidfd is None:
        return True
    try:
        # Nothing tells of a process that goes on; that it ends, the descriptor does.
        if select.select([pidfd], [], [], watch_s)[0]:
            return True
        if not is_still(record):
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        if not select.select([pidfd], [], [], _KILL_WAIT_S)[0]:
            raise TimeoutError(
                f"the head (pid {record.pid}) was killed and has not ended after {_KILL_WAIT_S:g} s"
            )
        return True
    finally:
        os.close(pidfd)
