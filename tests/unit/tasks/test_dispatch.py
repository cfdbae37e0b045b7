"""Dispatcher, event by event."""

from __future__ import annotations

import pytest

from mray.tasks.dispatch import STUCK_S, Demand, Dispatcher, Effect, Fail, ReturnLease, Steal
from mray.tasks.lease import Lease
from mray.tasks.task import Task, Template
from mray.wire.messages import Address, DeathCause, TaskReply, TaskTemplate

IDLE_S = 0.25


class Owner:
    """A dispatcher with one class, and short words for its events."""

    def __init__(self, max_retries: int = 3) -> None:
        self.machine = Dispatcher(IDLE_S)
        self.class_id = self.machine.class_of({"CPU": 10_000}, b"job1", b"")
        wire = TaskTemplate(1, b"key", "f", 1, b"job1", {"CPU": 10_000})
        self.template = Template(wire, self.class_id, max_retries)
        self.count = 0

    def learn(self, run_us: int) -> None:
        """As if the function had run before."""
        self.template.run_us = -1.0
        self.template.ran(run_us)

    def submit(self, count: int = 1) -> list[Task]:
        tasks = []
        for _ in range(count):
            self.count += 1
            task_id = self.count.to_bytes(24, "little")
            tasks.append(Task(task_id, self.template, b"", [], [], []))
            self.machine.submit(tasks[-1])
        return tasks

    def grant(self, number: int, now: float = 0.0) -> None:
        worker = Address(b"w%d" % number, b"node")
        self.machine.granted(self.class_id, number, worker, 100 + number, now)

    def lease(self, number: int) -> Lease:
        return self.machine.by_worker[b"w%d" % number]

    def turn(self, now: float = 0.0) -> tuple[dict[int, list[Task]], list[Effect]]:
        """Dispatch: what is sent to each lease, and the other effects."""
        self.machine.dispatch(now)
        self.machine.check()
        sent = {}
        touched, self.machine.touched = self.machine.touched, {}
        for lease in touched.values():
            sent[lease.lease_id], lease.out = lease.out, []
        self.machine.check()
        return sent, self.machine.take()

    def reply(
        self,
        number: int,
        done: list[Task],
        *,
        returned: list[Task] = [],  # noqa: B006 (read only)
        blocked: bool = False,
        exiting: bool = False,
        run_us: int = 100,
        now: float = 0.0,
    ) -> list[Task]:
        replies = [TaskReply(task.task_id, 0, [], run_us) for task in done]
        back = [task.task_id for task in returned]
        finished = self.machine.replied(b"w%d" % number, replies, back, blocked, exiting, now)
        return [task for task, _ in finished]

    def die(self, number: int, last: Task | int, kind: str = "signal") -> list[Effect]:
        last_seq = last.seq if isinstance(last, Task) else last
        cause = DeathCause(kind, "it died", last_seq=last_seq)
        self.machine.worker_died(b"w%d" % number, cause)
        return self.machine.take()


def with_leases(count: int, tasks: int, run_us: int = 10) -> tuple[Owner, list[Task]]:
    """An owner of short tasks, all of them sent to its leases."""
    owner = Owner()
    owner.learn(run_us)
    submitted = owner.submit(tasks)
    for number in range(1, count + 1):
        owner.grant(number)
    owner.turn()
    return owner, submitted


def test_a_class_is_made_once_for_the_same_needs() -> None:
    machine = Dispatcher()
    first = machine.class_of({"CPU": 1, "GPU": 2}, b"j", b"")
    assert machine.class_of({"GPU": 2, "CPU": 1}, b"j", b"") == first
    assert machine.class_of({"GPU": 2, "CPU": 1}, b"j", b"env") != first
    assert machine.class_of({"GPU": 2, "CPU": 1}, b"k", b"") != first


def test_demand_follows_the_queue_by_order_of_magnitude() -> None:
    owner = Owner()
    owner.submit(1)
    assert owner.turn() == ({}, [Demand(owner.class_id, 1)])
    owner.submit(1)
    assert owner.turn() == ({}, [])
    owner.submit(1)
    assert owner.turn() == ({}, [Demand(owner.class_id, 3)])


