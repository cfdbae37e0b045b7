"""Finding and reading the log of a worker, actor, task or job, for mray.util.state.get_log()."""

from __future__ import annotations

from collections.abc import Generator

from mray.state_collect import Asker, tasks
from mray.wire.messages import (
    ActorList,
    GetJobs,
    Jobs,
    ListActors,
    ListLogs,
    LogChunk,
    LogFiles,
    NodeView,
    ReadLog,
)

_FOLLOW_WAIT_S = 1.0
_CHUNK_BYTES = 262_144


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
) -> tuple[NodeView, str]:
    """The node and name of the one log that is meant; on the node ``only`` if one is given.

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
            files = ask.ask_node(node, lambda rid: ListLogs(rid, pattern), LogFiles, timeout_s)
            if files.files:
                return node, files.files[0].name
    raise ValueError(f"{what}: no living node has a log {pattern}")


def read_log(
    ask: Asker, node: NodeView, name: str, tail: int, follow: bool, timeout_s: float
) -> Generator[bytes, None, None]:
    """The bytes of a log. ``tail``: of its last lines only, -1 for all."""
    offset = -tail if tail > 0 else 0
    wait_s = _FOLLOW_WAIT_S if follow else 0.0
    while True:
        chunk = ask.ask_node(
            node,
            lambda rid, at=offset: ReadLog(rid, name, at, _CHUNK_BYTES, wait_s),  # type: ignore[misc]
            LogChunk,
            timeout_s + wait_s,
        )
        if chunk.data:
            yield chunk.data
        offset = chunk.next_offset
        # A log that is still written to has no end: without following it, this is it for now.
        if not follow and (chunk.at_end or not chunk.data):
            return
