"""Why a task that was sent to a worker has not ended."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from mray.runtime.explaining import reason_of


def told(stealing: bool, asked_s: float) -> tuple[str, str]:
    """What is said of the task that runs and of the one behind it."""
    first, second = (
        SimpleNamespace(task_id=name, unresolved=0, template=SimpleNamespace(class_id=1))
        for name in (b"a", b"b")
    )
    now = time.monotonic()
    lease = SimpleNamespace(
        inflight={b"a": first, b"b": second}, progress_at=now, pid=77, stealing=stealing,
        steal_at=now - asked_s,
    )  # fmt: skip
    tasks: Any = SimpleNamespace(
        oom=SimpleNamespace(explain=lambda task, now: ""),
        rt=SimpleNamespace(pump=SimpleNamespace(clock=lambda: now)),
        dispatcher=SimpleNamespace(classes={1: SimpleNamespace(leases=[lease])}),
    )
    runs, waits = reason_of(tasks, first), reason_of(tasks, second)  # type: ignore[arg-type]
    return runs, waits


def test_a_worker_that_does_not_answer_is_why_tasks_behind_it_wait() -> None:
    runs, waits = told(True, 12.0)
    assert "does not answer" not in runs
    assert waits.startswith("is queued behind another task in worker pid 77")
    assert "that worker does not answer: asked 12.0 s ago to hand back what it has not" in waits


@pytest.mark.parametrize(("stealing", "asked_s"), [(False, 12.0), (True, 0.1)])
def test_one_that_answers_or_was_asked_just_now_is_not_blamed(
    stealing: bool, asked_s: float
) -> None:
    assert "does not answer" not in told(stealing, asked_s)[1]
