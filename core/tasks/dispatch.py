"""Which task goes to which leased worker: the owner's side of leases.

Machine. Owns queues per scheduling class, leases, what is in flight on each, demand towards the
node daemon, stealing and the retry after a worker's death. Tasks arrive with all their arguments
resolved. Sends nothing: it fills ``lease.out`` and collects effects.

A lease goes
    granted -> busy <-> idle -> returned (idle for ``idle_s``, or at once when others want it)
                busy -> blocked (its task waits in get: gets nothing more until it replies)
                any  -> gone (worker died)

A worker gets one task until the run time of its function is known, then as many as make about
5 ms of work. A task that turns out long does not hold those behind it: when another worker is idle
they are taken back (stolen), and when the long one blocks in get the worker hands them back.
"""

from __future__ import annotations

from collections import deque

import msgspec

from mray.machine import InvariantError
from mray.tasks.task import Task, Template
from mray.wire.messages import Address, DeathCause, TaskReply

#: Tasks behind one that has made no progress for so long count as waiting for another worker.
STUCK_S = 0.02
#: Tasks given to one worker in one go while others could take some.
_CHUNK = 64


class Lease:
    """A worker lent to us."""

    __slots__ = (
        "blocked",
        "draining",
        "idle_since",
        "inflight",
        "known",
        "lease_id",
        "out",
        "pid",
        "progress_at",
        "sclass",
        "seq",
        "stealing",
        "worker",
    )

    def __init__(self, lease_id: int, worker: Address, pid: int, sclass: SchedulingClass) -> None:
        self.lease_id = lease_id
        self.worker = worker
        self.pid = pid
        self.sclass = sclass
        #: Pushed and not answered, in push order.
        self.inflight: dict[bytes, Task] = {}
        #: Templates the worker has been told.
        self.known: set[int] = set()
        self.seq = 0
        #: Tasks to be sent now; each is in inflight already.
        self.out: list[Task] = []
        self.blocked = False
        #: Gets nothing more; returned when empty.
        self.draining = False
        self.stealing = False
        self.idle_since = 0.0
        self.progress_at = 0.0


class SchedulingClass:
    """Tasks that any of the same leases can run."""

    __slots__ = ("class_id", "demand", "job_id", "leases", "queue", "resources", "runtime_env")

    def __init__(
        self, class_id: int, resources: dict[str, int], job_id: bytes, runtime_env: bytes
    ) -> None:
        self.class_id = class_id
        self.resources = resources
        self.job_id = job_id
        self.runtime_env = runtime_env
        self.queue: deque[Task] = deque()
        self.leases: list[Lease] = []
        #: What the node daemon believes we want.
        self.demand = 0


class Demand(msgspec.Struct, frozen=True):
    """Tell the node daemon how many more leases the class wants."""

    class_id: int
    count: int


class ReturnLease(msgspec.Struct, frozen=True):
    """Give the lease back."""

    lease_id: int
    reuse: bool


class Steal(msgspec.Struct, frozen=True):
    """Ask the worker for unstarted tasks."""

    worker: Address
    count: int


class Fail(msgspec.Struct, frozen=True):
    """The task is over without a reply: no retry is left, or none can help."""

    task: Task
    #: worker_died, or the kind of LeaseRefused.
    kind: str
    text: str
    cause: DeathCause | None = None


Effect = Demand | ReturnLease | Steal | Fail


