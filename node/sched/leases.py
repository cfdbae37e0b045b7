"""Who gets a worker of this node, and with which resources.

Machine: methods are events, take ``now`` (monotonic seconds) where it matters, and return effects;
``settle`` decides, once after any number of events. Owns the lines of those who wait, leases and
actors' places. Contains the pool and passes its effects on. Sends and starts nothing.

- Owners take turns (turns.py). What does not fit is passed over, but not for ever (lines.py).
- A worker that blocks in get gives its CPU back and takes it again afterwards, beyond the limit if
  need be. Blocked workers ask for more workers, so a deep recursion would fill the machine: from
  ``workers_max`` task workers on, only blocked workers are given new ones, the one that blocked
  with the newest lease first. The recursion then runs depth first and needs as many workers as it
  is deep, not as it is wide. Tasks that need no CPU are bounded by the same number.
- While somebody cannot be served, owners with more than their share are asked to give back.
- Resources of a worker that has to end are free when its process is gone, not before.
"""

from __future__ import annotations

from collections import Counter, deque

import msgspec

from mray.node.sched.bundles import Bundles
from mray.node.sched.effects import Effect, Send, TellHead, group_removed, start_failed
from mray.node.sched.elsewhere import Elsewhere
from mray.node.sched.gpus import gpu_amount
from mray.node.sched.holds import Hold, Holds
from mray.node.sched.invariants import check_holds, check_lines
from mray.node.sched.lines import Line, find_start, infeasible_text, sum_needs
from mray.node.sched.moving import Moving
from mray.node.sched.plan import StartPlan, workers_max
from mray.node.sched.sharing import Pacing
from mray.node.sched.turns import Turns
from mray.node.workers.pool import Key, KeyFailed, Pool, PoolEffect, Worker
from mray.placement import Where
from mray.resources import Resources, fits, give_back, take
from mray.wire.messages import (
    BundlesReserved,
    DeathCause,
    LeaseDemand,
    LeaseGranted,
    LeaseRefused,
    LeasesWanted,
    ReserveBundles,
    ReturnBundles,
    StartActor,
    StopActor,
    TerminateActor,
)

__all__ = ["Effect", "Leases", "Send", "TellHead", "workers_max"]


#: Where a line is filed: owner and class; actors by owner, key, needs and what is then held.
_LineAt = tuple[object, ...]


