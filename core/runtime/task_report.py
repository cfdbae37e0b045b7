"""What this process tells of its tasks: the head of those that ended, who asks of the others.

Owns the messages of task events: a batch each interval while there is something to tell (no timer
runs else), and answers to GetRunning, GetTasks and CountTasks. A table of 20,000 queued tasks is
read in slices and only what was asked for is sent. Changes nothing about tasks.

An answer to GetTasks or CountTasks leaves after the head has confirmed all that ended before: who
then asks the head misses nothing in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from heapq import nlargest
from typing import TYPE_CHECKING

import msgspec

from mray.class_names import short_name
from mray.placement import plain
from mray.runtime.explaining import reason_of, reason_of_call
from mray.serialization.error_names import explain_error
from mray.task_counts import Counter
from mray.task_filters import passes
from mray.tasks.event_batch import ACTOR_CREATION_TASK, ACTOR_TASK, NORMAL_TASK
from mray.tasks.events import FLUSH_AT
from mray.wire.messages import (
    CountTasks,
    GetRunning,
    GetTasks,
    Message,
    Running,
    TaskCounts,
    TaskEvents,
    TaskView,
    TaskViews,
)

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime
    from mray.tasks.task import Task

#: About 10 ms of the loop's time.
_SLICE = 5000
_LIMIT_MAX = 100_000
#: Explaining why something pends looks through queues: so many are explained.
_EXPLAINED_MAX = 1000
_CONFIRM_S = 2.0


class TaskReports:
    """See the module."""

    def __init__(self, runtime: Runtime) -> None:
        self.rt = runtime
        #: In a worker: what runs, by task id, and when it began (ns of the monotonic clock).
        self.executing: dict[bytes, int] = {}
        self._interval_s = runtime.config.tasks.task_events_report_interval_ms / 1000
        self._due = False
        pump = runtime.pump
        pump.on(GetRunning, self._get_running)
        pump.on(GetTasks, self._get_tasks)
        pump.on(CountTasks, self._count_tasks)

    # -- what ended

    def turn(self) -> None:
        """Have what was recorded told in time. Once a round."""
        recorder = self.rt.tasks.recorder
        if recorder.count >= FLUSH_AT:
            self.flush()
        elif not self._due:
            self._due = True
            self.rt.pump.after(self._interval_s, self._interval_over)

    def _interval_over(self) -> None:
        self._due = False
        self.flush()

    def flush(self) -> None:
        """Tell the head what ended. Within the loop."""
        recorder = self.rt.tasks.recorder
        if recorder.count or recorder.dropped:
            count, dropped, batch = self._take()
            if not self.rt.tell(self.rt.head, TaskEvents(0, count, dropped, batch)):
                recorder.dropped += count + dropped

    def _take(self) -> tuple[int, int, bytes]:
        rt = self.rt
        offset_s = time.time() - rt.pump.clock()
        return rt.tasks.recorder.take(rt.process_id, rt.job_id, offset_s, explain_error)

    def _confirmed(self, then: Callable[[], None]) -> None:
        """Call when the head has all that ended so far, or does not answer."""
        rt = self.rt
        if not rt.tasks.recorder.on or not rt.reach(rt.head):
            then()
            return
        count, dropped, batch = self._take()
        rt.pump.request(
            rt.head.process_id,
            lambda rid: TaskEvents(rid, count, dropped, batch),
            lambda reply: then(),
            _CONFIRM_S,
        )

    # -- what did not

    def _get_running(self, sender: bytes, message: GetRunning) -> None:
        now = time.perf_counter_ns()
        running = [(task_id, (now - at) // 1000) for task_id, at in list(self.executing.items())]
        self.rt.pump.send(sender, Running(message.rid, [(self.rt.process_id, running)]))

    def _get_tasks(self, sender: bytes, message: GetTasks) -> None:
        limit = max(0, min(message.limit, _LIMIT_MAX))
        survey = Survey(self.rt, message.running)
        found: list[TaskView] = []
        total = 0

        def take(view: TaskView) -> None:
            nonlocal total
            if passes(view, message.filters):
                total += 1
                found.append(view)
                if len(found) > 2 * limit + _SLICE:
                    found[:] = nlargest(limit, found, key=_submitted)

        def answer() -> None:
            views = nlargest(limit, found, key=_submitted)
            told = [survey.explained(view) for view in views[:_EXPLAINED_MAX]]
            views[:_EXPLAINED_MAX] = told
            reply = TaskViews(message.rid, total, views)
            self._confirmed(lambda: self._send(sender, reply))

        self._read(survey, take, answer)

    def _count_tasks(self, sender: bytes, message: CountTasks) -> None:
        counter = Counter()

        def answer() -> None:
            reply = TaskCounts(message.rid, counter.rows())
            self._confirmed(lambda: self._send(sender, reply))

        self._read(Survey(self.rt, message.running), counter.add, answer)

    def _send(self, sender: bytes, reply: Message) -> None:
        self.rt.pump.send(sender, reply)

    def _read(
        self, survey: Survey, take: Callable[[TaskView], None], answer: Callable[[], None]
    ) -> None:
        def go_on() -> None:
            if survey.step(take):
                answer()
            else:
                self.rt.pump.call_soon(go_on)

        go_on()


class Survey:
    """One look at the tasks of this process that have not ended: ``step()`` until it is True.

    The snapshot is of the tasks that were there when it was asked for, each as it is when its slice
    comes.
    """

    def __init__(
        self, runtime: Runtime, running: list[tuple[bytes, list[tuple[bytes, int]]]]
    ) -> None:
        self._rt = runtime
        self._wall = time.time() - runtime.pump.clock()
        self._now = time.time()
        #: Task -> microseconds since it began.
        self._elapsed = {task_id: us for _, tasks in running for task_id, us in tasks}
        #: Workers of which we know what they run.
        heard = {worker_id for worker_id, _ in running}
        #: Task -> worker, node, pid of what was sent.
        self._sent: dict[bytes, tuple[bytes, bytes, int]] = {}
        #: The oldest tasks at workers that did not say what they run.
        self._oldest: set[bytes] = set()
        for lease in runtime.tasks.dispatcher.by_worker.values():
            worker = lease.worker
            self._place(lease.inflight, (worker.process_id, worker.node_id, lease.pid), heard)
        for calls in runtime.actors.calls.values():
            if calls.worker is not None:
                word = calls.verdict
                place = calls.worker.process_id, calls.worker.node_id, word.pid if word else 0
                self._place(calls.inflight, place, heard)
        self._tasks = list(runtime.tasks.pending.values())
        self._creations = runtime.actors.pending_creations()
        self._next = 0

    def _place(
        self, inflight: dict[bytes, Task], place: tuple[bytes, bytes, int], heard: set[bytes]
    ) -> None:
        if inflight:
            self._sent.update(dict.fromkeys(inflight, place))
            if place[0] not in heard:
                self._oldest.add(next(iter(inflight)))

    def step(self, take: Callable[[TaskView], None]) -> bool:
        """Hand a slice to ``take``; whether that was the last."""
        pending = self._rt.tasks.pending
        for task in self._tasks[self._next : self._next + _SLICE]:
            if task.task_id in pending:
                take(self._view(task))
        self._next += _SLICE
        if self._next < len(self._tasks):
            return False
        for view in self._creation_views():
            take(view)
        return True

    def _view(self, task: Task) -> TaskView:
        template, wall = task.template, self._wall
        place = self._sent.get(task.task_id)
        begun = 0.0
        if place is None:
            state = "PENDING_ARGS_AVAIL" if task.unresolved else "PENDING_NODE_ASSIGNMENT"
            place = b"", b"", 0
        elapsed = self._elapsed.get(task.task_id)
        if elapsed is not None:
            state, begun = "RUNNING", self._now - elapsed / 1e6
        elif task.task_id in self._oldest:
            state, begun = "RUNNING", task.sent_at + wall
        elif place[2]:
            state = "SUBMITTED_TO_WORKER"
        ready = task.ready_at or (0.0 if task.unresolved else task.born)
        return TaskView(
            task.task_id, task.attempt, template.name,
            ACTOR_TASK if task.actor_id else NORMAL_TASK, state,
            self._rt.job_id, task.parent, task.actor_id, self._rt.process_id, *place,
            template.wire.resources, task.born + wall, ready + wall if ready else 0.0,
            task.sent_at + wall if place[2] else 0.0, begun, 0.0,
        )  # fmt: skip

    def _creation_views(self) -> Iterator[TaskView]:
        for creation in self._creations:
            spec, wall = creation.spec, self._wall
            state = "PENDING_ARGS_AVAIL" if creation.unresolved else "PENDING_NODE_ASSIGNMENT"
            sent = creation.sent_at
            yield TaskView(
                spec.task_id, creation.incarnation + 1, f"{short_name(spec.class_name)}.__init__",
                ACTOR_CREATION_TASK, state, self._rt.job_id, creation.parent, spec.actor_id,
                self._rt.process_id, b"", b"", 0, plain(spec.resources), creation.born + wall,
                sent + wall if sent else 0.0, 0.0, 0.0, 0.0,
            )  # fmt: skip

    def explained(self, view: TaskView) -> TaskView:
        """The same with the reason why it has not ended, if it does not run."""
        if view.state == "RUNNING":
            return view
        rt = self._rt
        task = rt.tasks.pending.get(view.task_id)
        if task is not None:
            of_call = bool(task.actor_id)
            reason = reason_of_call(rt.actors, task) if of_call else reason_of(rt.tasks, task)
        else:
            reason = rt.actors.creation_reason(view.actor_id)
        return msgspec.structs.replace(view, reason=reason)


def _submitted(view: TaskView) -> tuple[float, bytes]:
    return view.created_unix_s, view.task_id
