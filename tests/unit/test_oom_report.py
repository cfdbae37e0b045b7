"""The text and the fields of OutOfMemoryError."""

from __future__ import annotations

import pickle
from typing import Any

import msgspec
import pytest

from mray.runtime.oom import facts_of, is_oom, oom_error
from mray.units import GIB, MIB
from mray.wire.messages import DeathCause
from mray.wire.oom import OomAttempt, OomFacts, OomProcess, OomVictim

VICTIM = OomVictim(
    kind="task", name="leaks", pid=71, used_bytes=3 * GIB, peak_bytes=4 * GIB,
    requested_bytes=GIB, runtime_s=12.0, retriable=True,
)  # fmt: skip
LAST = "not retried: last task of its owner on this node"


def facts(**changes: Any) -> OomFacts:
    values: dict[str, Any] = {
        "kind": "node_memory", "node_id": "6d" * 28, "used_bytes": 15 * GIB + 512 * MIB,
        "limit_bytes": 16 * GIB, "threshold_bytes": 15 * GIB, "victim": VICTIM,
        "rule": "retriable", "why": "the newest of 3 retriable ones, begun 12.0 s ago",
        "top": tuple(OomProcess(pid=70 + n, name=f"p{n}", used_bytes=GIB) for n in range(9)),
        "store_used_bytes": MIB, "store_capacity_bytes": GIB, **changes,
    }  # fmt: skip
    return OomFacts(**values)


def error(attempts: int = 1, **changes: Any) -> Any:
    told = facts(**changes)
    cause = DeathCause("killed", "text", oom=told.to_bytes())
    runs = [
        OomAttempt(number=n, peak_bytes=n * GIB, requested_bytes=0, runtime_s=1.0)
        for n in range(1, attempts + 1)
    ]
    return oom_error(cause, facts_of(cause), "leaks", runs, LAST)


def test_the_text_says_who_why_on_which_evidence_and_what_to_do() -> None:
    assert str(error(attempts=2)).splitlines() == [
        "task leaks was ended for want of memory by the memory monitor of node 6d6d6d6d "
        "(pid 71, after 12 s)",
        "  node     15.5 GiB of 16 GiB used, threshold 15 GiB (94%)",
        "  task     3 GiB of its own, peak 4 GiB; memory= asked for 1 GiB",
        "  chosen   the newest of 3 retriable ones, begun 12.0 s ago",
        f"  retry    {LAST}; 2 attempts ended so, the last with peaks of 1 GiB, 2 GiB",
        "  biggest  p0 (pid 70) 1 GiB, p1 (pid 71) 1 GiB, p2 (pid 72) 1 GiB",
        "  objects  1 MiB of 1 GiB in the store",
        "What helps:",
        "  - set memory=5120 * 2**20 (peak 4 GiB x 1.25): then only as many run at once as fit",
        "  - run fewer at once: ask for more CPUs for each, or add nodes",
        "  - `mray oom explain` shows who would be next; RAY_memory_usage_threshold is the "
        "threshold",
    ]


def test_nobody_is_advised_to_ask_for_more_than_the_node_may_use() -> None:
    victim = msgspec.structs.replace(VICTIM, peak_bytes=14 * GIB)
    lines = str(error(victim=victim, store_used_bytes=8 * GIB)).splitlines()
    assert lines[-3:-1] == [
        "  - have it use less, or give the node more memory: with 14 GiB and a margin of 25% it "
        "exceeds what this node may use",
        "  - let go of objects: `mray memory` shows who holds them, and why",
    ]


@pytest.mark.parametrize("attempts", [1, 2, 50])
@pytest.mark.parametrize("kind", ["node_memory", "task_limit", "kernel"])
def test_the_text_has_twelve_lines_at_most(kind: str, attempts: int) -> None:
    assert len(str(error(attempts, kind=kind)).splitlines()) <= 12


def test_every_fact_is_a_field_that_survives_pickling() -> None:
    told = pickle.loads(pickle.dumps(error(attempts=2)))
    assert (told.kind, told.node, told.retry_decision) == ("node_memory", "6d" * 28, LAST)
    assert (told.used, told.limit, told.threshold) == (15 * GIB + 512 * MIB, 16 * GIB, 15 * GIB)
    assert told.victims == (VICTIM,)
    assert [p.pid for p in told.top_processes] == list(range(70, 79))
    assert told.object_store == (MIB, GIB)
    assert [a.peak_bytes for a in told.attempts] == [GIB, 2 * GIB]
    assert told.reason == "the newest of 3 retriable ones, begun 12.0 s ago"


def test_a_kill_of_the_kernel_says_what_was_last_seen() -> None:
    text = str(error(kind="kernel", why=""))
    assert text.startswith("task leaks was ended for want of memory by the kernel of node 6d6d6d6d")
    unseen = msgspec.structs.replace(VICTIM, used_bytes=0, peak_bytes=0)
    assert "how much it had was not seen" in str(error(kind="kernel", victim=unseen))


def test_without_facts_the_cause_is_told() -> None:
    cause = DeathCause("kernel_oom", "killed by the kernel", pid=7, node_id=b"\x6d" * 28)
    assert is_oom(cause)
    assert facts_of(cause) is None
    assert "pid 7" in str(oom_error(cause, None, "f", (), LAST))
    assert facts_of(DeathCause("killed", oom=b"junk")) is None
    assert not is_oom(DeathCause("signal", signal=9))
