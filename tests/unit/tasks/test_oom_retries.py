"""Retries of tasks that ended for want of memory: pauses, growing requests, and when to give up."""

from __future__ import annotations

from typing import Any

import pytest

from mray.resources import UNIT
from mray.tasks.dispatch import Dispatcher
from mray.tasks.oom_retries import (
    GiveUp,
    OomRetries,
    OomRetryRules,
    OutOfMemory,
    Retry,
    retemplate,
)
from mray.tasks.task import Task, Template
from mray.units import GIB, MIB
from mray.wire.messages import Address, DeathCause, TaskTemplate
from mray.wire.oom import OomFacts, OomVictim


def task(max_retries: int = 3, memory: int = 0) -> Task:
    resources = {"CPU": UNIT, **({"memory": memory * UNIT} if memory else {})}
    wire = TaskTemplate(1, b"key", "f", 1, b"job", resources)
    return Task(b"t" * 24, Template(wire, 0, max_retries), b"", [], [], [])


def facts(peak: int = GIB, **changes: Any) -> OomFacts:
    values: dict[str, Any] = {
        "kind": "node_memory", "node_id": "ab", "used_bytes": 9 * GIB, "limit_bytes": 10 * GIB,
        "threshold_bytes": 8 * GIB, "memory_resource_bytes": 6 * GIB,
        "victim": OomVictim(kind="task", name="f", pid=7, used_bytes=peak, runtime_s=2.0),
        **changes,
    }  # fmt: skip
    return OomFacts(**values)


def die(retries: OomRetries, one: Task, now: float, **changes: Any) -> Retry:
    verdict = retries.judge(one, facts(**changes), now)
    assert isinstance(verdict, Retry)
    retemplate(one, verdict, 2, 1)
    return verdict


def test_retries_have_no_end_and_leave_max_retries_alone() -> None:
    retries, one = OomRetries(OomRetryRules()), task(max_retries=1)
    pauses = [die(retries, one, 100.0).at - 100.0 for _ in range(9)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert (one.retries_left, one.attempt) == (1, 9)


def test_a_retry_asks_for_more_than_was_ever_seen_up_to_what_the_node_lends() -> None:
    retries, one = OomRetries(OomRetryRules()), task()
    assert die(retries, one, 0.0, peak=1000 * MIB).resources["memory"] == 1536 * MIB * UNIT
    assert die(retries, one, 0.0, peak=100 * MIB).resources["memory"] == 2304 * MIB * UNIT
    assert die(retries, one, 0.0, peak=5 * GIB).resources["memory"] == 6 * GIB * UNIT


def test_a_request_never_shrinks() -> None:
    retries, one = OomRetries(OomRetryRules()), task(memory=7 * GIB)
    assert die(retries, one, 0.0).resources["memory"] == 7 * GIB * UNIT


def test_from_the_second_end_on_it_runs_alone() -> None:
    retries, one = OomRetries(OomRetryRules()), task()
    assert [die(retries, one, 0.0).exclusive for _ in range(3)] == [False, True, True]


def test_nothing_is_queued_behind_a_retried_task() -> None:
    retries, one = OomRetries(OomRetryRules()), task()
    die(retries, one, 0.0)
    one.template.ran(10)
    assert one.template.depth == 1


@pytest.mark.parametrize(
    ("rules", "max_retries", "changes", "reason"),
    [
        (OomRetryRules(), 0, {}, "not retried: max_retries is 0"),
        (OomRetryRules(), -1, {"should_retry": False, "retry_reason": "the last"}, "the last"),
        (OomRetryRules(retries_max=0), 3, {},
         "not retried: its 0 retries for want of memory are up"),
    ],
)  # fmt: skip
def test_it_gives_up_with_the_reason(
    rules: OomRetryRules, max_retries: int, changes: dict[str, Any], reason: str
) -> None:
    verdict = OomRetries(rules).judge(task(max_retries), facts(**changes), 0.0)
    assert isinstance(verdict, GiveUp)
    assert verdict.reason == reason
    assert [(a.number, a.peak_bytes) for a in verdict.attempts] == [(1, GIB)]


def test_a_finite_number_of_retries_is_kept() -> None:
    retries, one = OomRetries(OomRetryRules(retries_max=2)), task()
    die(retries, one, 0.0)
    die(retries, one, 0.0)
    verdict = retries.judge(one, facts(), 0.0)
    assert isinstance(verdict, GiveUp)
    assert [a.number for a in verdict.attempts] == [1, 2, 3]


def test_without_the_nodes_facts_it_runs_again_as_it_was() -> None:
    retries, one = OomRetries(OomRetryRules()), task(memory=GIB)
    verdict = retries.judge(one, None, 0.0)
    assert isinstance(verdict, Retry)
    assert verdict.resources["memory"] == GIB * UNIT


def test_pauses_end_in_their_order_and_are_explained_until_then() -> None:
    retries, first, second = OomRetries(OomRetryRules()), task(), task()
    retries.wait(first, 12.0)
    retries.wait(second, 5.0)
    retries.check()
    assert retries.deadline() == 5.0
    assert retries.explain(first, 1.0).startswith("OOM_BACKOFF(11 s left, attempt 1)")
    assert retries.due(4.9) == []
    assert retries.due(5.0) == [second]
    assert retries.explain(second, 5.0) == ""
    assert retries.due(99.0) == [first]
    assert retries.deadline() is None


def test_of_a_dead_worker_only_what_had_begun_is_judged() -> None:
    dispatcher = Dispatcher()
    class_id = dispatcher.class_of({"CPU": UNIT}, b"job", b"")
    tasks = [task() for _ in range(3)]
    for number, one in enumerate(tasks):
        one.task_id = bytes([number]) * 24
        one.template = tasks[0].template
        one.template.class_id = class_id
        dispatcher.submit(one)
    tasks[0].template.ran(10)
    dispatcher.granted(class_id, 1, Address(b"w", b"n"), 7, 0.0)
    dispatcher.dispatch(0.0)
    dispatcher.by_worker[b"w"].out.clear()
    dispatcher.take()
    cause = DeathCause("killed", "memory", oom=facts().to_bytes(), last_seq=tasks[0].seq)
    dispatcher.worker_died(b"w", cause)
    dispatcher.check()
    assert dispatcher.take() == [OutOfMemory(tasks[0], cause)]
    assert list(dispatcher.classes[class_id].queue) == tasks[1:]
    assert [one.retries_left for one in tasks] == [3, 3, 3]


def test_exclusive_tasks_have_a_class_of_their_own() -> None:
    dispatcher = Dispatcher()
    shared = dispatcher.class_of({"CPU": UNIT}, b"job", b"")
    alone = dispatcher.class_of({"CPU": UNIT}, b"job", b"", True)
    assert shared != alone
    assert dispatcher.classes[alone].exclusive
