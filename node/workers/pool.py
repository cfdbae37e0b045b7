"""How many worker processes of which kind live: the worker pool.

Machine: methods are events, take ``now`` (monotonic seconds) and return effects. Owns the states
of workers and the patience with workers that do not start. Does not know resources or who waits
(sched/leases.py says how many are wanted), and starts nothing (processes.py does).

    starting -> idle <-> leased            idle | leased | starting -> draining -> gone
                idle  -> actor -> gone     any  -> gone (its process has ended)

A worker belongs to one job and one environment for its whole life: its key. A key whose workers
die before they register is tried again after 1 s doubling to 30 s, one start at a time; after
``tries_max`` rounds whoever waits for it is told, with the last words of the last try.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple

import msgspec

from mray.machine import InvariantError
from mray.wire.messages import Address, DeathCause

#: Starts of one key that may fail before those who wait for it are told (Ray's
#: pop_worker_max_retries).
TRIES_MAX: Final = 5
_BACKOFF_FIRST_S: Final = 1.0
_BACKOFF_LAST_S: Final = 30.0
#: Starts in flight for one CPU: more only makes all of them later.
_STARTS_PER_CPU: Final = 2


class Key(NamedTuple):
    """Whom a worker serves: nothing is shared between jobs or environments."""

    job_id: bytes
    runtime_env: bytes = b""


class PoolRules(msgspec.Struct, frozen=True, kw_only=True):
    """What the pool may do. Durations in seconds."""

    #: Starts in flight at most.
    starting_max: int
    #: Idle workers beyond this number are ended ...
    idle_keep: int
    #: ... once they have been idle for so long.
    idle_s: float
    register_timeout_s: float
    #: What a worker gets between SIGTERM and SIGKILL.
    grace_s: float
    tries_max: int = TRIES_MAX

    @classmethod
    def for_cpus(
        cls, cpus: int, soft_limit: int, idle_s: float, register_timeout_s: float, grace_s: float
    ) -> PoolRules:
        """The rules of a node with so many CPUs; a ``soft_limit`` of -1 stands for them."""
        return cls(
            starting_max=_STARTS_PER_CPU * max(1, cpus),
            idle_keep=cpus if soft_limit < 0 else soft_limit,
            idle_s=idle_s,
            register_timeout_s=register_timeout_s,
            grace_s=grace_s,
        )


class Spawn(msgspec.Struct, frozen=True):
    """Start a worker under this process id."""

    process_id: bytes
    key: Key


class Kill(msgspec.Struct, frozen=True):
    """End a worker: SIGTERM, and SIGKILL after ``grace_s`` (at once when 0). ``cause`` is why."""

    process_id: bytes
    cause: DeathCause
    grace_s: float
    #: Only if it agrees; else ``keep`` is called.
    asked: bool = False


class KeyFailed(msgspec.Struct, frozen=True):
    """Workers of this key do not start: tell those who wait."""

    key: Key
    text: str
    #: Of LeaseRefused.
    kind: str = "worker_start_failed"


PoolEffect = Spawn | Kill | KeyFailed
State = Literal["starting", "idle", "leased", "actor", "draining"]


class Worker:
    """A worker process. Read-only outside the pool."""

    __slots__ = (
        "address",
        "idle_since",
        "key",
        "pid",
        "process_id",
        "started_at",
        "state",
        "tries",
    )

    def __init__(self, process_id: bytes, key: Key, now: float, tries: int) -> None:
        self.process_id = process_id
        self.key = key
        self.state: State = "starting"
        self.started_at = now
        #: Failed tries of its key when it was started: those started together fail as one.
        self.tries = tries
        #: While idle.
        self.idle_since = now
        #: From registration on.
        self.address: Address | None = None
        self.pid = 0


class _Trouble:
    """A key's failed starts since the last one that worked."""

    __slots__ = ("not_before", "tries")

    def __init__(self) -> None:
        self.tries = 0
        self.not_before = float("-inf")


