"""Which task goes to which leased worker: the owner's side of leases.

Machine. Owns queues per scheduling class, leases, what is in flight on each, demand towards the
node daemon, stealing and the retry after a worker's death. Tasks arrive with all their arguments
resolved. Sends nothing: it fills ``lease.out`` and collects effects.

A lease goes
    granted -> busy <-> idle -> returned (idle for ``idle_s``, or at once when others want it)
                busy -> blocked (its task waits in get: gets nothing more until it replies)
                any  -> leaving (its worker exits: max_calls) -> returned, not to be used again
                any  -> gone (worker died)

After a death, what the worker had begun is charged a retry and the rest is not; where the worker
ended for want of memory, oom_retries.py judges it instead. The evidence is
``last_seq``, the number of the last task it began. Numbers grow over all leases of a worker, so
that one from a former lease says that nothing of this one was begun. Where there is no evidence,
a task that kills its worker must not be run for ever, nor one be run more often than it may: after
-1 the oldest that was sent is charged, after a node's death all that were.

A worker gets one task until the run time of its function is known, then as many as make about
5 ms of work. A task that turns out long does not hold those behind it: when another worker is idle
they are taken back (stolen), and when the long one blocks in get the worker hands them back. Where
the worker is stopped, or computes in C without letting threads run, nobody can take them back: so
nothing is sent behind a task whose run time is not known.
"""

from __future__ import annotations

from mray.machine import InvariantError
from mray.tasks.asked import HOME
from mray.tasks.effects import Cancelled, Demand, Effect, Fail, ReturnLease, Steal
from mray.tasks.lease import Lease, SchedulingClass
from mray.tasks.oom_retries import OutOfMemory
from mray.tasks.task import Task
from mray.wire.messages import Address, DeathCause, TaskReply

__all__ = ["Cancelled", "Demand", "Dispatcher", "Effect", "Fail", "ReturnLease", "Steal"]

#: Tasks behind one that has made no progress for so long count as waiting for another worker.
STUCK_S = 0.02
#: Tasks given to one worker in one go while others could take some.
_CHUNK = 64
#: Leases of SPREAD take one task each while no more than this wait: nodes that are far would come
#: too late.
_SPREAD_MAX = 64
#: An idle worker steals from one that began its task so recently only if much waits behind it:
#: the tasks would be done before the message is there.
_STEAL_BACKLOG_US = 1000
_STEAL_AFTER_S = 0.002


