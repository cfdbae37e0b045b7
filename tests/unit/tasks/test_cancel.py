"""Cancelling in the dispatcher and in an actor's calls: a table of where a task is, and races."""

from __future__ import annotations

import pytest

from mray.tasks.actor_calls import ActorCalls
from mray.tasks.dispatch import Cancelled, Dispatcher, Fail, ReturnLease
from mray.tasks.oom_retries import OutOfMemory
from mray.tasks.task import Task, Template
from mray.wire.messages import ActorState, Address, DeathCause, TaskReply, TaskTemplate

WORKER = Address(b"w1", b"node")


class Owner:
    """A dispatcher of one class with one leased worker."""

    def __init__(self, tasks: int, max_retries: int = 3) -> None:
        self.machine = Dispatcher(0.25)
        class_id = self.machine.class_of({"CPU": 10_000}, b"job1", b"")
        wire = TaskTemplate(1, b"key", "f", 1, b"job1", {"CPU": 10_000})
        template = Template(wire, class_id, max_retries)
        template.ran(100)
        self.class_id = class_id
        self.tasks = [
            Task(n.to_bytes(24, "little"), template, b"", [], [], []) for n in range(1, tasks + 1)
        ]
        for task in self.tasks:
            self.machine.submit(task)

    def send(self) -> None:
        self.machine.dispatch(0.0)
        self.machine.granted(self.class_id, 1, WORKER, 101, 0.0)
        self.turn()

    def turn(self) -> list[Task]:
        """What is sent."""
        self.machine.dispatch(0.0)
        touched, self.machine.touched = self.machine.touched, {}
        sent = [task for lease in touched.values() for task in lease.out]
        for lease in touched.values():
            lease.out = []
        self.machine.check()
        return sent

    def cancel(self, task: Task) -> bytes | None:
        lease = self.machine.cancel(task, 0.0)
        return None if lease is None else lease.worker.process_id

    def over(self) -> list[Task]:
        return [e.task for e in self.machine.take() if isinstance(e, Cancelled)]

    def queued(self) -> list[Task]:
        return list(self.machine.classes[self.class_id].queue)


def test_a_queued_task_is_taken_back_and_no_worker_is_asked_for_it():
    owner = Owner(3)
    for task in owner.tasks:
        assert owner.cancel(task) is None
    assert owner.turn() == []
    assert owner.queued() == []
    assert owner.machine.classes[owner.class_id].asked.home == 0
    assert owner.machine.take() == []


def test_only_the_cancelled_of_many_queued_tasks_are_taken_back():
    owner = Owner(100)
    for task in owner.tasks[::2]:
        owner.cancel(task)
    owner.turn()
    assert owner.queued() == owner.tasks[1::2]


def test_a_task_that_is_about_to_be_sent_is_not():
    owner = Owner(2)
    owner.machine.dispatch(0.0)
    owner.machine.granted(owner.class_id, 1, WORKER, 101, 0.0)
    owner.machine.dispatch(0.0)
    assert owner.cancel(owner.tasks[0]) is None
    assert owner.turn() == [owner.tasks[1]]


def test_the_last_task_that_is_about_to_be_sent_leaves_its_lease_idle():
    owner = Owner(1)
    owner.machine.dispatch(0.0)
    owner.machine.granted(owner.class_id, 1, WORKER, 101, 0.0)
    owner.machine.dispatch(0.0)
    owner.cancel(owner.tasks[0])
    assert owner.turn() == []
    owner.machine.take()
    owner.machine.tick(0.25)
    assert owner.machine.take() == [ReturnLease(1, True)]


def test_the_worker_that_has_a_task_must_be_told():
    owner = Owner(2)
    owner.send()
    assert owner.cancel(owner.tasks[1]) == b"w1"
    assert owner.cancel(owner.tasks[1]) == b"w1"
    assert owner.machine.forgotten(b"w1", [owner.tasks[1].task_id], 0.0) == [owner.tasks[1]]
    assert owner.machine.forgotten(b"w1", [owner.tasks[1].task_id], 0.0) == []
    assert owner.machine.forgotten(b"stranger", [owner.tasks[0].task_id], 0.0) == []
    owner.turn()


def test_a_reply_that_is_under_way_counts():
    owner = Owner(1)
    (task,) = owner.tasks
    owner.send()
    owner.cancel(task)
    done = owner.machine.replied(b"w1", [TaskReply(task.task_id, 0, [])], [], False, False, 0.0)
    assert [each for each, _ in done] == [task]
    assert owner.machine.forgotten(b"w1", [task.task_id], 0.0) == []


