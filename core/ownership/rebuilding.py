"""Rebuilding: which tasks are run again when values are lost, in which order, and when to give up.

Machine. Owns the jobs: each runs one task once more, however many of its returns are lost and
however many wait for them. What could be run again is lineage.py's to know; running it is the
shell's, which tells of the end. Looks at no store: whoever reports a loss is believed.

    waiting (for arguments that are made again first) -> queued -> running -> over

The arguments of a job are held from its beginning, so what is made for it stays until it is done.
Arguments come first, by a worklist: chains are as long as users make them. No more than
``parallel_max`` jobs run at a time. One whose argument is lost while it runs waits and does not
count, or the jobs for its argument might wait for it.

Every run again is charged a retry (max_retries, max_task_retries; -1: no limit), as in Ray.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Sequence
from typing import Any

import msgspec

from mray.ids import TASK_BYTES
from mray.machine import InvariantError
from mray.ownership.entry import Entry
from mray.ownership.lineage import Lineage, Record
from mray.ownership.references import References

#: More reasons not to run a task again, by Ray's names.
PUT = "OBJECT_UNRECONSTRUCTABLE_PUT"
UNKNOWN = "OBJECT_UNRECONSTRUCTABLE_REF_NOT_FOUND"
NOT_MADE = "OBJECT_UNRECONSTRUCTABLE"


class Again(msgspec.Struct, frozen=True):
    """Submit the task once more; tell ``ended`` when it is over."""

    task: Any
    #: Its returns that are lost, and why the first of them is.
    wanted: list[Any]
    loss: str


class Hopeless(msgspec.Struct, frozen=True):
    """The object cannot be had again: fill it with an error. ``why``: a name of Ray's."""

    entry: Any
    why: str
    loss: str


Effect = Again | Hopeless


class Job:
    """One task that is run once more."""

    __slots__ = (
        "again", "inputs", "loss", "missing", "running", "task", "task_id", "users", "waits",
        "wanted",
    )  # fmt: skip

    def __init__(self, task_id: bytes, record: Record, loss: str) -> None:
        self.task_id = task_id
        self.task = record.task
        self.inputs = list(record.inputs)
        self.loss = loss
        self.running = False
        #: Arguments whose values went when nothing but lineage needed them.
        self.missing: list[Entry] = []
        #: Jobs that make its arguments, and jobs that it makes arguments of.
        self.waits: dict[bytes, None] = {}
        self.users: dict[bytes, None] = {}
        #: Its returns that are lost.
        self.wanted: dict[bytes, Entry] = {}
        #: Items lost that this run may have passed: they take another run.
        self.again: dict[bytes, Entry] = {}


