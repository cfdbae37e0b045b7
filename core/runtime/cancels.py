"""Cancelling, at the owner: what becomes of a task that is not wanted any more.

The shell of ``cancel`` in tasks/dispatch.py and tasks/actor_calls.py. Owns finding the task behind
a reference, telling the worker that has it, and having a worker ended that does not end by itself.
How a worker stops what it runs is interrupts.py's.

A cancelled task is over at once where no worker has it, else when its worker says so: with
TaskCancelledError if it had not begun, with whatever it ended with if it had. It is never run
again.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from mray.exceptions import TaskCancelledError
from mray.ownership.references import Entry
from mray.serialization.failures import error_envelope
from mray.tasks.task import Task
from mray.wire.messages import CancelObject, CancelTask, EndTask, NotBegun

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime

log = logging.getLogger("mray.runtime")

_ACTOR_BY_FORCE = (
    "force=True ends a worker, and this task runs in an actor: cancel it without force, or kill() "
    "the actor"
)


class CancelsPart:
    """See the module."""

    def __init__(self, runtime: Runtime) -> None:
        self.rt = runtime
        self._again_s = runtime.config.tasks.cancellation_retry_ms / 1000
        pump = runtime.pump
        pump.on(CancelObject, self._asked)
        pump.on(NotBegun, self._not_begun)

    # ----------------------------------------------------------------------------- any thread

    def cancel(self, entry: Entry, force: bool, recursive: bool) -> None:
        """Cancel the task that makes an object, if it is not done. ValueError with ``force`` for a
        call of an actor."""
        rt = self.rt
        owner = entry.owner
        if owner is not None:
            rt.post_to(owner, CancelObject(entry.object_id, force, recursive))
        elif not force:

            def do() -> None:
                self._cancel_object(entry.object_id, False, recursive)

            rt.post(do)
        else:
            refused: list[bool] = []
            lock = threading.Lock()
            lock.acquire()

            def decide() -> None:
                try:
                    refused.append(not self._cancel_object(entry.object_id, True, recursive))
                finally:
                    lock.release()

            rt.post(decide)
            rt.block_on(lock, None)
            if refused == [True]:
                raise ValueError(_ACTOR_BY_FORCE)

    def take_back(self, entry: Entry) -> None:
        """Cancel the task of this process that makes an object, if it has not begun. One that has
        ends as it will, but is not run again."""

        def do() -> None:
            task = self.rt.tasks.pending.get(entry.object_id[:24])
            if task is not None:
                self.end(task, False, False, unless_begun=True)

        self.rt.post(do)

    # ------------------------------------------------------------------------------- the loop

    def _cancel_object(self, object_id: bytes, force: bool, recursive: bool) -> bool:
        """False if that is refused."""
        task = self.rt.tasks.pending.get(object_id[:24])
        if task is not None:
            if force and task.actor_id:
                return False
            self.end(task, force, recursive)
        return True

    def _asked(self, sender: bytes, message: CancelObject) -> None:
        if not self._cancel_object(message.object_id, message.force, message.recursive):
            log.warning(
                "a task was not cancelled as %s asks: %s", sender.hex()[:8], _ACTOR_BY_FORCE
            )

    def end(self, task: Task, force: bool, recursive: bool, *, unless_begun: bool = False) -> None:
        """Cancel a task of this process that is not over. Actors' calls heed no ``force``."""
        rt = self.rt
        if task.actor_id:
            if rt.actors.cancel(task, recursive):
                self.fail(task)
            return
        if task.unresolved:
            task.cancelled = True
            self.fail(task)
            return
        lease = rt.tasks.dispatcher.cancel(task, rt.pump.clock())
        if lease is None:
            self.fail(task)
            return
        rt.tell(lease.worker, CancelTask(task.task_id, force, recursive, unless_begun))
        if force:
            worker_id, seq = lease.worker.process_id, task.seq
            rt.pump.after(self._again_s, lambda: self._insist(task, worker_id, seq))

    def _insist(self, task: Task, worker_id: bytes, seq: int) -> None:
        """The worker has not ended: it may be stopped, or in code that lets no thread run."""
        lease = self.rt.tasks.dispatcher.by_worker.get(worker_id)
        if lease is None or lease.inflight.get(task.task_id) is not task or task.seq != seq:
            return
        text = f"task {task.template.name} was cancelled by force"
        self.rt.leasing.tell(lease.node, EndTask(worker_id, seq, text))
        self.rt.pump.after(self._again_s, lambda: self._insist(task, worker_id, seq))

    def _not_begun(self, sender: bytes, message: NotBegun) -> None:
        dispatcher = self.rt.tasks.dispatcher
        if sender in dispatcher.by_worker:
            gone = dispatcher.forgotten(sender, message.task_ids, self.rt.pump.clock())
        else:
            gone = self.rt.actors.forgotten(sender, message.task_ids)
        for task in gone:
            self.fail(task)

    def fail(self, task: Task) -> None:
        """The task is over, cancelled."""
        error = TaskCancelledError(task.task_id.hex(), task_name=task.template.name)
        self.rt.tasks.fail(task, error_envelope(error))

    # -- in a worker

    def end_children(self, parent: bytes, force: bool) -> None:
        """Cancel what a task that runs here has submitted, and what it will submit."""
        self.rt.tasks.doomed[parent] = force
        for task in [each for each in self.rt.tasks.pending.values() if each.parent == parent]:
            self.end(task, force, True)

    def born(self, task: Task) -> None:
        """A task was submitted here, perhaps by one that is cancelled with its children."""
        force = self.rt.tasks.doomed.get(task.parent)
        if force is not None and task.task_id in self.rt.tasks.pending:
            self.end(task, force, True)