def test_a_function_of_unknown_run_time_has_one_task_in_flight_at_a_worker() -> None:
    owner = Owner()
    first, second = owner.submit(2)
    owner.grant(1)
    sent, effects = owner.turn()
    assert sent == {1: [first]}
    assert effects == [Demand(owner.class_id, 1)]
    assert owner.reply(1, [first], run_us=10) == [first]
    assert owner.turn() == ({1: [second]}, [Demand(owner.class_id, 0)])


def test_short_tasks_are_shared_among_the_leases_and_sent_in_order() -> None:
    owner = Owner()
    owner.learn(10)
    tasks = owner.submit(10)
    owner.grant(1)
    owner.grant(2)
    sent, _ = owner.turn()
    assert sent == {1: tasks[:5], 2: tasks[5:]}


def test_no_more_than_the_depth_is_in_flight_at_a_worker() -> None:
    owner = Owner()
    owner.learn(1000)
    owner.submit(100)
    owner.grant(1)
    sent, effects = owner.turn()
    assert len(sent[1]) == owner.template.depth == 4
    assert effects == [Demand(owner.class_id, 96)]


def test_a_lease_that_nobody_needs_any_more_goes_back_at_once() -> None:
    owner = Owner()
    owner.grant(1)
    assert owner.turn() == ({}, [ReturnLease(1, True)])
    assert owner.machine.by_worker == {}


def test_an_idle_lease_goes_back_after_its_time_and_not_before() -> None:
    owner, tasks = with_leases(1, 1)
    owner.reply(1, tasks, now=1.0)
    assert owner.turn(1.0) == ({}, [])
    assert owner.machine.deadline() == 1.0 + IDLE_S
    owner.machine.tick(1.24)
    assert owner.turn(1.24) == ({}, [])
    owner.machine.tick(1.0 + IDLE_S)
    assert owner.turn(1.3) == ({}, [ReturnLease(1, True)])
    assert owner.machine.deadline() is None


@pytest.mark.parametrize("idle_since", [0.1, 0.7, 1e6 + 0.1, 123456.789])
def test_a_tick_at_the_deadline_always_does_something(idle_since: float) -> None:
    owner, tasks = with_leases(1, 1)
    owner.reply(1, tasks, now=idle_since)
    owner.turn(idle_since)
    deadline = owner.machine.deadline()
    assert deadline is not None
    owner.machine.tick(deadline)
    assert owner.machine.take() == [ReturnLease(1, True)]


def test_a_blocked_worker_hands_back_and_gets_nothing_more_until_it_replies() -> None:
    owner, (running, *rest) = with_leases(1, 3)
    owner.reply(1, [], returned=rest, blocked=True)
    assert owner.turn() == ({}, [Demand(owner.class_id, 2)])
    assert owner.reply(1, [running]) == [running]
    assert owner.turn() == ({1: rest}, [Demand(owner.class_id, 0)])


def test_what_a_worker_hands_back_comes_before_what_is_queued() -> None:
    owner, tasks = with_leases(1, 3)
    later = owner.submit(1)
    owner.reply(1, [], returned=tasks[1:], blocked=True)
    owner.grant(2)
    assert owner.turn()[0] == {2: [*tasks[1:], *later]}


def test_replies_of_strangers_and_for_unknown_tasks_are_ignored() -> None:
    owner, tasks = with_leases(1, 1)
    assert owner.reply(7, tasks) == []
    assert owner.reply(1, tasks) == tasks
    assert owner.reply(1, tasks) == []


# ---- deaths


def test_death_charges_what_was_begun_and_requeues_the_rest_in_order() -> None:
    owner, tasks = with_leases(1, 4)
    assert owner.die(1, last=tasks[1]) == []
    assert [task.retries_left for task in tasks] == [2, 2, 3, 3]
    assert [task.attempt for task in tasks] == [1, 1, 0, 0]
    owner.grant(2)
    assert owner.turn()[0] == {2: tasks}


