"""Copies the log of a job to standard output until its very last line, and says how it ended.

The head learns of a job's end only after all of its output is in the log, so "ended, and then
nothing more to read" is the end of the output and no guess.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from typing import BinaryIO, Final

from mray.cli.cluster import Cluster, RefusedBy
from mray.cli.failure import FAILED, Failure
from mray.units import format_duration
from mray.wire.messages import JobDetails, LogChunk, NodeView, ReadLog

ENDED: Final = ("SUCCEEDED", "FAILED", "STOPPED")
#: How long a read waits for something new: short at first, so that the end of a short job is seen
#: soon, then long, so that a long job costs nothing.
_WAIT_FIRST_S: Final = 0.05
_WAIT_MOST_S: Final = 0.5
#: Beyond the wait that the node grants, for the way there and back.
_ANSWER_S: Final = 10.0


def follow(
    cluster: Cluster,
    job: JobDetails,
    out: BinaryIO,
    *,
    offset: int = 0,
    sleep: Callable[[float], None] = time.sleep,
) -> JobDetails:
    """Copy the job's log from ``offset`` to ``out`` until the job has ended and all is out.

    A negative ``offset`` is "the last -offset lines". Returns the job's last state. Raises Failure
    where the cluster is lost.
    """
    node: NodeView | None = None
    wait_s = _WAIT_FIRST_S
    while True:
        ended = job.status in ENDED
        chunk = None
        if job.node_id:
            node = node or cluster.node_of(job.node_id)
            chunk = read_log(cluster, node, job.log_name, offset, 0.0 if ended else wait_s)
        if chunk is not None:
            write(out, chunk.data)
            offset = chunk.next_offset
            if chunk.data:
                wait_s = _WAIT_FIRST_S
                continue
        if ended:
            return job
        if chunk is None:
            sleep(_WAIT_FIRST_S)  # There is no log to wait at yet.
        wait_s = min(2 * wait_s, _WAIT_MOST_S)
        job = current(cluster, job.submission_id)


def read_log(
    cluster: Cluster, node: NodeView, name: str, offset: int, wait_s: float
) -> LogChunk | None:
    """What is in a log from ``offset`` on, None where there is no such log (yet)."""
    try:
        return cluster.ask_node(
            node,
            lambda rid: ReadLog(rid, name, offset, wait_s=wait_s),
            LogChunk,
            wait_s + _ANSWER_S,
        )
    except RefusedBy as refused:
        if refused.kind == "FileNotFoundError":
            return None
        raise


def current(cluster: Cluster, submission_id: str) -> JobDetails:
    """The job's state now."""
    for job in cluster.jobs(submission_id):
        if job.submission_id == submission_id:
            return job
    raise Failure(f"the head knows no job {submission_id} any more")


def write(out: BinaryIO, data: bytes) -> None:
    """Write and flush: lines are to be seen when they come."""
    if data:
        out.write(data)
        out.flush()


def standard_output() -> BinaryIO:
    """Standard output for bytes, after what was printed as text."""
    sys.stdout.flush()
    return sys.stdout.buffer


def exit_code(job: JobDetails) -> int:
    """The exit code that stands for how an ended job ended: its own, 128 + n for a signal."""
    code = job.exit_code
    if job.status == "SUCCEEDED":
        return 0
    if code is None:
        return 128 + signal.SIGTERM if job.status == "STOPPED" else FAILED
    if code < 0:
        return 128 - code
    # A driver that ended well under a job that failed: its node died, say.
    return code if code or job.status == "STOPPED" else FAILED


def ending(job: JobDetails) -> str:
    """One line on how a job ended: "job x failed with exit code 3 after 1.5 s: ..."."""
    words = {"SUCCEEDED": "succeeded", "FAILED": "failed", "STOPPED": "was stopped"}
    text = f"job {job.submission_id} {words.get(job.status, job.status)}"
    code = exit_code(job)
    if job.status == "FAILED":
        killed_by = _signal_name(code) if (job.exit_code or 0) < 0 else ""
        text += f", killed by {killed_by}" if killed_by else f" with exit code {code}"
    if job.start_unix_s and job.end_unix_s:
        text += f" after {format_duration(max(0.0, job.end_unix_s - job.start_unix_s))}"
    if job.status == "FAILED" and job.message and f"exit code {code}" not in job.message:
        text += f": {' '.join(job.message.split())}"
    return text


def _signal_name(code: int) -> str:
    try:
        return signal.Signals(code - 128).name
    except ValueError:
        return f"signal {code - 128}"
