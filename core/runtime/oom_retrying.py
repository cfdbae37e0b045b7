"""Tasks whose worker ended for want of memory: they pause and run again, or fail.

The shell of tasks/oom_retries.py, which decides; TasksPart (tasks.py) has the tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mray.runtime.oom import facts_of, oom_error
from mray.serialization.error_names import error_of
from mray.serialization.failures import error_envelope
from mray.tasks.oom_retries import Retry, retemplate
from mray.tasks.task import Task
from mray.wire.messages import DeathCause

if TYPE_CHECKING:
    from mray.runtime.tasks import TasksPart


def out_of_memory(part: TasksPart, task: Task, cause: DeathCause) -> None:
    """A task's worker ended so: the task pauses, with another template, or fails."""
    facts = facts_of(cause)
    now = part.rt.pump.clock()
    verdict = part.oom.judge(task, facts, now)
    if not isinstance(verdict, Retry):
        error = oom_error(cause, facts, task.template.name, verdict.attempts, verdict.reason)
        part.fail(task, error_envelope(error))
        return
    if part.recorder.on:
        part.recorder.failed(task, error_of(cause), now)
    former = part.dispatcher.classes[task.template.class_id]
    class_id = part.class_of(
        # A bundle has no more memory than it has.
        former.resources if former.placed else verdict.resources,
        former.job_id, former.runtime_env, verdict.exclusive, former.where,
    )  # fmt: skip
    retemplate(task, verdict, next(part.numbers), class_id)
    part.oom.wait(task, verdict.at)
    part.rt.pump.at(verdict.at, part.retry_paused)
