"""Actors as this process sees them: creating, calling, killing, naming.

The shell around tasks/actor_calls.py: one machine an actor, fed by notes, the head's words and the
workers' replies. Owns the creations of this process: their arguments are kept while the actor may
be restarted. Where actors run and whether they restart is the head's decision.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from mray.class_names import short_name
from mray.exceptions import (
    ActorAlreadyExistsError,
    ActorDiedError,
    ActorUnavailableError,
    RaySystemError,
)
from mray.ids import TaskId, object_id
from mray.object_ref import ObjectRef
from mray.ownership.references import Entry
from mray.placement import INFEASIBLE
from mray.remote_function import Signature
from mray.rpc.pump import RequestFailed
from mray.runtime.arguments import Packed, spec_of, unknown_templates
from mray.runtime.batches import cut_calls, too_big
from mray.runtime.creations import Creation, CreationWaiter
from mray.runtime.explaining import reason_of_call
from mray.runtime.failing import call_failure_of
from mray.serialization.error_names import error_of
from mray.serialization.failures import error_envelope
from mray.serialization.pickler import is_error
from mray.tasks.actor_calls import ActorCalls, FailCall
from mray.tasks.task import Task, Template
from mray.wire.messages import (
    ActorFound,
    ActorOutOfScope,
    ActorRegistered,
    ActorSpec,
    ActorState,
    CancelTask,
    ConstructorRefs,
    DeathCause,
    GetActor,
    KillActor,
    Message,
    ProcessDied,
    PushTasks,
    RefGroup,
    Refused,
    RegisterActor,
    TaskReply,
    WatchActor,
)

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime

log = logging.getLogger("mray.runtime")

_REGISTER_TIMEOUT_S = 30.0
_KILL_TIMEOUT_S = 10.0
#: The last dead actors that are remembered, about 2 KiB each. Of others the head is asked again.
DEAD_MAX = 1000


class ActorsPart:
    """See the module."""

    def __init__(self, runtime: Runtime) -> None:
        self.rt = runtime
        self.calls: dict[bytes, ActorCalls] = {}
        #: Those that are dead, in the order in which that was heard.
        self._dead: dict[bytes, None] = {}
        self._by_worker: dict[bytes, ActorCalls] = {}
        #: Of actors with max_pending_calls: actor_limits.PendingCalls.
        self.limits: dict[bytes, Any] = {}
        self._dirty: dict[bytes, ActorCalls] = {}
        self._creations: dict[bytes, Creation] = {}
        #: Entry of a handle -> its actor.
        self._handles: dict[bytes, bytes] = {}
        self._templates: dict[tuple[Any, ...], Template] = {}
        #: Told to be out of scope, and not heard to be dead.
        self._leaving: dict[bytes, None] = {}
        runtime.pump.on(ActorState, self._state)
        runtime.pump.on(ConstructorRefs, self._constructor_refs)
        runtime.head_link.on_back.append(self._head_back)

    # ----------------------------------------------------------------------------- any thread

    def method_template(
        self,
        class_name: str,
        method: str,
        num_returns: int,
        max_task_retries: int,
        retry_exceptions: bytes,
        options: bytes,
        parameters: Any = (),
        backpressure: int = 0,
        recorded: bool = True,
        unordered: bool = False,
    ) -> Template:
        """What calls of one method with these options share; made at first use."""
        key = (
            class_name, method, num_returns, max_task_retries, retry_exceptions, options,
            tuple(map(tuple, parameters)), backpressure, recorded, unordered,
        )  # fmt: skip
        template = self._templates.get(key)
        if template is None:
            called = f"{short_name(class_name)}.{method}"
            template = self.rt.tasks.template(
                b"", called, num_returns=num_returns, resources={},
                max_retries=max_task_retries, retry_exceptions=retry_exceptions, method=method,
                options=options, for_actor=True, backpressure=backpressure,
            )  # fmt: skip
            template.check = Signature.of_parameters(called, parameters)
            template.recorded = recorded
            template.unordered = unordered
            self._templates[key] = template
        return template

    def create(
        self, spec: ActorSpec, packed: Packed, entry: Entry, get_if_exists: bool,
        recorded: bool = True,
    ) -> ActorSpec | None:  # fmt: skip
        """Make an actor. With a name, waits for the head's word: the spec of an existing actor
        with ``get_if_exists``, ActorAlreadyExistsError if the name is taken."""
        creation = Creation(spec, packed, entry)
        creation.recorded = recorded
        if self.rt.tasks.parent_of is not None:
            creation.parent = self.rt.tasks.parent_of()
        if not spec.name:
            self.rt.post(lambda: self._create(creation))
            return None
        pending = [dep for dep in packed.deps if not dep.ready]
        self.rt.post(lambda: self._keep(creation))
        if pending:
            self.rt.objects.wait_for(pending, None)
        complete = creation.complete()
        answer = self.rt.ask_any(
            self.rt.head, lambda rid: RegisterActor(rid, complete, get_if_exists)
        )
        if isinstance(answer, ActorRegistered):
            if answer.existing is not None:
                self.rt.post(lambda: self._forget(creation))
                return answer.existing
            self.rt.post(lambda: self._meet(spec.actor_id, spec.class_name))
            return None
        self.rt.post(lambda: self._forget(creation))
        if isinstance(answer, Refused):
            raise ActorAlreadyExistsError(answer.text)
        assert isinstance(answer, RequestFailed)
        raise ActorUnavailableError(answer.text, spec.actor_id, class_name=spec.class_name)

    def kill(self, actor_id: bytes, no_restart: bool) -> None:
        """End an actor at once; it restarts if it may and ``no_restart`` is False."""
        answer = self.rt.ask_any(
            self.rt.head, lambda rid: KillActor(rid, actor_id, no_restart), _KILL_TIMEOUT_S
        )
        if isinstance(answer, (Refused, RequestFailed)):
            raise ActorUnavailableError(answer.text, actor_id)

    def find(self, name: str, namespace: str) -> ActorSpec | None:
        """The living actor of a name."""
        return self.rt.ask(
            self.rt.head, lambda rid: GetActor(rid, name, namespace), ActorFound
        ).spec

    # ------------------------------------------------------------------------------- the loop

    def _keep(self, creation: Creation) -> None:
        self._creations[creation.spec.actor_id] = creation
        self._handles[creation.entry.object_id] = creation.spec.actor_id
        for entry in creation.packed.holds:
            self.rt.references.hold(entry)

    def _forget(self, creation: Creation) -> None:
        if self._creations.pop(creation.spec.actor_id, None) is None:
            return
        for entry in creation.packed.holds:
            self.rt.references.release(entry)

    def _create(self, creation: Creation) -> None:
        self._keep(creation)
        self._known(creation.spec.actor_id, creation.spec.class_name, watch=False)
        waiting = [entry for entry in creation.packed.deps if not entry.ready]
        creation.unresolved = len(waiting)
        if not waiting:
            self._register(creation)
            return
        waiter = CreationWaiter(creation, lambda made: self.rt.post(lambda: self._register(made)))
        for entry in waiting:
            if entry.waiters is None:
                entry.waiters = []
            entry.waiters.append(waiter)
            self.rt.objects.watch_for(entry)

    def _register(self, creation: Creation) -> None:
        rt = self.rt
        actor_id = creation.spec.actor_id
        for entry in creation.packed.deps:
            if entry.data is not None and is_error(entry.data):
                self._never_made(creation, entry.data)
                return
        spec = creation.complete()

        def answered(reply: Message) -> None:
            if isinstance(reply, (Refused, RequestFailed)):
                self._never_made(
                    creation,
                    error_envelope(
                        ActorDiedError(
                            f"the actor {spec.class_name} was not made: {reply.text}",
                            actor_id=actor_id,
                            class_name=spec.class_name,
                        )
                    ),
                )

        rt.head_link.ask(lambda rid: RegisterActor(rid, spec), answered, _REGISTER_TIMEOUT_S)
        rt.tell(rt.head, WatchActor(actor_id))

    def _never_made(self, creation: Creation, error: bytes) -> None:
        spec = creation.spec
        cause = DeathCause("creation_failed", "its creation failed")
        self._state(
            b"",
            ActorState(
                spec.actor_id, "DEAD", 0, None, cause=cause, error=error, class_name=spec.class_name
            ),
        )

    def _known(self, actor_id: bytes, class_name: str, watch: bool = True) -> ActorCalls:
        calls = self.calls.get(actor_id)
        if calls is None:
            calls = self.calls[actor_id] = ActorCalls(actor_id, class_name)
            if watch:
                self.rt.tell(self.rt.head, WatchActor(actor_id))
        return calls

    def _meet(self, actor_id: bytes, class_name: str) -> None:
        self._known(actor_id, class_name)

    def submit(self, task: Task) -> None:
        """A call from this process."""
        self.rt.tasks.pending[task.task_id] = task
        calls = self._known(task.actor_id, task.template.name.rpartition(".")[0])
        if self.rt.tasks.await_arguments(task) and task.deps:
            error = self.rt.tasks.failed_dependency(task)
            if error is not None:
                self.rt.tasks.fail(task, error)
                return
        calls.submit(task)
        self._dirty[task.actor_id] = calls
        if self.rt.tasks.doomed:
            self.rt.cancels.born(task)

    def resolved(self, task: Task) -> None:
        """All arguments of a call are there."""
        calls = self.calls.get(task.actor_id)
        if calls is None:
            return  # It failed with its actor, long ago.
        error = self.rt.tasks.failed_dependency(task)
        if error is not None:
            if calls.cancel_queued(task):
                self.rt.tasks.fail(task, error)
        else:
            calls.resolved(task)
        self._dirty[task.actor_id] = calls

    def turn(self) -> None:
        """Send what is due. Once a round."""
        if not self._dirty:
            return
        dirty, self._dirty = self._dirty, {}
        for calls in dirty.values():
            if calls.effects:
                for effect in calls.take():
                    self._fail(calls, effect)
            if calls.advance():
                self._push(calls)

    def _push(self, calls: ActorCalls) -> None:
        out, calls.out = calls.out, []
        templates = unknown_templates(out, calls.known)
        assert calls.worker is not None
        now = self.rt.pump.clock()
        for task in out:
            task.sent_at = now
        try:
            for specs in cut_calls([spec_of(task) for task in out]):
                if len(specs) == 1 and (why := too_big(specs[0])):
                    for task in calls.forgotten([specs[0].task_id]):
                        unsent = RaySystemError(f"{task.template.name}: {why}")
                        self.rt.tasks.fail(task, error_envelope(unsent))
                    continue
                message = PushTasks(
                    self.rt.address, templates, specs, calls.actor_id, calls.incarnation,
                    self.rt.serializers.version,
                )  # fmt: skip
                self.rt.tell(calls.worker, message)
                templates = []
            calls.known.difference_update(template.number for template in templates)
        except ValueError as error:
            text = f"the actor {calls.class_name} lives, but {error}"
            gone = ActorUnavailableError(text, calls.actor_id, class_name=calls.class_name)
            for task in calls.forgotten([task.task_id for task in out]):
                self.rt.tasks.fail(task, error_envelope(gone))

    def replied(self, worker_id: bytes, replies: list[TaskReply]) -> list[tuple[Task, TaskReply]]:
        """An actor's answers."""
        calls = self._by_worker.get(worker_id)
        if calls is None:
            return []
        done = calls.replied(replies)
        recorder = self.rt.tasks.recorder
        if done and recorder.on:
            recorder.replied(worker_id, *self._place(calls), done, self.rt.pump.clock())
        again = [
            (task, reply)
            for task, reply in done
            if reply.status == 2 and task.retries_left != 0 and not task.cancelled
        ]
        if not again:
            return done
        for task, _ in again:
            task.retries_left -= 1
            task.attempt += 1
        calls.queue.extendleft(task for task, _ in reversed(again))
        self._dirty[calls.actor_id] = calls
        return [pair for pair in done if pair not in again]

    def _place(self, calls: ActorCalls) -> tuple[bytes, int]:
        """Node and pid of the actor's present worker."""
        node_id = calls.worker.node_id if calls.worker is not None else b""
        return node_id, calls.verdict.pid if calls.verdict is not None else 0

    def _state(self, sender: bytes, message: ActorState) -> None:
        calls = self._known(message.actor_id, message.class_name, watch=False)
        if calls.worker is not None:
            self._by_worker.pop(calls.worker.process_id, None)
        inflight = [(task, task.attempt) for task in calls.inflight.values()]
        former = calls.verdict
        calls.changed(message)
        if self.rt.tasks.recorder.on:
            self._record(calls, former, inflight)
        if calls.worker is not None:
            self._by_worker[calls.worker.process_id] = calls
        if message.state == "DEAD":
            self._leaving.pop(message.actor_id, None)
            creation = self._creations.get(message.actor_id)
            if creation is not None:
                self._forget(creation)
                self._handles.pop(creation.entry.object_id, None)
            if calls.state == "DEAD":
                self._is_dead(message.actor_id)
        elif message.reason.startswith(INFEASIBLE) and message.actor_id in self._creations:
            self._is_infeasible(message.actor_id)
        self._dirty[message.actor_id] = calls

    def _is_dead(self, actor_id: bytes) -> None:
        """For good: it has no calls any more, but for those that fail in this round."""
        self._dead[actor_id] = None
        if len(self._dead) > DEAD_MAX:
            oldest = next(iter(self._dead))
            del self._dead[oldest], self.calls[oldest]
            self.limits.pop(oldest, None)

    def _is_infeasible(self, actor_id: bytes) -> None:
        """No node can ever hold an actor of ours: it waits for one that can, or ends."""
        timeout_s = self.rt.config.tasks.infeasible_timeout_s

        def waited() -> None:
            calls = self.calls.get(actor_id)
            word = calls.verdict if calls is not None else None
            if calls is None or calls.state not in ("PENDING", "RESTARTING") or word is None:
                return
            if word.reason.startswith(INFEASIBLE):
                more = f"given up after {timeout_s:g} s (infeasible_timeout_s)"
                cause = DeathCause("unschedulable", f"{word.reason}; {more}")
                self.rt.pump.request(
                    self.rt.head.process_id,
                    lambda rid: KillActor(rid, actor_id, True, cause),
                    _told,
                    _KILL_TIMEOUT_S,
                )

        if timeout_s:
            self.rt.pump.after(timeout_s, waited)

    def _record(
        self, calls: ActorCalls, former: ActorState | None, inflight: list[tuple[Task, int]]
    ) -> None:
        """The head said something new: attempts of calls that are run again have ended, and so has
        the creation of an actor of ours."""
        word, recorder, now = calls.verdict, self.rt.tasks.recorder, self.rt.pump.clock()
        if word is None or word is former:
            return
        worker = b""
        if former is not None and former.worker is not None:
            worker = former.worker.process_id
        for task, attempt in inflight:
            if task.attempt != attempt:
                where = worker, former.node_id if former else b"", former.pid if former else 0
                error = error_of(word.cause) if word.cause is not None else ("ACTOR_DIED", "")
                recorder.failed(task, error, now, where, attempt)
        creation = self._creations.get(calls.actor_id)
        if creation is not None:
            creation.record(recorder, word, now)

    def process_died(self, message: ProcessDied) -> None:
        """The worker of an actor may be dead; the head's word follows."""
        calls = self._by_worker.pop(message.process_id, None)
        if calls is not None:
            calls.disconnected()

    def cancel(self, task: Task, recursive: bool) -> bool:
        """Cancel a call; True if it is over with that."""
        calls = self._known(task.actor_id, task.template.name.rpartition(".")[0])
        if calls.cancel(task):
            self._dirty[task.actor_id] = calls  # Others may have waited behind it.
            return True
        if calls.worker is not None:
            self.rt.tell(calls.worker, CancelTask(task.task_id, False, recursive))
        return False

    def forgotten(self, worker_id: bytes, task_ids: list[bytes]) -> list[Task]:
        """Cancelled calls that an actor had not begun: they are over."""
        calls = self._by_worker.get(worker_id)
        return [] if calls is None else calls.forgotten(task_ids)

    def _fail(self, calls: ActorCalls, effect: FailCall) -> None:
        if effect.kind == "cancelled":
            self.rt.cancels.fail(effect.task)
            return
        refs: list[ObjectRef[Any]] = []
        error = error_envelope(call_failure_of(calls, effect), refs)
        inside = [ref._entry for ref in refs]
        for entry in effect.task.returns if inside else ():
            self.rt.references.nest(entry, RefGroup(self.rt.address, []), inside)
        self.rt.tasks.fail(effect.task, error)

    def _constructor_refs(self, sender: bytes, message: ConstructorRefs) -> None:
        """What is in the error of a constructor lives with the handles, which may be gone."""
        handle = self.rt.references.entries.get(object_id(TaskId(message.task_id), 1))
        if handle is not None:
            self.rt.borrowing.receive_refs(handle, message.groups)
        else:
            self.rt.ledger.decline(message.groups)

    def out_of_scope(self, entry: Entry) -> None:
        """The last handle of an actor of ours is gone."""
        actor_id = self._handles.pop(entry.object_id, None)
        if actor_id is not None:
            self._leaving[actor_id] = None
            self.rt.tell(self.rt.head, ActorOutOfScope(actor_id))

    def _head_back(self) -> None:
        """A head that has begun anew knows neither who watches nor what it has not read."""
        for actor_id, calls in self.calls.items():
            if calls.state != "DEAD":
                self.rt.tell(self.rt.head, WatchActor(actor_id))
        for actor_id in self._leaving:
            self.rt.tell(self.rt.head, ActorOutOfScope(actor_id))

    def explain(self, entry: Entry) -> str:
        """Why the result of a call is not there; "" if no pending call makes it."""
        task = self.rt.tasks.pending.get(entry.object_id[:24])
        return "" if task is None or not task.actor_id else reason_of_call(self, task)

    def pending_creations(self) -> list[Creation]:
        """Those that have not ended: their actors have not begun (again)."""
        creations = []
        for creation in self._creations.values():
            calls = self.calls.get(creation.spec.actor_id)
            if calls is None or calls.state in ("PENDING", "RESTARTING"):
                creations.append(creation)
        return creations

    def creation_reason(self, actor_id: bytes) -> str:
        """Why an actor of ours has not begun, as far as this process knows."""
        creation = self._creations.get(actor_id)
        if creation is not None and creation.unresolved:
            return f"waits for {creation.unresolved} argument(s)"
        calls = self.calls.get(actor_id)
        word = calls.verdict if calls is not None else None
        return self.rt.head_link.why() or (word.reason if word is not None else "")


def _told(reply: Message) -> None:
    if isinstance(reply, (Refused, RequestFailed)):
        log.warning("an actor that no node can hold could not be ended: %s", reply.text)
