"""The node daemon (raylet): wires scheduling, workers, objects, logs and jobs to one pump.

Covers: which part a message is for, carrying out effects, what the end of a process means to all
parts, the heartbeat, the orderly end. Decides nothing itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final, assert_never

from mray.ids import is_on, new_process_id
from mray.memory.gauge import Gauge
from mray.node.daemon import Daemon
from mray.node.draining import Draining
from mray.node.environments.service import Environments
from mray.node.jobs.book import JobBook
from mray.node.jobs.runner import JobRunner
from mray.node.logs.files import LogBook
from mray.node.logs.service import LogService
from mray.node.logs.tailer import Tailer
from mray.node.logs.watch import DirectoryWatch
from mray.node.memory.service import OomService
from mray.node.neighbours import Neighbours
from mray.node.objects.remains import Remains
from mray.node.objects.report import MemoryReports
from mray.node.reports import NodeReports
from mray.node.sched.cluster_view import ClusterView
from mray.node.sched.elsewhere import Elsewhere
from mray.node.sched.gpu_service import GpuService
from mray.node.sched.group_service import GroupService
from mray.node.sched.head_link import HeadLink
from mray.node.sched.identity import open_store, reach
from mray.node.sched.leases import Effect, Leases, Send, TellHead, workers_max
from mray.node.transfer.opening import open_transfer
from mray.node.vitals import Vitals
from mray.node.workers.child import log_paths
from mray.node.workers.children import Children
from mray.node.workers.death import describe
from mray.node.workers.peers import Peer, Peers
from mray.node.workers.pool import Key, Kill, Pool, PoolRules, Spawn
from mray.node.workers.processes import Process, Processes
from mray.node.workers.retiring import Retiring
from mray.node.workers.spawner import WORKER_MAIN, Spawner
from mray.resources import UNIT
from mray.rpc.deadlines import Deadlines
from mray.runtime.params import SETUP_FAILED, WorkerParams
from mray.wire import messages as m

#: An old kill by the kernel must not be taken for the cause of a new end.
_EVIDENCE_S: Final = 1.0
#: What a process sent last may still be on its way when its end is seen.
_LAST_MESSAGES_S: Final = 0.01
#: Shares of the grace of an orderly end: SIGTERM, then what SIGKILL and cleaning up get.
_TERM_SHARE: Final = 0.6
_ZYGOTE_GONE_S: Final = 1.0


class Node:
    """The parts of a node daemon. ``worker_main`` is what workers run; tests pass their own."""

    def __init__(self, daemon: Daemon, worker_main: str = WORKER_MAIN) -> None:
        self._daemon = daemon
        self._pump = daemon.pump
        self._log = daemon.log
        params = daemon.params
        self._node_id = params.process_id
        self._head = HeadLink(daemon, lambda: self._vitals.heartbeat())
        self._children = Children(self._pump)
        self._spawner = Spawner(
            self._pump, self._children, self._node_id, worker_main,
            daemon.config.workers.worker_register_timeout_seconds,
        )  # fmt: skip
        self._spawner.start()  # First of all: it takes longest.
        self._processes = Processes(
            self._pump, self._children, self._spawner, self._node_id,
            self._worker_started, self._worker_ended,
        )  # fmt: skip
        self._peers = Peers(self._pump, self._driver_gone)
        self._environments = Environments(
            self._pump, self._children, self._head, daemon.session,
            on_demand=self._demand,
            on_actor=self._begin_actor,
            on_job=lambda message, places, error: self._runner.start_job(message, places, error),
        )  # fmt: skip
        self._store, self.info, bulk = open_store(daemon)
        config = daemon.config
        cpus = max(1, -(-self.info.resources.get("CPU", 0) // UNIT))
        rules = PoolRules.for_cpus(
            cpus,
            config.workers.num_workers_soft_limit,
            config.workers.idle_worker_killing_time_threshold_ms / 1000,
            config.workers.worker_register_timeout_seconds,
            config.workers.kill_worker_timeout_milliseconds / 1000,
        )
        self._pool = Pool(rules, lambda: new_process_id(self._node_id))
        view = ClusterView(self.info)
        self._leases = Leases(
            self.info.resources, self._pool,
            workers_max(cpus, config.workers.num_workers_soft_limit), self._node_id.hex()[:8],
            Elsewhere(view),
        )  # fmt: skip
        backup_count = config.logs.log_rotation_backup_count
        self._tailer = Tailer(self._pump, self.info.ip, backup_count, self._send_to_driver)
        self._jobs = JobBook(
            self._pump, self._head, self._leases, self._environments, self._tailer, self._act
        )
        self._runner = JobRunner(
            self._pump, self._children, self._processes,
            node_id=self._node_id, log_dir=self.info.log_dir, logs=config.logs,
            cluster_address=daemon.session.path,
            tell_head=self._head.tell,
            environments=self._environments,
            on_log_done=lambda name: self._log_service.changed([name]),
        )  # fmt: skip
        self._log_service = LogService(
            self._pump, LogBook(self.info.log_dir, backup_count), self._runner.log_is_open,
            self._pump.send,
        )  # fmt: skip
        self._log_watch = DirectoryWatch(self._pump, self.info.log_dir, self._logs_changed)
        self._gauge = Gauge(config.memory_monitor)
        self._memory = MemoryReports(
            self._pump, self._store, self._peers, self._pool.workers, self._leases.holds,
            lambda process_id: self._oom.title_of(process_id),
        )  # fmt: skip
        self._oom = OomService(
            self._pump, config, self.info, self._leases, self._processes, self._peers, self._store,
            self._act,
        )  # fmt: skip
        NodeReports(
            daemon, self.info, self._peers, self._processes, self._leases, self._store, self._gauge,
            self._oom.title_of,
        )  # fmt: skip
        self._neighbours = Neighbours(
            self._pump, self._peers, view,
            on_process=self._remote_process_died,
            on_node=self._remote_node_died,
            on_change=self._changed,
            on_own_end=lambda text: daemon.stop(text, 0.0),
        )  # fmt: skip
        self._neighbours.on_gone.append(Remains(self._pump, config).node_gone)
        self._vitals = Vitals(
            self._node_id, self._head, self._leases, self._store, self._processes, self._gauge,
            self._tailer, view,
        )  # fmt: skip
        self._transfer, leaving = open_transfer(self._pump, self._store, bulk, view, config)
        self._draining = Draining(
            daemon, self._head, view, self._leases, self._act,
            [lambda: len(self._runner) > 0, leaving.busy],
        )  # fmt: skip
        self._draining.on_begin.append(leaving.begin)
        self._reach = reach(daemon)
        self._retiring = Retiring(
            self._pump, self._processes,
            lambda process_id: self._act(self._leases.keep(process_id, self._now())),
        )  # fmt: skip
        self._timers: Deadlines[str] = Deadlines(self._pump)
        self._leases_changed = True
        self._stopping = False
        self._wire()

    def _wire(self) -> None:
        routes: dict[type[m.Message], Callable[[bytes, Any], None]] = {
            m.RegisterProcess: self._register_process,
            m.LeaseDemand: self._lease_demand,
            m.LeaseReturned: lambda sender, message: self._act(
                self._leases.returned(sender, message.lease_id, message.reuse, self._now())
            ),
            m.WorkerBlocked: lambda sender, message: self._blocked(sender, True),
            m.WorkerUnblocked: lambda sender, message: self._blocked(sender, False),
            m.EndTask: lambda sender, message: self._processes.end_task(
                sender, message, self._leases.holds.by_worker.get(message.worker_id)
            ),
            m.StartActor: self._environments.start_actor,
            m.StopActor: self._stop_actor,
            m.ActorExiting: lambda sender, message: self._processes.announce(sender, message.cause),
            m.JobGone: self._job_over,
            m.DrainLogs: self._drain_logs,
            m.ListLogs: self._log_service.list_logs,
            m.ReadLog: self._log_service.read_log,
            m.StartJob: self._environments.start_job,
            m.SignalJob: self._runner.signal_job,
            **self._neighbours.handlers,
            **GroupService(self._leases, self._act).handlers,
            **GpuService(self._leases.holds, self._pump.send).handlers,
            **self._store.handlers,
            **self._transfer.handlers,
            **self._memory.handlers,
            **self._oom.handlers,
        }
        for kind, handler in routes.items():
            self._pump.on(kind, handler)
        self._pump.hooks.append(self._arm)
        self._pump.every(_EVIDENCE_S, self._processes.refresh_evidence)
        self._pump.every(_EVIDENCE_S, self._gauge.look)

    def join(self) -> None:
        """Register at the head; the daemon is ready when that has answered."""
        self._head.join(
            self.info,
            lambda reply: self._neighbours.joined(reply.nodes),
            self._contents,
            lambda: [peer.process_id for peer in self._peers],
        )

    def _contents(self) -> m.NodeContents:
        """What a head that has begun anew has to know."""
        actors = [
            m.RunningActor(hold.actor.spec.actor_id, hold.actor.incarnation, hold.worker)
            for hold in self._leases.holds.by_worker.values()
            if hold.actor is not None
        ]
        return m.NodeContents(
            actors, self._leases.bundles.contents(), [peer.process_id for peer in self._peers],
            self._jobs.known(), self._runner.running(),
        )  # fmt: skip

    # -- the processes of this node

    def _register_process(self, sender: bytes, message: m.RegisterProcess) -> None:
        process_id, now = message.address.process_id, self._now()
        if message.kind == "worker" and sender == process_id:
            allowed = self._pool.registered(process_id, message.address, message.pid, now)
        else:
            allowed = sender == process_id and not self._peers.was_here(process_id)
        if not allowed or self._stopping:
            text = f"this node does not expect {message.kind} {process_id.hex()[:8]}"
            self._pump.send(sender, m.Refused(message.rid, "RuntimeError", text))
            return
        self._peers.add(message, now)
        params = self._daemon.params
        registered = m.ProcessRegistered(
            message.rid, self.info, params.head, params.config, params.cluster_id
        )
        self._pump.send(sender, registered)
        self._head.greet(sender)
        if message.kind == "worker":
            self._leases_changed = True

    def _worker_started(self, process: Process) -> None:
        job = self._jobs.get(process.job_id)
        if job is not None:
            params, pid = process.params, process.pid
            paths = *log_paths(params, pid), params.progress_path
            self._tailer.add_worker(job, params.process_id, pid, *paths)

    def _worker_ended(self, process_id: bytes, cause: m.DeathCause) -> None:
        worker = self._pool.workers.get(process_id)
        hold = self._leases.holds.by_worker.get(process_id)
        # Its last lines before the news of its end.
        self._tailer.remove_worker(process_id)
        self._oom.worker_ended(process_id, cause)
        job_id = worker.key.job_id if worker is not None else b""
        self._tell_death(process_id, "worker", job_id, cause)
        if hold is not None and hold.actor is not None:
            # The head knows an actor's worker only once it has started: which actor died in its
            # constructor must be said. It ignores news of one it has heard of already.
            self._head.tell(
                m.ActorStartFailed(hold.actor.spec.actor_id, hold.actor.incarnation, cause)
            )
        words = describe(cause)
        if cause.stderr_tail:
            words += "; its last lines:\n" + "\n".join(f"  {line}" for line in cause.stderr_tail)
        self._act(self._leases.worker_exited(process_id, words, self._now()))
        if worker is not None and worker.address is None and cause.exit_code == SETUP_FAILED:
            self._environments.broken(worker.key.runtime_env, words)
            self._act(self._leases.environment_failed(worker.key, words))
        self._jobs.worker_gone(job_id)

    def _driver_gone(self, peer: Peer) -> None:
        """The process of a driver or client has ended."""
        self._pump.after(_LAST_MESSAGES_S, lambda: self._driver_ended(peer))

    def _driver_ended(self, peer: Peer) -> None:
        if peer.process_id not in self._peers:
            return  # Its job was over before.
        cause = self._runner.cause_of_pid(peer.pid) or m.DeathCause(
            "exit",
            "its process has ended; mray did not start it, so how is not known",
            pid=peer.pid,
            node_id=self._node_id,
        )
        self._tell_death(peer.process_id, peer.kind, peer.job_id, cause)
        self._act(self._leases.owner_died(peer.process_id))

    def _tell_death(self, process_id: bytes, kind: str, job_id: bytes, cause: m.DeathCause) -> None:
        """Tell everybody of the end of a process of this node."""
        if self._peers.remove(process_id, cause) is None:
            return  # A worker that never registered: nobody has heard of it.
        message = m.ProcessDied(process_id, kind, job_id, cause)
        self._head.tell(message)
        for peer in self._peers:
            self._pump.send(peer.process_id, message)
        self._store.client_died(process_id)
        self._store.owner_died(process_id)
        self._environments.owner_died(process_id)
        self._pump.hang_up(process_id)

    def _remote_process_died(self, process_id: bytes) -> None:
        self._store.owner_died(process_id)
        self._environments.owner_died(process_id)
        self._act(self._leases.owner_died(process_id))

    def _remote_node_died(self, node_id: bytes, cause: m.DeathCause) -> None:
        stored = {copy.owner_id for copy in self._store.store.copies()}
        for owner in stored | self._leases.owners() | self._environments.owners():
            if is_on(owner, node_id):
                self._remote_process_died(owner)
        self._transfer.node_gone(node_id)

    # -- leases and actors

    def _lease_demand(self, sender: bytes, message: m.LeaseDemand) -> None:
        if sender not in self._peers and not self._neighbours.lives(sender, message.home):
            # Read after its end was seen; or it never registered, and we would never see its end.
            self._log.warning("a lease demand of %s, who is not here", sender.hex()[:8])
            if message.home and self._neighbours.is_unknown(message.home):
                # We have just joined, and are named to others before they are to us.
                text = "this node does not know yours yet"
                self._pump.send(sender, m.LeaseRefused(message.class_id, "busy", text))
            return
        self._environments.demand(sender, message)

    def _demand(self, sender: bytes, message: m.LeaseDemand) -> None:
        """The environment is there."""
        self._jobs.need(message.job_id)
        self._act(self._leases.demand(sender, message))

    def _begin_actor(self, message: m.StartActor) -> None:
        """The environment is there."""
        spec = message.spec
        if self._draining.reason:
            self._draining.refuse(message)
            return
        if spec.detached:
            self._jobs.recall(spec.job_id)
        self._jobs.need(spec.job_id)
        self._act(self._leases.start_actor(message))

    def _stop_actor(self, sender: bytes, message: m.StopActor) -> None:
        if not self._environments.stop_actor(message):
            self._act(self._leases.stop_actor(message))

    def _blocked(self, sender: bytes, is_blocked: bool) -> None:
        self._leases.blocked(sender, is_blocked)
        self._changed()

    def _changed(self) -> None:
        self._leases_changed = True

    def _act(self, effects: Sequence[Effect]) -> None:
        self._leases_changed = True
        for effect in effects:
            match effect:
                case Send(process_id, message):
                    # False: it has ended, which is told to the leases by itself.
                    self._pump.send(process_id, message)
                case TellHead(message):
                    self._head.tell(message)
                case Spawn(process_id, key):
                    self._spawn(process_id, key)
                case Kill(process_id, cause, grace_s, asked):
                    end = self._retiring.retire if asked else self._processes.kill
                    end(process_id, cause, grace_s)
                case other:
                    assert_never(other)

    def _spawn(self, process_id: bytes, key: Key) -> None:
        if self._stopping:
            return
        job, session = self._jobs[key.job_id], self._daemon.session
        runtime_env = key.runtime_env or job.runtime_env
        stem = f"{session.sockets}/w-{process_id[1:11].hex()}"
        self._processes.spawn(
            WorkerParams(
                process_id=process_id,
                node=self.info,
                node_pid=os.getpid(),
                head=self._daemon.params.head,
                cluster_id=self._daemon.params.cluster_id,
                config=self._daemon.params.config,
                job=job,
                runtime_env=runtime_env,
                ipc=stem,
                progress_path=f"{stem}.seq",
                out_path="",
                err_path="",
                places=self._environments.places(runtime_env),
                **self._reach,
            )
        )

    def _job_over(self, sender: bytes, message: m.JobGone) -> None:
        job_id = message.job_id
        self._jobs.over(job_id)
        cause = m.DeathCause("intended", "its job is over", node_id=self._node_id)
        for peer in self._peers:
            # The driver's process may live on, and even begin another job under another id.
            if peer.kind == "driver" and peer.job_id == job_id:
                self._tell_death(peer.process_id, "driver", job_id, cause)
                self._act(self._leases.owner_died(peer.process_id))

    # -- logs

    def _logs_changed(self, names: set[str] | None) -> None:
        self._tailer.changed(names)
        self._log_service.changed(names)

    def _send_to_driver(self, job: m.JobInfo, message: m.Message) -> bool:
        if self._peers.was_here(job.driver.process_id):
            return False
        return self._pump.send_to(job.driver, message)

    def _drain_logs(self, sender: bytes, message: m.DrainLogs) -> None:
        reply = m.Ack(message.rid)
        self._tailer.drain(message.job_id, lambda: self._pump.send(sender, reply))

    # -- time

    def _now(self) -> float:
        return self._pump.clock()

    def _arm(self) -> None:
        """At the end of each round: what all its messages come to, and one timer for each machine
        that wants one."""
        if self._leases_changed:
            self._act(self._leases.settle(self._now()))
            self._leases_changed = False
            self._timers.arm("leases", self._leases.deadline(), self._tick_leases)
            self._head.news()
        self._timers.arm("store", self._store.deadline(), self._tick_store)
        transfer = self._transfer
        self._timers.arm("transfer", transfer.deadline(), lambda: transfer.tick(self._now()))

    def _tick_leases(self) -> None:
        self._leases_changed = True
        due, now = self._leases.deadline(), self._now()
        if due is not None and due <= now:
            self._act(self._leases.tick(now))

    def _tick_store(self) -> None:
        due = self._store.deadline()
        if due is not None and due <= self._now():
            self._store.tick(self._now())

    # -- the end

    def stop(self, reason: str, grace_s: float) -> None:
        """End jobs and workers, then the zygote, then the store."""
        self._stopping = self._jobs.closed = True
        # Before the first of its workers ends: nothing that ends here begins anew here.
        self._neighbours.view.nodes[self._node_id].draining = True
        self._head.beat_now()
        self._oom.stop()
        term_s = grace_s * _TERM_SHARE
        # What may run again does so elsewhere, where there is an elsewhere.
        kind = "node_died" if self._neighbours.view.others() else "intended"
        cause = m.DeathCause(kind, f"the node stops: {reason}", node_id=self._node_id)
        if self._draining.reason:
            cause = self._draining.cause
        self._runner.stop_all(term_s)
        for process in list(self._processes):
            self._processes.kill(process.params.process_id, cause, term_s)
        self._await_workers()

    def _await_workers(self) -> None:
        """Until nobody is left. Bounded: SIGKILL comes by itself, and daemon.stop has an end."""
        if len(self._processes) or len(self._runner):
            self._pump.after(_LAST_MESSAGES_S, self._await_workers)
            return
        self._processes.sweep()
        self._spawner.close(self._close)
        self._pump.after(_ZYGOTE_GONE_S, self._close)

    def _close(self) -> None:
        self._log_watch.close()
        self._daemon.finish(0)

    def close(self) -> None:
        """After the loop: take the object store away."""
        self._oom.stop()
        self._environments.close()
        self._children.close()
        self._transfer.close()
        self._store.close()


def run_node(daemon: Daemon, worker_main: str = WORKER_MAIN) -> int:
    """Be the node daemon until it is told to end; returns the exit code."""
    node = Node(daemon, worker_main)
    daemon.on_stop = node.stop
    node.join()
    try:
        return daemon.run()
    finally:
        node.close()
