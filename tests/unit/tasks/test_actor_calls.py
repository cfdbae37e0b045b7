"""Calls of an actor, event by event."""

from __future__ import annotations

import pytest

from mray.tasks.actor_calls import ActorCalls, FailCall
from mray.tasks.task import Task, Template
from mray.wire.messages import ActorState, Address, TaskReply, TaskTemplate

TEMPLATE = Template(TaskTemplate(1, b"", "A.m", 1, b"job1", {}), -1, 0)
UNORDERED = Template(TaskTemplate(2, b"", "A.n", 1, b"job1", {}), -1, 0)
UNORDERED.unordered = True


def call(number: int, retries: int = 0, unresolved: int = 0) -> Task:
    task = Task(number.to_bytes(24, "little"), TEMPLATE, b"", [], [], [])
    task.retries_left = retries
    task.unresolved = unresolved
    return task


def unordered(number: int, unresolved: int = 0) -> Task:
    task = Task(number.to_bytes(24, "little"), UNORDERED, b"", [], [], [])
    task.unresolved = unresolved
    return task


def word(state: str, incarnation: int) -> ActorState:
    worker = Address(b"w%d" % incarnation, b"n") if state == "ALIVE" else None
    return ActorState(b"a", state, incarnation, worker)


def send(calls: ActorCalls) -> list[Task]:
    calls.check()
    if not calls.advance():
        return []
    calls.check()
    out, calls.out = calls.out, []
    assert calls.worker is not None
    return out


def alive(*tasks: Task) -> ActorCalls:
    """A living actor with these calls in flight."""
    calls = ActorCalls(b"a", "A")
    calls.changed(word("ALIVE", 0))
    for task in tasks:
        calls.submit(task)
    assert send(calls) == list(tasks)
    return calls


def test_calls_wait_for_the_actor_and_leave_in_order() -> None:
    calls, tasks = ActorCalls(b"a", "A"), [call(n) for n in range(3)]
    for task in tasks:
        calls.submit(task)
    assert send(calls) == []
    calls.changed(word("PENDING", 0))
    assert send(calls) == []
    calls.changed(word("ALIVE", 0))
    assert send(calls) == tasks
    assert [task.seq for task in tasks] == [0, 1, 2]
    assert send(calls) == []


def test_a_call_that_waits_for_an_argument_holds_back_those_behind_it() -> None:
    calls = alive()
    first, second, third = call(1), call(2, unresolved=1), call(3)
    for task in (first, second, third):
        calls.submit(task)
    assert send(calls) == [first]
    second.unresolved = 0
    assert send(calls) == [second, third]


def test_replies_finish_calls_once() -> None:
    task = call(1)
    calls = alive(task)
    reply = TaskReply(task.task_id, 0, [])
    assert calls.replied([reply]) == [(task, reply)]
    assert calls.replied([reply]) == []


def test_a_restart_sends_again_what_may_be_and_fails_the_rest() -> None:
    once, twice, for_ever, unsent = call(1), call(2, 1), call(3, -1), call(4)
    calls = alive(once, twice, for_ever)
    calls.disconnected()
    calls.submit(unsent)
    assert send(calls) == []
    assert calls.take() == []
    verdict = word("RESTARTING", 1)
    calls.changed(verdict)
    assert calls.take() == [FailCall(once, "unavailable", verdict)]
    calls.changed(word("ALIVE", 1))
    assert send(calls) == [twice, for_ever, unsent]
    assert (twice.retries_left, twice.attempt) == (0, 1)
    assert for_ever.retries_left < 0
    assert (unsent.attempt, unsent.seq) == (0, 2)


def test_a_restart_that_is_heard_of_late_is_a_restart() -> None:
    once, twice = call(1), call(2, 1)
    calls = alive(once, twice)
    calls.known.add(1)
    calls.changed(word("ALIVE", 3))
    assert [effect.task for effect in calls.take()] == [once]
    assert send(calls) == [twice]
    assert calls.known == set()


