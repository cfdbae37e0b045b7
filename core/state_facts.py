"""Tasks, and functions with all their tasks, as plain facts under Ray's names.

For JSON, `mray get`, `mray summary` and `mray.util.state`. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from mray.resources import to_float
from mray.task_filters import parent_of
from mray.wire.messages import FunctionPeak, TaskCount, TaskView

#: Entries as JSON has them. Any: JSON.
Facts = dict[str, Any]

#: Facts that are told only with ``detail``.
DETAILS: Final = (
    "required_resources", "creation_time_ms", "start_time_ms", "end_time_ms", "error_message",
    "events", "owner_id", "peak_memory_bytes",
)  # fmt: skip


def task_facts(view: TaskView, now_unix_s: float, detail: bool = True) -> Facts:
    """What is known of an attempt. Unknown is None; times are milliseconds of the clock."""
    facts: Facts = {
        "task_id": view.task_id.hex(),
        "attempt_number": view.attempt,
        "name": view.name,
        "state": view.state,
        "job_id": view.job_id.hex(),
        "actor_id": view.actor_id.hex() or None,
        "type": view.type,
        "func_or_class_name": view.name,
        "parent_task_id": parent_of(view).hex(),
        "node_id": view.node_id.hex() or None,
        "worker_id": view.worker_id.hex() or None,
        "worker_pid": view.pid or None,
        "error_type": view.error_type or None,
        "duration_s": duration_s(view, now_unix_s),
        "waits_for": view.reason or None,
    }
    if detail:
        facts |= {
            "required_resources": to_float(view.resources),
            "creation_time_ms": _ms(view.created_unix_s),
            "start_time_ms": _ms(view.start_unix_s),
            "end_time_ms": _ms(view.end_unix_s),
            "error_message": view.error_message or None,
            "events": [{"state": state, "created_ms": _ms(at)} for state, at in _transitions(view)],
            "owner_id": view.owner_id.hex(),
            "peak_memory_bytes": view.peak_bytes or None,
        }
    return facts


def function_facts(rows: Iterable[TaskCount], peaks: Iterable[FunctionPeak]) -> list[Facts]:
    """What is known of each function's tasks. ``peaks`` of several nodes: the most of them counts.
    Unknown is None."""
    memory: dict[str, tuple[int, int]] = {}
    for peak in peaks:
        p50, most = memory.get(peak.name, (0, 0))
        memory[peak.name] = max(p50, peak.p50_bytes), max(most, peak.max_bytes)
    return [
        {
            "func_or_class_name": row.name,
            "type": row.type,
            "state_counts": row.states,
            "mean_s": row.mean_us / 1e6 if row.max_us else None,
            "p50_s": row.p50_us / 1e6 if row.max_us else None,
            "max_s": row.max_us / 1e6 if row.max_us else None,
            "peak_memory_p50_bytes": memory.get(row.name, (0, 0))[0] or None,
            "peak_memory_max_bytes": memory.get(row.name, (0, 0))[1] or None,
            "required_resources": to_float(row.resources),
        }
        for row in rows
    ]


def duration_s(view: TaskView, now_unix_s: float) -> float | None:
    """How long the attempt ran, or runs; None where it has not begun."""
    if not view.start_unix_s:
        return None
    return round(max(0.0, (view.end_unix_s or now_unix_s) - view.start_unix_s), 6)


def _transitions(view: TaskView) -> list[tuple[str, float]]:
    steps = [
        ("PENDING_ARGS_AVAIL", view.created_unix_s),
        ("PENDING_NODE_ASSIGNMENT", view.ready_unix_s),
        ("SUBMITTED_TO_WORKER", view.sent_unix_s),
        ("RUNNING", view.start_unix_s),
        (view.state, view.end_unix_s),
    ]
    return [(state, at) for state, at in steps if at]


def _ms(unix_s: float) -> int | None:
    return round(unix_s * 1000) if unix_s else None
