"""Who uses what on this node: the daemon's tables and /proc, as the policy wants to see them.

Read by the monitor's thread while the loop may change the tables: each is copied in one step that
no other thread can come between (``dict.copy`` and ``list`` of a dict), single values are read as
they are, and a worker that is gone by then has no memory and drops out. So the loop pays nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Lock
from typing import Final

import msgspec

from mray.class_names import short_name
from mray.memory.peaks import Attempt, Peaks
from mray.memory.trees import ProcessUsage
from mray.node.memory.monitor import Driver, Snapshot
from mray.node.memory.policy import Candidate
from mray.node.sched.holds import Hold, Holds
from mray.node.workers.peers import Peers
from mray.node.workers.pool import Pool, Worker
from mray.node.workers.processes import Process, Processes
from mray.placement import plain
from mray.progress import Begun, Title, read_progress
from mray.resources import UNIT
from mray.wire.messages import FunctionPeak, PeakMemory
from mray.wire.oom import OomProcess

ReadTrees = Callable[[list[int], bool], dict[int, ProcessUsage]]
_TOP_MAX: Final = 10


class Count(msgspec.Struct, frozen=True):
    """A snapshot, with what only the telling wants."""

    snapshot: Snapshot
    #: Biggest first: workers and drivers.
    top: tuple[OomProcess, ...]
    trees: dict[bytes, ProcessUsage]


class Census:
    """See the module. ``read_trees(roots, complete)`` gives the memory of process trees."""

    def __init__(
        self, pool: Pool, holds: Holds, processes: Processes, peers: Peers, read_trees: ReadTrees
    ) -> None:
        self._pool = pool
        self._holds = holds
        self._processes = processes
        self._peers = peers
        self._read_trees = read_trees
        #: By worker that runs callbacks for want of memory: until when it may. The loop's too.
        self.busy: dict[bytes, float] = {}
        #: Peaks of attempts, asked for by the loop.
        self._attempts = Peaks()
        self._lock = Lock()
        #: Workers with an attempt in the present count.
        self._measured_now: set[bytes] = set()
        self._measured_before: set[bytes] = set()
        #: By worker: when the work began, and the most that was seen of it since.
        self._peaks: dict[bytes, tuple[float, int]] = {}

    def take(self, *, complete: bool = False) -> Count:
        """Everybody now. ``complete``: with children born a moment ago, as before a kill."""
        workers = list(self._pool.workers.copy().values())
        holds = self._holds.by_worker.copy()
        processes = {w.process_id: self._processes.get(w.process_id) for w in workers}
        drivers = [peer for peer in self._peers if peer.kind == "driver"]
        pids = {key: process.pid for key, process in processes.items() if process is not None}
        roots = [pid for pid in [*pids.values(), *(d.pid for d in drivers)] if pid]
        usage = self._read_trees(roots, complete)
        candidates, trees = [], {}
        top = [OomProcess(pid=d.pid, name="driver", used_bytes=usage[d.pid].private_bytes)
               for d in drivers if d.pid in usage]  # fmt: skip
        for worker in workers:
            process, tree = processes[worker.process_id], usage.get(pids.get(worker.process_id, 0))
            if process is None or tree is None:
                continue
            candidate = self._candidate(worker, process, holds.get(worker.process_id), tree)
            if candidate is not None:
                candidates.append(candidate)
                trees[worker.process_id] = tree
            name = candidate.name if candidate is not None else ""
            shown = name or f"{worker.state} worker"
            top.append(OomProcess(pid=tree.pid, name=shown, used_bytes=tree.private_bytes))
        with self._lock:
            for worker_id in self._measured_before - self._measured_now:
                self._attempts.ended(worker_id)
        self._measured_before, self._measured_now = self._measured_now, set()
        self._peaks = {c.worker_id: (c.started_at, self._peak_with(c)) for c in candidates}
        top.sort(key=lambda p: (-p.used_bytes, p.pid))
        known = [Driver(pid=d.pid, private_bytes=usage[d.pid].private_bytes)
                 for d in drivers if d.pid in usage]  # fmt: skip
        snapshot = Snapshot(candidates=candidates, drivers=known)
        return Count(snapshot, tuple(top[:_TOP_MAX]), trees)

    def _candidate(
        self, worker: Worker, process: Process, hold: Hold | None, tree: ProcessUsage
    ) -> Candidate | None:
        """None for workers that start or end: they have no work to lose and are on their way."""
        if process.intent is not None:
            return None
        if hold is None:
            if worker.state != "idle":
                return None
            return Candidate(
                worker_id=worker.process_id, pid=tree.pid, kind="idle",
                started_at=worker.idle_since, private_bytes=tree.private_bytes,
            )  # fmt: skip
        asked = _memory(hold) // UNIT
        if hold.actor is not None:
            spec, incarnation = hold.actor.spec, hold.actor.incarnation
            said = read_progress(process.params.progress_path)
            if said.begun is not None:
                self._measured(worker.process_id, said.begun, said.title.name, tree)
            return Candidate(
                worker_id=worker.process_id, pid=tree.pid, kind="actor", owner_id=hold.owner,
                name=short_name(spec.class_name),
                retriable=min(spec.max_restarts, spec.max_oom_restarts) < 0
                or incarnation < spec.max_restarts + spec.max_oom_restarts,
                started_at=hold.since, private_bytes=tree.private_bytes, requested_bytes=asked,
                busy_until=self.busy.get(worker.process_id, 0.0),
            )  # fmt: skip
        said = read_progress(process.params.progress_path)
        begun, title = said.begun, said.title
        begun_at = begun.at if begun is not None else 0.0
        if begun is not None and begun_at >= hold.since:
            self._measured(worker.process_id, begun, title.name, tree)
        return Candidate(
            worker_id=worker.process_id, pid=tree.pid, kind="task", owner_id=hold.owner,
            name=title.name, retriable=title.retriable,
            # A worker that has begun nothing of this lease still shows its last task's begin.
            started_at=max(hold.since, begun_at),
            private_bytes=tree.private_bytes, requested_bytes=asked,
            busy_until=self.busy.get(worker.process_id, 0.0),
        )  # fmt: skip

    def title_of(self, process_id: bytes) -> Title:
        """What a worker runs, or ran last; of one that is not there, nothing."""
        process = self._processes.get(process_id)
        return Title() if process is None else read_progress(process.params.progress_path).title

    def _measured(self, worker_id: bytes, begun: Begun, name: str, tree: ProcessUsage) -> None:
        with self._lock:
            self._attempts.began(worker_id, Attempt(begun.task_id, begun.attempt, name))
            self._attempts.reading(worker_id, tree.private_bytes)
        self._measured_now.add(worker_id)

    def peaks_of(self, task_ids: Iterable[bytes]) -> tuple[list[PeakMemory], list[FunctionPeak]]:
        """What is known of these tasks, and of all functions. From any thread."""
        with self._lock:
            found = self._attempts.peaks_of(frozenset(task_ids))
            functions = self._attempts.functions()
        return (
            [PeakMemory(*peak) for peak in found],
            [FunctionPeak(f.name, f.count, f.p50_bytes, f.max_bytes) for f in functions],
        )

    def _peak_with(self, candidate: Candidate) -> int:
        begun_at, peak = self._peaks.get(candidate.worker_id, (candidate.started_at, 0))
        if begun_at != candidate.started_at:
            return candidate.private_bytes
        return max(peak, candidate.private_bytes)

    def peak_of(self, worker_id: bytes) -> int:
        """The most that was seen of a worker's present work; 0 where it was never seen."""
        return self._peaks.get(worker_id, (0.0, 0))[1]

    def lendable_memory(self) -> int:
        """The bytes of ``memory`` that tasks could be lent if no task ran."""
        held = sum(_memory(hold) for hold in _actors(self._holds.by_worker.copy().values()))
        return max(0, self._holds.total.get("memory", 0) - held) // UNIT


def _actors(holds: Iterable[Hold]) -> Iterable[Hold]:
    return (hold for hold in holds if hold.actor is not None)


def _memory(hold: Hold) -> int:
    return plain(hold.resources).get("memory", 0)
