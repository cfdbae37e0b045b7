"""A world for one owner's dispatcher: its node, workers, and wires on which messages cross.

Every wire keeps its order and is read when the seed says so; nothing is told by any other way. The
node and the workers are kept in the simplest form, after node/sched/leases.py and
runtime/worker.py. ``settle`` lets all messages arrive and time pass while what runs goes on
running: then ``waits`` says which tasks wait without a reason.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Any

from mray.tasks.dispatch import Cancelled, Demand, Dispatcher, Fail, ReturnLease, Steal
from mray.tasks.task import Task, Template
from mray.wire.messages import Address, DeathCause, TaskReply, TaskTemplate

#: Run times that workers report, and what is known of the functions at first.
RUN_US = (5, 400, 400, 400, 60_000)
KNOWN_US = (400, 400, 10, None, 400)
#: Virtual: longer than an idle lease is kept.
QUIET_S = 0.5


class Violation(AssertionError):
    """Something that must never be."""


def must(holds: object, text: str) -> None:
    """Raise Violation unless that holds."""
    if not holds:
        raise Violation(text)


class Worker:
    """A process that runs tasks in the order of arrival."""

    def __init__(self, number: int) -> None:
        self.address = Address(b"w%d" % number, b"node")
        self.lease_id: int | None = None
        self.class_id = -1
        self.inbox: deque[Any] = deque()
        #: What the owner has not read yet. Outlives the worker.
        self.said: deque[Any] = deque()
        #: Not begun: the tasks' ids with their numbers.
        self.pending: dict[bytes, int] = {}
        self.running: bytes | None = None
        #: Replies that wait for somebody to confirm references.
        self.withheld: list[TaskReply] = []
        self.blocked = self.leaving = self.dead = False
        self.progress = -1

    def say(
        self, replies: list[TaskReply], back: list[bytes], blocked: bool = False,
        exiting: bool = False,
    ) -> None:  # fmt: skip
        """Send TaskReplies."""
        self.said.append((replies, back, blocked, exiting))

    def hand_back(self) -> list[bytes]:
        """What is not begun."""
        back, self.pending = list(self.pending), {}
        return back


class World:
    """See the module."""

    def __init__(self, seed: int, machine: Dispatcher | None = None) -> None:
        self.rng = random.Random(seed)
        self.machine = machine or Dispatcher(0.25)
        self.now = 0.0
        self.room = self.rng.choice((1, 2, 3, 3, 4))
        self.classes = [self.machine.class_of({"CPU": n}, b"job1", b"") for n in (1, 2)]
        #: Workers run what they have before they look at their messages.
        self.late = self.rng.random() < 0.4
        self.templates = []
        for number, run_us in enumerate(KNOWN_US):
            class_id = self.classes[number == len(KNOWN_US) - 1]
            wire = TaskTemplate(number, b"k", f"f{number}", 1, b"job1", {})
            self.templates.append(Template(wire, class_id, 0))
            if run_us is not None:
                self.templates[-1].ran(run_us)
        self.tasks: dict[bytes, Task] = {}
        self.limit: dict[bytes, int] = {}
        self.begun: dict[bytes, int] = {}
        self.ended: dict[bytes, str] = {}
        self.to_node: deque[Any] = deque()
        self.to_owner: deque[Any] = deque()
        self.demand = dict.fromkeys(self.classes, 0)
        self.lent: dict[int, Worker] = {}
        self.idle: list[Worker] = []
        #: All whose words are not read to the end.
        self.workers: dict[bytes, Worker] = {}
        self.leases_made = self.workers_made = 0
        #: While it settles: tasks that go on running, and workers whose next task does.
        self.long: set[bytes] = set()
        self.begin_long: set[bytes] = set()

    # -- the owner

    def turn(self) -> None:
        """A round of the owner's loop."""
        machine = self.machine
        machine.dispatch(self.now)
        machine.check()
        touched, machine.touched = machine.touched, {}
        for lease in touched.values():
            out, lease.out = lease.out, []
            must(not any(task.cancelled for task in out), "a cancelled task is sent")
            specs = [(task.task_id, task.seq) for task in out]
            self.workers[lease.worker.process_id].inbox.append(("push", specs))
        for effect in machine.take():
            match effect:
                case Demand(class_id, count):
                    self.to_node.append(("demand", class_id, count))
                case ReturnLease(lease_id, reuse):
                    self.to_node.append(("return", lease_id, reuse))
                case Steal(address, count):
                    must(count > 0, "nothing is asked for")
                    self.workers[address.process_id].inbox.append(("steal", count))
                case Fail(task):
                    self.end(task.task_id, "failed")
                case Cancelled(task):
                    self.end(task.task_id, "cancelled")

    def end(self, task_id: bytes, how: str) -> None:
        """A task is over."""
        must(task_id not in self.ended, "a task ends twice")
        self.ended[task_id] = how

    def submit(self, which: int, count: int, retries: int) -> None:
        """New tasks of one function."""
        for _ in range(count):
            task_id = (len(self.tasks) + 1).to_bytes(24, "little")
            task = Task(task_id, self.templates[which], b"", [], [], [])
            task.retries_left = retries
            self.tasks[task_id], self.limit[task_id] = task, 1 + retries
            self.machine.submit(task)
        self.turn()

    def cancel(self, task: Task) -> None:
        """Somebody does not want a task any more."""
        lease = self.machine.cancel(task, self.now)
        if lease is None:
            self.end(task.task_id, "cancelled")
        else:
            self.workers[lease.worker.process_id].inbox.append(("cancel", task.task_id))
        self.turn()

    def pass_time(self, seconds: float) -> None:
        """The owner's timer comes if it is due."""
        self.now += seconds
        due = self.machine.deadline()
        if due is not None and due <= self.now:
            self.machine.tick(self.now)
            after = self.machine.deadline()
            must(after is None or after > self.now, "the timer fires without end")
            self.turn()

    def hear_node(self) -> None:
        """The owner reads one message of the node."""
        kind, *rest = self.to_owner.popleft()
        machine = self.machine
        if kind == "grant":
            class_id, lease_id, address = rest
            machine.granted(class_id, lease_id, address, 1, self.now)
        elif kind == "refused":
            machine.refused(rest[0], "worker_start_failed", "no")
        elif kind == "wanted":
            machine.wanted(rest[0], self.now)
        else:
            machine.worker_died(*rest)
        self.turn()

    def hear(self, worker: Worker) -> None:
        """The owner reads one message of a worker."""
        word, owner_id = worker.said.popleft(), worker.address.process_id
        if isinstance(word, bytes):
            for task in self.machine.forgotten(owner_id, [word], self.now):
                self.end(task.task_id, "cancelled")
        else:
            for task, _ in self.machine.replied(owner_id, *word, self.now):
                self.end(task.task_id, "done")
        self.turn()

    # -- the node

    def may_grant(self) -> list[int]:
        """Classes that wait while there is room."""
        used = sum(not worker.blocked for worker in self.lent.values())
        return [c for c, n in self.demand.items() if n] if used < self.room else []

    def grant(self, class_id: int) -> None:
        """The node lends a worker."""
        self.demand[class_id] -= 1
        if self.idle and self.rng.random() < 0.7:
            worker = self.idle.pop()
        else:
            self.workers_made += 1
            worker = Worker(self.workers_made)
            self.workers[worker.address.process_id] = worker
        self.leases_made += 1
        worker.lease_id, worker.class_id = self.leases_made, class_id
        self.lent[self.leases_made] = worker
        self.to_owner.append(("grant", class_id, self.leases_made, worker.address))

    def hear_owner(self) -> None:
        """The node reads one message of the owner."""
        kind, *rest = self.to_node.popleft()
        if kind == "demand":
            must(rest[1] >= 0, "less than nothing is wanted")
            self.demand[rest[0]] = rest[1]
            return
        worker = self.lent.pop(rest[0], None)
        if worker is None:
            return  # It has died.
        must(worker.running is None and not worker.pending, "a lease with tasks is returned")
        # A cancel that comes too late is nothing to the worker.
        left = [message for message in worker.inbox if message[0] != "cancel"]
        must(not left or not rest[1], "a lease is returned with messages on their way")
        worker.lease_id = None
        if rest[1]:
            self.idle.append(worker)
        else:
            worker.dead = True

    def die(self, worker: Worker, knows: bool) -> None:
        """A lent worker ends. The owner may read of it before it has read what that said."""
        assert worker.lease_id is not None
        del self.lent[worker.lease_id]
        worker.dead = True
        worker.pending, worker.running = {}, None
        cause = DeathCause(
            "signal" if knows else "node_died", last_seq=worker.progress if knows else -1
        )
        self.to_owner.append(("died", worker.address.process_id, cause))

    # -- workers

    def read(self, worker: Worker) -> None:
        """A worker's loop reads one message."""
        kind, what = worker.inbox.popleft()
        if kind == "cancel":
            if worker.pending.pop(what, None) is not None:
                worker.said.append(what)
        elif kind == "steal":
            back = list(worker.pending)[-what:]
            for task_id in back:
                del worker.pending[task_id]
            worker.say([], back)
        elif worker.leaving:
            return  # It reads no more: its end will tell.
        elif worker.blocked:
            worker.say([], [task_id for task_id, _ in what], blocked=True)
        else:
            worker.pending |= dict(what)

    def begin(self, worker: Worker) -> None:
        """A worker takes up the next of its tasks."""
        task_id = next(iter(worker.pending))
        worker.running, worker.progress = task_id, worker.pending.pop(task_id)
        self.begun[task_id] = self.begun.get(task_id, 0) + 1
        must(self.begun[task_id] <= self.limit[task_id], "a task runs more often than it may")
        ended = self.ended.get(task_id)
        must(ended is None, f"a task runs that is {ended}")

    def finish(self, worker: Worker, run_us: int, withheld: bool = False) -> None:
        """What a worker runs is done; its reply may have to wait."""
        assert worker.running is not None
        reply = TaskReply(worker.running, 0, [], run_us)
        worker.running, worker.blocked = None, False
        if withheld:
            worker.withheld.append(reply)
        else:
            worker.say([reply], [])

    def exit(self, worker: Worker, run_us: int, races: bool) -> None:
        """max_calls is reached. ``races``: the next task was begun before the loop looked."""
        self.finish(worker, run_us)
        replies, _, _, _ = worker.said.pop()
        worker.leaving = True
        if races and worker.pending:
            self.begin(worker)
        worker.say(replies, worker.hand_back(), exiting=True)

    def block(self, worker: Worker) -> None:
        """What a worker runs waits in get."""
        worker.blocked = True
        back = worker.hand_back()
        if back:
            worker.say([], back, blocked=True)

    # -- when all is quiet

    def carry(self) -> bool:
        """Have everything on the wires read, and short tasks run; whether there was anything."""
        moved = False
        while self.to_node:
            self.hear_owner()
            moved = True
        for class_id in self.may_grant():
            self.grant(class_id)
            moved = True
        while self.to_owner:
            self.hear_node()
            moved = True
        for worker in list(self.workers.values()):
            while worker.inbox and not worker.dead:
                self.read(worker)
                moved = True
            if worker.withheld:
                worker.say([worker.withheld.pop(0)], [])
            if worker.running is not None and worker.running not in self.long:
                self.finish(worker, 400)
            if worker.running is None and worker.pending and not worker.leaving:
                self.begin(worker)
                moved = True
                if worker.running and worker.address.process_id in self.begin_long:
                    self.begin_long.discard(worker.address.process_id)
                    self.long.add(worker.running)
            while worker.said:
                self.hear(worker)
                moved = True
            if worker.leaving and worker.running is None and worker.lease_id in self.lent:
                self.die(worker, True)
                moved = True
        return moved

    def settle(self, long: bool) -> None:
        """Until nothing has happened for longer than anything waits by itself. ``long``: what runs
        goes on running, and so does what workers begin next."""
        if long:
            for worker in self.lent.values():
                if worker.running is not None:
                    self.long.add(worker.running)
                elif worker.pending or worker.inbox:
                    self.begin_long.add(worker.address.process_id)
        quiet_since, end = self.now, self.now + 60
        while self.now < quiet_since + QUIET_S:
            must(self.now < end, "it never gets quiet")
            self.pass_time(0.01)
            if self.carry():
                quiet_since = self.now

    def waits(self) -> list[str]:
        """Tasks that wait without a reason, after settle(); then what ran long may end."""
        self.long.clear()
        self.begin_long.clear()
        held = {worker.running for worker in self.lent.values()}
        ending = [worker for worker in self.lent.values() if worker.leaving]
        bad = []
        for task_id, task in self.tasks.items():
            if task_id in self.ended or task_id in held:
                continue
            class_id = task.template.class_id
            sclass = self.machine.classes[class_id]
            lease = next((x for x in sclass.leases if task_id in x.inflight), None)
            place = "queued" if lease is None else f"behind another on lease {lease.lease_id}"
            if lease is None and any(
                task_id in self.machine.by_worker[worker.address.process_id].inflight
                for worker in ending
            ):
                continue  # Sent to one that ends: its end will tell.
            if sclass.refused:
                continue  # There are no more workers than these.
            free = any(
                worker.class_id == class_id
                and worker.running is None
                and not (worker.leaving or worker.blocked)
                for worker in self.lent.values()
            )
            if free:
                bad.append(f"{place} while a worker has nothing to do")
            elif not self.demand[class_id]:
                bad.append(f"{place}, and nobody is asked for a worker")
        return bad

    def close(self) -> None:
        """Everything ends, and then nothing is kept."""
        self.settle(long=False)
        must(len(self.ended) == len(self.tasks), "tasks never end")
        must(not self.machine.by_worker, "a lease is kept")
        must(not self.lent, "a worker is lent to nobody")
        must(self.machine.deadline() is None, "a timer is left")
        must(not any(s.asked.total for s in self.machine.classes.values()), "a demand is left")