class Dispatcher:
    """See the module. All times are monotonic seconds given by the caller."""

    def __init__(self, idle_s: float = 0.25) -> None:
        self.idle_s = idle_s
        self.effects: list[Effect] = []
        self.classes: dict[int, SchedulingClass] = {}
        #: Every lease, those that are leaving too.
        self.by_worker: dict[bytes, Lease] = {}
        #: Leases with something in ``out``, by worker.
        self.touched: dict[bytes, Lease] = {}
        self._dirty: dict[int, SchedulingClass] = {}
        #: Classes of which another node had no room for a lease.
        self._shunning: dict[int, SchedulingClass] = {}
        #: Classes with cancelled tasks in their queues.
        self._littered: dict[int, SchedulingClass] = {}
        self._class_numbers: dict[tuple[object, ...], int] = {}

    def class_of(
        self, resources: dict[str, int], job_id: bytes, runtime_env: bytes,
        exclusive: bool = False, where: bytes = b"",
    ) -> int:  # fmt: skip
        """The number of the scheduling class with these needs; made at first use."""
        key = (tuple(sorted(resources.items())), job_id, runtime_env, exclusive, where)
        number = self._class_numbers.get(key)
        if number is None:
            number = len(self._class_numbers)
            self.classes[number] = SchedulingClass(
                number, resources, job_id, runtime_env, exclusive, where
            )
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

    def granted(
        self, class_id: int, lease_id: int, worker: Address, pid: int, now: float,
        node: bytes = HOME,
    ) -> None:  # fmt: skip
        """A node daemon lends a worker."""
        sclass = self.classes[class_id]
        sclass.asked.granted(node)
        sclass.refused = False
        if not sclass.queue and not _stuck(sclass):
            self._return(sclass, lease_id, node)
            return
        lease = Lease(lease_id, worker, pid, sclass, node)
        lease.idle_since = now
        sclass.leases.append(lease)
        self.by_worker[worker.process_id] = lease
        self._dirty[class_id] = sclass

    def refused(self, class_id: int, kind: str, text: str) -> None:
        """The node daemon cannot lend (more) for this class: its tasks fail, unless a worker that
        we have can run them. Then more are asked for when no worker of ours takes tasks."""
        sclass = self.classes[class_id]
        sclass.asked.clear()
        if sclass.open_leases():
            sclass.refused = True
            return
        self._sweep()
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
        sclass = lease.sclass
        if replies:
            lease.progress_at = now
            lease.barren = lease.stuck = False
        elif not blocked and not exiting:
            # Nothing but an answer to Steal looks like this.
            lease.stealing = False
            lease.barren = not returned and lease.steal_seq == lease.seq
        if returned:
            back = [task for task_id in returned if (task := inflight.pop(task_id, None))]
            sclass.queue.extendleft(task for task in reversed(back) if not self._over(task))
        if blocked:
            lease.blocked = True
        elif replies:
            lease.blocked = False
        if exiting and not lease.leaving:
            # Of what is still in flight, some may have been begun before the worker looked, and
            # some may never have arrived: its replies and its death will tell.
            unsent = [inflight.pop(task.task_id) for task in lease.out]
            sclass.queue.extendleft(reversed(unsent))
            self._drop(lease)
            lease.leaving = True
            if inflight:
                self.by_worker[worker_id] = lease
        self._answered(lease, now)
        return done

    def _answered(self, lease: Lease, now: float) -> None:
        if not lease.inflight:
            if lease.leaving:
                self.by_worker.pop(lease.worker.process_id, None)
                self.effects.append(ReturnLease(lease.lease_id, False, lease.node))
            else:
                lease.idle_since = now
        self._dirty[lease.sclass.class_id] = lease.sclass

    def _over(self, task: Task) -> bool:
        if task.cancelled:
            self.effects.append(Cancelled(task))
        return task.cancelled

    def cancel(self, task: Task, now: float) -> Lease | None:
        """Never begin the task (again). The lease whose worker has it, which must be told; None:
        no worker has, and the task is over."""
        task.cancelled = True
        for lease in self.by_worker.values():
            if task.task_id not in lease.inflight:
                continue
            if task not in lease.out:
                return lease
            lease.out.remove(task)
            del lease.inflight[task.task_id]
            self._answered(lease, now)
            return None
        # Looked for when all that are cancelled in this round are.
        sclass = self.classes[task.template.class_id]
        self._littered[sclass.class_id] = self._dirty[sclass.class_id] = sclass
        return None

    def forgotten(self, worker_id: bytes, task_ids: list[bytes], now: float) -> list[Task]:
        """Cancelled tasks that the worker had not begun and never will: they are over."""
        lease = self.by_worker.get(worker_id)
        if lease is None:
            return []
        gone = [task for task_id in task_ids if (task := lease.inflight.pop(task_id, None))]
        self._answered(lease, now)
        return gone

    def _sweep(self) -> None:
        """Take cancelled tasks out of the queues."""
        littered, self._littered = self._littered, {}
        for sclass in littered.values():
            left = [task for task in sclass.queue if not task.cancelled]
            sclass.queue.clear()
            sclass.queue.extend(left)

    def retry(self, task: Task) -> None:
        """Run the task once more; the caller has charged the retry."""
        task.attempt += 1
        self.submit(task)

    def worker_died(self, worker_id: bytes, cause: DeathCause) -> None:
        """A lent worker is dead. What it had begun is charged a retry, the rest is not."""
        lease = self.by_worker.get(worker_id)
        if lease is None:
            return
        unsent = {task.task_id for task in lease.out}
        self._drop(lease)
        last_seq, oldest = cause.last_seq, cause.last_seq < 0
        all_sent = oldest and cause.kind in ("node_died", "drained")
        requeue: list[Task] = []
        for task in lease.inflight.values():
            sent = task.task_id not in unsent
            if not (task.seq <= last_seq or (sent and (oldest or all_sent))):
                if not self._over(task):
                    requeue.append(task)
                continue
            oldest = False
            if self._over(task):
                continue
            if cause.oom or cause.kind == "kernel_oom":
                self.effects.append(OutOfMemory(task, cause))
            elif task.retries_left != 0:
                task.retries_left -= cause.kind != "drained"
                task.attempt += 1
                requeue.append(task)
            else:
                self.effects.append(Fail(task, "worker_died", cause.text, cause))
        lease.sclass.queue.extendleft(reversed(requeue))
        lease.inflight.clear()
        self._dirty[lease.sclass.class_id] = lease.sclass

    def moved(self, class_id: int, node: bytes, count: int, stay: bool) -> None:
        """Our own node names another one that serves so much of our demand."""
        self._say(class_id, self.classes[class_id].asked.moved(node, count, stay))

    def busy(self, class_id: int, node: bytes, now: float) -> None:
        """Another node has no room for us."""
        sclass = self.classes[class_id]
        sclass.asked.refused(node, now)
        self._dirty[class_id] = self._shunning[class_id] = sclass

    def retarget(self, class_id: int, nodes: list[bytes]) -> None:
        """Workers of the class can be on these nodes only."""
        sclass = self.classes[class_id]
        sclass.asked.targets = nodes
        self._dirty[class_id] = sclass

    def close(self, class_id: int, kind: str, text: str) -> None:
        """No worker may run tasks of the class any more; those in its queue fail."""
        sclass = self.classes[class_id]
        for lease in sclass.leases:
            lease.draining = True
        self._dirty[class_id] = sclass
        self.refused(class_id, kind, text)

    def node_gone(self, node: bytes) -> None:
        """A node is dead: what it owed us is wanted elsewhere. Its workers are told dead apart."""
        for sclass in self.classes.values():
            if sclass.asked.gone(node):
                self._dirty[sclass.class_id] = sclass

    def wanted(self, waiting: int, now: float, node: bytes = HOME) -> None:
        """Others wait for what we hold of a node: idle leases go now, busy ones when they drain."""
        held = [lease for lease in self.by_worker.values() if lease.node == node]
        going = [lease for lease in held if lease.draining or lease.leaving]
        staying = [
            lease
            for lease in held
            if not (lease.draining or lease.leaving or (lease.blocked and lease.inflight))
        ]
        # Stable: the idle ones first, each kind in the order of their granting.
        staying.sort(key=_is_busy)
        for lease in staying[: max(0, waiting - len(going))]:
            if lease.inflight or lease.stealing:
                lease.draining = True
            else:
                self._give_back(lease)
            self._dirty[lease.sclass.class_id] = lease.sclass

    def tick(self, now: float) -> None:
        """Return what has been idle long enough; look again where tasks are stuck."""
        for lease in list(self.by_worker.values()):
            at = self._due(lease)
            if at is None or now < at:
                continue
            if lease.inflight:
                lease.stuck = True
            else:
                self._give_back(lease)
            self._dirty[lease.sclass.class_id] = lease.sclass
        for class_id, sclass in list(self._shunning.items()):
            at = sclass.asked.relents_at()
            if not sclass.asked.shunned:
                del self._shunning[class_id]
            elif at is not None and now >= at:
                self.effects.append(Demand(class_id, sclass.asked.home, HOME))

    def deadline(self) -> float | None:
        """When tick() has something to do."""
        earliest: float | None = None
        for lease in self.by_worker.values():
            at = self._due(lease)
            if at is not None and (earliest is None or at < earliest):
                earliest = at
        for sclass in self._shunning.values():
            at = sclass.asked.relents_at()
            if at is not None and (earliest is None or at < earliest):
                earliest = at
        return earliest

    def _due(self, lease: Lease) -> float | None:
        if not lease.inflight:
            idle_s = 0.0 if lease.sclass.spread else self.idle_s
            return None if lease.stealing else lease.idle_since + idle_s
        if len(lease.inflight) < 2 or lease.stuck or lease.blocked or lease.leaving:
            return None
        return lease.progress_at + STUCK_S

    # -- decisions

    def dispatch(self, now: float) -> None:
        """Fill workers, ask for more, steal. Call after a batch of events."""
        if self._littered:
            self._sweep()
        dirty, self._dirty = self._dirty, {}
        for sclass in dirty.values():
            self._fill(sclass, now)
            is_idle = False
            for lease in list(sclass.leases):
                if not lease.inflight:
                    if not lease.draining:
                        is_idle = is_idle or not lease.blocked
                    elif not lease.stealing:
                        self._give_back(lease)
            if is_idle and not sclass.queue:
                self._steal_for(sclass, now)
            self._update_demand(sclass)

    def _fill(self, sclass: SchedulingClass, now: float) -> None:
        queue = sclass.queue
        if not queue:
            return
        open_leases = sclass.open_leases()
        while queue and open_leases:
            lease = min(open_leases, key=_load)
            begun = next(iter(lease.inflight.values()), None)
            if begun is not None and begun.template.depth <= len(lease.inflight):
                # Whoever has work of unknown length gets no more: it may never hand any back.
                open_leases.remove(lease)
                continue
            room = queue[0].template.depth - len(lease.inflight)
            if room <= 0:
                return
            share = -(-len(queue) // len(open_leases))
            single = sclass.spread and len(queue) <= _SPREAD_MAX
            count = 1 if single else min(room, share, _CHUNK)
            inflight, out, seq = lease.inflight, lease.out, lease.seq
            if not inflight:
                lease.progress_at = now
                lease.stuck = False
            lease.barren = False
            for _ in range(count):
                task = queue.popleft()
                task.seq = seq
                seq += 1
                inflight[task.task_id] = task
                out.append(task)
                if queue and queue[0].template.depth <= len(inflight):
                    break
            lease.seq = seq
            if single:
                lease.draining = True
                open_leases.remove(lease)
            self.touched[lease.worker.process_id] = lease

    def _steal_for(self, sclass: SchedulingClass, now: float) -> None:
        """Some worker is idle and nothing queued: take half of the longest backlog."""
        victims = [
            lease
            for lease in sclass.leases
            if len(lease.inflight) > 1 and not (lease.stealing or lease.barren or lease.blocked)
        ]
        if not victims:
            return
        victim = max(victims, key=_load)
        backlog = len(victim.inflight)
        ahead_us = backlog * max(0.0, next(iter(victim.inflight.values())).template.run_us)
        if ahead_us < _STEAL_BACKLOG_US and now - victim.progress_at < _STEAL_AFTER_S:
            return
        victim.stealing, victim.steal_seq, victim.steal_at = True, victim.seq, now
        self.effects.append(Steal(victim.worker, backlog // 2))

    def _update_demand(self, sclass: SchedulingClass) -> None:
        want = len(sclass.queue) + _stuck(sclass)
        if sclass.refused:
            if sclass.open_leases():
                want = 0
            else:
                sclass.refused = False
        self._say(sclass.class_id, sclass.asked.revise(want))

    def _say(self, class_id: int, said: list[tuple[bytes, int]]) -> None:
        self.effects += [Demand(class_id, count, node) for node, count in said]

    def _give_back(self, lease: Lease) -> None:
        self._drop(lease)
        self._return(lease.sclass, lease.lease_id, lease.node)

    def _return(self, sclass: SchedulingClass, lease_id: int, node: bytes) -> None:
        freed = sclass.resources if node != HOME and sclass.asked.targets is None else {}
        self.effects.append(ReturnLease(lease_id, True, node, freed))

    def _drop(self, lease: Lease) -> None:
        if not lease.leaving:
            lease.sclass.leases.remove(lease)
        self.by_worker.pop(lease.worker.process_id, None)
        self.touched.pop(lease.worker.process_id, None)
        lease.out.clear()

    def check(self) -> None:
        """Raise InvariantError on a contradiction."""
        place: dict[int, str] = {}

        def seen(task: Task, where: str) -> None:
            before = place.setdefault(id(task), where)
            if before is not where:
                raise InvariantError(f"task {task.task_id.hex()} is {before} and {where}")

        for sclass in self.classes.values():
            if len(sclass.queue) != len({id(task) for task in sclass.queue}):
                raise InvariantError(f"class {sclass.class_id} has a task in its queue twice")
            for task in sclass.queue:
                seen(task, "queued")
            sclass.asked.check()
            for lease in sclass.leases:
                if self.by_worker.get(lease.worker.process_id) is not lease or lease.leaving:
                    raise InvariantError(f"lease {lease.lease_id} is not filed by its worker")
        if sum(len(sclass.leases) for sclass in self.classes.values()) != sum(
            not lease.leaving for lease in self.by_worker.values()
        ):
            raise InvariantError("a lease is filed by its worker and not by its class")
        for lease in self.by_worker.values():
            where = f"in flight on lease {lease.lease_id}"
            numbers = [task.seq for task in lease.inflight.values()]
            if numbers != sorted(set(numbers)) or any(n >= lease.seq for n in numbers):
                raise InvariantError(f"lease {lease.lease_id}: numbers out of order: {numbers}")
            for task in lease.inflight.values():
                seen(task, where)
            if any(task.task_id not in lease.inflight for task in lease.out):
                raise InvariantError(f"lease {lease.lease_id} sends what is not in flight")
            if lease.out and lease.worker.process_id not in self.touched:
                raise InvariantError(f"lease {lease.lease_id} has tasks that nobody sends")
            if lease.leaving and not lease.inflight:
                raise InvariantError(f"lease {lease.lease_id} is over and was not returned")


def _load(lease: Lease) -> int:
    return len(lease.inflight)


def _is_busy(lease: Lease) -> bool:
    return bool(lease.inflight)


def _stuck(sclass: SchedulingClass) -> int:
    return sum(
        len(lease.inflight) - 1
        for lease in sclass.leases
        if lease.stuck and lease.inflight and not lease.blocked
    )
