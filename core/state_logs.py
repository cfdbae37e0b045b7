"""Finding and reading the log of a worker, actor, task or job, for mray.util.state.get_log()."""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple

from mray.state_collect import Asker, tasks
from mray.task_output import look_up, printed
from mray.wire.messages import (
    ActorList,
    GetJobs,
    Jobs,
    ListActors,
    ListLogs,
    LogChunk,
    LogFile,
    LogFiles,
    NodeView,
    ReadLog,
    TaskView,
)

_FOLLOW_WAIT_S = 1.0
_CHUNK_BYTES = 262_144


class Place(NamedTuple):
    """A log: the node, its name, and the attempt whose lines of it are meant; None: all of it."""

    node: NodeView
    name: str
    view: TaskView | None = None


class _NodeLogs:
    """The logs of a node as task_output.py reads them."""

    def __init__(self, ask: Asker, node: NodeView, timeout_s: float) -> None:
        self._ask = ask
        self._node = node
        self._timeout_s = timeout_s

    def files(self, pattern: str) -> list[LogFile]:
        """See Logs."""
        return self._ask.ask_node(
            self._node, lambda rid: ListLogs(rid, pattern), LogFiles, self._timeout_s
        ).files

    def read(self, name: str, offset: int, max_bytes: int, wait_s: float) -> LogChunk:
        """See Logs."""
        return self._ask.ask_node(
            self._node,
            lambda rid: ReadLog(rid, name, offset, max_bytes, wait_s),
            LogChunk,
            self._timeout_s + wait_s,
        )


def find_log(
    ask: Asker,
    timeout_s: float,
    only: NodeView | None,
    *,
    filename: str | None,
    actor_id: str | None,
    task_id: str | None,
    pid: int | None,
    submission_id: str | None,
    suffix: str,
    attempt: int,
) -> Place:
    """The one log that is meant; on the node ``only`` if one is given.

    Raises ValueError where not exactly one thing is named, or it has no log.
    """
    given = [filename, actor_id, task_id, pid, submission_id]
    if sum(value is not None for value in given) != 1:
        raise ValueError(
            "name one of filename, actor_id, task_id, pid and submission_id, and only one"
        )
    if suffix not in ("out", "err"):
        raise ValueError(f"suffix={suffix!r} is neither 'out' nor 'err'")
    what = next(str(value) for value in given if value is not None)
    pattern = filename or f"worker-*-{pid}.{suffix}"
    ran: list[TaskView] = []
    if actor_id is not None:
        told = ask.ask_head(ListActors, ActorList, timeout_s).actors
        pids = [a.pid for a in told if a.actor_id.hex() == actor_id and a.pid]
        if not pids:
            raise ValueError(f"no actor {actor_id} has had a worker")
        pattern = f"worker-*-{pids[0]}.{suffix}"
    elif task_id is not None:
        views = tasks(ask, [("task_id", "=", task_id)], 1000).views
        ran = [view for view in views if view.attempt == attempt and view.worker_id]
        if not ran:
            raise ValueError(f"attempt {attempt} of task {task_id} has had no worker")
        pattern = f"worker-{ran[0].worker_id.hex()}-*.{suffix}"
    elif submission_id is not None:
        jobs = ask.ask_head(lambda rid: GetJobs(rid, submission_id), Jobs, timeout_s).jobs
        names = [job.log_name for job in jobs if job.submission_id == submission_id]
        if not names:
            raise ValueError(f"there is no job {submission_id}")
        pattern = names[0]
    for node in [only] if only is not None else ask.nodes():
        if node.state == "ALIVE":
            files = _NodeLogs(ask, node, timeout_s).files(pattern)
            if files:
                return Place(node, files[0].name, ran[0] if ran else None)
    raise ValueError(f"{what}: no living node has a log {pattern}")


def read_log(
    ask: Asker, place: Place, tail: int, follow: bool, timeout_s: float
) -> Generator[bytes, None, None]:
    """The bytes of a log. ``tail``: of its last lines only, -1 for all."""
    logs = _NodeLogs(ask, place.node, timeout_s)
    name, view = place.name, place.view
    if view is not None:
        yield from printed(logs, name, view, look_up(logs, name, view), tail=tail, follow=follow)
        return
    offset = -tail if tail > 0 else 0
    wait_s = _FOLLOW_WAIT_S if follow else 0.0
    while True:
        chunk = logs.read(name, offset, _CHUNK_BYTES, wait_s)
        if chunk.data:
            yield chunk.data
        offset = chunk.next_offset
        # A log that is still written to has no end: without following it, this is it for now.
        if not follow and (chunk.at_end or not chunk.data):
            return
