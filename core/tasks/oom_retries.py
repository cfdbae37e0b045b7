"""Retries of tasks that ended for want of memory: whether, when, and with how much of it.

Machine; all times are monotonic seconds given by the caller. Owns the tasks that pause before such
a retry. These retries are not counted in max_retries, but a task with max_retries=0 has none, and
the node may say that another one would be in vain. Each asks for more memory than was seen of the
task; from the second on it has its node to itself. Dispatching is dispatch.py's.

A retried task has a template of its own, so other tasks pay nothing for any of this.
"""

from __future__ import annotations

import heapq
from typing import Final

import msgspec

from mray.machine import InvariantError
from mray.resources import UNIT
from mray.tasks.task import Task, Template
from mray.units import MIB
from mray.wire.messages import DeathCause, TaskTemplate
from mray.wire.oom import OomAttempt, OomFacts

_DELAY_MAX_S: Final = 60.0
#: Requests are rounded up to this, so that equal tasks share leases.
_STEP_BYTES: Final = 64 * MIB
#: From this death on the next run has its node to itself.
_ALONE_AFTER: Final = 2


class OomRetryRules(msgspec.Struct, frozen=True, kw_only=True):
    """What the configuration says."""

    #: -1: without end.
    retries_max: int = -1
    delay_base_s: float = 1.0
    memory_factor: float = 1.5


class RetryTemplate(Template):
    """The template of one task that ended for want of memory: what it asks for now, and its past.

    Nothing is queued behind it on a worker.
    """

    __slots__ = ("attempts", "exclusive")

    def __init__(
        self,
        wire: TaskTemplate,
        class_id: int,
        max_retries: int,
        exclusive: bool,
        attempts: tuple[OomAttempt, ...],
    ) -> None:
        super().__init__(wire, class_id, max_retries, target_us=0)
        self.exclusive = exclusive
        #: The runs that ended so, first to last.
        self.attempts = attempts


class OutOfMemory(msgspec.Struct, frozen=True):
    """Of dispatch.py: the task's worker ended for want of memory while it ran it. The task is in no
    queue any more; judge it."""

    task: Task
    cause: DeathCause


class Retry(msgspec.Struct, frozen=True):
    """Run it again at ``at``, asking for ``resources``."""

    at: float
    resources: dict[str, int]
    exclusive: bool
    attempts: tuple[OomAttempt, ...]


class GiveUp(msgspec.Struct, frozen=True):
    """It fails; ``reason`` says why it is not run again."""

    reason: str
    attempts: tuple[OomAttempt, ...]


class OomRetries:
    """See the module."""

    def __init__(self, rules: OomRetryRules) -> None:
        self.rules = rules
        self._waiting: list[tuple[float, int, Task]] = []
        self._count = 0

    def judge(self, task: Task, facts: OomFacts | None, now: float) -> Retry | GiveUp:
        """What becomes of a task whose worker ended for want of memory. Changes nothing.

        ``facts`` None: the node could not tell more than that.
        """
        template = task.template
        before = template.attempts if isinstance(template, RetryTemplate) else ()
        resources = template.wire.resources
        asked = resources.get("memory", 0) // UNIT
        peak = runtime_s = 0.0
        if facts is not None:
            peak = max(facts.victim.peak_bytes, facts.victim.used_bytes)
            runtime_s = facts.victim.runtime_s
        attempt = OomAttempt(
            number=task.attempt + 1, peak_bytes=int(peak), requested_bytes=asked,
            runtime_s=runtime_s,
        )  # fmt: skip
        attempts = (*before, attempt)
        if template.max_retries == 0:
            return GiveUp("not retried: max_retries is 0", attempts)
        if facts is not None and not facts.should_retry:
            return GiveUp(facts.retry_reason, attempts)
        if 0 <= self.rules.retries_max < len(attempts):
            reason = f"not retried: its {self.rules.retries_max} retries for want of memory are up"
            return GiveUp(reason, attempts)
        wanted = self._memory(asked, attempts, facts)
        if wanted:
            resources = {**resources, "memory": wanted * UNIT}
        exclusive = len(attempts) >= _ALONE_AFTER
        return Retry(now + self.delay_s(len(attempts)), resources, exclusive, attempts)

    def delay_s(self, count: int) -> float:
        """The pause after the ``count``-th such end."""
        return min(self.rules.delay_base_s * 2.0 ** min(count - 1, 30), _DELAY_MAX_S)

    def _memory(self, asked: int, attempts: tuple[OomAttempt, ...], facts: OomFacts | None) -> int:
        """Bytes to ask for: more than was ever seen, never more than the node can lend."""
        room = facts.memory_resource_bytes if facts is not None else 0
        if room <= 0:
            return asked
        seen = max(asked, *(attempt.peak_bytes for attempt in attempts))
        wanted = -(-int(seen * self.rules.memory_factor) // _STEP_BYTES) * _STEP_BYTES
        return max(asked, min(wanted, room))

    # -- the pause

    def wait(self, task: Task, at: float) -> None:
        """The task pauses until then."""
        self._count += 1
        heapq.heappush(self._waiting, (at, self._count, task))

    def due(self, now: float) -> list[Task]:
        """Those whose pause is over; they are not waited for any more."""
        tasks = []
        while self._waiting and self._waiting[0][0] <= now:
            tasks.append(heapq.heappop(self._waiting)[2])
        return tasks

    def deadline(self) -> float | None:
        """When the next pause is over."""
        return self._waiting[0][0] if self._waiting else None

    def explain(self, task: Task, now: float) -> str:
        """Why a task does not run; "" if it does not pause."""
        for at, _, waiting in self._waiting:
            if waiting is task:
                left_s = max(0.0, at - now)
                return (
                    f"OOM_BACKOFF({left_s:.0f} s left, attempt {task.attempt + 1}): its last run "
                    "ended for want of memory"
                )
        return ""

    def check(self) -> None:
        """Raise InvariantError on a contradiction."""
        tasks = [id(task) for _, _, task in self._waiting]
        if len(tasks) != len(set(tasks)):
            raise InvariantError("a task pauses twice")


def retemplate(task: Task, retry: Retry, number: int, class_id: int) -> None:
    """Give the task the template of its next run."""
    former = task.template
    wire = msgspec.structs.replace(former.wire, number=number, resources=retry.resources)
    task.template = RetryTemplate(
        wire, class_id, former.max_retries, retry.exclusive, retry.attempts
    )
    task.template.recorded = former.recorded
    task.attempt += 1
