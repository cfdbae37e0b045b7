"""Submitting tasks: templates, dependencies, leases, results.

The shell around tasks/dispatch.py: turns notes and messages into its events and its effects into
messages. Owns templates (numbering, exporting functions) and what becomes of results and failures.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

import cloudpickle

from mray.call_sites import capture
from mray.exceptions import RaySystemError
from mray.ids import object_id
from mray.job_keys import FUNCTIONS
from mray.object_ref import ObjectRef
from mray.ownership.references import Entry
from mray.rpc.pump import RequestFailed
from mray.runtime.arguments import pack_arguments, spec_of, unknown_templates
from mray.runtime.batches import cut_calls, too_big
from mray.runtime.explaining import reason_of
from mray.runtime.failing import failure_of
from mray.runtime.locality import Locality
from mray.runtime.oom_retrying import out_of_memory
from mray.serialization.context import collector
from mray.serialization.error_names import error_of
from mray.serialization.failures import error_envelope
from mray.serialization.inspection import unpicklable_error
from mray.serialization.pickler import is_error
from mray.tasks.dispatch import (
    Cancelled,
    Demand,
    Dispatcher,
    Fail,
    ReturnLease,
    Steal,
)
from mray.tasks.events import TaskRecorder
from mray.tasks.lease import Lease
from mray.tasks.oom_retries import OomRetries, OomRetryRules, OutOfMemory
from mray.tasks.placing import ANYWHERE, Placing
from mray.tasks.task import Task, Template
from mray.wire.messages import (
    KvGet,
    KvPut,
    KvValue,
    Message,
    ProcessDied,
    PushTasks,
    Refused,
    StealTasks,
    TaskReplies,
    TaskReply,
    TaskTemplate,
)

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime

log = logging.getLogger("mray.runtime")

#: See call_sites.py.
CALLS_FOR_USERS = True
#: So many calls in a row are sent before the next: who runs them begins while more are made.
_BATCH = 64
_EXPORT_TIMEOUT_S = 30.0
_EXPORT_WARN_BYTES = 10 * 1024 * 1024


class TasksPart:
    """See the module."""

    def __init__(self, runtime: Runtime) -> None:
        self.rt = runtime
        self.references = runtime.references
        config = runtime.config
        self.records_sites = config.references.record_ref_creation_sites
        self.target_us = int(config.tasks.pipeline_target_ms * 1000)
        self.dispatcher = Dispatcher(config.tasks.lease_idle_ms / 1000)
        monitor = config.memory_monitor
        self.oom = OomRetries(
            OomRetryRules(
                retries_max=monitor.task_oom_retries,
                delay_base_s=monitor.task_oom_retry_delay_base_ms / 1000,
                memory_factor=monitor.oom_retry_memory_factor,
            )
        )
        #: What ended; task_report.py tells the head.
        self.recorder = TaskRecorder(on=config.tasks.task_events_report_interval_ms > 0)
        #: In a worker: the task that the calling thread runs, b"" for none.
        self.parent_of: Callable[[], bytes] | None = None
        self.numbers = itertools.count(1)
        self._exported: dict[bytes, bytes] = {}
        #: Keys of exports whose references are captured.
        self._captured: set[bytes] = set()
        self.locality = Locality(self)
        #: Tasks not finished, by task id: for explanations and cancelling.
        self.pending: dict[bytes, Task] = {}
        #: In a worker: cancelled tasks that run here, and whether by force. What they still submit
        #: is cancelled too.
        self.doomed: dict[bytes, bool] = {}
        pump = runtime.pump
        pump.on(TaskReplies, self._replies)
        pump.on(KvGet, self._give_function)

    # ----------------------------------------------------------------------------- any thread

    def export(self, value: Any, what: str) -> bytes:
        """Pickle a function or class once and publish it in the head's KV; its key."""
        outer, collector.refs = collector.refs, []
        try:
            data = cloudpickle.dumps(value, protocol=5)
            captured = collector.refs
        except Exception as error:
            raise unpicklable_error(value, what, error) from error
        finally:
            collector.refs = outer
        key = self.publish(data, what)
        if captured:
            self.rt.post(lambda: self._capture(key, captured))
        return key

    def _capture(self, key: bytes, refs: list[ObjectRef[Any]]) -> None:
        """Keep what an exported function refers to until the job ends: whoever has the function's
        key may fetch it at any time."""
        if key not in self._captured:
            self._captured.add(key)
            for ref in refs:
                self.references.capture(ref._entry)

    def publish(self, data: bytes, what: str) -> bytes:
        """Put bytes under our job and their hash into the head's KV, once."""
        key = self.rt.job_id + hashlib.blake2b(data, digest_size=16).digest()
        if key not in self._exported:
            if len(data) > _EXPORT_WARN_BYTES:
                log.warning(
                    "%s is %.0f MB pickled: large captured values are better put() once and "
                    "passed by reference",
                    what,
                    len(data) / 1e6,
                )
            self._exported[key] = data
            self.rt.post(lambda: self._put(key, data, 0))
        return key

    def _give_function(self, sender: bytes, message: KvGet) -> None:
        """A worker of ours needs one, and the head is away."""
        value = self._exported.get(message.key) if message.namespace == FUNCTIONS else None
        self.rt.pump.send(sender, KvValue(message.rid, value))

    def _put(self, key: bytes, data: bytes, attempt: int) -> None:
        rt = self.rt

        def answered(reply: Message) -> None:
            if isinstance(reply, RequestFailed) and attempt < 3:
                self._put(key, data, attempt + 1)
            elif isinstance(reply, (RequestFailed, Refused)):
                log.error("exporting a function to the head failed: %s", reply.text)

        rt.head_link.ask(
            lambda rid: KvPut(rid, FUNCTIONS, key, data), answered, _EXPORT_TIMEOUT_S
        )

    def template(
        self,
        function_key: bytes,
        name: str,
        *,
        num_returns: int,
        resources: dict[str, int],
        max_retries: int,
        runtime_env: bytes = b"",
        retry_exceptions: bytes = b"",
        max_calls: int = 0,
        method: str = "",
        options: bytes = b"",
        for_actor: bool = False,
        backpressure: int = 0,
        placing: Placing | None = None,
    ) -> Template:
        """What calls of one function with these options share."""
        place = placing or ANYWHERE
        wire = TaskTemplate(
            next(self.numbers), function_key, name, num_returns, self.rt.job_id, resources,
            method, retry_exceptions, max_calls, options, max_retries != 0, backpressure,
            place.group, place.captures,
        )  # fmt: skip
        class_id = -1
        if not for_actor:
            class_id = self.class_of(
                place.needs(resources), self.rt.job_id, runtime_env, where=place.where
            )
        return Template(wire, class_id, max_retries, self.target_us)

    def class_of(
        self, resources: dict[str, int], job_id: bytes, runtime_env: bytes,
        exclusive: bool = False, where: bytes = b"",
    ) -> int:  # fmt: skip
        """The scheduling class of tasks with these needs."""
        class_id = self.dispatcher.class_of(resources, job_id, runtime_env, exclusive, where)
        sclass = self.dispatcher.classes[class_id]
        if sclass.placed and not sclass.aimed:
            self.rt.placing.aim(sclass)
        return class_id

    def call(
        self,
        template: Template,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        actor_id: bytes = b"",
        keep: Entry | None = None,
    ) -> list[ObjectRef[Any]]:
        """Submit a call; its return references, of a generator what stands for them. ``keep``: the
        entry of the actor's handle, which lives until the call is over."""
        rt = self.rt
        packed = pack_arguments(rt, template.name, args, kwargs)
        task_id = rt.ids.task()
        entries = self.references.entries
        mailbox = rt.mailbox
        returns = []
        name = template.name
        born = monotonic()
        site = capture(2) if self.records_sites else None
        for index in range(1, template.num_returns + 1):
            entry = Entry(object_id(task_id, index), None, mailbox, 1, name, site, born)
            entries[entry.object_id] = entry
            returns.append(entry)
        holds = packed.holds if keep is None else [*packed.holds, keep]
        task = Task(task_id, template, packed.data, packed.deps, holds, returns)
        task.args_entry = packed.in_store
        task.actor_id = actor_id
        task.born = born
        if self.parent_of is not None:
            task.parent = self.parent_of()
        if not returns and template.num_returns < 0:
            return self.rt.streams.submit(task)
        refs: list[ObjectRef[Any]] = [ObjectRef(entry) for entry in returns]
        posts = mailbox.posts
        posts.append(task)
        if mailbox.asleep:
            mailbox.wake()
        if len(posts) >= _BATCH and rt.turn is not None:
            rt.turn.glance()
        return refs

    # ------------------------------------------------------------------------------- the loop

    def submit(self, task: Task) -> None:
        """A task from this process. It is queued when its arguments are there."""
        self.pending[task.task_id] = task
        if self.await_arguments(task):
            self.resolved(task)
        if self.doomed:
            self.rt.cancels.born(task)

    def await_arguments(self, task: Task) -> bool:
        """Hold what the task needs; whether all of it is there already.

        If not, the task comes up in mailbox.resolved when it is: perhaps at once, when an owner
        turns out to be dead.
        """
        there = True
        for entry in task.holds:
            self.references.hold(entry)
        for entry in task.deps:
            if not entry.ready:
                there = False
                task.unresolved += 1
                if entry.waiters is None:
                    entry.waiters = []
                entry.waiters.append(task)
                self.rt.objects.watch_for(entry)
        return there

    def failed_dependency(self, task: Task) -> bytes | None:
        """The error that one of the arguments is, if any: the task fails with it unrun."""
        for entry in task.deps:
            if entry.data is not None and is_error(entry.data):
                return entry.data
        return None

    def resolved(self, task: Task) -> None:
        """All arguments of a task are there."""
        if task.cancelled:
            return  # over already
        if task.deps:
            error = self.failed_dependency(task)
            if error is not None:
                self.fail(task, error)
                return
            task.ready_at = self.rt.pump.clock()
            self.locality.consider(task)
        self.dispatcher.submit(task)

    def turn(self, now: float) -> None:
        """Dispatch, and send what is due. Once a round."""
        dispatcher = self.dispatcher
        dispatcher.dispatch(now)
        if dispatcher.touched:
            touched, dispatcher.touched = dispatcher.touched, {}
            for lease in touched.values():
                if lease.out:
                    self._push(lease)
        while dispatcher.effects:
            self._perform()

    def _push(self, lease: Lease) -> None:
        out, lease.out = lease.out, []
        templates = unknown_templates(out, lease.known)
        version = self.rt.serializers.version
        for specs in cut_calls([spec_of(task) for task in out]):
            if len(specs) == 1 and (why := too_big(specs[0])):
                self._unsendable(lease, specs[0].task_id, why)
                continue
            message = PushTasks(self.rt.address, templates, specs, serializers=version)
            # A worker that is gone is reported dead by the node daemon; its tasks come back then.
            self.rt.tell(lease.worker, message)
            templates = []
        lease.known.difference_update(template.number for template in templates)
        now = self.rt.pump.clock()
        for task in out:
            task.sent_at = now

    def _unsendable(self, lease: Lease, task_id: bytes, why: str) -> None:
        worker_id, now = lease.worker.process_id, self.rt.pump.clock()
        for task in self.dispatcher.forgotten(worker_id, [task_id], now):
            self.fail(task, error_envelope(RaySystemError(f"{task.template.name}: {why}")))
        self.rt.mailbox.wake()  # Others may be sent in its place.

    def _perform(self) -> None:
        rt = self.rt
        for effect in self.dispatcher.take():
            match effect:
                case Demand(class_id, count, node):
                    rt.leasing.demand(class_id, count, node)
                case ReturnLease():
                    rt.leasing.give_back(effect)
                case Steal(worker, count):
                    rt.tell(worker, StealTasks(count))
                case Cancelled(task):
                    rt.cancels.fail(task)
                case OutOfMemory(task, oom):
                    out_of_memory(self, task, oom)
                case Fail(task, kind, text, cause):
                    error = failure_of(task.template.name, kind, text, cause)
                    self.fail(task, error_envelope(error))

    def retry_paused(self) -> None:
        """Tasks have paused long enough, for there to be memory again."""
        for task in self.oom.due(self.rt.pump.clock()):
            if task.task_id in self.pending:
                self.resolved(task)

    def _replies(self, sender: bytes, message: TaskReplies) -> None:
        replies = message.replies
        if self.rt.ledger.refuses(sender):
            replies = [r for r in replies if not any(returned.refs for returned in r.returns)]
        now = self.rt.pump.clock()
        lease = self.dispatcher.by_worker.get(sender)
        if lease is not None:
            done = self.dispatcher.replied(
                sender,
                replies,
                message.returned,
                message.blocked,
                message.exiting,
                now,
            )
            if done and self.recorder.on:
                self.recorder.replied(sender, lease.worker.node_id, lease.pid, done, now)
        else:
            done = self.rt.actors.replied(sender, replies)
        if len(done) != len(replies):
            wanted = {reply.task_id for _, reply in done}
            for reply in replies:
                if reply.task_id not in wanted:
                    self.rt.borrowing.decline(reply.returns)
        finish = self.finish
        for task, reply in done:
            finish(task, reply)

    def finish(self, task: Task, reply: TaskReply) -> None:
        """A task's reply: fill its returns, or run it once more."""
        if reply.status == 2 and task.retries_left != 0 and not (task.actor_id or task.cancelled):
            task.retries_left -= 1
            self.rt.borrowing.decline(reply.returns)
            self.dispatcher.retry(task)
            return
        if task.attempt and self.rt.recovering.finished(task, reply):
            return
        self.pending.pop(task.task_id, None)
        references = self.references
        entries = task.returns
        stored = task.template.num_returns < 0
        for entry, returned in zip(entries, reply.returns, strict=False):
            if returned.refs:
                self.rt.borrowing.receive_refs(entry, returned.refs)
            if returned.located is not None:
                stored = True
            references.fill(entry, returned.data, returned.located)
            if not entry.local:
                references.settle(entry)
        if not entries:  # Nobody wants the error of a task without results.
            self.rt.borrowing.decline(reply.returns)
        if stored:
            self.rt.recovering.keep(task)
        for entry in task.holds:
            references.release(entry)
        if stored and task.task_id in self.rt.recovering.rebuilding.unfinished:
            self.rt.recovering.ended(task.task_id)

    def fail(self, task: Task, error: bytes) -> None:
        """Every return of the task is this error; of one that ran again, those that are lost."""
        if self.recorder.on:
            self.recorder.failed(task, error, self.rt.pump.clock())
        if task.attempt and self.rt.recovering.failed(task, error):
            return
        self.pending.pop(task.task_id, None)
        references = self.references
        for entry in task.returns:
            references.fill(entry, error, None)
            if not entry.local:
                references.settle(entry)
        if task.template.num_returns < 0:
            self.rt.recovering.generator_failed(task)
        for entry in task.holds:
            references.release(entry)

    def lose_all(self, error: bytes) -> None:
        """Nothing pending can end any more."""
        for task in list(self.pending.values()):
            self.fail(task, error)
        self.rt.recovering.lose_all(error)

    def refuse(self, task: Task, error: bytes) -> None:
        """A task that came too late."""
        for entry in task.holds:
            self.references.hold(entry)
        self.fail(task, error)

    def process_died(self, message: ProcessDied) -> None:
        """A worker with our tasks may be dead."""
        lease = self.dispatcher.by_worker.get(message.process_id)
        if lease is not None and self.recorder.on:
            self.recorder.lost(lease)
        self.dispatcher.worker_died(message.process_id, message.cause)
        if lease is not None and self.recorder.on:
            self.recorder.ran_again(error_of(message.cause), self.rt.pump.clock())

    def explain(self, entry: Entry) -> str:
        """Why a return of a pending task is not ready; "" if no pending task makes it."""
        task = self.pending.get(entry.object_id[:24])
        return "" if task is None or task.actor_id else reason_of(self, task)


def pickled_types(types: Any) -> bytes:
    """The wire form of ``retry_exceptions``."""
    if types is True:
        return b"*"
    if not types:
        return b""
    return bytes(cloudpickle.dumps(tuple(types)))