class Pool:
    """See the module. ``new_id`` gives fresh process ids."""

    def __init__(self, rules: PoolRules, new_id: Callable[[], bytes]) -> None:
        self.rules = rules
        self._new_id = new_id
        self.workers: dict[bytes, Worker] = {}
        #: How many more workers of a key would find work now.
        self._wanted: dict[Key, int] = {}
        self._trouble: dict[Key, _Trouble] = {}
        #: Jobs that may have workers; value: whether idle ones are kept.
        self._jobs: dict[bytes, bool] = {}
        self._idle: dict[Key, list[Worker]] = {}

    # -- questions

    def count(self, *states: State) -> int:
        """Workers in these states."""
        return sum(worker.state in states for worker in self.workers.values())

    def starting(self, key: Key) -> int:
        """Workers of a key that are on their way."""
        return sum(w.state == "starting" and w.key == key for w in self.workers.values())

    def may_start(self, key: Key, now: float) -> bool:
        """Whether asking for a worker of this key leads to one soon."""
        trouble = self._trouble.get(key)
        return key.job_id in self._jobs and (trouble is None or trouble.not_before <= now)

    # -- jobs

    def job_known(self, job_id: bytes, *, over: bool = False) -> None:
        """Workers of the job can be started from now on; ``over``: but none is kept idle."""
        self._jobs.setdefault(job_id, not over)

    def job_over(self, job_id: bytes, now: float) -> list[PoolEffect]:
        """No worker of the job is kept idle any more. What is leased is the scheduler's to end."""
        if job_id not in self._jobs:
            return []
        self._jobs[job_id] = False
        cause = DeathCause("intended", "its job is over")
        return [
            self._drain(worker, cause)
            for worker in self.workers.values()
            if worker.key.job_id == job_id and worker.state in ("starting", "idle")
        ]

    def job_forgotten(self, job_id: bytes) -> None:
        """No worker of the job is started any more."""
        self._jobs.pop(job_id, None)
        for key in [key for key in self._trouble if key.job_id == job_id]:
            del self._trouble[key]

    # -- supply

    def want(self, wanted: Mapping[Key, int], now: float) -> list[PoolEffect]:
        """How many workers of each key would find work now, beside the idle ones.

        Only this starts any: call it after every event, tick() as well.
        """
        self._wanted = {key: count for key, count in wanted.items() if count > 0}
        return self._start(now)

    def take_idle(self, key: Key) -> Worker | None:
        """An idle worker of the key, the one used last (its caches are warm), or None."""
        idle = self._idle.get(key)
        return idle[-1] if idle else None

    def employ(self, worker: Worker, state: Literal["leased", "actor"]) -> None:
        """An idle worker goes to work."""
        if worker.state != "idle":
            raise InvariantError(f"worker {worker.process_id.hex()} is {worker.state}, not idle")
        self._not_idle(worker)
        worker.state = state

    def release(self, process_id: bytes, reuse: bool, now: float) -> list[PoolEffect]:
        """A leased worker is free again, or must go when it is not to be used again."""
        worker = self.workers.get(process_id)
        if worker is None or worker.state != "leased":
            return []
        if not reuse:
            return [self._drain(worker, DeathCause("intended", "its owner gave it up"))]
        if not self._jobs.get(worker.key.job_id):
            return [self._drain(worker, DeathCause("intended", "its job is over"))]
        self._to_idle(worker, now)
        return []

    def end(self, process_id: bytes, cause: DeathCause, grace_s: float) -> list[PoolEffect]:
        """End a worker, whatever it does."""
        worker = self.workers.get(process_id)
        return [] if worker is None else [self._drain(worker, cause, grace_s)]

    def make_room(self, count: int, wanted: Key) -> list[PoolEffect]:
        """End up to ``count`` idle workers of other keys, longest idle first."""
        others = sorted(
            (w for key, idle in self._idle.items() if key != wanted for w in idle),
            key=lambda worker: worker.idle_since,
        )
        cause = DeathCause("intended", "idle, and a worker of another kind was needed")
        return [self._drain(worker, cause) for worker in others[:count]]

    # -- what happens to processes

    def registered(self, process_id: bytes, address: Address, pid: int, now: float) -> bool:
        """A worker reports. False: it is not expected (any more), and must end. Idempotent."""
        worker = self.workers.get(process_id)
        if worker is None or worker.state == "draining":
            return False
        if worker.state == "starting":
            worker.address = address
            worker.pid = pid
            self._trouble.pop(worker.key, None)
            self._to_idle(worker, now)
        return True

    def exited(self, process_id: bytes, last_words: str, now: float) -> list[PoolEffect]:
        """A worker's process has ended, or could not be made; ``last_words`` say how."""
        worker = self.workers.pop(process_id, None)
        if worker is None:
            return []
        self._not_idle(worker)
        return self._failed(worker, last_words, now) if worker.state == "starting" else []

    def tick(self, now: float) -> list[PoolEffect]:
        """Time has passed."""
        effects: list[PoolEffect] = []
        limit_s = self.rules.register_timeout_s
        for worker in list(self.workers.values()):
            if worker.state == "starting" and now >= worker.started_at + limit_s:
                text = f"did not register within {limit_s:g} s (worker_register_timeout_seconds)"
                cause = DeathCause("killed", text, pid=worker.pid)
                effects.append(self._drain(worker, cause, 0.0))
                effects += self._failed(worker, f"the worker {text}", now)
        for worker in self._surplus():
            if now < worker.idle_since + self.rules.idle_s:
                break
            text = f"idle for {now - worker.idle_since:.1f} s, beyond num_workers_soft_limit"
            kill = self._drain(worker, DeathCause("intended", text))
            effects.append(msgspec.structs.replace(kill, asked=True))
        return effects

    def keep(self, process_id: bytes, now: float) -> list[PoolEffect]:
        """A worker that was to end if it agrees has to stay: it is idle again."""
        worker = self.workers.get(process_id)
        if worker is None or worker.state != "draining":
            return []
        if not self._jobs.get(worker.key.job_id):
            return [self._drain(worker, DeathCause("intended", "its job is over"))]
        self._to_idle(worker, now)
        return []

    def deadline(self) -> float | None:
        """When tick() has something to do."""
        times = [
            worker.started_at + self.rules.register_timeout_s
            for worker in self.workers.values()
            if worker.state == "starting"
        ]
        surplus = self._surplus()
        if surplus:
            times.append(surplus[0].idle_since + self.rules.idle_s)
        if self.count("starting") < self.rules.starting_max:
            for key in self._wanted:
                trouble = self._trouble.get(key)
                if trouble is not None and key.job_id in self._jobs and not self.starting(key):
                    times.append(trouble.not_before)
        return min(times, default=None)

    def check(self) -> None:
        """Raise InvariantError on a contradiction."""
        idle = {id(worker) for workers in self._idle.values() for worker in workers}
        for process_id, worker in self.workers.items():
            if process_id != worker.process_id:
                raise InvariantError(f"{process_id.hex()} is filed under another id")
            if (worker.state == "idle") != (id(worker) in idle):
                raise InvariantError(f"{worker.state} worker {process_id.hex()}, in idle or not")
            if worker.state not in ("starting", "draining") and worker.address is None:
                raise InvariantError(f"{worker.state} worker {process_id.hex()} has no address")
        if len(idle) != self.count("idle"):
            raise InvariantError("an idle worker is not in the pool")
        if self.count("starting") > self.rules.starting_max:
            raise InvariantError("more starts in flight than allowed")

    # -- decisions

    def _start(self, now: float) -> list[PoolEffect]:
        effects: list[PoolEffect] = []
        room = self.rules.starting_max - self.count("starting")
        for key, count in self._wanted.items():
            if room <= 0:
                break
            if not self.may_start(key, now):
                continue
            missing = count - self.starting(key)
            trouble = self._trouble.get(key)
            if trouble is not None:
                missing = min(missing, 1 - self.starting(key))
            for _ in range(min(missing, room)):
                tries = 0 if trouble is None else trouble.tries
                worker = Worker(self._new_id(), key, now, tries)
                self.workers[worker.process_id] = worker
                effects.append(Spawn(worker.process_id, key))
                room -= 1
        return effects

    def _failed(self, worker: Worker, last_words: str, now: float) -> list[PoolEffect]:
        trouble = self._trouble.setdefault(worker.key, _Trouble())
        if worker.tries < trouble.tries:
            return []
        trouble.tries += 1
        doublings = min(trouble.tries - 1, 10)
        trouble.not_before = now + min(_BACKOFF_FIRST_S * 2.0**doublings, _BACKOFF_LAST_S)
        if trouble.tries % self.rules.tries_max:
            return []
        self._wanted.pop(worker.key, None)
        text = f"no worker could be started in {self.rules.tries_max} tries; the last: {last_words}"
        return [KeyFailed(worker.key, text)]

    def _surplus(self) -> list[Worker]:
        """Idle workers beyond what is kept, longest idle first."""
        idle = [worker for workers in self._idle.values() for worker in workers]
        count = len(idle) - self.rules.idle_keep
        if count <= 0:
            return []
        return sorted(idle, key=lambda worker: worker.idle_since)[:count]

    def _drain(self, worker: Worker, cause: DeathCause, grace_s: float | None = None) -> Kill:
        self._not_idle(worker)
        worker.state = "draining"
        grace_s = self.rules.grace_s if grace_s is None else grace_s
        return Kill(worker.process_id, cause, grace_s)

    def _to_idle(self, worker: Worker, now: float) -> None:
        worker.state = "idle"
        worker.idle_since = now
        self._idle.setdefault(worker.key, []).append(worker)

    def _not_idle(self, worker: Worker) -> None:
        if worker.state == "idle":
            idle = self._idle[worker.key]
            idle.remove(worker)
            if not idle:
                del self._idle[worker.key]