class Leases:
    """See the module. ``node_name`` is for the texts of refusals."""

    def __init__(
        self, total: Resources, pool: Pool, task_workers_max: int, node_name: str,
        elsewhere: Elsewhere | None = None,
    ) -> None:  # fmt: skip
        self.pool = pool
        #: By worker. A worker that drains keeps its hold until its process is gone.
        self.holds = Holds(total)
        self.bundles = Bundles(self.holds)
        self._moving = Moving(elsewhere, self.holds, node_name)
        self._task_workers_max = task_workers_max
        self._node_name = node_name
        #: By age. None is empty after settle().
        self._lines: dict[_LineAt, Line] = {}
        self._line_count = 0
        self._lease_count = 0
        self._turns = Turns(self.holds)
        self._pacing = Pacing()
        #: The node's memory is above its soft mark: no new tasks, but one that all may wait for.
        self._memory_short = False

    # -- requests of owners

    def demand(self, owner: bytes, message: LeaseDemand) -> list[Effect]:
        """An owner says how many more leases of a class it wants."""
        at: _LineAt = (owner, message.class_id)
        line = self._lines.get(at)
        if line is None:
            if message.count <= 0:
                return []
            key = Key(message.job_id, message.runtime_env)
            need = message.resources
            label = message.label or "a task"
            line = self._new_line(at, owner, message.class_id, key, need, need, label)
            line.home, line.stay = message.home, message.stay
            if message.where:
                line.where = msgspec.msgpack.decode(message.where, type=Where)
        line.count = max(0, message.count)
        line.avoid = tuple(message.avoid)
        if message.exclusive:
            line.own_cpu = message.resources.get("CPU", 0)
            self._widen(line, line.own_cpu)
        if line.group is not None:
            return []  # Its owner knows of the group, which may not be here yet.
        effects: list[Effect] = []
        if line.count and not line.infeasible and not self._moving.possible(line):
            line.infeasible = True
            text = self._moving.why_not(line)
            effects.append(Send(owner, LeaseRefused(message.class_id, "infeasible", text)))
        return effects

    def returned(self, owner: bytes, lease_id: int, reuse: bool, now: float) -> list[Effect]:
        """An owner gives a lease back."""
        hold = self.holds.by_lease.get(lease_id)
        if hold is None or hold.owner != owner:
            return []
        effects = self._through(self.pool.release(hold.worker, reuse, now))
        if self.pool.workers[hold.worker].state == "idle":
            self._let_go(hold)
        return effects

    def blocked(self, worker: bytes, is_blocked: bool) -> None:
        """A worker begins or ends to wait in get. Idempotent."""
        hold = self.holds.by_worker.get(worker)
        if hold is not None:
            self.holds.block(hold, is_blocked)

    def memory_short(self, is_short: bool) -> list[Effect]:
        """Memory is above the soft mark, or no longer. While it is, workers are lent to new tasks
        only where no task runs (what runs may wait for them), and owners are asked to give back."""
        if is_short == self._memory_short:
            return []
        self._memory_short = is_short
        return self.ask_all_back() if is_short else []

    def ask_all_back(self) -> list[Effect]:
        """Ask every owner for all leases that it has: idle ones now, busy ones when they drain."""
        lent = Counter(hold.owner for hold in self.holds.by_lease.values())
        return [Send(owner, LeasesWanted(count)) for owner, count in lent.items()]

    def drain(self, cause: DeathCause) -> list[Effect]:
        """Begin nothing new; what runs goes on. Actors and bundles that wait go elsewhere."""
        self._moving.draining = True
        effects: list[Effect] = []
        for line in self._lines.values():
            effects += [start_failed(start, cause.text, cause.kind) for start in line.starts]
            if (asked := line.reserve) is not None:
                effects.append(TellHead(BundlesReserved(asked.group_id, asked.attempt, cause.text)))
            if line.class_id is None:
                line.starts.clear()
                line.count = 0
        return effects

    def recycle(self, process_id: bytes, cause: DeathCause) -> list[Effect]:
        """End a worker if it is idle: it keeps memory that is wanted."""
        worker = self.pool.workers.get(process_id)
        if worker is None or worker.state != "idle":
            return []
        return self._through(self.pool.end(process_id, cause, self.pool.rules.grace_s))

    def keep(self, process_id: bytes, now: float) -> list[Effect]:
        """See Pool.keep()."""
        return self._through(self.pool.keep(process_id, now))

    def _while_short(self, left: dict[int, int]) -> dict[int, int]:
        """What may be granted while memory is short, by line: actors, and one task at most."""
        tasks = [line.number for line in self._lines.values() if line.class_id is not None]
        waiting = [number for number in tasks if left.pop(number, 0)]
        if waiting and all(hold.blocked for hold in self.holds.by_lease.values()):
            left[waiting[0]] = 1
        return left

    def _widen(self, line: Line, own_cpu: int) -> None:
        """Have a line that wants the node to itself ask for all CPUs that no actor holds."""
        cpu = max(own_cpu, self.holds.beside_actors().get("CPU", 0))
        line.need = line.hold = {**line.need, "CPU": cpu}

    # -- actors

    def start_actor(self, message: StartActor) -> list[Effect]:
        """The head wants an actor here. Idempotent."""
        spec = message.spec
        if find_start(self._lines.values(), spec.actor_id, message.incarnation) is not None:
            return []
        if self.holds.place_of(spec.actor_id, message.incarnation) is not None:
            return []
        need = dict(spec.resources)
        for name, amount in spec.placement_resources.items():
            need[name] = max(need.get(name, 0), amount)
        label = f"actor {spec.class_name}"
        if spec.group:
            if not self.bundles.usable(spec.group):
                return [group_removed(message)]
        elif not fits(need, self.holds.total):
            text = infeasible_text(label, need, self.holds.total, self._node_name)
            return [start_failed(message, text)]
        key, owner = Key(spec.job_id, spec.runtime_env), spec.owner.process_id
        shape = (tuple(sorted(need.items())), tuple(sorted(spec.resources.items())))
        at: _LineAt = (owner, "actor", key, *shape)
        line = self._lines.get(at)
        if line is None:
            line = self._new_line(at, owner, None, key, need, spec.resources, label)
        line.starts.append(message)
        line.count += 1
        return []

    def stop_actor(self, message: StopActor) -> list[Effect]:
        """The head wants an actor to end, at once or after the calls it has."""
        found = find_start(self._lines.values(), message.actor_id, message.incarnation)
        if found is not None:
            line, start = found
            line.starts.remove(start)
            line.count -= 1
            return []
        hold = self.holds.place_of(message.actor_id, message.incarnation)
        if hold is None:
            return []
        if message.force:
            return self._through(self.pool.end(hold.worker, message.cause, 0.0))
        return [Send(hold.worker, TerminateActor(message.actor_id))]

    # -- placement groups

    def reserve_bundles(self, message: ReserveBundles) -> list[Effect]:
        """The head wants bundles here, as soon as there is room. Idempotent."""
        need, answer = self.bundles.judge(message, self._node_name)
        at: _LineAt = ("bundles", message.group_id, message.attempt)
        if answer is None and at not in self._lines:
            line = self._new_line(at, message.group_id, None, Key(b"", b""), need, need, "a group")
            line.reserve, line.count = message, 1
        return [TellHead(answer)] if answer is not None else []

    def return_bundles(self, message: ReturnBundles) -> list[Effect]:
        """The head gives bundles up, or the group was removed: what runs or waits in it ends. Who
        owns its tasks hears of that from the head. Idempotent."""
        group_id, attempt = message.group_id, message.attempt
        effects: list[Effect] = []
        for line in self._lines.values():
            wanted = line.reserve
            if wanted is not None and wanted.group_id == group_id:
                if attempt in (-1, wanted.attempt):
                    line.count = 0
            elif line.group == group_id and attempt == -1:
                effects += [group_removed(start) for start in line.starts]
                line.starts.clear()
                line.count = 0
        self.bundles.leave(group_id, attempt)
        if attempt == -1:
            cause = DeathCause("killed", f"its placement group {group_id.hex()} was removed")
            for hold in list(self.holds.by_worker.values()):
                if hold.group == group_id:
                    effects += self._end(hold, cause, 0.0)
        return effects

    # -- processes and jobs

    def worker_exited(self, process_id: bytes, last_words: str, now: float) -> list[Effect]:
        """A worker's process is gone, or could not be made."""
        hold = self.holds.by_worker.get(process_id)
        if hold is not None:
            self._let_go(hold)
        effects = self._through(self.pool.exited(process_id, last_words, now))
        return effects + self.owner_died(process_id)

    def owner_died(self, process_id: bytes) -> list[Effect]:
        """A process is gone: what it asked for is void, what runs for it is ended.

        Its actors are the head's to judge.
        """
        for line in self._lines.values():
            if line.owner == process_id and line.class_id is not None:
                line.count = 0
        effects: list[Effect] = []
        cause = DeathCause("owner_died", f"its owner, process {process_id.hex()[:8]}, has died")
        for hold in self.holds.by_lease.values():
            if hold.owner == process_id:
                effects += self._end(hold, cause, 0.0)
        self._turns.forget(process_id)
        self._pacing.forget(process_id)
        return effects

    def job_over(self, job_id: bytes, now: float) -> list[Effect]:
        """The job has ended: all that is its goes, but for detached actors and what they run."""
        spared = {
            hold.worker
            for hold in self.holds.by_worker.values()
            if hold.actor is not None and hold.actor.spec.detached
        }
        for line in self._lines.values():
            if line.key.job_id == job_id and line.owner not in spared and line.reserve is None:
                line.starts = deque(s for s in line.starts if s.spec.detached)
                line.count = len(line.starts)
        effects = self._through(self.pool.job_over(job_id, now))
        cause = DeathCause("intended", "its job is over")
        for hold in self.holds.by_worker.values():
            if self.pool.workers[hold.worker].key.job_id != job_id:
                continue
            if hold.worker not in spared and (hold.actor is not None or hold.owner not in spared):
                effects += self._end(hold, cause, self.pool.rules.grace_s)
        return effects

    def owners(self) -> set[bytes]:
        """The processes that wait here or hold something."""
        holders = {hold.owner for hold in self.holds.by_worker.values()}
        return holders | {line.owner for line in self._lines.values()}

    def job_in_use(self, job_id: bytes) -> bool:
        """Whether a worker or a line of the job is there."""
        return any(worker.key.job_id == job_id for worker in self.pool.workers.values()) or any(
            line.key.job_id == job_id and line.count for line in self._lines.values()
        )

    def job_unknown(self, job_id: bytes, text: str) -> list[Effect]:
        """The head knows no such job: whoever waits for its workers is told."""
        keys = dict.fromkeys(line.key for line in self._lines.values())
        return self._through([KeyFailed(k, text) for k in keys if k.job_id == job_id])

    def environment_failed(self, key: Key, text: str) -> list[Effect]:
        """Workers of this key end while they set themselves up: who waits for them is told."""
        return self._through([KeyFailed(key, text, "env_failed")])

    def tick(self, now: float) -> list[Effect]:
        """Time has passed; settle() follows."""
        return self._through(self.pool.tick(now))

    def deadline(self) -> float | None:
        """When tick() and settle() have something to do (monotonic seconds)."""
        busy_at = self._moving.deadline(self._lines.values())
        times = [self.pool.deadline(), self._turns.claims_change_at, self._pacing.ask_at, busy_at]
        return min((at for at in times if at is not None), default=None)

    # -- questions

    def pending(self) -> list[tuple[Resources, int]]:
        """What waits, summed by needs, oldest first: for heartbeats."""
        return sum_needs(self._lines.values())

    def free(self) -> Resources:
        """What is available, for heartbeats: never below zero."""
        return {name: max(0, amount) for name, amount in self.holds.available.items()}

    def check(self) -> None:
        """Raise InvariantError on a contradiction."""
        self.pool.check()
        self.holds.check()
        self.bundles.check()
        check_holds(self.holds, self.pool)
        check_lines(self._lines)

    # -- the decision

    def settle(self, now: float) -> list[Effect]:
        """After one or more events: grant what can be granted, say which workers would find work,
        ask for leases back."""
        self._lines = {at: line for at, line in self._lines.items() if line.count}
        lines = self._lines.values()
        effects: list[Effect] = []
        free = dict(self.holds.available)
        left = {line.number: line.count for line in lines if not line.infeasible}
        effects += self._moving.move(self._lines.values(), left, free, now)
        if self._memory_short:
            left = self._while_short(left)
        for line in lines:
            if line.own_cpu is not None:
                self._widen(line, line.own_cpu)
        plan = StartPlan(self.pool, self._task_workers_max)
        claimant = self._turns.claimant(lines, now)
        short: dict[int, Line] = {}
        granted: set[int] = set()
        stuck: set[int] = set()
        moved = True
        while moved:
            moved = False
            for own in self._turns.order(lines, claimant, plan.crowded):
                for line in own:
                    if not left.get(line.number):
                        continue
                    found = self._room_for(line, self._turns.room(line, claimant, free))
                    if found is None:
                        short[line.number] = line
                        continue
                    need, held = found
                    if line.reserve is not None:
                        effects.append(self._reserve(line, line.reserve, free))
                        granted.add(line.number)
                    elif (worker := self.pool.take_idle(line.key)) is not None:
                        effects.append(self._grant(line, worker, held, now))
                        granted.add(line.number)
                        take(held, free)
                    elif plan.start(line, self.holds.is_blocked(line.owner), now):
                        take(need, free)
                    else:
                        left[line.number] = 0  # Whatever is free, no worker can come now.
                        stuck.add(line.number)
                        continue
                    left[line.number] -= 1
                    moved = True
                    break
        waiting = [line for number, line in short.items() if left[number]]
        self._note_passed_over(waiting, granted, now)
        effects += self._moving.give_back(self._lines.values(), left, stuck, now)
        self._lines = {at: line for at, line in self._lines.items() if line.count}
        effects += self._through(plan.make_room())
        effects += self._through(self.pool.want(plan.wanted, now))
        workers, by_lease = self.pool.workers, self.holds.by_lease
        lent = [hold for hold in by_lease.values() if workers[hold.worker].state == "leased"]
        return effects + self._pacing.ask_back(waiting, lent, bool(granted), now)

    def _note_passed_over(self, waiting: list[Line], granted: set[int], now: float) -> None:
        short = {line.number for line in waiting}
        for line in self._lines.values():
            if line.number not in short:
                line.passed_over_at = None
                line.asked_back = False
            elif granted - {line.number}:
                line.pass_over(now)

    # -- changes of state

    def _room_for(self, line: Line, free: Resources) -> tuple[Resources, Resources] | None:
        """What a request of the line needs and would hold, None where there is no room for it."""
        gpus = self.holds.gpus
        if line.reserve is None and line.group is not None:
            return self.bundles.choose(line, free)
        # There may be enough in parts of several, which one task or bundle cannot use.
        if gpus and line.reserve is None and not gpus.fits(gpu_amount(line.hold)):
            return None
        if gpus and line.reserve is not None:
            bundles = line.reserve.bundles.values()
            if not gpus.fits_parts(bundle.get("GPU", 0) for bundle in bundles):
                return None
        return (line.need, line.hold) if fits(line.need, free) else None

    def _reserve(self, line: Line, message: ReserveBundles, free: Resources) -> TellHead:
        line.count = 0
        line.reserve = None
        line.served()
        take(line.need, free)
        give_back(self.bundles.reserve(message), free)
        return TellHead(BundlesReserved(message.group_id, message.attempt))

    def _let_go(self, hold: Hold) -> None:
        """Nobody works in this place any more."""
        self.holds.remove(hold)
        if hold.group is not None:
            self.bundles.settle(hold.group)

    def _grant(self, line: Line, worker: Worker, held: Resources, now: float) -> Send:
        assert worker.address is not None
        self._lease_count += 1
        lease_id = self._lease_count
        start = line.starts.popleft() if line.class_id is None else None
        line.count -= 1
        self._turns.served(line)
        self.holds.add(
            Hold(lease_id, line.owner, line.class_id, worker.process_id, held, start, now)
        )
        if line.class_id is None:
            assert start is not None
            self.pool.employ(worker, "actor")
            return Send(worker.process_id, start)
        self.pool.employ(worker, "leased")
        self._pacing.granted(line.owner, now)
        granted = LeaseGranted(line.class_id, lease_id, worker.address, worker.pid)
        return Send(line.owner, granted)

    def _end(self, hold: Hold, cause: DeathCause, grace_s: float) -> list[Effect]:
        """End a worker that is at work and does not end already."""
        if self.pool.workers[hold.worker].state == "draining":
            return []
        return self._through(self.pool.end(hold.worker, cause, grace_s))

    def _through(self, pool_effects: list[PoolEffect]) -> list[Effect]:
        """The pool's effects, with failed keys told to those who wait for them."""
        effects: list[Effect] = []
        for effect in pool_effects:
            if not isinstance(effect, KeyFailed):
                effects.append(effect)
                continue
            for line in self._lines.values():
                if line.key != effect.key:
                    continue
                kind = "env_failed" if effect.kind == "env_failed" else "creation_failed"
                effects += [start_failed(start, effect.text, kind) for start in line.starts]
                if line.class_id is not None:
                    text = f"{line.label}: {effect.text}"
                    refused = LeaseRefused(line.class_id, effect.kind, text)
                    effects.append(Send(line.owner, refused))
                line.starts.clear()
                line.count = 0
        self._lines = {at: line for at, line in self._lines.items() if line.count}
        return effects

    def _new_line(
        self, at: _LineAt, owner: bytes, class_id: int | None, key: Key, need: Resources,
        hold: Resources, label: str,
    ) -> Line:  # fmt: skip
        self._line_count += 1
        line = Line(self._line_count, owner, class_id, key, need, hold, label)
        self._lines[at] = line
        return line