class Rebuilding:
    """See the module."""

    def __init__(self, references: References, parallel_max: int) -> None:
        if parallel_max < 1:
            raise ValueError(f"parallel_max has to be at least 1, not {parallel_max}")
        self._references = references
        self._lineage: Lineage = references.lineage
        self.parallel_max = parallel_max
        self.effects: list[Effect] = []
        self.jobs: dict[bytes, Job] = {}
        #: Lost returns of tasks that have not ended for the first time: generators.
        self.unfinished: dict[bytes, dict[bytes, tuple[Entry, str]]] = {}
        self._queue: deque[Job] = deque()
        #: Who needs an object: its id -> jobs.
        self._needing: dict[bytes, dict[bytes, None]] = {}
        #: Jobs that run, and so many of them that wait for nothing.
        self._running: dict[bytes, Job] = {}
        self._active = 0

    def take(self) -> list[Effect]:
        """The effects since the last call."""
        effects, self.effects = self.effects, []
        return effects

    # -- events

    def lost(self, entries: Sequence[Entry], loss: str, pending: Container[bytes] = ()) -> None:
        """No copy of the values of these objects of ours is left. ``loss``: what happened to them.
        ``pending``: the tasks that have not ended."""
        fresh: list[Job] = []
        for entry in entries:
            entry.ready = False
        for entry in entries:
            fresh += self._lose(entry, loss, pending)
        # The arguments of these jobs that went before, and theirs.
        for job in fresh:
            for argument in job.missing:
                fresh += self._lose(argument, "", pending)
        for job in fresh:
            self._link(job)
        for entry in entries:
            self._mark_users(entry)
        for job in fresh:
            if not job.waits:
                self._queue.append(job)
        self._start()

    def _lose(self, gone: Entry, loss: str, pending: Container[bytes]) -> list[Job]:
        """What one loss leads to: a new job, or nothing new."""
        task_id = gone.object_id[:TASK_BYTES]
        job = self.jobs.get(task_id)
        if job is not None:
            if job.running and _passed(job.task, gone):
                job.again[gone.object_id] = gone
            else:
                job.wanted[gone.object_id] = gone
            return []
        if task_id in pending:
            self.unfinished.setdefault(task_id, {})[gone.object_id] = (gone, loss)
            return []
        record = self._lineage.records.get(task_id)
        why = self._verdict(gone, record)
        if why or record is None:
            self.effects.append(Hopeless(gone, why, loss))
            return []
        task = record.task
        if task.retries_left > 0:
            task.retries_left -= 1
        task.attempt += 1
        job = self.jobs[task_id] = Job(task_id, record, loss)
        job.wanted[gone.object_id] = gone
        for argument in job.inputs:
            if argument.freed:
                argument.ready = False
                job.missing.append(argument)
            self._references.hold(argument)
            self._needing.setdefault(argument.object_id, {})[task_id] = None
        return [job]

    @staticmethod
    def _verdict(gone: Entry, record: Record | None) -> str:
        """Why it cannot be made again, "" if it can."""
        if gone.object_id[TASK_BYTES:] == b"\0\0\0\0":
            return PUT
        if record is None or gone.object_id not in record.open:
            return UNKNOWN
        return record.why

    def _link(self, job: Job) -> None:
        """Have a new job wait for the jobs that make its arguments."""
        for argument in job.inputs:
            if not argument.ready:
                self._wait(job, self.jobs.get(argument.object_id[:TASK_BYTES]))

    def _mark_users(self, entry: Entry) -> None:
        """Jobs that began before their argument was lost wait for it."""
        maker = self.jobs.get(entry.object_id[:TASK_BYTES])
        if maker is None:
            return
        for task_id in self._needing.get(entry.object_id, ()):
            self._wait(self.jobs[task_id], maker)

    def _wait(self, job: Job, maker: Job | None) -> None:
        if maker is None or maker is job or maker.task_id in job.waits:
            return
        if job.running and not job.waits:
            self._active -= 1
        job.waits[maker.task_id] = None
        maker.users[job.task_id] = None

    def _start(self) -> None:
        queue = self._queue
        while queue and self._active < self.parallel_max:
            job = queue.popleft()
            if job.waits or job.running or self.jobs.get(job.task_id) is not job:
                continue  # An argument was lost meanwhile: the job comes back when that is made.
            job.running = True
            self._running[job.task_id] = job
            self._active += 1
            self.effects.append(Again(job.task, list(job.wanted.values()), job.loss))

    def found(self, entry: Entry) -> bool:
        """A copy of a lost value has turned up. True if it is to be used: the task has not begun
        to run again, and does not if nothing else needs it. False: the task makes a new one."""
        task_id = entry.object_id[:TASK_BYTES]
        job = self.jobs.get(task_id)
        if job is None or job.running or entry.object_id not in job.wanted:
            return False
        del job.wanted[entry.object_id]
        if not job.wanted:
            if job.task.retries_left >= 0:
                job.task.retries_left += 1
            job.task.attempt -= 1
            self.ended(task_id)
        return True

    def ended(self, task_id: bytes, pending: Container[bytes] = ()) -> None:
        """A task is over, with whatever result: its returns have been filled."""
        unfinished = self.unfinished.pop(task_id, None)
        if unfinished is not None:
            left = [gone for gone, _ in unfinished.values() if not gone.ready]
            self.lost(left, next(loss for _, loss in unfinished.values()), pending)
            return
        job = self.jobs.pop(task_id, None)
        if job is None:
            return
        if self._running.pop(task_id, None) is not None and not job.waits:
            self._active -= 1
        for made_by in job.waits:
            maker = self.jobs.get(made_by)
            if maker is not None:
                maker.users.pop(task_id, None)
        for user_id in job.users:
            self._made(self.jobs[user_id], task_id)
        for gone in job.wanted.values():
            if not gone.ready and gone.object_id not in job.again:
                self.effects.append(Hopeless(gone, NOT_MADE, job.loss))
        for argument in job.inputs:
            needing = self._needing.get(argument.object_id)
            if needing is not None:
                needing.pop(task_id, None)
                if not needing:
                    del self._needing[argument.object_id]
            self._references.release(argument)
        self.lost([gone for gone in job.again.values() if not gone.ready], job.loss, pending)

    def _made(self, job: Job, task_id: bytes) -> None:
        """One of the jobs that a job waited for is over."""
        del job.waits[task_id]
        if job.waits:
            return
        if job.running:
            self._active += 1
        else:
            self._queue.append(job)

    def check(self) -> None:
        """Raise InvariantError on a contradiction."""
        active = sum(not job.waits for job in self._running.values())
        if active != self._active:
            raise InvariantError(f"{active} jobs run, and {self._active} are counted")
        queued = {job.task_id for job in self._queue}
        for task_id, job in self.jobs.items():
            if job.running != (task_id in self._running):
                raise InvariantError(f"job {task_id.hex()} runs and is not filed so")
            if not job.running and not job.waits and task_id not in queued:
                raise InvariantError(f"job {task_id.hex()} waits for nothing and is not queued")
            for made_by in job.waits:
                if made_by not in self.jobs or task_id not in self.jobs[made_by].users:
                    raise InvariantError(f"job {task_id.hex()} waits for one that is over")
        for unfinished in self.unfinished.values():
            if any(entry.ready for entry, _ in unfinished.values()):
                raise InvariantError("an object of a task that has not ended is lost and ready")


def _passed(task: Any, item: Entry) -> bool:
    """Whether the present run of a generator has passed an item, or may have: it takes another."""
    if task.template.num_returns >= 0:
        return False
    number = int.from_bytes(item.object_id[TASK_BYTES:], "little") - 1
    return bool(task.stream.dropped) or number <= task.stream.received
