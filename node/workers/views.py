"""The workers and drivers of this node, as `mray list workers` shows them. Answers GetWorkers.

Covers those that live, and the last that have ended, as they were before.
"""

from __future__ import annotations

from mray.node.sched.holds import Holds
from mray.node.workers.ended import Ended
from mray.node.workers.peers import Peer, Peers
from mray.node.workers.pool import Pool, Worker
from mray.node.workers.processes import Processes
from mray.rpc.pump import Pump
from mray.wire.messages import DeathCause, GetWorkers, Workers, WorkerView


class WorkerViews:
    """See the module. Registers its handler."""

    def __init__(
        self, pump: Pump, pool: Pool, processes: Processes, holds: Holds, peers: Peers
    ) -> None:
        self._pump = pump
        self._pool = pool
        self._processes = processes
        self._holds = holds
        self._peers = peers
        self.ended = Ended()
        peers.on_removed.append(self._removed)
        pump.on(GetWorkers, self._get_workers)

    def _get_workers(self, sender: bytes, message: GetWorkers) -> None:
        now = self._pump.clock()
        workers = [self._worker(worker, now) for worker in self._pool.workers.values()]
        drivers = [self._driver(peer, now) for peer in self._peers if peer.kind == "driver"]
        if message.ended:
            workers += self.ended.views("worker", now)
            drivers += self.ended.views("driver", now)
        self._pump.send(sender, Workers(message.rid, workers, drivers))

    def _removed(self, peer: Peer, cause: DeathCause) -> None:
        """Its process has ended: what the tables know of it goes after this."""
        now = self._pump.clock()
        worker = self._pool.workers.get(peer.process_id)
        if worker is not None:
            self.ended.add("worker", self._worker(worker, now), cause, now)
        elif peer.kind == "driver":
            self.ended.add("driver", self._driver(peer, now), cause, now)

    def _driver(self, peer: Peer, now: float) -> WorkerView:
        return WorkerView(
            peer.process_id, peer.pid, peer.kind, peer.job_id, b"", b"", {}, now - peer.since
        )

    def _worker(self, worker: Worker, now: float) -> WorkerView:
        process = self._processes.get(worker.process_id)
        hold = self._holds.by_worker.get(worker.process_id)
        blocked = hold is not None and hold.blocked and worker.state == "leased"
        return WorkerView(
            process_id=worker.process_id,
            pid=process.pid if process is not None else worker.pid,
            state="blocked" if blocked else worker.state,
            job_id=worker.key.job_id,
            actor_id=hold.actor.spec.actor_id if hold is not None and hold.actor else b"",
            owner_id=hold.owner if hold is not None else b"",
            resources=hold.resources if hold is not None else {},
            age_s=now - worker.started_at,
        )
