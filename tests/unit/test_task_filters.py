"""Filters of tasks, counting them, and their trace."""

from __future__ import annotations

from typing import Any

import pytest

from mray.state_facts import task_facts
from mray.task_counts import Counter, added
from mray.task_filters import checked, passes
from mray.trace import trace_of
from mray.wire.messages import TaskView


def view(**facts: Any) -> TaskView:
    values: dict[str, Any] = {
        "task_id": b"\x07" + bytes(23), "attempt": 0, "name": "f", "type": "NORMAL_TASK",
        "state": "FINISHED", "job_id": b"\x01\0\0\0", "parent_id": b"", "actor_id": b"",
        "owner_id": b"o" * 28, "worker_id": b"w" * 28, "node_id": b"n" * 28, "pid": 42,
        "resources": {"CPU": 10_000}, "created_unix_s": 1.0, "ready_unix_s": 1.0,
        "sent_unix_s": 2.0, "start_unix_s": 3.0, "end_unix_s": 4.0,
    }  # fmt: skip
    return TaskView(**values | facts)


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ([("state", "=", "finished")], True),
        ([("state", "!=", "FINISHED")], False),
        ([("task_id", "=", "07000000")], True),
        ([("task_id", "=", "07")], False),
        ([("name", "=", "f"), ("pid", "=", "43")], False),
        ([("parent_task_id", "=", "ffffff")], True),
        ([("error_type", "=", "")], True),
        ([("of_another_version", "=", "x")], False),
    ],
)
def test_which_tasks_pass(filters: list[tuple[str, str, str]], wanted: bool) -> None:
    assert passes(view(), filters) is wanted


def test_filters_that_there_are_not_are_named() -> None:
    with pytest.raises(ValueError, match="there is no 'colour'; there are task_id"):
        checked([("colour", "=", "red")])
    with pytest.raises(ValueError, match="'<' is neither"):
        checked([("name", "<", "f")])


def test_counts_of_owners_and_of_the_head_add_up() -> None:
    ended, waiting = Counter(), Counter()
    for run_s in (1, 2, 6):
        ended.add(view(end_unix_s=3.0 + run_s))
    ended.add(view(state="FAILED"))
    waiting.add(view(state="RUNNING", end_unix_s=0.0))
    (row,) = added([*waiting.rows(), *ended.rows()])
    assert row.states == {"RUNNING": 1, "FINISHED": 3, "FAILED": 1}
    assert (row.p50_us, row.mean_us, row.max_us) == (2_000_000, 3_000_000, 6_000_000)


def test_facts_tell_the_whole_life_of_a_task() -> None:
    facts = task_facts(view(), 10.0)
    assert facts["parent_task_id"] == "f" * 40 + "01000000"
    assert facts["duration_s"] == 1.0
    assert [event["state"] for event in facts["events"]] == [
        "PENDING_ARGS_AVAIL", "PENDING_NODE_ASSIGNMENT", "SUBMITTED_TO_WORKER", "RUNNING",
        "FINISHED",
    ]  # fmt: skip
    assert task_facts(view(end_unix_s=0.0, state="RUNNING"), 10.0)["duration_s"] == 7.0
    assert task_facts(view(start_unix_s=0.0), 10.0)["duration_s"] is None
    assert "events" not in task_facts(view(), 10.0, detail=False)


def test_a_trace_has_a_line_for_each_worker_and_a_bar_for_each_attempt() -> None:
    events = trace_of(
        [view(start_unix_s=5.0, end_unix_s=0.0, state="RUNNING"), view(), view(pid=43),
         view(start_unix_s=0.0)],
        10.0, {b"n" * 28: "node 10.0.0.1"},
    )  # fmt: skip
    bars = [event for event in events if event["ph"] == "X"]
    assert [(bar["ts"], bar["dur"]) for bar in bars] == [(3e6, 1e6), (3e6, 1e6), (5e6, 5e6)]
    names = [event["args"]["name"] for event in events if event["ph"] == "M"]
    assert sorted(names) == ["node 10.0.0.1", "worker pid 42", "worker pid 43"]
