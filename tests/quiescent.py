"""One check after every fault: a cluster is at rest again, and nothing of the fault is left.

``Watch(cluster)`` takes the figures of the daemons while all is calm. ``assert_quiescent(watch)``
waits until everything of the list below holds, or fails with what does not and a dump. The letters
are those of the invariants in ARCHITECTURE.md, "Faults".

    I1  no task is unfinished                   I5  daemons' descriptors, threads near the baseline
    I2  all resources are free, nobody waits    I6  no store, no socket of a dead process
    I3  stores and disks hold no object         I9  no error in a daemon's log that is not expected
    I4  no orphan, no zombie                    I12 no daemon has unpickled anything

Of the others, I7, I8 and I10 are checked from histories (nemesis_history.py), where a test keeps
one, and I11 by the tests of the head's database.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from mray import current
from mray.session_files import ProcessRecord, Session

from . import quiescent_outside as outside
from .quiescent_view import TROUBLES, look

#: A directory to put first in PYTHONPATH of what starts a cluster: daemons then write a line into
#: the file named by UNPICKLED for each class that they unpickle.
UNPICKLE_HOOK = str(Path(__file__).parent / "faults" / "unpickle_hook")
UNPICKLED = "PYTEST_UNPICKLED"


class Quiet(Protocol):
    """A cluster as this check sees it."""

    def sessions(self) -> list[Session]:
        """The session of each machine, also of those whose node is dead."""

    def look(self, keep_actors: bool) -> dict[str, Any]:
        """quiescent_view.look() in a process connected to the cluster."""


class Here:
    """The cluster that this process is connected to, with its session alone."""

    def sessions(self) -> list[Session]:
        return [Session(current.get().node.session_dir)]

    def look(self, keep_actors: bool) -> dict[str, Any]:
        return look(keep_actors)


class Watch:
    """A cluster, and what its daemons had open when the watch began. Warm it up before."""

    def __init__(self, cluster: Quiet | None = None) -> None:
        self.cluster = cluster or Here()
        workers = self.cluster.look(True)["workers"]
        self._before: dict[tuple[int, int], outside.Figures] = {}
        for record in outside.daemons(self.cluster.sessions()):
            figures = outside.figures_of(record, *_worker_counts(record, workers))
            if figures is not None:
                self._before[record.pid, record.start_time] = figures

    def troubles(self, keep_actors: bool = False, allowed: Iterable[str] = ()) -> list[str]:
        """What is not at rest, as lines; empty when all is."""
        sessions = self.cluster.sessions()
        try:
            seen = self.cluster.look(keep_actors)
        except Exception as error:
            return [f"the cluster cannot be asked: {error!r}"]
        lines = [line for kind in TROUBLES for line in seen[kind]]
        for record in outside.daemons(sessions):
            before = self._before.get((record.pid, record.start_time))
            now = outside.figures_of(record, *_worker_counts(record, seen["workers"]))
            if before is not None and now is not None:
                lines += outside.growth(record, before, now)
        return [
            *lines,
            *outside.orphans(sessions),
            *outside.places(sessions),
            *outside.log_lines(sessions, allowed),
            *_unpickled(),
        ]


def assert_quiescent(
    watch: Watch,
    timeout_s: float = 30.0,
    *,
    keep_actors: bool = False,
    allowed: Iterable[str] = (),
) -> None:
    """Wait until the cluster is at rest; AssertionError with what is not, and a dump.

    Drop references and handles before. ``keep_actors``: actors may live, and hold resources.
    ``allowed``: what lines of daemons' logs that tell of errors may match.
    """
    give_up_at = time.monotonic() + timeout_s
    allowed = list(allowed)
    while True:
        lines = watch.troubles(keep_actors, allowed)
        if not lines:
            return
        if time.monotonic() >= give_up_at:
            dump = dump_of(watch.cluster)
            raise AssertionError("\n".join([f"not at rest after {timeout_s} s:", *lines, dump]))
        time.sleep(0.05)


def dump_of(cluster: Quiet) -> str:
    """State of every process, stacks of those that answer, the ends of all logs: for people."""
    parts: list[str] = ["== dump of the cluster"]
    parts.append(_told("view", lambda: json.dumps(cluster.look(True), indent=1)))
    for session in cluster.sessions():
        parts.append(f"-- processes of {session.path}")
        parts += [f"{record} alive={record.alive}" for record in session.processes()]
        parts.append(_told("stacks", lambda session=session: _stacks(session)))  # type: ignore[misc]
    for path, text in outside.tails(cluster.sessions()).items():
        parts.append(f"-- end of {path}\n{text}")
    return "\n".join(parts)


def _told(what: str, tell: Callable[[], str]) -> str:
    """A dump is made where something is broken: what cannot be had is said and left out."""
    try:
        return f"-- {what}\n{tell()}"
    except Exception as error:
        return f"-- {what}: {error!r}"


def _stacks(session: Session) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mray.cli", "stack", "--address", session.path],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def _worker_counts(record: ProcessRecord, workers: dict[str, list[Any]]) -> tuple[int, int]:
    """Of a node, and of the other nodes. All are the head's."""
    total = sum(len(seen) for seen in workers.values())
    own = len(workers.get(record.name, [])) if record.kind == "node" else total
    return own, total - own


def _unpickled() -> list[str]:
    path = os.environ.get(UNPICKLED, "")
    if not path or not os.path.exists(path):
        return []
    return [f"unpickled in a daemon: {line}" for line in Path(path).read_text().splitlines()]