def test_death_fails_what_was_begun_and_has_no_retry_left() -> None:
    owner, tasks = with_leases(1, 3)
    tasks[0].retries_left = 0
    [failure] = owner.die(1, last=tasks[0])
    assert isinstance(failure, Fail)
    assert failure.task is tasks[0]
    assert (failure.kind, failure.text) == ("worker_died", "it died")
    owner.grant(2)
    assert owner.turn()[0] == {2: tasks[1:]}


def test_infinite_retries_are_not_used_up_to_zero() -> None:
    owner, [task] = with_leases(1, 1)
    task.retries_left = -1
    for number in range(1, 6):
        assert owner.die(number, last=task) == []
        owner.grant(number + 1)
        owner.turn()
    assert task.retries_left < 0
    assert task.attempt == 5


def test_without_evidence_the_oldest_is_charged_so_that_no_task_kills_workers_for_ever() -> None:
    owner, [killer, bystander] = with_leases(1, 2)
    effects: list[Effect] = []
    number = 1
    while not effects:
        effects = owner.die(number, last=-1)
        number += 1
        owner.grant(number)
        owner.turn()
    assert number == 5  # max_retries is 3
    assert [effect.task for effect in effects if isinstance(effect, Fail)] == [killer]
    assert bystander.retries_left == 3


def test_after_the_death_of_a_node_all_that_was_sent_may_have_run() -> None:
    owner, tasks = with_leases(1, 3)
    owner.die(1, last=-1, kind="node_died")
    assert [task.retries_left for task in tasks] == [2, 2, 2]


def test_what_was_not_sent_is_never_charged() -> None:
    owner = Owner()
    owner.learn(10)
    tasks = owner.submit(2)
    owner.grant(1)
    owner.machine.dispatch(0.0)  # filled, and not sent before the death
    assert owner.die(1, last=-1, kind="node_died") == []
    assert [task.retries_left for task in tasks] == [3, 3]
    assert owner.turn()[0] == {}
    owner.grant(2)
    assert owner.turn()[0] == {2: tasks}


def test_a_number_from_a_former_lease_of_the_worker_charges_nothing() -> None:
    owner, tasks = with_leases(1, 50)
    owner.reply(1, tasks)
    last_of_former_lease = tasks[-1].seq
    owner.machine.tick(IDLE_S)
    owner.machine.take()
    again = owner.submit(3)
    owner.machine.granted(owner.class_id, 2, Address(b"w1", b"node"), 101, 1.0)
    owner.turn(1.0)
    assert owner.die(1, last=last_of_former_lease) == []
    assert [task.retries_left for task in again] == [3, 3, 3]


def test_the_death_of_a_worker_that_is_not_lent_is_nothing() -> None:
    owner, tasks = with_leases(1, 1)
    assert owner.die(9, last=-1) == []
    assert owner.lease(1).inflight == {tasks[0].task_id: tasks[0]}


# ---- workers that leave (max_calls)


def test_a_worker_that_exits_empty_is_returned_not_to_be_used_again() -> None:
    owner, tasks = with_leases(1, 3)
    owner.reply(1, tasks[:1], returned=tasks[1:], exiting=True)
    _, effects = owner.turn()
    assert effects == [ReturnLease(1, False), Demand(owner.class_id, 2)]
    assert owner.machine.by_worker == {}


def test_what_an_exiting_worker_had_begun_is_not_run_twice() -> None:
    owner, [first, begun, back] = with_leases(1, 3)
    owner.reply(1, [first], returned=[back], exiting=True)
    assert owner.turn()[1] == [Demand(owner.class_id, 1)]
    assert owner.reply(1, [begun]) == [begun]
    assert owner.turn()[1] == [ReturnLease(1, False)]
    owner.grant(2)
    assert owner.turn()[0] == {2: [back]}


def test_what_never_reached_an_exiting_worker_is_requeued_free_of_charge_at_its_end() -> None:
    owner, [first, lost] = with_leases(1, 2)
    owner.reply(1, [first], exiting=True)
    assert owner.turn() == ({}, [])
    assert owner.die(1, last=first) == []
    assert lost.retries_left == 3
    owner.grant(2)
    assert owner.turn()[0] == {2: [lost]}


