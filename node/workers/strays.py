"""Processes that workers and jobs leave behind: found, and ended with their makers.

The node daemon is the subreaper of all that it starts, so when a process ends, its children become
the daemon's. A child of ours that we did not start is a stray. Whose it is: it still is in the
process session of its maker (a session is named after its leader, and every worker leads one); or
its environment names the maker; or every process that could have made it, being older, is gone.
A stray whose maker lives is left alone. Strays go with all their descendants.

Reads /proc/<pid>/task/*/children of the daemon only, so looking costs nothing where there are none.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from typing import NamedTuple

from mray.node.workers.environment import maker_named


class Maker(NamedTuple):
    """A process that may have left others behind: its pid, start (clock ticks) and name."""

    pid: int
    start_time: int
    name: str


class Strays:
    """``knows(pid)``: whether a child of ours is one that we started. ``catch_up()`` is called
    before it is asked: a worker that was forked for us may be our child before we read its pid."""

    def __init__(
        self, knows: Callable[[int], bool], catch_up: Callable[[], None], proc: str = "/proc"
    ) -> None:
        self._knows = knows
        self._catch_up = catch_up
        self._proc = proc

    def end_those_of(self, dead: Iterable[Maker], living: Iterable[Maker]) -> list[int]:
        """SIGKILL what the dead have left behind; returns the pids."""
        unknown = self._unknown()
        if not unknown:
            return []
        sessions = {maker.pid for maker in dead}
        names = {maker.name for maker in dead}
        oldest = min((maker.start_time for maker in living), default=None)
        ended: list[int] = []
        for pid in unknown:
            found = self._stat(pid)
            if found is None:
                continue
            session, start_time = found
            nobody_else = oldest is None or start_time < oldest
            if session in sessions or self._maker_of(pid) in names or nobody_else:
                ended += self._end(pid)
        return ended

    def end_all(self) -> list[int]:
        """SIGKILL all children that we did not start."""
        ended: list[int] = []
        for pid in self._unknown():
            ended += self._end(pid)
        return ended

    def _unknown(self) -> list[int]:
        children = self._children(os.getpid())
        if all(map(self._knows, children)):
            return []
        # In this order: whoever is in the list by now has been announced before.
        self._catch_up()
        return [pid for pid in children if not self._knows(pid)]

    def _end(self, root: int) -> list[int]:
        """Kill a process and its descendants, the ancestors first so that none starts another."""
        family = [root]
        for pid in family:
            family += self._children(pid)
        ended = []
        for pid in family:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue  # Ended by itself, or a set-uid program, which is not ours to kill.
            ended.append(pid)
        return ended

    def _children(self, pid: int) -> list[int]:
        found = []
        for thread in self._listed(f"{self._proc}/{pid}/task"):
            try:
                with open(f"{self._proc}/{pid}/task/{thread}/children", encoding="ascii") as file:
                    found += [int(word) for word in file.read().split()]
            except OSError:
                continue
        return found

    def _listed(self, path: str) -> list[str]:
        try:
            return os.listdir(path)
        except OSError:
            return []

    def _stat(self, pid: int) -> tuple[int, int] | None:
        """(process session, start in clock ticks); None where it has ended."""
        try:
            with open(f"{self._proc}/{pid}/stat", "rb") as file:
                text = file.read()
        except OSError:
            return None
        fields = text[text.rindex(b")") + 2 :].split()
        if fields[0] in (b"Z", b"X"):
            return None
        return int(fields[3]), int(fields[19])

    def _maker_of(self, pid: int) -> str:
        try:
            with open(f"{self._proc}/{pid}/environ", "rb") as file:
                return maker_named(file.read())
        except OSError:
            return ""
