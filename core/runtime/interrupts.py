"""Stopping what a worker runs: CancelTask, at the worker.

Owns what was asked for, interrupting the main thread, and ending the worker for a task that is
cancelled by force. Async actors cancel their coroutines themselves (async_serving.py); what the
owner makes of it is cancels.py's.

A task is interrupted by KeyboardInterrupt, raised in the main thread by a signal's handler. Python
runs handlers in that thread, between two steps of it, so the handler knows exactly where the thread
is, and raises only

- while the task that was meant runs: ``executor.open`` names it, from before its arguments are read
  until its results are packed. A signal that comes late finds another name there, or none.
- in the user's code: in a function that mray called, not in mray itself, whose state would be torn.
  In get() and wait() it is the event loop that ends the wait.

Where it may not, the signal is sent again, ever more slowly. What a system call, a lock or a sleep
holds up ends at once, which Ray's way of interrupting does not do.

Calls of actors cannot be interrupted: others' state would be torn. A sync one may ask whether it
was cancelled, and does not come back from get(); the result of any that returns is replaced by
TaskCancelledError, as in Ray.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

from mray.exceptions import TaskCancelledError
from mray.wire.messages import CancelTask, EndTask, NotBegun, TaskReplies

if TYPE_CHECKING:
    from mray.runtime.executor import Executor
    from mray.runtime.runtime import Runtime

#: Nobody else's: not one that programs, profilers or the C library use.
_SIGNAL = signal.SIGRTMIN + 11
_AGAIN_FIRST_S = 0.002
_AGAIN_LAST_S = 0.1
#: Cancelled calls that are remembered at most: those that were done already are never asked for.
_REMEMBERED_MAX = 10_000
#: Modules that call the user's functions, and bear whatever these raise.
_CALLS_USERS = (
    "mray.runtime.executor", "mray.runtime.results", "mray.runtime.generators",
    "mray.serialization.", "mray.util.",
)  # fmt: skip


class Interrupts:
    """See the module. Made in the main thread. ``hand_back``: takes back what is not begun."""

    def __init__(
        self, runtime: Runtime, executor: Executor, hand_back: Callable[[], list[bytes]]
    ) -> None:
        self.rt = runtime
        self.executor = executor
        self._hand_back = hand_back
        self._main = threading.get_ident()
        #: The task to be interrupted, and whether it has been.
        self._target = b""
        self._landed = True
        runtime.pump.on(CancelTask, self._cancel)
        signal.signal(_SIGNAL, self._on_signal)

    # -- the loop

    def _cancel(self, sender: bytes, message: CancelTask) -> None:
        task_id, executor = message.task_id, self.executor
        if executor.pending.pop(task_id, None) is not None:
            self.rt.pump.send(sender, NotBegun([task_id]))
            return
        if message.unless_begun:
            return
        if message.recursive and task_id in executor.executing:
            self.rt.cancels.end_children(task_id, message.force)
        cancelled = executor.cancelled
        cancelled[task_id] = None
        while len(cancelled) > _REMEMBERED_MAX:
            del cancelled[next(iter(cancelled))]
        if executor.actor_spec is not None:
            if executor.cancel_async is not None:
                executor.cancel_async(task_id)
            self._interrupt(task_id)
        elif message.force:
            self._end(sender, task_id)
        else:
            self._interrupt(task_id)

    def done(self, task_id: bytes) -> None:
        """A call is over."""
        self.executor.cancelled.pop(task_id, None)
        self.rt.tasks.doomed.pop(task_id, None)

    def _interrupt(self, task_id: bytes) -> None:
        if not self._runs(task_id):
            return  # Done, or it will find itself in ``cancelled`` before it begins.
        self._target, self._landed = task_id, False
        self._knock(_AGAIN_FIRST_S)

    def _knock(self, again_s: float) -> None:
        if self._landed or not self._runs(self._target):
            return
        signal.pthread_kill(self._main, _SIGNAL)
        self.rt.pump.after(again_s, lambda: self._knock(min(again_s * 2, _AGAIN_LAST_S)))

    def _end(self, owner: bytes, task_id: bytes) -> None:
        """Have this process killed, if the task still is what it runs. The node looks again: what
        is begun meanwhile is not hit."""
        work = self.executor.open
        if work is None or work.spec.task_id != task_id:
            return
        # Should the task end before the kill, the worker goes by itself: it has given up its lease.
        self.executor.exiting = True
        self.executor.queue.put(None)
        self.rt.pump.send(owner, TaskReplies([], self._hand_back(), exiting=True))
        text = f"task {work.template.name} was cancelled by force"
        self.rt.tell(self.rt.node.address, EndTask(self.rt.process_id, work.spec.seq, text))

    def _runs(self, task_id: bytes) -> bool:
        work = self.executor.open
        return work is not None and work.spec.task_id == task_id

    # -- the main thread

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        executor = self.executor
        if self._landed or not self._runs(self._target):
            return
        error: BaseException = KeyboardInterrupt()
        is_actor = executor.actor_spec is not None
        if is_actor:
            error = TaskCancelledError(self._target.hex(), task_name=self.rt.title)
        turn = executor.turn
        if turn is not None and turn.leading:
            self._landed = True
            turn.interrupt(error)
        elif not is_actor and _in_users_code(frame):
            self._landed = True
            raise error


def _in_users_code(frame: FrameType | None) -> bool:
    """Whether the thread is in code that may raise anything: the first of mray's functions on the
    way out is one that calls the user's, and is not where the thread is."""
    innermost = frame
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name == "mray" or name.startswith("mray."):
            return name.startswith(_CALLS_USERS) and (
                frame is not innermost or name.startswith("mray.util.")
            )
        frame = frame.f_back
    return False
