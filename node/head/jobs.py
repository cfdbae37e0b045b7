"""Jobs: drivers that registered, and submissions, which are drivers that the cluster starts.

    driver       RegisterJob -> RUNNING -- FinishJob -> SUCCEEDED
                                        -- its process ended, its node is gone -> FAILED
    submission   SubmitJob -> PENDING -- JobStarted -> RUNNING -- JobExited -> SUCCEEDED | FAILED
                                      -- StopJob ----------------- JobExited -> STOPPED

A submission's own drivers register as jobs that are linked to it; it ends when its process ends,
whatever they did. Submissions run on the head's node. What a job's end means for actors is
actors.py's business, for workers the nodes'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

import msgspec

from mray.environments import merge_environments
from mray.ids import job_id as job_id_of
from mray.machine import InvariantError
from mray.node.head.causes import describe, exit_code_of
from mray.node.head.events import (
    Effect,
    From,
    JobEnded,
    JobOver,
    LastActorGone,
    NodeLost,
    NodeUp,
    Note,
    Persist,
    Send,
    ToNodes,
)
from mray.node.head.job_records import DRIVERS, SUBMISSIONS, Driver, Submission
from mray.wire.messages import (
    Ack,
    DeathCause,
    FinishJob,
    GetJobInfo,
    GetJobs,
    JobDetails,
    JobExited,
    JobGone,
    JobInfo,
    JobInfoReply,
    JobRegistered,
    Jobs,
    JobStarted,
    JobSubmitted,
    NodeContents,
    ProcessDied,
    Refused,
    RegisterJob,
    SignalJob,
    StartJob,
    StopJob,
    SubmitJob,
)

#: Ended jobs and ended submissions that are remembered, each.
ENDED_MAX: Final = 10_000


class StopPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What StopJob does to a driver: a signal, and SIGKILL after the wait."""

    signal: int
    wait_s: float


_KeyT = TypeVar("_KeyT", bytes, str)
_EntryT = TypeVar("_EntryT", Driver, Submission)