def test_what_was_not_sent_to_an_exiting_worker_goes_elsewhere_at_once() -> None:
    owner, [first] = with_leases(1, 1)
    [second] = owner.submit(1)
    owner.machine.dispatch(0.0)
    owner.reply(1, [first], exiting=True)
    assert owner.turn() == ({}, [ReturnLease(1, False), Demand(owner.class_id, 1)])
    owner.grant(2)
    assert owner.turn()[0] == {2: [second]}


# ---- others want workers


def test_wanted_takes_idle_leases_before_busy_ones() -> None:
    owner, tasks = with_leases(2, 2)
    busy, idle = owner.lease(1), owner.lease(2)
    owner.reply(2, tasks[1:])
    owner.machine.wanted(1, 0.0)
    assert owner.machine.take() == [ReturnLease(idle.lease_id, True)]
    assert not busy.draining


def test_wanted_drains_busy_leases_however_much_is_queued() -> None:
    owner = Owner()
    owner.learn(1000)
    owner.submit(20)
    owner.grant(1)
    sent, _ = owner.turn()
    owner.machine.wanted(1, 0.0)
    owner.submit(20)
    for task in sent[1]:
        assert ReturnLease(1, True) not in owner.turn()[1]
        owner.reply(1, [task])
    more, effects = owner.turn()
    assert more == {}
    assert ReturnLease(1, True) in effects


def test_leases_that_drain_already_count_for_those_who_wait() -> None:
    owner, _ = with_leases(3, 3)
    owner.machine.wanted(1, 0.0)
    owner.machine.wanted(1, 0.0)
    assert [owner.lease(n).draining for n in (1, 2, 3)] == [True, False, False]


def test_a_blocked_lease_does_not_drain_for_it_holds_no_cpu() -> None:
    owner, _ = with_leases(2, 2)
    owner.reply(1, [], blocked=True)
    owner.machine.wanted(1, 0.0)
    assert [owner.lease(n).draining for n in (1, 2)] == [False, True]


def test_all_drained_leases_go_back_in_one_turn() -> None:
    owner, tasks = with_leases(3, 3)
    owner.machine.wanted(3, 0.0)
    for number, task in enumerate(tasks, 1):
        owner.reply(number, [task])
    assert owner.turn()[1] == [ReturnLease(n, True) for n in (1, 2, 3)]


def test_a_lease_given_away_while_tasks_wait_is_asked_for_again() -> None:
    owner = Owner()
    owner.submit(1)
    owner.turn()
    owner.grant(1)
    owner.machine.wanted(1, 0.0)
    assert owner.turn() == ({}, [ReturnLease(1, True), Demand(owner.class_id, 1)])


# ---- refusals


def test_refusal_fails_what_is_queued_when_no_worker_is_there() -> None:
    owner = Owner()
    tasks = owner.submit(2)
    owner.turn()
    owner.machine.refused(owner.class_id, "env_failed", "no such directory")
    assert owner.machine.take() == [Fail(task, "env_failed", "no such directory") for task in tasks]
    assert owner.turn() == ({}, [])


def test_refusal_leaves_the_queue_to_the_workers_that_are_there() -> None:
    owner = Owner()
    first, second = owner.submit(2)
    owner.grant(1)
    owner.turn()
    owner.machine.refused(owner.class_id, "worker_start_failed", "fork failed")
    assert owner.turn() == ({}, [])
    owner.submit(3)
    assert owner.turn() == ({}, [])  # not asked for again while one works
    owner.reply(1, [first])
    assert owner.turn()[0][1][0] is second


def test_after_a_refusal_workers_are_asked_for_when_the_last_is_gone() -> None:
    owner = Owner()
    first, _ = owner.submit(2)
    owner.grant(1)
    owner.turn()
    owner.machine.refused(owner.class_id, "worker_start_failed", "fork failed")
    owner.turn()
    owner.die(1, last=first)
    assert owner.turn() == ({}, [Demand(owner.class_id, 2)])


def test_a_task_that_waits_for_refused_ones_does_not_wait_for_ever() -> None:
    owner = Owner()
    owner.submit(2)
    owner.grant(1)
    owner.turn()
    owner.machine.refused(owner.class_id, "worker_start_failed", "fork failed")
    owner.reply(1, [], blocked=True)
    assert owner.turn() == ({}, [Demand(owner.class_id, 1)])
    owner.machine.refused(owner.class_id, "worker_start_failed", "fork failed")
    assert [type(effect) for effect in owner.machine.take()] == [Fail]


