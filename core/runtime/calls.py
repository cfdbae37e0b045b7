"""One call as a worker runs it: what came, what goes back, and what the present thread runs.

Values. executor.py runs them, worker.py takes them in and sends the replies.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import Any

from mray.exceptions import TaskCancelledError
from mray.ownership.references import Entry
from mray.wire.messages import Address, Located, TaskSpec, TaskTemplate

#: What became of a call: TaskReply.status.
OK, RAISED, RETRY, CANCELLED, STALE, NO_ARGUMENTS = 0, 1, 2, 3, 4, 5


class Work:
    """One call to run."""

    __slots__ = ("owner", "spec", "template")

    def __init__(self, owner: Address, template: TaskTemplate, spec: TaskSpec) -> None:
        self.owner = owner
        self.template = template
        self.spec = spec


class Done:
    """What the loop gets back: a reply, and what must be registered before it leaves."""

    __slots__ = (
        "borrowed",
        "exiting",
        "flow",
        "nested",
        "owner",
        "returns",
        "run_us",
        "spec",
        "status",
    )

    def __init__(self, owner: Address, spec: TaskSpec, status: int) -> None:
        self.owner = owner
        self.spec = spec
        self.status = status
        self.run_us = 0
        #: (data, located) of each return.
        self.returns: list[tuple[bytes | None, Located | None]] = []
        #: For each return, the references inside it.
        self.nested: list[list[Any]] = []
        #: Entries of references among the arguments.
        self.borrowed: list[Entry] = []
        self.exiting = False
        #: Of a running generator: generators.Flow.
        self.flow: Any = None


class RunningTask(threading.local):
    """What the present thread runs, for get_runtime_context()."""

    work: Work | None = None


running = RunningTask()
#: The same for the coroutines of an async actor, which share a thread.
async_work: ContextVar[Work | None] = ContextVar("async_work", default=None)
#: Calls of this process that were cancelled after they had been taken up.
cancelled: dict[bytes, None] = {}


def present_work() -> Work | None:
    """What the calling thread or coroutine runs, None for nothing."""
    return running.work or async_work.get()


def cancelled_error(work: Work) -> TaskCancelledError:
    """What a cancelled call's caller gets."""
    return TaskCancelledError(work.spec.task_id.hex(), task_name=work.template.name)


def running_task() -> bytes:
    """The id of the task that the calling thread or coroutine runs, b"" for none."""
    work = present_work()
    return work.spec.task_id if work is not None else b""