class JobTable:
    """All jobs of the cluster. See the module.

    ``unix_offset_s`` added to a moment of this machine's clock gives the time for people.
    ``kept``: what changes is to be persisted.
    """

    def __init__(self, *, stop: StopPolicy, unix_offset_s: float, kept: bool = False) -> None:
        self._kept = kept
        #: (table, id) of what this event changed.
        self._changed: dict[tuple[str, bytes | str], None] = {}
        self._stop = stop
        self._unix_offset_s = unix_offset_s
        self._number = 0
        #: By job id, in the order of registering.
        self._drivers: dict[bytes, Driver] = {}
        #: Driver's process id -> job id, for the running ones.
        self._by_process: dict[bytes, bytes] = {}
        self._submissions: dict[str, Submission] = {}
        #: The node of the head's machine, once it has registered.
        self._head_node: bytes = b""
        #: Drivers that ran in a former life of this head: their nodes know whether they still do.
        self._inherited: set[bytes] = set()

    def handle(self, event: From | NodeUp | NodeLost | LastActorGone, now: float) -> list[Effect]:
        """Take a message about jobs, or the coming and going of nodes."""
        effects = self._handle(event, now)
        return [*self._persist(), *effects] if self._changed else effects

    def _handle(self, event: From | NodeUp | NodeLost | LastActorGone, now: float) -> list[Effect]:
        match event:
            case LastActorGone(job_id):
                driver = self._drivers.get(job_id)
                runs = driver is not None and driver.status == "RUNNING"
                return [] if runs else [JobOver(job_id)]
            case NodeUp(node, contents):
                effects = [] if contents is None else self._adopt(node.node_id, contents, now)
                return effects + self._node_up(node.node_id) if node.is_head else effects
            case NodeLost(node_id, cause):
                return self._node_lost(node_id, cause, now)
            case From(sender, RegisterJob() as message):
                return self._register(sender, message, now)
            case From(sender, FinishJob(rid, job_id)):
                ack = Send(sender, Ack(rid))
                return [ack, *self._end_driver(job_id, "SUCCEEDED", "", 0, now)]
            case From(sender, GetJobInfo(rid, job_id)):
                driver = self._drivers.get(job_id)
                info = driver.info if driver is not None else None
                over = driver is not None and driver.status != "RUNNING"
                return [Send(sender, JobInfoReply(rid, info, over))]
            case From(_, ProcessDied(process_id, _, _, cause)):
                return self._process_died(process_id, cause, now)
            case From(sender, SubmitJob() as message):
                return self._submit(sender, message, now)
            case From(_, JobStarted(submission_id, pid, error)):
                return self._started(submission_id, pid, error, now)
            case From(_, JobExited(submission_id, cause)):
                return self._exited(submission_id, cause, now)
            case From(sender, StopJob() as message):
                return self._stop_job(sender, message, now)
            case From(sender, GetJobs(rid, prefix)):
                return [Send(sender, Jobs(rid, self._details(prefix)))]
            case other:
                raise TypeError(f"not for the jobs: {other!r}")

    def deadline(self) -> float | None:
        """Never: nothing here depends on time."""
        return None

    # -- drivers

    def _register(self, sender: bytes, message: RegisterJob, now: float) -> list[Effect]:
        known = self._by_process.get(sender)
        if known is not None:
            return [Send(sender, JobRegistered(message.rid, known, message.namespace))]
        # A variable left over from another cluster names no submission of ours.
        submission = self._submissions.get(message.submission_id)
        if submission is not None and submission.ended:
            submission = None
        runtime_env = message.runtime_env
        if submission is not None:
            runtime_env = merge_environments(submission.request.runtime_env, runtime_env)
        self._number += 1
        job_id = job_id_of(self._number)
        info = JobInfo(
            job_id,
            message.driver,
            message.namespace,
            runtime_env,
            message.sys_path,
            message.cwd,
            message.as_ray,
            message.log_to_driver,
        )
        submission_id = message.submission_id if submission is not None else ""
        self._drivers[job_id] = Driver(info, message.pid, message.entrypoint, submission_id, now)
        self._by_process[sender] = job_id
        self._touch(DRIVERS, job_id)
        if submission is not None:
            submission.job_ids.append(job_id)
            self._touch(SUBMISSIONS, submission_id)
        of = f" of {submission_id}" if submission_id else ""
        return [
            Send(sender, JobRegistered(message.rid, job_id, message.namespace, runtime_env)),
            Note(f"job {job_id.hex()}{of} began: pid {message.pid}, {message.entrypoint}"),
        ]

    def _process_died(self, process_id: bytes, cause: DeathCause, now: float) -> list[Effect]:
        job_id = self._by_process.get(process_id)
        if job_id is None:
            return []
        code = exit_code_of(cause)
        if code == 0:
            return self._end_driver(job_id, "SUCCEEDED", "", 0, now)
        text = f"the driver ended without saying goodbye: {describe(cause)}"
        return self._end_driver(job_id, "FAILED", text, code, now)

    def _end_driver(
        self, job_id: bytes, status: str, message: str, code: int | None, now: float
    ) -> list[Effect]:
        driver = self._drivers.get(job_id)
        if driver is None or driver.status != "RUNNING":
            return []
        driver.status, driver.message, driver.exit_code = status, message, code
        driver.ended_at = now
        self._touch(DRIVERS, job_id)
        # Whoever registered for it is the driver's process, whatever address it gave.
        for process_id in [p for p, j in self._by_process.items() if j == job_id]:
            del self._by_process[process_id]
        for forgotten in _forget_oldest(self._drivers):
            self._touch(DRIVERS, forgotten)
        return [
            ToNodes(JobGone(job_id)),
            Note(f"job {job_id.hex()} {status}{': ' if message else ''}{message}"),
            JobEnded(job_id),
        ]

    # -- submissions

    def _submit(self, sender: bytes, request: SubmitJob, now: float) -> list[Effect]:
        known = self._submissions.get(request.submission_id)
        if known is not None:
            # The same request again is a resent one; anything else is a second job by that name.
            if known.sender == sender and known.request.entrypoint == request.entrypoint:
                return [Send(sender, JobSubmitted(request.rid, request.submission_id))]
            text = f"a job with submission id {request.submission_id!r} exists already"
            return [Send(sender, Refused(request.rid, "ValueError", text))]
        if not request.submission_id or not request.entrypoint:
            text = "a job needs a submission id and an entrypoint"
            return [Send(sender, Refused(request.rid, "ValueError", text))]
        submission = Submission(request, sender, now)
        self._submissions[request.submission_id] = submission
        self._touch(SUBMISSIONS, request.submission_id)
        effects: list[Effect] = [
            Send(sender, JobSubmitted(request.rid, request.submission_id)),
            Note(f"{request.submission_id} submitted: {request.display}"),
        ]
        if self._head_node:
            effects.append(self._start(submission, self._head_node))
        else:
            submission.message = "waiting for the head's node"
        return effects

    def _start(self, submission: Submission, node_id: bytes) -> Send:
        request = submission.request
        self._touch(SUBMISSIONS, request.submission_id)
        submission.node_id = node_id
        submission.message = ""
        start = StartJob(
            request.submission_id,
            request.entrypoint,
            request.cwd,
            request.environ,
            request.runtime_env,
        )
        return Send(node_id, start)

    def _started(self, submission_id: str, pid: int, error: str, now: float) -> list[Effect]:
        submission = self._submissions.get(submission_id)
        if submission is None or submission.status != "PENDING" or not submission.node_id:
            return []
        if error:
            text = f"the entrypoint could not be started: {error}"
            return self._end_submission(submission, "FAILED", text, None, now)
        submission.status, submission.pid = "RUNNING", pid
        self._touch(SUBMISSIONS, submission_id)
        return [Note(f"{submission_id} runs as pid {pid}")]

    def _exited(self, submission_id: str, cause: DeathCause, now: float) -> list[Effect]:
        submission = self._submissions.get(submission_id)
        if submission is None or submission.ended:
            return []
        code = exit_code_of(cause)
        if submission.stopping:
            return self._end_submission(submission, "STOPPED", "stopped on request", code, now)
        if code == 0:
            return self._end_submission(submission, "SUCCEEDED", "", 0, now)
        text = f"the entrypoint failed: {describe(cause)}"
        return self._end_submission(submission, "FAILED", text, code, now)

    def _end_submission(
        self, submission: Submission, status: str, message: str, code: int | None, now: float
    ) -> list[Effect]:
        submission.status, submission.message = status, message
        submission.exit_code, submission.ended_at = code, now
        name = submission.request.submission_id
        self._touch(SUBMISSIONS, name)
        effects: list[Effect] = [Note(f"{name} {status}{': ' if message else ''}{message}")]
        for job_id in submission.job_ids:
            driver_message = message or "its entrypoint ended"
            effects += self._end_driver(job_id, status, driver_message, code, now)
        for forgotten in _forget_oldest(self._submissions):
            self._touch(SUBMISSIONS, forgotten)
        return effects

    def _stop_job(self, sender: bytes, message: StopJob, now: float) -> list[Effect]:
        submission = self._submissions.get(message.submission_id)
        if submission is None:
            text = (
                f"there is no submitted job {message.submission_id!r}; only jobs started by "
                "`mray submit` can be stopped, a driver of your own is yours to end"
            )
            return [Send(sender, Refused(message.rid, "ValueError", text))]
        ack = Send(sender, Ack(message.rid))
        if submission.ended:
            return [ack]
        if not submission.node_id:
            text = "stopped before it was started"
            return [ack, *self._end_submission(submission, "STOPPED", text, None, now)]
        submission.stopping = True
        name = submission.request.submission_id
        self._touch(SUBMISSIONS, name)
        signal = SignalJob(name, self._stop.signal, self._stop.wait_s)
        return [ack, Send(submission.node_id, signal), Note(f"{name} is being stopped")]

    # -- nodes

    def _node_up(self, node_id: bytes) -> list[Effect]:
        self._head_node = node_id
        return [
            self._start(submission, node_id)
            for submission in self._submissions.values()
            if submission.status == "PENDING" and not submission.node_id
        ]

    def _node_lost(self, node_id: bytes, cause: DeathCause, now: float) -> list[Effect]:
        if node_id == self._head_node:
            self._head_node = b""
        effects: list[Effect] = []
        for submission in list(self._submissions.values()):
            if submission.node_id == node_id and not submission.ended:
                text = f"the node it ran on is gone: {cause.text}"
                effects += self._end_submission(submission, "FAILED", text, None, now)
        for job_id, driver in list(self._drivers.items()):
            if driver.info.driver.node_id == node_id and driver.status == "RUNNING":
                text = f"the node of the driver is gone: {cause.text}"
                effects += self._end_driver(job_id, "FAILED", text, None, now)
        return effects

    def _adopt(self, node_id: bytes, contents: NodeContents, now: float) -> list[Effect]:
        """A node that had its jobs before this head's life: what ended meanwhile, and what did not
        reach it."""
        effects: list[Effect] = []
        processes = set(contents.processes)
        lost = "it ended while the head was away, and how is not known"
        for process_id, job_id in list(self._by_process.items()):
            on_node = self._drivers[job_id].info.driver.node_id == node_id
            inherited = process_id in self._inherited
            if on_node and inherited and process_id not in processes:
                effects += self._end_driver(job_id, "FAILED", lost, None, now)
        pids = dict(contents.submissions)
        for name, submission in list(self._submissions.items()):
            if submission.node_id != node_id or submission.ended:
                continue
            if name in pids:
                effects += self._started(name, pids[name], "", now) if pids[name] else []
            elif submission.status == "PENDING":
                effects.append(self._start(submission, node_id))
            else:
                effects += self._end_submission(submission, "FAILED", lost, None, now)
            if submission.stopping and not submission.ended:
                effects.append(Send(node_id, SignalJob(name, self._stop.signal, self._stop.wait_s)))
        for job_id in contents.jobs:
            known = self._drivers.get(job_id)
            if known is None or known.status != "RUNNING":
                effects.append(Send(node_id, JobGone(job_id)))
        return effects

    # -- what outlives the head

    def _touch(self, table: str, key: bytes | str) -> None:
        if self._kept:
            self._changed[table, key] = None

    def _persist(self) -> Iterable[Effect]:
        changed, self._changed = self._changed, {}
        for table, key in changed:
            if isinstance(key, bytes):
                yield Persist(table, key, self._driver_row(key))
            else:
                found = self._submissions.get(key)
                row = None if found is None else found.row(self._unix_offset_s)
                yield Persist(table, key.encode(), row)

    def _driver_row(self, job_id: bytes) -> bytes | None:
        driver = self._drivers.get(job_id)
        if driver is None:
            return None
        by = next((p for p, j in self._by_process.items() if j == job_id), b"")
        return driver.row(self._unix_offset_s, by)

    def restore(self, drivers: Mapping[bytes, bytes], submissions: Mapping[bytes, bytes]) -> None:
        """Take in what was stored, before anything else."""
        found = [Driver.of_row(row, self._unix_offset_s) for row in drivers.values()]
        for driver, process_id in sorted(found, key=lambda pair: _number_of(pair[0].info.job_id)):
            job_id = driver.info.job_id
            self._drivers[job_id] = driver
            self._number = max(self._number, _number_of(job_id))
            if driver.status == "RUNNING":
                self._by_process[process_id] = job_id
        self._inherited = set(self._by_process)
        taken = [Submission.of_row(row, self._unix_offset_s) for row in submissions.values()]
        for submission in sorted(taken, key=lambda one: one.submitted_at):
            self._submissions[submission.request.submission_id] = submission

    def rows(self) -> dict[str, dict[bytes, bytes]]:
        """What should be stored now, by table."""
        offset_s = self._unix_offset_s
        drivers = {job_id: self._driver_row(job_id) or b"" for job_id in self._drivers}
        taken = {name.encode(): one.row(offset_s) for name, one in self._submissions.items()}
        return {DRIVERS: drivers, SUBMISSIONS: taken}

    def nodes(self) -> set[bytes]:
        """Where something of ours runs."""
        running = [d.info.driver.node_id for d in self._drivers.values() if d.status == "RUNNING"]
        return {*running, *(s.node_id for s in self._submissions.values() if not s.ended)} - {b""}

    # -- looking

    def _details(self, prefix: str) -> list[JobDetails]:
        """Submissions first, then drivers of no submission; each in the order they came."""
        found = [
            submission.details(self._unix_offset_s)
            for name, submission in self._submissions.items()
            if name.startswith(prefix)
            or any(job_id.hex().startswith(prefix) for job_id in submission.job_ids)
        ]
        return found + [
            driver.details(self._unix_offset_s)
            for job_id, driver in self._drivers.items()
            if driver.submission_id not in self._submissions and job_id.hex().startswith(prefix)
        ]

    def check(self) -> None:
        """See mray.machine."""
        running = {j for j, driver in self._drivers.items() if driver.status == "RUNNING"}
        if sorted(self._by_process.values()) != sorted(running):
            raise InvariantError("the running drivers and their processes differ")
        for name, submission in self._submissions.items():
            if (submission.ended) != (submission.ended_at is not None):
                raise InvariantError(f"{name}: {submission.status}, {submission.ended_at}")
            if submission.ended and running & set(submission.job_ids):
                raise InvariantError(f"{name} has ended and its driver runs")
            if submission.status == "RUNNING" and not submission.node_id:
                raise InvariantError(f"{name} runs nowhere")


def _forget_oldest(table: dict[_KeyT, _EntryT]) -> list[_KeyT]:
    """Keep at most ENDED_MAX ended entries, dropping those that came first; returns these."""
    if len(table) <= ENDED_MAX:
        return []
    ended = [key for key, entry in table.items() if entry.ended_at is not None]
    forgotten = ended[: max(0, len(ended) - ENDED_MAX)]
    for key in forgotten:
        del table[key]
    return forgotten


def _number_of(job_id: bytes) -> int:
    return int.from_bytes(job_id, "little")