# ---- stealing


def test_an_idle_worker_steals_half_of_the_longest_backlog() -> None:
    owner, _ = with_leases(2, 12, run_us=400)
    mine = list(owner.lease(2).inflight.values())
    owner.reply(2, mine, run_us=400, now=0.01)
    assert owner.turn(0.01) == ({}, [Steal(owner.lease(1).worker, 3)])
    assert owner.turn(0.01) == ({}, [])
    stolen = list(owner.lease(1).inflight.values())[3:]
    owner.reply(1, [], returned=stolen, now=0.01)
    assert owner.turn(0.01)[0] == {2: stolen}


def test_a_few_short_tasks_are_not_worth_a_message() -> None:
    owner, _ = with_leases(2, 4, run_us=10)
    owner.reply(2, list(owner.lease(2).inflight.values()), run_us=10, now=0.001)
    assert owner.turn(0.001) == ({}, [])


def test_a_worker_with_nothing_to_hand_back_is_not_asked_again_until_it_replies() -> None:
    owner, _ = with_leases(2, 8, run_us=400)
    first = next(iter(owner.lease(1).inflight.values()))
    owner.reply(2, list(owner.lease(2).inflight.values()), run_us=400, now=0.01)
    assert owner.turn(0.01)[1] == [Steal(owner.lease(1).worker, 2)]
    owner.reply(1, [], now=0.01)
    assert owner.turn(0.01) == ({}, [])
    owner.reply(1, [first], run_us=400, now=0.02)
    assert owner.turn(0.03)[1] == [Steal(owner.lease(1).worker, 1)]


def test_a_lease_is_not_returned_while_a_steal_is_on_its_way() -> None:
    owner, _ = with_leases(2, 8, run_us=400)
    owner.reply(2, list(owner.lease(2).inflight.values()), run_us=400, now=0.01)
    assert owner.turn(0.01)[1] == [Steal(owner.lease(1).worker, 2)]
    owner.reply(1, list(owner.lease(1).inflight.values()), now=0.02)
    owner.machine.wanted(2, 0.02)
    assert owner.turn(0.02)[1] == [ReturnLease(2, True)]
    owner.machine.tick(10.0)
    assert owner.turn(10.0)[1] == []
    assert owner.machine.deadline() is None
    owner.reply(1, [], now=10.0)
    assert owner.turn(10.0)[1] == [ReturnLease(1, True)]


def test_tasks_behind_a_long_one_are_asked_another_worker_for_and_the_clock_then_rests() -> None:
    owner, tasks = with_leases(1, 3)
    assert owner.machine.deadline() == STUCK_S
    owner.machine.tick(STUCK_S)
    assert owner.turn(STUCK_S) == ({}, [Demand(owner.class_id, 2)])
    assert owner.machine.deadline() is None  # or the loop would turn without end
    owner.grant(2, now=0.1)
    assert owner.turn(0.1)[1] == [Steal(owner.lease(1).worker, 1)]
    owner.reply(1, [], returned=tasks[2:], now=0.1)
    sent, _ = owner.turn(0.1)
    assert sent == {2: tasks[2:]}


def test_demand_for_stuck_tasks_ends_with_their_progress() -> None:
    owner, tasks = with_leases(1, 2)
    owner.machine.tick(STUCK_S)
    assert owner.turn(STUCK_S)[1] == [Demand(owner.class_id, 1)]
    owner.reply(1, tasks, now=0.1)
    assert owner.turn(0.1) == ({}, [Demand(owner.class_id, 0)])
    owner.grant(2, now=0.1)  # crossed with the demand
    assert owner.turn(0.1) == ({}, [ReturnLease(2, True)])


def test_a_retry_runs_once_more() -> None:
    owner, [task] = with_leases(1, 1)
    owner.reply(1, [task])
    owner.machine.retry(task)
    assert task.attempt == 1
    assert owner.turn()[0] == {1: [task]}
