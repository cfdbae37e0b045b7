"""Waits in the foreground for a daemon to end, or for a signal: what `mray start --block` does."""

from __future__ import annotations

import os
import signal
import types
from collections.abc import Mapping

from mray.cli.failure import FAILED
from mray.cli.render import note

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Told(Exception):
    """A signal asked for the end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def wait_for_end(names: Mapping[int, str], begun: str = "") -> int:
    """Wait until one of the children of this process ends, or a signal comes, and say which.

    ``names`` tells by pid what each child is. ``begun`` is printed once signals are caught. Returns
    the exit code: 1 where a child ended, 128 + the number of the signal else. A second signal is
    not caught any more.
    """
    before = {number: signal.signal(number, _raise_told) for number in _SIGNALS}
    try:
        if begun:
            print(begun, flush=True)
        ended = os.waitid(os.P_ALL, 0, os.WEXITED)
        if ended is not None:
            name = names.get(ended.si_pid, "child")
            note(f"the {name} (pid {ended.si_pid}) {ending(ended)}; stopping the rest")
        return FAILED
    except _Told as told:
        note(f"{signal.Signals(told.number).name}: stopping the session")
        return 128 + told.number
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ending(ended: os.waitid_result) -> str:
    """How a process ended, in words."""
    if ended.si_code == os.CLD_EXITED:
        return f"ended with exit code {ended.si_status}"
    return f"was killed by {signal.Signals(ended.si_status).name}"


def _raise_told(number: int, frame: types.FrameType | None) -> None:
    raise _Told(number)