@pytest.mark.parametrize("blocked", [False, True])
def test_a_cancelled_task_that_is_handed_back_is_over(blocked):
    owner = Owner(3)
    owner.send()
    owner.machine.take()
    owner.cancel(owner.tasks[2])
    back = [task.task_id for task in owner.tasks[1:]]
    owner.machine.replied(b"w1", [], back, blocked, False, 0.0)
    assert owner.over() == [owner.tasks[2]]
    assert owner.queued() == [owner.tasks[1]]


@pytest.mark.parametrize(
    "cause",
    [
        DeathCause("signal", last_seq=1 << 32),
        DeathCause("exit", last_seq=1 << 32),
        DeathCause("kernel_oom", last_seq=1 << 32),
        DeathCause("signal", last_seq=-1),
        DeathCause("node_died", last_seq=-1),
    ],
    ids=["begun", "exit", "out of memory", "unknown", "node"],
)
@pytest.mark.parametrize("max_retries", [0, 3, -1])
def test_a_cancelled_task_whose_worker_dies_is_over_and_not_retried(cause, max_retries):
    owner = Owner(1, max_retries)
    owner.send()
    owner.machine.take()
    owner.cancel(owner.tasks[0])
    owner.machine.worker_died(b"w1", cause)
    (effect,) = [e for e in owner.machine.take() if isinstance(e, (Cancelled, Fail, OutOfMemory))]
    assert effect == Cancelled(owner.tasks[0])
    assert owner.queued() == []


def test_a_task_that_pauses_after_an_end_for_want_of_memory_is_over_at_once():
    owner = Owner(1)
    owner.send()
    owner.machine.take()
    owner.machine.worker_died(b"w1", DeathCause("kernel_oom", last_seq=1 << 32))
    (effect,) = [e for e in owner.machine.take() if isinstance(e, OutOfMemory)]
    assert owner.cancel(effect.task) is None
    assert owner.turn() == []
    assert owner.machine.take() == []


def test_a_cancelled_task_that_was_not_begun_is_over_with_its_worker():
    owner = Owner(3)
    owner.send()
    owner.machine.take()
    owner.cancel(owner.tasks[1])
    owner.machine.worker_died(b"w1", DeathCause("signal", last_seq=owner.tasks[0].seq))
    assert owner.over() == [owner.tasks[1]]
    assert owner.queued() == [owner.tasks[0], owner.tasks[2]]


def test_when_no_worker_can_be_had_a_cancelled_task_does_not_fail_again():
    owner = Owner(2)
    owner.turn()
    owner.machine.take()
    owner.cancel(owner.tasks[0])
    owner.machine.refused(owner.class_id, "env_failed", "no")
    assert [e.task for e in owner.machine.take() if isinstance(e, Fail)] == [owner.tasks[1]]


# -- calls of an actor

TEMPLATE = Template(TaskTemplate(1, b"", "A.m", 1, b"job1", {}), -1, 0)


def calls_of(count: int, state: str = "ALIVE", retries: int = 0) -> tuple[ActorCalls, list[Task]]:
    calls = ActorCalls(b"a", "A")
    tasks = [Task(n.to_bytes(24, "little"), TEMPLATE, b"", [], [], []) for n in range(count)]
    if state == "ALIVE":
        calls.changed(ActorState(b"a", "ALIVE", 0, WORKER))
    for task in tasks:
        task.retries_left = retries
        calls.submit(task)
    if calls.advance():
        calls.out = []
    return calls, tasks


def test_a_call_that_was_not_sent_is_taken_back():
    calls, tasks = calls_of(3, "PENDING")
    assert calls.cancel(tasks[1])
    assert list(calls.queue) == [tasks[0], tasks[2]]
    calls.check()


def test_a_call_that_the_actor_has_is_over_when_the_actor_says_so():
    calls, tasks = calls_of(2)
    assert not calls.cancel(tasks[1])
    assert calls.forgotten([tasks[1].task_id]) == [tasks[1]]
    assert calls.forgotten([tasks[1].task_id]) == []
    calls.check()


@pytest.mark.parametrize("state", ["RESTARTING", "DEAD"])
def test_a_cancelled_call_does_not_outlive_its_incarnation(state):
    calls, tasks = calls_of(2, retries=-1)
    calls.cancel(tasks[0])
    calls.changed(ActorState(b"a", state, 1, None))
    ends = {effect.task: effect.kind for effect in calls.take()}
    assert ends[tasks[0]] == "cancelled"
    assert ends.get(tasks[1], "again") == ("again" if state == "RESTARTING" else "died")
    calls.check()
