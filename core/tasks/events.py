"""Recording attempts that end: what an owner keeps of them until the head has heard.

Machine-like: told of ends with their time, it gives batches to send; reads no clock. Owns the ring
of what is not told yet. One record a task and no message: whatever the owner knows of an end (who
ran it, how long, since when it waited) it knows from the reply.

The ring holds ``RING_MAX`` records. When the head cannot be told, the oldest are dropped, and
counted. Tasks that have not ended are in no ring: whoever asks for them asks their owner
(runtime/task_report.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from mray.machine import InvariantError
from mray.tasks.event_batch import (
    ACTOR_CREATION_TASK,
    ACTOR_TASK,
    NORMAL_TASK,
    EventBatch,
    Kind,
    Part,
    Record,
    encode,
)

if TYPE_CHECKING:
    from mray.tasks.lease import Lease
    from mray.tasks.task import Task, Template
    from mray.wire.messages import TaskReply

#: (Ray's name, message) of an error's envelope, and whether the task raised it itself.
Explain = Callable[[bytes, bool], tuple[str, str]]
#: Process id, node id and pid of a worker.
Place = tuple[bytes, bytes, int]
_NOWHERE: Place = (b"", b"", 0)
RING_MAX = 100_000
#: So many are worth a message before the interval is over. Batches ten times as big were measured
#: at about 1 us more a task: what is kept long is no longer in the cache.
FLUSH_AT = 2_000
#: At most so many and those of one reply are dropped at once.
_PART_MAX = 1000
#: Errors of which the message is read, in one batch: reading one takes 5 us.
_EXPLAINED_MAX = 1000


class Ended:
    """Attempts that ended at one worker, not told yet."""

    __slots__ = ("errors", "node_id", "pid", "raised", "records", "worker_id")

    def __init__(self, worker_id: bytes, node_id: bytes, pid: int) -> None:
        self.worker_id = worker_id
        self.node_id = node_id
        self.pid = pid
        self.records: list[Record] = []
        #: Whether the errors are what the tasks raised.
        self.raised = False
        #: Position -> the error's envelope, or (type, message).
        self.errors: dict[int, bytes | tuple[str, str]] = {}


class TaskRecorder:
    """See the module. ``on``: False where nothing is to be recorded."""

    def __init__(self, *, on: bool, ring_max: int = RING_MAX) -> None:
        self.on = on
        self._ring_max = ring_max
        self._ended: deque[Ended] = deque()
        #: Those that take more, by worker.
        self._open: dict[bytes, Ended] = {}
        #: Records in the ring.
        self.count = 0
        #: Dropped since the head was told last.
        self.dropped = 0
        self._templates: dict[int, Template] = {}
        #: Where tasks ran whose worker died last, for the record of their end.
        self._lost_at: dict[bytes, Place] = {}
        self._before: list[tuple[Task, int]] = []
        #: Creations of actors have no template: class -> number.
        self._creations: dict[tuple[str, tuple[tuple[str, int], ...]], int] = {}

    # -- events

    def replied(
        self,
        worker_id: bytes,
        node_id: bytes,
        pid: int,
        done: Iterable[tuple[Task, TaskReply]],
        at: float,
    ) -> None:
        """A worker's answers, before anything is done about them. For each task: hot."""
        ended = self._open.get(worker_id)
        if ended is None or len(ended.records) >= _PART_MAX:
            ended = self._open[worker_id] = Ended(worker_id, node_id, pid)
            ended.raised = True
            self._ended.append(ended)
        records, templates = ended.records, self._templates
        before = len(records)
        for task, reply in done:
            template = task.template
            number = template.number
            if template.recorded:
                templates[number] = template
                status = reply.status
                if status:
                    returns = reply.returns
                    ended.errors[len(records)] = (returns and returns[0].data) or b""
                records.append(Record(
                    task.task_id, number, task.attempt, task.born, task.ready_at, task.sent_at,
                    reply.run_us, status != 0, task.parent, task.actor_id, at,
                ))  # fmt: skip
        self.count += len(records) - before
        if self.count > self._ring_max:
            self._drop()

    def failed(
        self,
        task: Task,
        error: bytes | tuple[str, str],
        at: float,
        worker: Place | None = None,
        attempt: int = -1,
    ) -> None:
        """An attempt ended without a reply. ``error``: its envelope, or (type, message).
        ``worker``: where it ran, if that is not to be taken from ``lost``."""
        template = task.template
        if not template.recorded:
            return
        if worker is None:
            worker = self._lost_at.pop(task.task_id, _NOWHERE)
        ended = Ended(*worker)
        self._templates[template.number] = template
        run_us = int(max(0.0, at - task.sent_at) * 1e6) if task.sent_at and worker[2] else 0
        ended.errors[0] = error
        ended.records.append(Record(
            task.task_id, template.number, task.attempt if attempt < 0 else attempt, task.born,
            task.ready_at, task.sent_at, run_us, True, task.parent, task.actor_id, at,
        ))  # fmt: skip
        self._add(ended)

    def created(
        self,
        class_name: str,
        resources: dict[str, int],
        record: Record,
        error: bytes | tuple[str, str],
        worker: Place,
    ) -> None:
        """The creation of an actor has ended. The template in ``record`` does not count."""
        key = class_name, tuple(sorted(resources.items()))
        number = self._creations.setdefault(key, -1 - len(self._creations))
        ended = Ended(*worker)
        if record.failed:
            ended.errors[0] = error
        record.template = number
        ended.records.append(record)
        self._add(ended)

    def lost(self, lease: Lease) -> None:
        """The lease's worker is dead: its tasks are about to be judged."""
        self._before = [(task, task.attempt) for task in lease.inflight.values()]
        place = lease.worker.process_id, lease.worker.node_id, lease.pid
        self._lost_at = {task.task_id: place for task, _ in self._before}

    def ran_again(self, error: tuple[str, str], at: float) -> None:
        """They are judged: those with another attempt number failed and run again."""
        before, self._before = self._before, []
        for task, attempt in before:
            if task.attempt != attempt:
                self.failed(task, error, at, None, attempt)

    def _add(self, ended: Ended) -> None:
        self._ended.append(ended)
        self.count += len(ended.records)
        if self.count > self._ring_max:
            self._drop()

    def _drop(self) -> None:
        """Forget the oldest: the head could not be told in time."""
        while self.count > self._ring_max:
            oldest = self._ended.popleft()
            if self._open.get(oldest.worker_id) is oldest:
                del self._open[oldest.worker_id]
            self.count -= len(oldest.records)
            self.dropped += len(oldest.records)

    # -- telling

    def take(
        self, owner_id: bytes, job_id: bytes, wall_offset_s: float, explain: Explain
    ) -> tuple[int, int, bytes]:
        """(count, dropped, batch) of all there is; nothing is left. See TaskEvents."""
        ended, self._ended = self._ended, deque()
        self._open = {}
        templates, self._templates = self._templates, {}
        count, self.count = self.count, 0
        dropped, self.dropped = self.dropped, 0
        if not count:
            return 0, dropped, b""
        kinds = [_kind_of(template) for template in templates.values()]
        kinds += [
            Kind(number, f"{name}.__init__", ACTOR_CREATION_TASK, dict(resources))
            for (name, resources), number in self._creations.items()
        ]
        self._creations = {}
        unread = [_EXPLAINED_MAX]
        parts = [
            Part(e.worker_id, e.node_id, e.pid, e.records, _explained(e, explain, unread))
            for e in ended
        ]
        return count, dropped, encode(EventBatch(owner_id, job_id, wall_offset_s, kinds, parts))

    def check(self) -> None:
        """See mray.machine."""
        if self.count != sum(len(ended.records) for ended in self._ended):
            raise InvariantError(f"{self.count} records are counted, others are there")
        if self.count > self._ring_max:
            raise InvariantError(f"{self.count} records in a ring of {self._ring_max}")
        for ended in self._ended:
            for record in ended.records:
                if record.template >= 0 and record.template not in self._templates:
                    raise InvariantError(f"nobody knows what template {record.template} is")


def _kind_of(template: Template) -> Kind:
    wire = template.wire
    kind = ACTOR_TASK if wire.method else NORMAL_TASK
    return Kind(template.number, template.name, kind, wire.resources)


def _explained(ended: Ended, explain: Explain, unread: list[int]) -> dict[int, tuple[str, str]]:
    found = {}
    for position, error in ended.errors.items():
        if isinstance(error, bytes):
            unread[0] -= 1
            error = explain(error if unread[0] >= 0 else b"", ended.raised)
        found[position] = error
    return found
