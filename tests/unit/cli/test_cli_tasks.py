"""What commands show of tasks, against a cluster that answers from a table."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mray.wire.messages import (
    ActorList,
    CountTasks,
    FunctionPeak,
    GetMemory,
    GetPeaks,
    GetRunning,
    GetStacks,
    GetTaskEvents,
    GetTasks,
    ListActors,
    MemoryReport,
    PeakMemory,
    Peaks,
    Running,
    Stacks,
    StoreStats,
    TaskCount,
    TaskCounts,
    TaskView,
    TaskViews,
)


def view(number: int, state: str = "FINISHED", **facts: Any) -> TaskView:
    values: dict[str, Any] = {
        "task_id": number.to_bytes(8, "little") + b"\x99" * 12 + b"\x01\0\0\0", "attempt": 0,
        "name": "train", "type": "NORMAL_TASK", "state": state, "job_id": b"\x01\0\0\0",
        "parent_id": b"", "actor_id": b"", "owner_id": b"o" * 28, "worker_id": b"w" * 28,
        "node_id": b"n" * 28, "pid": 42, "resources": {"CPU": 10_000},
        "created_unix_s": 100.0 + number, "ready_unix_s": 100.0 + number,
        "sent_unix_s": 101.0 + number, "start_unix_s": 102.0 + number,
        "end_unix_s": 103.5 + number,
    }  # fmt: skip
    return TaskView(**values | facts)


@pytest.fixture
def tasks(cluster):
    """A cluster with one waiting task and some that ended."""
    waiting = view(
        9, "PENDING_NODE_ASSIGNMENT", start_unix_s=0.0, end_unix_s=0.0, pid=0, worker_id=b"",
        reason="queued: waits for 1 CPU (5 tasks queued, 2 workers leased)",
    )  # fmt: skip
    failed = view(3, "FAILED", error_type="WORKER_DIED", error_message="exit code 3")
    cluster.answers |= {
        GetRunning: Running(7, [(b"w" * 28, [])]),
        GetTasks: TaskViews(7, 1, [waiting]),
        GetTaskEvents: TaskViews(7, 2_272_419, [view(2), failed, waiting], 1_000),
        GetPeaks: Peaks(7, [PeakMemory(view(2).task_id, 0, 3 << 20)],
                        [FunctionPeak("train", 2, 2 << 20, 3 << 20)]),
        CountTasks: TaskCounts(
            7, [TaskCount("train", "NORMAL_TASK", {"FINISHED": 2}, {"CPU": 10_000}, 3, 2, 5)]
        ),
        ListActors: ActorList(7, []),
        GetStacks: Stacks(7, [(42, "worker", "train", "Thread 1\n  File x")]),
    }  # fmt: skip
    return cluster


def test_tasks_are_shown_newest_first_and_what_is_left_out_is_said(mray, tasks):
    outcome = mray("list", "tasks", "--limit", "2")
    header, newest, failed = outcome.out.splitlines()
    assert header.split() == ["TASK_ID", "NAME", "STATE", "ATT", "RAN", "PID", "NOTE"]
    assert newest.split()[:3] == ["0900000000000000" + "99" * 4, "train", "PENDING_NODE_ASSIGNMENT"]
    assert "waits for 1 CPU" in newest
    assert failed.endswith("WORKER_DIED: exit code 3")
    assert any("showing 2 of 2,272,419 tasks" in line for line in outcome.err_lines)
    assert any("1,000 attempts that ended longest ago" in line for line in outcome.err_lines)


def test_filters_and_limits_travel_with_the_question(mray, tasks):
    mray("list", "tasks", "-f", "state=RUNNING", "-f", "name!=f", "--limit", "7")
    wanted = [("state", "=", "RUNNING"), ("name", "!=", "f")]
    for kind in (GetTasks, GetTaskEvents):
        (question,) = tasks.questions(kind)
        assert (question.filters, question.limit) == (wanted, 7)


def test_a_filter_that_there_is_not_is_named_before_anybody_is_asked(mray, tasks):
    outcome = mray("list", "tasks", "-f", "colour=red")
    assert (outcome.code, tasks.questions(GetTasks)) == (2, [])
    assert "there is no 'colour'" in outcome.err


def test_details_are_yaml_and_json_on_demand(mray, tasks):
    (facts, *_) = json.loads(mray("list", "tasks", "--json").out)
    assert facts["waits_for"].startswith("queued")
    lines = mray("list", "tasks", "--detail").out.splitlines()
    assert f'- task_id: "{view(9).task_id.hex()}"' in lines
    assert "  peak_memory_bytes: 3145728" in lines
    assert "    CPU: 1.0" in lines
    assert mray("list", "tasks", "--detail", "--format", "table").out.startswith("TASK_ID")


def test_get_refuses_to_guess(mray, tasks):
    tasks.answers[GetTasks] = TaskViews(7, 0, [])
    tasks.answers[GetTaskEvents] = TaskViews(7, 2, [view(256 + 2), view(2)])
    outcome = mray("get", "task", "02")
    assert outcome.code == 1
    assert "could be any of 2 tasks" in outcome.err
    (facts,) = json.loads(mray("get", "task", view(2).task_id.hex(), "--json").out)
    assert facts["duration_s"] == 1.5
    assert mray("get", "task", "77").code == 1
    assert mray("get", "pet", "77").code == 2


def test_the_summary_counts_states_and_memory(mray, tasks):
    first, _, header, row = mray("summary", "tasks").out.splitlines()
    assert first == "4 attempts of 1 function"
    assert header.split("  ")[0] == "NAME"
    assert row.split() == [
        "train", "4", "2", "us", "3", "us", "5", "us", "2", "MiB", "3", "MiB", "1", "CPU",
    ]  # fmt: skip
    assert mray("summary", "pets").code == 2
    assert mray("summary", "actors").out == "no actors\n"


def test_the_timeline_goes_where_it_is_told(mray, tasks, home):
    tasks.answers[GetTasks] = TaskViews(7, 0, [])
    outcome = mray("timeline", "-o", "-")
    assert [event["ph"] for event in json.loads(outcome.out)].count("X") == 2
    assert "run.json: 2 attempts" in mray("timeline", "-o", "run.json").out
    assert json.loads((home / "run.json").read_text())
    assert mray("timeline", "-o", "/nowhere/run.json").code == 1


def test_why_names_what_to_do(mray, tasks):
    tasks.answers[GetMemory] = MemoryReport(7, StoreStats(7, 0, 0, 0, 0), [], [])
    tasks.answers[GetTaskEvents] = TaskViews(7, 0, [])
    outcome = mray("why", "0900000000000000")
    reason, advice = outcome.out.splitlines()
    assert reason.startswith("train is PENDING_NODE_ASSIGNMENT: queued: waits for 1 CPU")
    assert "mray list tasks -f state=RUNNING" in advice
    assert json.loads(mray("why", "0900000000000000", "--json").out)["advice"]
    assert mray("why", "7777").code == 1


def test_stacks_are_headed_by_whose_they_are(mray, tasks):
    assert mray("stack").out.startswith("== worker pid 42, ip 10.0.0.1, train ==\nThread 1\n")
    assert tasks.questions(GetStacks)[0].pids == []
    mray("stack", "42")
    assert tasks.questions(GetStacks)[1].pids == [42]
    assert mray("stack", "train").code == 2
    tasks.answers[GetStacks] = Stacks(7, [])
    assert mray("stack", "42").code == 1
