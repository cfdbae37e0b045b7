"""Dispatching with leases of several nodes: who is told what, and what the end of a node means."""

from __future__ import annotations

from mray.tasks.dispatch import Cancelled, Demand, Dispatcher, Effect, Fail, ReturnLease
from mray.tasks.task import Task, Template
from mray.wire.messages import Address, DeathCause, TaskReply, TaskTemplate

X, Y = b"x", b"y"
CPU = {"CPU": 10_000}


class Owner:
    """A dispatcher with one class and leases of nodes X, Y and its own, b""."""

    def __init__(self, max_retries: int = 3) -> None:
        self.machine = Dispatcher(0.25)
        self.class_id = self.machine.class_of(CPU, b"job1", b"")
        wire = TaskTemplate(1, b"key", "f", 1, b"job1", CPU)
        self.template = Template(wire, self.class_id, max_retries)
        self.count = 0

    def submit(self, count: int) -> list[Task]:
        tasks = []
        for _ in range(count):
            self.count += 1
            task_id = self.count.to_bytes(24, "little")
            tasks.append(Task(task_id, self.template, b"", [], [], []))
            self.machine.submit(tasks[-1])
        return tasks

    def turn(self, now: float = 0.0) -> list[Effect]:
        self.machine.dispatch(now)
        self.machine.check()
        for lease in self.machine.touched.values():
            lease.out = []
        self.machine.touched = {}
        return self.machine.take()

    def grant(self, lease_id: int, node: bytes) -> bytes:
        """All nodes count their leases from 1."""
        worker = b"w%d" % lease_id + node
        self.machine.granted(self.class_id, lease_id, Address(worker, node), 1, 0.0, node)
        return worker

    def done(self, worker: bytes, task: Task) -> None:
        self.machine.replied(worker, [TaskReply(task.task_id, 0, [], 10)], [], False, False, 0.0)


def test_equal_numbers_of_leases_of_two_nodes_are_two_leases() -> None:
    owner = Owner()
    one, two = owner.submit(2)
    owner.turn()
    first, second = owner.grant(1, X), owner.grant(1, Y)
    owner.turn()
    assert len(owner.machine.by_worker) == 2
    owner.done(first, one)
    owner.done(second, two)
    owner.machine.tick(10.0)
    returned = [e for e in owner.turn(10.0) if isinstance(e, ReturnLease)]
    assert {(e.lease_id, e.node) for e in returned} == {(1, X), (1, Y)}


def test_demand_goes_where_the_own_node_says_and_comes_back() -> None:
    owner = Owner()
    owner.submit(4)
    assert owner.turn() == [Demand(owner.class_id, 4)]
    owner.machine.moved(owner.class_id, X, 3, False)
    assert owner.turn() == [Demand(owner.class_id, 3, X)]
    owner.machine.busy(owner.class_id, X, 0.0)
    assert owner.turn() == [Demand(owner.class_id, 4)]


def test_a_lease_that_nobody_needs_goes_back_to_the_node_it_is_of() -> None:
    owner = Owner()
    owner.grant(7, X)
    assert owner.turn() == [ReturnLease(7, True, X, CPU)]


def test_a_node_that_wants_leases_gets_back_its_own_only() -> None:
    owner = Owner()
    tasks = owner.submit(2)
    owner.turn()
    workers = [owner.grant(1, X), owner.grant(1, Y)]
    owner.turn()
    for worker, task in zip(workers, tasks, strict=True):
        owner.done(worker, task)
    owner.machine.wanted(5, 0.0, X)
    assert owner.turn() == [ReturnLease(1, True, X, CPU)]
    assert list(owner.machine.by_worker) == [workers[1]]


def test_what_was_asked_of_a_dead_node_is_asked_at_home() -> None:
    owner = Owner()
    owner.submit(4)
    owner.turn()
    owner.machine.moved(owner.class_id, X, 4, True)
    owner.turn()
    owner.machine.node_gone(X)
    assert owner.turn() == [Demand(owner.class_id, 4)]


def test_all_that_was_sent_to_a_dead_node_counts_as_begun() -> None:
    for kind, left in (("node_died", 0), ("drained", 1)):
        owner = Owner(max_retries=1)
        owner.template.ran(1)
        tasks = owner.submit(3)
        owner.turn()
        worker = owner.grant(1, X)
        owner.turn()
        owner.machine.worker_died(worker, DeathCause(kind))
        assert [task.retries_left for task in tasks] == [left] * 3
        assert [task.attempt for task in tasks] == [1] * 3


def test_what_may_not_run_again_fails_with_a_drained_node_too() -> None:
    owner = Owner(max_retries=0)
    [task] = owner.submit(1)
    owner.turn()
    worker = owner.grant(1, X)
    owner.turn()
    owner.machine.worker_died(worker, DeathCause("drained", "it leaves"))
    failed = [e for e in owner.turn() if isinstance(e, Fail)]
    assert [(e.task, e.text) for e in failed] == [(task, "it leaves")]


def test_a_class_with_targets_asks_these_and_no_other() -> None:
    owner = Owner()
    owner.machine.retarget(owner.class_id, [])
    owner.submit(2)
    assert owner.turn() == []
    owner.machine.retarget(owner.class_id, [X])
    assert owner.turn() == [Demand(owner.class_id, 2, X)]
    owner.machine.retarget(owner.class_id, [Y])
    assert set(owner.turn()) == {Demand(owner.class_id, 0, X), Demand(owner.class_id, 2, Y)}


def test_a_closed_class_runs_nothing_on_leases_that_it_still_has() -> None:
    owner = Owner()
    [one] = owner.submit(1)
    owner.turn()
    worker = owner.grant(1, X)
    owner.turn()
    owner.done(worker, one)
    owner.machine.close(owner.class_id, "group_removed", "it is gone")
    [late] = owner.submit(1)
    effects = owner.turn()
    assert ReturnLease(1, True, X, CPU) in effects
    assert Demand(owner.class_id, 1) in effects
    assert late in owner.machine.classes[owner.class_id].queue
    assert not any(isinstance(e, Cancelled) for e in effects)


def test_leases_of_spread_take_one_task_each_and_go_back() -> None:
    owner = Owner()
    owner.machine.classes[owner.class_id].spread = True
    owner.template.ran(1)
    one, _ = owner.submit(2)
    owner.turn()
    worker = owner.grant(1, X)
    owner.turn()
    assert list(owner.machine.by_worker[worker].inflight) == [one.task_id]
    owner.done(worker, one)
    assert ReturnLease(1, True, X, CPU) in owner.turn()


def test_demand_is_said_again_when_a_node_without_room_may_be_named_again() -> None:
    owner = Owner()
    owner.submit(2)
    owner.turn()
    machine, class_id = owner.machine, owner.class_id
    machine.moved(class_id, b"other", 2, stay=False)
    machine.busy(class_id, b"other", 5.0)
    effects = owner.turn(5.0)
    assert Demand(class_id, 2) in effects
    # As the shell does when it tells the own node.
    assert machine.classes[class_id].asked.avoid(5.0) == [b"other"]
    deadline = machine.deadline()
    assert deadline is not None
    machine.tick(deadline)
    assert machine.take() == [Demand(class_id, 2)]
    assert machine.classes[class_id].asked.avoid(deadline) == []
    assert machine.deadline() is None
