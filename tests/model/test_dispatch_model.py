"""Random lives of an owner's dispatcher: every task ends exactly once, and no lease is kept.

Workers and the node daemon are kept here in the simplest form. Messages between two of them arrive
in order, at moments that Hypothesis chooses.
"""

from __future__ import annotations

import itertools
from collections import deque

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mray.tasks.dispatch import Cancelled, Demand, Dispatcher, Fail, ReturnLease, Steal
from mray.tasks.task import Task, Template
from mray.wire.messages import Address, DeathCause, TaskReply, TaskTemplate

RUN_US = [5, 400, 400, 400, 60_000]


class Worker:
    """Runs in the order of arrival; what it has to say waits in ``said``."""

    def __init__(self, number: int) -> None:
        self.address = Address(b"w%d" % number, b"node")
        #: Tasks, how many to hand back, or the id of one that is cancelled.
        self.inbox: deque[list[Task] | int | bytes] = deque()
        self.pending: dict[bytes, int] = {}
        self.running: bytes | None = None
        self.blocked = False
        self.leaving = False
        #: Replies, handed-back tasks, blocked, exiting; or a cancelled task that was not begun.
        self.said: deque[tuple[list[TaskReply], list[bytes], bool, bool] | bytes] = deque()
        self.progress = -1
        self.lease_id: int | None = None


