"""`mray oom explain`: what is shown of a node's memory and of the order of its victims."""

from __future__ import annotations

import json

import pytest

from mray.wire.messages import GetOomState, OomState

CHOICE = {
    "worker_id": "77" * 28, "pid": 71, "kind": "task", "name": "leaks", "owner_id": "64" * 28,
    "retriable": True, "private_bytes": 3 * 2**30, "requested_bytes": 0, "age_s": 1.5,
    "rule": "retriable", "why": "its owner has 2 here; the newest of them", "should_retry": True,
    "retry_reason": "retried: other tasks of its owner go on",
}  # fmt: skip
FACTS = {
    "node_id": "6d" + "11" * 27, "monitor": "on", "phase": "watching", "admits_tasks": False,
    "refresh_ms": 250, "policy": "group_by_owner", "enforce_memory": "off",
    "used_bytes": 14 * 2**30, "limit_bytes": 16 * 2**30, "threshold_bytes": 15 * 2**30,
    "soft_mark_bytes": 13 * 2**30, "source": "/proc/meminfo", "would_kill_now": False,
    "ranks": [CHOICE], "never": [], "drivers": [{"pid": 9, "private_bytes": 2**20}],
    "store_used_bytes": 0,
}  # fmt: skip


@pytest.fixture
def told(cluster):
    """Make the node tell these facts."""

    def tell(**changes):
        cluster.answers[GetOomState] = OomState(7, json.dumps({**FACTS, **changes}).encode())

    return tell


def test_it_shows_memory_and_who_would_be_ended_in_order(mray, told):
    told()
    outcome = mray("oom", "explain")
    assert (outcome.code, outcome.err) == (0, "")
    for part in (
        "Node 6d1111111111: 14 GiB of 16 GiB used",
        "15 GiB (1 GiB left)",
        "13 GiB (no new tasks are admitted)",
        "on, watching; policy group_by_owner",
        "pid 9, 1 MiB; never ended",
        "Would be ended if memory ran short, in this order:",
        "1   71  task leaks   3 GiB  retriable  yes",
    ):
        assert part in outcome.out


def test_above_the_threshold_it_says_so(mray, told):
    told(used_bytes=15 * 2**30 + 2**29, would_kill_now=True)
    out = mray("oom", "explain").out
    assert "(512 MiB above it)" in out
    assert "Would be ended now" in out


def test_without_workers_nobody_could_be_ended(mray, told):
    told(ranks=[], monitor="off")
    out = mray("oom", "explain").out
    assert "No worker could be ended." in out
    assert "monitor       off" in out


def test_json_is_what_the_nodes_said(mray, told):
    told()
    assert json.loads(mray("oom", "explain", "--json").out) == [FACTS]
