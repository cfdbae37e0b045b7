"""Why a task has not ended, in words: for warnings of get(), `mray list`, `mray why`.

Reads the machines of tasks and actors and changes nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from mray.resources import to_float
from mray.units import format_bytes

if TYPE_CHECKING:
    from mray.runtime.actors import ActorsPart
    from mray.runtime.tasks import TasksPart
    from mray.tasks.lease import Lease
    from mray.tasks.task import Task


#: A worker whose loop turns answers in a millisecond.
_DEAF_S: Final = 1.0


def reason_of(tasks: TasksPart, task: Task) -> str:
    """Why a task of this process, no actor's call, has not ended."""
    if task.unresolved:
        waiting = [dep.name or dep.object_id.hex()[:8] for dep in task.deps if not dep.ready]
        return f"waits for {task.unresolved} argument(s): {', '.join(waiting[:5])}"
    pause = tasks.oom.explain(task, tasks.rt.pump.clock())
    if pause:
        return pause
    class_id = task.template.class_id
    sclass = tasks.dispatcher.classes[class_id]
    for lease in sclass.leases:
        if task.task_id in lease.inflight:
            age_s = time.monotonic() - lease.progress_at
            first = next(iter(lease.inflight)) == task.task_id
            state = "runs" if first else "is queued behind another task"
            told = f"{state} in worker pid {lease.pid} (last progress {age_s:.1f} s ago)"
            return told if first else f"{told}{_deaf(lease, time.monotonic())}"
    placed = tasks.rt.placing.reason_of(sclass)
    if placed:
        return placed
    infeasible = tasks.rt.leasing.infeasible.get(class_id)
    if infeasible:
        return f"infeasible: {infeasible}"
    setting_up = tasks.rt.leasing.setting_up.get(class_id)
    if setting_up:
        return setting_up
    away = ", ".join(node.hex()[:10] for node in sclass.asked.away)
    return (
        f"queued: waits for {needs_of(sclass.resources)} ({len(sclass.queue)} tasks queued, "
        f"{len(sclass.leases)} workers leased{f', asked of node {away}' if away else ''})"
    )


def reason_of_call(actors: ActorsPart, task: Task) -> str:
    """Why an actor's call, made by this process, has not ended."""
    calls = actors.calls.get(task.actor_id)
    if calls is None:
        return "not sent yet"
    if task.unresolved:
        return f"waits for {task.unresolved} argument(s)"
    if calls.state != "ALIVE":
        why = actors.rt.head_link.why()
        if not why and calls.verdict is not None:
            why = calls.verdict.reason
        return f"the actor {calls.class_name} is {calls.state}" + (f": {why}" if why else "")
    if task.task_id in calls.inflight:
        ahead = list(calls.inflight).index(task.task_id)
        return "sent to the actor" + (f", behind {ahead} other calls" if ahead else "")
    return "behind a call that waits for its arguments"


def _deaf(lease: Lease, now: float) -> str:
    """That a worker does not hand back what it has not begun; "" where it does.

    Nobody else can take that: what the worker begins next, it alone knows. So until it answers or
    ends, its tasks (about pipeline_target_ms of work) wait with it.
    """
    silent_s = now - lease.steal_at
    if not lease.stealing or silent_s < _DEAF_S:
        return ""
    return (
        f"; that worker does not answer: asked {silent_s:.1f} s ago to hand back what it has not "
        "begun, it is stopped, or its task holds the interpreter in a C call"
    )


def needs_of(resources: dict[str, int]) -> str:
    """What a task asks for: "1 CPU, 2.0 GiB memory"; "a worker" for nothing."""
    parts = [
        f"{format_bytes(int(amount)) if name == 'memory' else format(amount, 'g')} {name}"
        for name, amount in to_float(resources).items()
        if amount
    ]
    return ", ".join(parts) or "a worker"