class Dispatcher:
    """See the module. All times are monotonic seconds given by the caller."""

    def __init__(self, idle_s: float = 0.25) -> None:
        self.idle_s = idle_s
        self.effects: list[Effect] = []
        self.classes: dict[int, SchedulingClass] = {}
        self.by_worker: dict[bytes, Lease] = {}
        #: Leases with something in ``out``.
        self.touched: dict[int, Lease] = {}
        self._dirty: dict[int, SchedulingClass] = {}
        self._class_numbers: dict[tuple[object, ...], int] = {}

    def class_of(self, resources: dict[str, int], job_id: bytes, runtime_env: bytes) -> int:
        """The number of the scheduling class with these needs; made at first use."""
        key = (tuple(sorted(resources.items())), job_id, runtime_env)
        number = self._class_numbers.get(key)
        if number is None:
            number = len(self._class_numbers)
            self.classes[number] = SchedulingClass(number, resources, job_id, runtime_env)
            # Last: other threads look the number up without a lock.
            self._class_numbers[key] = number
        return number

    def take(self) -> list[Effect]:
        """The effects since the last call."""
        effects, self.effects = self.effects, []
        return effects

    # -- events

    def submit(self, task: Task) -> None:
        """A task whose arguments are all there. Goes out at the next dispatch()."""
        sclass = self.classes[task.template.class_id]
        sclass.queue.append(task)
        self._dirty[sclass.class_id] = sclass

    def granted(self, class_id: int, lease_id: int, worker: Address, pid: int, now: float) -> None:
        """The node daemon lends a worker."""
        sclass = self.classes[class_id]
        sclass.demand = max(0, sclass.demand - 1)
        if not sclass.queue and not self._stuck(sclass, now):
            self.effects.append(ReturnLease(lease_id, True))
            return
        lease = Lease(lease_id, worker, pid, sclass)
        lease.idle_since = now
        sclass.leases.append(lease)
        self.by_worker[worker.process_id] = lease
        self._dirty[class_id] = sclass

    def refused(self, class_id: int, kind: str, text: str) -> None:
        """The node daemon cannot lend for this class, ever: its tasks fail."""
        sclass = self.classes[class_id]
        sclass.demand = 0
        while sclass.queue:
            self.effects.append(Fail(sclass.queue.popleft(), kind, text))

    def replied(
        self,
        worker_id: bytes,
        replies: list[TaskReply],
        returned: list[bytes],
        blocked: bool,
        exiting: bool,
        now: float,
    ) -> list[tuple[Task, TaskReply]]:
        """A worker's answer. Returns the finished tasks with their replies, in order; a task that
        the worker wants retried is among them too (status 2)."""
        lease = self.by_worker.get(worker_id)
        if lease is None:
            return []
        done = []
        inflight = lease.inflight
        for reply in replies:
            task = inflight.pop(reply.task_id, None)
            if task is not None:
                task.template.ran(reply.run_us)
                done.append((task, reply))
        lease.progress_at = now
        sclass = lease.sclass
        if returned:
            back = [task for task_id in returned if (task := inflight.pop(task_id, None))]
            sclass.queue.extendleft(reversed(back))
        lease.stealing = False
        if blocked:
            lease.blocked = True
        elif replies:
            lease.blocked = False
        if exiting:
            self._drop(lease)
            sclass.queue.extendleft(reversed(inflight.values()))
            self.effects.append(ReturnLease(lease.lease_id, False))
        elif not inflight:
            lease.idle_since = now
        self._dirty[sclass.class_id] = sclass
        return done

    def retry(self, task: Task) -> None:
        """Run the task once more; the caller has charged the retry."""
        task.attempt += 1
        self.submit(task)

    def worker_died(self, worker_id: bytes, cause: DeathCause) -> None:
        """A lent worker is dead. What it had begun is charged a retry, the rest is not."""
        lease = self.by_worker.get(worker_id)
        if lease is None:
            return
        self._drop(lease)
        requeue: list[Task] = []
        for task in lease.inflight.values():
            if task.seq > cause.last_seq:
                requeue.append(task)
            elif task.retries_left != 0:
                task.retries_left -= 1
                task.attempt += 1
                requeue.append(task)
            else:
                self.effects.append(Fail(task, "worker_died", cause.text, cause))
        lease.sclass.queue.extendleft(reversed(requeue))
        lease.inflight.clear()
        self._dirty[lease.sclass.class_id] = lease.sclass

    def wanted(self, waiting: int, now: float) -> None:
        """Others wait for what we hold: idle leases go now, busy ones when they drain."""
        for sclass in self.classes.values():
            for lease in list(sclass.leases):
                if waiting <= 0:
                    return
                if not lease.inflight:
                    self._give_back(lease)
                    waiting -= 1
                elif not lease.blocked:
                    if not lease.draining:
                        lease.draining = True
                    waiting -= 1

    def tick(self, now: float) -> None:
        """Return what has been idle long enough; look again where tasks are stuck."""
        for sclass in self.classes.values():
            for lease in list(sclass.leases):
                if not lease.inflight and now - lease.idle_since >= self.idle_s:
                    self._give_back(lease)
                elif len(lease.inflight) > 1 and now - lease.progress_at >= STUCK_S:
                    self._dirty[sclass.class_id] = sclass

    def deadline(self) -> float | None:
        """When tick() has something to do."""
        earliest: float | None = None
        for sclass in self.classes.values():
            for lease in sclass.leases:
                if not lease.inflight:
                    at = lease.idle_since + self.idle_s
                elif len(lease.inflight) > 1 and not lease.blocked:
                    at = lease.progress_at + STUCK_S
                else:
                    continue
                if earliest is None or at < earliest:
                    earliest = at
        return earliest

    # -- decisions

    def dispatch(self, now: float) -> None:
        """Fill workers, ask for more, steal. Call after a batch of events."""
        dirty, self._dirty = self._dirty, {}
        for sclass in dirty.values():
            self._fill(sclass, now)
            for lease in list(sclass.leases):
                if not lease.inflight:
                    if lease.draining:
                        self._give_back(lease)
                    elif not sclass.queue:
                        self._steal_for(sclass, now)
                        break
            self._update_demand(sclass, now)

    def _fill(self, sclass: SchedulingClass, now: float) -> None:
        queue = sclass.queue
        if not queue:
            return
        open_leases = [lease for lease in sclass.leases if not lease.blocked and not lease.draining]
        while queue and open_leases:
            lease = min(open_leases, key=_load)
            room = queue[0].template.depth - len(lease.inflight)
            if room <= 0:
                return
            share = -(-len(queue) // len(open_leases))
            count = min(room, share, _CHUNK)
            inflight, out, seq = lease.inflight, lease.out, lease.seq
            if not inflight:
                lease.progress_at = now
            for _ in range(count):
                task = queue.popleft()
                task.seq = seq
                seq += 1
                inflight[task.task_id] = task
                out.append(task)
                if queue and queue[0].template.depth <= len(inflight):
                    break
            lease.seq = seq
            self.touched[lease.lease_id] = lease

    def _stuck(self, sclass: SchedulingClass, now: float) -> int:
        return sum(
            len(lease.inflight) - 1
            for lease in sclass.leases
            if len(lease.inflight) > 1 and now - lease.progress_at >= STUCK_S
        )

    def _steal_for(self, sclass: SchedulingClass, now: float) -> None:
        """Some worker is idle and nothing queued: take half of the longest backlog."""
        victim = max(sclass.leases, key=_load)
        backlog = len(victim.inflight)
        if backlog < 2 or victim.stealing or victim.blocked:
            return
        ahead_us = backlog * max(0.0, next(iter(victim.inflight.values())).template.run_us)
        if ahead_us < 1000 and now - victim.progress_at < 0.002:
            return
        victim.stealing = True
        self.effects.append(Steal(victim.worker, backlog // 2))

    def _update_demand(self, sclass: SchedulingClass, now: float) -> None:
        want = len(sclass.queue) + self._stuck(sclass, now)
        have = sclass.demand
        # The daemon needs the order of magnitude only: a message a task would cost more.
        if (want == 0) == (have == 0) and have <= want * 2 and want <= have * 2:
            return
        sclass.demand = want
        self.effects.append(Demand(sclass.class_id, want))

    def _give_back(self, lease: Lease) -> None:
        self._drop(lease)
        self.effects.append(ReturnLease(lease.lease_id, True))

    def _drop(self, lease: Lease) -> None:
        lease.sclass.leases.remove(lease)
        self.by_worker.pop(lease.worker.process_id, None)
        self.touched.pop(lease.lease_id, None)
        lease.out.clear()

    def check(self) -> None:
        """Raise InvariantError on a contradiction."""
        for sclass in self.classes.values():
            queued = {id(task) for task in sclass.queue}
            for lease in sclass.leases:
                if self.by_worker.get(lease.worker.process_id) is not lease:
                    raise InvariantError(f"lease {lease.lease_id} is not filed by its worker")
                for task in lease.inflight.values():
                    if id(task) in queued:
                        raise InvariantError(f"task {task.task_id.hex()} is queued and in flight")


def _load(lease: Lease) -> int:
    return len(lease.inflight)


def describe(template: Template) -> str:
    """What people call a function's tasks."""
    return f"{template.name}()"