def test_death_fails_all_in_order() -> None:
    first, second, third = call(1, 5), call(2, -1, unresolved=1), call(3)
    calls = alive(first)
    calls.submit(second)
    verdict = word("DEAD", 0)
    calls.changed(verdict)
    calls.check()
    calls.submit(third)
    assert calls.take() == [FailCall(t, "died", verdict) for t in (first, second, third)]
    calls.changed(word("ALIVE", 9))
    assert calls.state == "DEAD"


def test_calls_while_it_restarts_wait_only_if_they_may_be_retried() -> None:
    calls = alive()
    verdict = word("RESTARTING", 1)
    calls.changed(verdict)
    once, twice = call(1), call(2, 1)
    calls.submit(once)
    calls.submit(twice)
    assert calls.take() == [FailCall(once, "unavailable", verdict)]
    calls.changed(word("ALIVE", 1))
    assert send(calls) == [twice]
    assert twice.retries_left == 1


@pytest.mark.parametrize("stale", [("ALIVE", 0), ("RESTARTING", 1), ("PENDING", 1), ("DEAD", 0)])
def test_stale_words_are_ignored(stale: tuple[str, int]) -> None:
    calls = alive()
    calls.changed(word("RESTARTING", 1))
    calls.changed(word("ALIVE", 1))
    calls.changed(word(*stale))
    calls.check()
    assert (calls.state, calls.incarnation) == ("ALIVE", 1)
    assert calls.worker == word("ALIVE", 1).worker


def test_a_word_of_life_about_an_incarnation_that_died_is_ignored() -> None:
    calls, task = alive(), call(1)
    calls.disconnected()
    calls.changed(word("ALIVE", 0))
    calls.submit(task)
    assert send(calls) == []
    calls.changed(word("RESTARTING", 1))
    assert calls.take() == []
    calls.changed(word("ALIVE", 1))
    assert send(calls) == [task]


def test_a_repeated_word_of_life_changes_nothing() -> None:
    task = call(1)
    calls = alive(task)
    calls.known.add(1)
    calls.changed(word("ALIVE", 0))
    assert calls.take() == []
    assert list(calls.inflight.values()) == [task]
    assert calls.known == {1}


def test_what_had_not_left_when_the_worker_died_is_kept_free_of_charge() -> None:
    calls, tasks = alive(), [call(1), call(2)]
    for task in tasks:
        calls.submit(task)
    calls.advance()
    calls.disconnected()
    assert send(calls) == []
    calls.changed(word("RESTARTING", 1))
    calls.changed(word("ALIVE", 1))
    assert calls.take() == []
    assert send(calls) == tasks


def test_a_call_can_be_taken_back_until_it_is_sent() -> None:
    sent, queued = call(1), call(2, unresolved=1)
    calls = alive(sent)
    calls.submit(queued)
    assert not calls.cancel_queued(sent)
    assert calls.cancel_queued(queued)
    assert not calls.cancel_queued(queued)


def test_calls_that_need_no_order_overtake_those_that_wait_for_arguments() -> None:
    calls, late, early = alive(), unordered(1, unresolved=1), unordered(2)
    calls.submit(late)
    calls.submit(early)
    assert send(calls) == [early]
    assert calls.waiting() == 1
    late.unresolved = 0
    calls.resolved(late)
    assert send(calls) == [late]


def test_a_call_that_waits_aside_can_be_cancelled() -> None:
    calls, late = alive(), unordered(1, unresolved=1)
    calls.submit(late)
    assert calls.cancel(late)
    calls.resolved(late)
    assert send(calls) == []
    assert calls.waiting() == 0


def test_calls_that_wait_aside_fail_with_the_actor() -> None:
    calls, late = alive(), unordered(1, unresolved=1)
    calls.submit(late)
    dead = word("DEAD", 0)
    calls.changed(dead)
    calls.check()
    assert calls.take() == [FailCall(late, "died", dead)]
