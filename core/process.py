"""Which process is meant: a pid and the moment it started, so that a pid used again is noticed.

Covers: reading that moment, asking whether the process lives, and signalling it through a pidfd
after a look at the moment. Does not start processes and keeps no list: session.py does.
"""

from __future__ import annotations

import os
import signal
from typing import NamedTuple

#: States of /proc/<pid>/stat in which a process has ended and only waits for its parent.
_ENDED = ("Z", "X", "x")


class Stat(NamedTuple):
    """What is read of /proc/<pid>/stat. ``start_time`` is in clock ticks since boot."""

    state: str
    parent_pid: int
    start_time: int


def read_stat(pid: int) -> Stat | None:
    """The process's state, or None where there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read(4096)
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold anything, a ")" as well.
    fields = text[text.rindex(b")") + 2 :].split()
    return Stat(fields[0].decode(), int(fields[1]), int(fields[19]))


def start_time_of(pid: int) -> int:
    """When the process started, in clock ticks since boot. ProcessLookupError: it is gone."""
    stat = read_stat(pid)
    if stat is None:
        raise ProcessLookupError(f"there is no process {pid}")
    return stat.start_time


def alive(pid: int, start_time: int) -> bool:
    """Whether this very process runs; one that ended and was not yet reaped does not."""
    stat = read_stat(pid)
    return stat is not None and stat.start_time == start_time and stat.state not in _ENDED


def open_pidfd(pid: int, start_time: int) -> int | None:
    """A pidfd of this very process, readable when it ends; None where it is gone already."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    # The descriptor holds whatever has the pid now; the look comes after, so it cannot be fooled.
    if alive(pid, start_time):
        return pidfd
    os.close(pidfd)
    return None


def send_signal(pid: int, start_time: int, number: int) -> bool:
    """Signal this very process. False where it is gone; PermissionError where it is not ours."""
    pidfd = open_pidfd(pid, start_time)
    if pidfd is None:
        return False
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True
