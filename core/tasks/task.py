"""A submitted call as its owner keeps it, and what calls of one function share.

Values with a little arithmetic; the decisions are in dispatch.py and actor_calls.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mray.wire.messages import TaskTemplate

if TYPE_CHECKING:
    from mray.ownership.references import Entry
    from mray.tasks.streams import Stream

#: At most so many tasks wait in one worker, however short they are.
PIPELINE_DEPTH_MAX = 256


class Template:
    """Calls of one function (or actor method) with the same options."""

    __slots__ = (
        "check",
        "class_id",
        "depth",
        "max_retries",
        "name",
        "num_returns",
        "number",
        "recorded",
        "run_us",
        "target_us",
        "unordered",
        "wire",
    )

    def __init__(
        self, wire: TaskTemplate, class_id: int, max_retries: int, target_us: int = 5000
    ) -> None:
        self.wire = wire
        self.number = wire.number
        self.name = wire.name
        self.num_returns = wire.num_returns
        #: Scheduling class, -1 for actor methods.
        self.class_id = class_id
        self.max_retries = max_retries
        #: Checks the arguments of an actor method against its signature.
        self.check: Any = None
        #: Whether the ends of its calls are recorded (enable_task_events).
        self.recorded = True
        #: Of an actor's method: its calls need not leave in the order they were made.
        self.unordered = False
        self.target_us = target_us
        #: Estimate of the run time, -1 while unknown.
        self.run_us = -1.0
        #: How many may be in flight at one worker: 1 until the run time is known, then about
        #: ``target_us`` of work.
        self.depth = 1

    def ran(self, run_us: int) -> None:
        """Learn from a run. Rises fast and falls slowly: a surprise is a long task."""
        old = self.run_us
        if old < 0:
            new = float(run_us)
        elif run_us > old:
            new = (old + run_us) / 2
        else:
            new = old + (run_us - old) * 0.1
        self.run_us = new
        self.depth = max(1, min(PIPELINE_DEPTH_MAX, int(self.target_us / (new + 10.0))))


class Task:
    """One call, from ``.remote()`` to its end."""

    #: Of a generator, and else not set: what it yields.
    stream: Stream

    __slots__ = (
        "actor_id",
        "args",
        "args_entry",
        "attempt",
        "born",
        "cancelled",
        "deps",
        "holds",
        "parent",
        "ready_at",
        "retries_left",
        "returns",
        "sent_at",
        "seq",
        "stream",
        "task_id",
        "template",
        "unresolved",
    )

    def __init__(
        self,
        task_id: bytes,
        template: Template,
        args: bytes,
        deps: list[Entry],
        holds: list[Entry],
        returns: list[Entry],
    ) -> None:
        self.task_id = task_id
        self.template = template
        self.args = args
        #: Top-level reference arguments, in the order of their placeholders.
        self.deps = deps
        #: Everything kept alive until the end: deps, references inside args, args_entry.
        self.holds = holds
        self.returns = returns
        #: The object that holds args too big to travel inline.
        self.args_entry: Entry | None = None
        self.retries_left = template.max_retries
        self.attempt = 0
        #: Number of deps (and args_entry) that are not ready.
        self.unresolved = 0
        self.seq = -1
        self.actor_id = b""
        self.cancelled = False
        #: The task that submitted it, b"" for the driver. For who looks at tasks, as are the times:
        #: monotonic seconds of its submission, of its arguments (0.0: they were there) and of
        #: being sent to the present worker.
        self.parent = b""
        self.born = 0.0
        self.ready_at = 0.0
        self.sent_at = 0.0

    def fire(self, entry: Any) -> None:
        """A dependency became ready: entries call this on their waiters."""
        self.unresolved -= 1
        if not self.unresolved:
            entry.home.resolved.append(self)