class DispatchLife(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.machine = Dispatcher(0.25)
        self.now = 0.0
        self.ids = itertools.count(1)
        self.lease_ids = itertools.count(1)
        self.worker_numbers = itertools.count(1)
        self.class_ids = [self.machine.class_of({"CPU": n}, b"job1", b"") for n in (1, 2)]
        self.templates = [
            Template(TaskTemplate(n, b"k", "f", 1, b"job1", {}), class_id, 0)
            for n, class_id in enumerate(self.class_ids)
        ]
        # Known to be short, so that several are in flight at one worker.
        self.templates[0].ran(400)
        self.tasks: dict[bytes, Task] = {}
        self.limit: dict[bytes, int] = {}
        self.begun: dict[bytes, int] = {}
        self.ended: dict[bytes, str] = {}
        #: The node daemon: what it thinks we want, its workers, who is lent.
        self.demand = dict.fromkeys(self.class_ids, 0)
        self.workers: list[Worker] = []
        self.lent: dict[int, Worker] = {}
        self.never_again = dict.fromkeys(self.class_ids, False)

    # -- the world obeys

    def turn(self) -> None:
        self.machine.dispatch(self.now)
        self.machine.check()
        touched, self.machine.touched = self.machine.touched, {}
        for lease in touched.values():
            out, lease.out = lease.out, []
            # What was sent before may begin before the worker hears of it.
            assert not any(self.tasks[task.task_id].cancelled for task in out)
            self.worker_of(lease.worker).inbox.append([self.sent(task) for task in out])
        for effect in self.machine.take():
            match effect:
                case Demand(class_id, count):
                    assert count >= 0
                    self.demand[class_id] = count
                case ReturnLease(lease_id, reuse):
                    worker = self.lent.pop(lease_id)
                    assert worker.running is None, "a lease is returned while its worker runs"
                    assert not worker.pending, "a lease is returned with tasks on it"
                    # A cancel that comes too late is nothing to the worker, nor is it to one that
                    # ends what others would have it hand back.
                    void = bytes if reuse else (bytes, int)
                    worker.inbox = deque(m for m in worker.inbox if not isinstance(m, void))
                    assert not worker.inbox, "a lease is returned with messages on their way"
                    worker.lease_id = None
                    if not reuse and worker in self.workers:
                        self.workers.remove(worker)
                case Steal(worker_address, count):
                    assert count > 0
                    self.worker_of(worker_address).inbox.append(count)
                case Fail(task, _, _, _):
                    assert not task.cancelled
                    self.end(task.task_id, "failed")
                case Cancelled(task):
                    self.end(task.task_id, "cancelled")

    def sent(self, task: Task) -> Task:
        """A copy as it is on the wire: the task's number may change after."""
        copy = Task(task.task_id, task.template, b"", [], [], [])
        copy.seq = task.seq
        return copy

    def worker_of(self, address: Address) -> Worker:
        return next(w for w in self.lent.values() if w.address == address)

    def end(self, task_id: bytes, how: str) -> None:
        assert task_id not in self.ended, "a task ends twice"
        self.ended[task_id] = how

    # -- the owner

    @rule(which=st.integers(0, 1), count=st.integers(1, 8), retries=st.integers(0, 2))
    def submit(self, which: int, count: int, retries: int) -> None:
        for _ in range(count):
            task = Task(next(self.ids).to_bytes(24, "little"), self.templates[which],
                        b"", [], [], [])  # fmt: skip
            self.tasks[task.task_id] = task
            task.retries_left = retries
            self.limit[task.task_id] = 1 + retries
            self.machine.submit(task)
        self.turn()

    @precondition(lambda self: len(self.ended) < len(self.tasks))
    @rule(data=st.data(), count=st.integers(1, 3))
    def cancel(self, data: st.DataObject, count: int) -> None:
        for _ in range(count):
            left = sorted(set(self.tasks) - set(self.ended))
            if not left:
                break
            task = self.tasks[data.draw(st.sampled_from(left))]
            lease = self.machine.cancel(task, self.now)
            if lease is None:
                self.end(task.task_id, "cancelled")
            else:
                self.worker_of(lease.worker).inbox.append(task.task_id)
        self.turn()

    @rule(seconds=st.sampled_from([0.0005, 0.003, 0.02, 0.25]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        deadline = self.machine.deadline()
        if deadline is not None and deadline <= self.now:
            self.machine.tick(self.now)
            after = self.machine.deadline()
            assert after is None or after > self.now, "the timer fires without end"
            self.turn()

    # -- the node daemon

    def may_grant(self) -> bool:
        return any(self.demand.values()) and len(self.lent) < 4

    @precondition(lambda self: self.may_grant())
    @rule(data=st.data())
    def grant(self, data: st.DataObject) -> None:
        class_id = data.draw(st.sampled_from([c for c, n in self.demand.items() if n]))
        self.demand[class_id] -= 1
        idle = [w for w in self.workers if w.lease_id is None]
        if not idle or data.draw(st.booleans()):
            idle = [Worker(next(self.worker_numbers))]
            self.workers += idle
        worker = data.draw(st.sampled_from(idle))
        worker.lease_id = next(self.lease_ids)
        self.lent[worker.lease_id] = worker
        self.machine.granted(class_id, worker.lease_id, worker.address, 1, self.now)
        self.turn()

    @rule(waiting=st.integers(1, 3))
    def others_want(self, waiting: int) -> None:
        self.machine.wanted(waiting, self.now)
        self.turn()

    @precondition(lambda self: any(self.demand.values()))
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        class_id = data.draw(st.sampled_from([c for c, n in self.demand.items() if n]))
        could_run = bool(self.machine.classes[class_id].open_leases())
        failed_before = len(self.ended)
        self.demand[class_id] = 0
        self.machine.refused(class_id, "worker_start_failed", "no")
        self.turn()
        assert not could_run or len(self.ended) == failed_before

    @precondition(lambda self: self.lent)
    @rule(data=st.data(), knows=st.booleans())
    def die(self, data: st.DataObject, knows: bool) -> None:
        worker = data.draw(st.sampled_from(list(self.lent.values())))
        # What it said before reaches us first.
        while worker.said:
            self.hear(worker)
        if worker.lease_id not in self.lent:
            return
        del self.lent[worker.lease_id]
        self.workers.remove(worker)
        kind = "signal" if knows else "node_died"
        last = worker.progress if knows else -1
        self.machine.worker_died(worker.address.process_id, DeathCause(kind, last_seq=last))
        self.turn()

    # -- workers

    def with_(self, condition: str) -> list[Worker]:
        workers = list(self.lent.values())
        match condition:
            case "mail":
                return [w for w in workers if w.inbox]
            case "work":
                return [w for w in workers if w.pending and w.running is None and not w.leaving]
            case "running":
                return [w for w in workers if w.running is not None]
            case _:
                return [w for w in workers if w.said]

    @precondition(lambda self: self.lent)
    @rule(data=st.data(), moves=st.lists(st.sampled_from("rbfh"), min_size=4, max_size=12))
    def a_worker_works(self, data: st.DataObject, moves: list[str]) -> None:
        worker = data.draw(st.sampled_from(list(self.lent.values())))
        for move in moves:
            if move == "r" and worker.inbox:
                self.read(worker)
            elif move == "b" and worker in self.with_("work"):
                self.begin(worker)
            elif move == "f" and worker.running is not None:
                self.finish(worker, data.draw(st.sampled_from(RUN_US)), False)
            elif move == "h" and worker.said:
                self.hear(worker)

    def read(self, worker: Worker) -> None:
        message = worker.inbox.popleft()
        if isinstance(message, bytes):
            if worker.pending.pop(message, None) is not None:
                worker.said.append(message)
        elif isinstance(message, int):
            back = list(worker.pending)[-message:]
            for task_id in back:
                del worker.pending[task_id]
            worker.said.append(([], back, False, False))
        elif worker.leaving:
            return  # it does not read any more
        elif worker.blocked:
            worker.said.append(([], [task.task_id for task in message], True, False))
        else:
            worker.pending |= {task.task_id: task.seq for task in message}

    def begin(self, worker: Worker) -> None:
        task_id = next(iter(worker.pending))
        worker.running, worker.progress = task_id, worker.pending.pop(task_id)
        self.begun[task_id] = self.begun.get(task_id, 0) + 1
        assert self.begun[task_id] <= self.limit[task_id], "a task runs more often than it may"
        assert task_id not in self.ended, "a task runs that is over"

    def finish(self, worker: Worker, run_us: int, exiting: bool) -> None:
        assert worker.running is not None
        reply = TaskReply(worker.running, 0, [], run_us)
        worker.running, worker.blocked = None, False
        if exiting and worker.pending:
            # The executing thread is faster than the loop that looks what is not begun.
            worker.said.append(([reply], [], False, True))
            worker.leaving = True
            self.begin(worker)
            return
        back: list[bytes] = []
        if exiting:
            back, worker.pending, worker.leaving = list(worker.pending), {}, True
        worker.said.append(([reply], back, False, exiting))

    def hear(self, worker: Worker) -> None:
        word = worker.said.popleft()
        if isinstance(word, bytes):
            for task in self.machine.forgotten(worker.address.process_id, [word], self.now):
                self.end(task.task_id, "cancelled")
            self.turn()
            return
        replies, back, blocked, exiting = word
        done = self.machine.replied(
            worker.address.process_id, replies, back, blocked, exiting, self.now
        )
        for task, _ in done:
            self.end(task.task_id, "done")
        self.turn()

    @precondition(lambda self: self.with_("mail"))
    @rule(data=st.data())
    def worker_reads(self, data: st.DataObject) -> None:
        self.read(data.draw(st.sampled_from(self.with_("mail"))))

    @precondition(lambda self: self.with_("work"))
    @rule(data=st.data())
    def worker_begins(self, data: st.DataObject) -> None:
        self.begin(data.draw(st.sampled_from(self.with_("work"))))

    @precondition(lambda self: self.with_("running"))
    @rule(
        data=st.data(),
        run_us=st.sampled_from(RUN_US),
        exiting=st.booleans(),
    )
    def worker_finishes(self, data: st.DataObject, run_us: int, exiting: bool) -> None:
        self.finish(data.draw(st.sampled_from(self.with_("running"))), run_us, exiting)

    @precondition(lambda self: self.with_("running"))
    @rule(data=st.data())
    def worker_blocks(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(self.with_("running")))
        worker.blocked = True
        back, worker.pending = list(worker.pending), {}
        if back:
            worker.said.append(([], back, True, False))

    @precondition(lambda self: self.with_("words"))
    @rule(data=st.data())
    def owner_hears(self, data: st.DataObject) -> None:
        self.hear(data.draw(st.sampled_from(self.with_("words"))))

    # -- what holds

    @invariant()
    def consistent(self) -> None:
        self.machine.check()

    @invariant()
    def no_task_is_lost(self) -> None:
        known = {
            task.task_id for sclass in self.machine.classes.values() for task in sclass.queue
        } | {task_id for lease in self.machine.by_worker.values() for task_id in lease.inflight}
        assert known == set(self.tasks) - set(self.ended)

    @invariant()
    def the_daemon_knows_what_we_want(self) -> None:
        for class_id, sclass in self.machine.classes.items():
            assert self.demand[class_id] == sclass.asked.home == sclass.asked.total
            if sclass.queue and not sclass.leases:
                assert sclass.asked.total, "tasks wait and nobody is asked for a worker"

    @invariant()
    def leases_are_those_that_were_lent(self) -> None:
        held = {lease.lease_id for lease in self.machine.by_worker.values()}
        assert held == set(self.lent)

    def teardown(self) -> None:
        """Without further misfortune, all that is left is done, and then nothing is kept."""
        for _ in range(5000):
            self.now += 0.01
            before = self.machine.deadline()
            if before is not None and before <= self.now:
                self.machine.tick(self.now)
                self.turn()
            while self.may_grant():
                class_id = next(c for c, n in self.demand.items() if n)
                self.demand[class_id] -= 1
                worker = Worker(next(self.worker_numbers))
                worker.lease_id = next(self.lease_ids)
                self.workers.append(worker)
                self.lent[worker.lease_id] = worker
                self.machine.granted(class_id, worker.lease_id, worker.address, 1, self.now)
                self.turn()
            for worker in list(self.lent.values()):
                while worker.inbox:
                    self.read(worker)
                if worker.running is not None:
                    self.finish(worker, 400, False)
                elif worker.pending and not worker.leaving:
                    self.begin(worker)
                while worker.said:
                    self.hear(worker)
                if worker.leaving and worker.running is None and worker.lease_id in self.lent:
                    del self.lent[worker.lease_id]
                    cause = DeathCause("intended", last_seq=worker.progress)
                    self.machine.worker_died(worker.address.process_id, cause)
                    self.turn()
            if not self.lent and len(self.ended) == len(self.tasks):
                break
        assert len(self.ended) == len(self.tasks), "tasks never end"
        assert not self.machine.by_worker
        assert not any(self.demand.values()), "a demand without tasks"
        assert self.machine.deadline() is None


DispatchLife.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=80,
    deadline=None,
    derandomize=True,
    phases=(Phase.generate,),
    database=None,
)
TestDispatchLife = DispatchLife.TestCase
