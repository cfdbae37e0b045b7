"""A whole cluster in one process on virtual time: the real head, node daemons, drivers and workers.

Real are all machines and their shells: Head, Node with leases and pool, Runtime, Worker, the pump.
Stood in for are sockets and time (doors.py, clockwork.py), processes (here), user code (labour.py),
and the parts of a node that only look at the machine it runs on (memory, logs, environments,
submissions).

Owns births and deaths. What must be true is record.py's; what happens is lives.py's.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import types
from collections.abc import Callable, Iterator
from typing import Any, Self
from unittest.mock import patch

from mray import current
from mray.config import Config
from mray.daemon_params import DaemonParams, NodeOptions
from mray.exceptions import LocalRayletDiedError
from mray.ids import JobId, new_head_id, new_node_id, new_process_id
from mray.node import agent
from mray.node.agent import Node
from mray.node.head.inheritance import Inheritance
from mray.node.head.server import Head
from mray.node.objects.arena import Arena
from mray.node.objects.server import StoreServer
from mray.node.objects.spill_pool import StoreMemory
from mray.node.transfer.bulk import Bulk
from mray.node.transfer.chunks import bulk_name
from mray.node.transfer.opening import pull_rules
from mray.object_ref import ObjectRef
from mray.resources import to_fixed
from mray.runtime.runtime import Runtime
from mray.runtime.worker import Worker
from mray.units import MIB
from mray.version import VERSION
from mray.wire import messages as m

from .clockwork import Clockwork, Violation
from .doors import SimBulkDoor, SimDoor, SimPump
from .labour import PlanExecutor
from .record import Record
from .standins import Failures, Idle, OpenEnvironments, SimBulk, SimPeers, SimProcesses, SimStorage
from .strands import block_on

_LOG = logging.getLogger("mray.simulated")
_LOG.addHandler(logging.NullHandler())
_LOG.propagate = False

#: Parts of a node that look at the machine it runs on, or that nobody asks here.
_IDLE_PARTS = (
    "Children", "Spawner", "Tailer", "JobRunner", "LogBook", "LogService", "DirectoryWatch",
    "Gauge", "MemoryReports", "OomService", "NodeTaskReports", "NodeStacks", "WorkerViews",
)  # fmt: skip
STORE_BYTES = 32 * MIB
REAPED_S = 0.01
#: A handshake on the slowest lines can take 10 s, once in many thousand lives.
CONNECT_S = 30.0


class SimDaemon:
    """What a head or node is given by node/daemon.py."""

    def __init__(self, cluster: SimCluster, kind: str, params: DaemonParams) -> None:
        self.cluster, self.kind, self.params = cluster, kind, params
        self.config = cluster.config
        self.log = _LOG
        self.door = SimDoor(params.process_id)
        self.pump = SimPump(self.door, params.process_id)
        #: A head is where those who join were told that it is: none moves.
        self.tcp = params.head.tcp if kind == "head" else "simulated:1"
        self.session = types.SimpleNamespace(
            path=cluster.directory, sockets=cluster.directory, logs=cluster.directory,
            name="simulated", sign=f"{cluster.directory}/nodes-elsewhere",
        )  # fmt: skip
        self.was_ready = False
        self.stopping = False
        self.on_stop: Any = None
        self.on_failed: Callable[[str], None] = lambda text: None

    def ready(self, **facts: Any) -> None:
        """It serves."""
        self.was_ready = True

    def fail(self, kind: str, text: str) -> None:
        """It does not."""
        self.on_failed(text)

    def watch_pid(self, *args: Any) -> None:
        """Ends of processes are told by the cluster."""

    def stop(self, reason: str, grace_s: float = 0.0, code: int = 0) -> None:
        """It ends itself, its workers first."""
        if not self.stopping:
            self.stopping = True
            self.cluster.node_ends(self.params.process_id, reason)

    def finish(self, code: int = 0) -> None:
        """It has ended."""
        self.cluster.node_ends(self.params.process_id, f"exit code {code}")


class SimWorker:
    """A worker process. ``shell`` is the real Worker."""

    def __init__(self, cluster: SimCluster, node_id: bytes, process: Any) -> None:
        self.cluster = cluster
        self.node_id = node_id
        self.process_id = process.params.process_id
        self.last_seq = -1
        self.shell = Worker(process.params)
        self.door: SimDoor = cluster.world.doors[self.process_id]
        self.shell.executor.worker = self
        self.rt = self.shell.rt
        cluster.runtimes[self.process_id] = self.door.runtime = self.rt
        cluster.all_runtimes.append(self.rt)
        with cluster.as_process(self.rt):
            self.shell.run()
        self.door.turn_soon()

    @property
    def incarnation(self) -> int:
        """Of its actor."""
        return self.shell._incarnation


class SimCluster:
    """See the module. Use as a context manager."""

    def __init__(self, seed: int, directory: str, nodes: int = 3, cpus: int = 2) -> None:
        self.world = Clockwork(seed)
        self.directory = directory
        self.cpus = cpus
        self.config = Config()
        self.pids = itertools.count(1_000)
        self.record = Record(self.world)
        #: Of drivers and workers.
        self.runtimes: dict[bytes, Runtime] = {}
        self.all_runtimes: list[Runtime] = []
        self.workers: dict[bytes, SimWorker] = {}
        self.drivers: list[Runtime] = []
        #: Living node daemons, by node id.
        self.nodes: dict[bytes, Node] = {}
        self.head: Head | None = None
        self.failures = Failures()
        self.node_deaths = 0
        self._node_count = nodes
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        rng = self.world.rng
        door = type("Door", (SimDoor,), {"world": self.world})
        processes = type("Processes", (SimProcesses,), {"cluster": self})
        executor = type("Executor", (PlanExecutor,), {"cluster": self})
        SimDoor.world = self.world
        enter = self._stack.enter_context
        enter(patch("os.urandom", rng.randbytes))
        logger = logging.getLogger("mray")
        logger.addHandler(self.failures)
        self._stack.callback(lambda: logger.removeHandler(self.failures))
        enter(patch.multiple("mray.runtime.runtime", Pump=SimPump))
        enter(patch.object(Runtime, "block_on", block_on))
        enter(patch.object(Runtime, "start", lambda rt: None))
        enter(patch.object(Runtime, "take_turns", lambda rt, guarded: None))
        enter(
            patch.multiple(
                "mray.runtime.worker",
                Door=door,
                Executor=executor,
                OutputFiles=Idle,
                Interrupts=Idle,
                _map_progress=lambda path: None,
            )
        )
        enter(patch.object(Worker, "_announce", lambda *args: None))
        enter(patch("mray.runtime.process_title.show", lambda text: None))  # It would be ours.
        parts = dict.fromkeys(_IDLE_PARTS, Idle)
        parts |= {
            "Processes": processes, "Peers": SimPeers, "Environments": OpenEnvironments,
            "open_store": self._open_store, "reach": lambda daemon: {},
        }  # fmt: skip
        parts = {name: part for name, part in parts.items() if hasattr(agent, name)}
        enter(patch.multiple(agent, **parts))
        self._start_head()
        for _ in range(self._node_count):
            self.add_node()
        return self

    def __exit__(self, *exc: object) -> None:
        for door in list(self.world.doors.values()):
            for strand in list(door.strands):
                strand.kill()
            door.end()
        for rt in self.all_runtimes:
            rt.store.close()
        current.runtime = None
        self._stack.close()

    @contextlib.contextmanager
    def as_process(self, rt: Runtime) -> Iterator[None]:
        """What runs inside is that process's code."""
        former, current.runtime = current.runtime, rt
        try:
            yield
        finally:
            current.runtime = former

    # -- daemons

    def _params(self, process_id: bytes, is_head: bool) -> DaemonParams:
        return DaemonParams(
            process_id=process_id, cluster_id="simulated", session_dir=self.directory,
            is_head=is_head, head=self.head_address, head_pid=0, head_start_time=0,
            ipc=process_id.hex(), config=self.config.to_bytes(), token="", tcp_host="",
            tcp_port=0, node=NodeOptions(ip="10.0.0.1"), owner_pid=0, owner_start_time=0,
            ready_fd=-1,
        )  # fmt: skip

    def _start_head(self) -> None:
        self.head_address = m.Address(new_head_id(), new_node_id(), "", "head:1")
        self.storage = SimStorage()
        self.begin_head()

    def begin_head(self) -> None:
        """A head takes over what the storage has."""
        head_id = self.head_address.process_id
        storage = self.storage
        if storage.is_broken:
            self.world.after(0.5, self.begin_head)  # Whoever starts it tries again.
            return
        tables = storage.load()
        epoch = storage.take_over({})
        daemon = SimDaemon(self, "head", self._params(head_id, True))
        self.head = Head(daemon, Inheritance(storage, tables, epoch))  # type: ignore[arg-type]
        daemon.door.turn_soon()

    def head_dies(self, away_s: float) -> None:
        """SIGKILL of the head; another begins a while later."""
        if self.head is None:
            return
        self.world.say(f"the head dies for {away_s:g} s")
        self.world.doors[self.head_address.process_id].die()
        self.head = None
        self.world.after(away_s, self.begin_head)

    def known_alive(self) -> set[bytes]:
        """The nodes that are not dead for all that the head knows."""
        assert self.head is not None
        return {node.node_id for node in self.head.membership.living()}

    def disk_has_room(self) -> None:
        """The head's storage can be written again."""
        self.storage.is_broken = False

    def add_node(self) -> bytes:
        """One more node."""
        node_id = new_node_id()
        daemon = SimDaemon(self, "node", self._params(node_id, False))
        node = Node(daemon)  # type: ignore[arg-type]
        daemon.on_stop = node.stop
        self.nodes[node_id] = node
        node.join()
        daemon.door.turn_soon()
        return node_id

    def _open_store(self, daemon: SimDaemon) -> tuple[StoreServer, m.NodeInfo, Bulk]:
        node_id = daemon.params.process_id
        arena = Arena.make("sim", node_id.hex(), STORE_BYTES, self.directory)
        server = StoreServer(arena, daemon.pump.send, clock=lambda: self.world.now)
        memory = StoreMemory(arena.path, arena.virtual_bytes)
        rules = pull_rules(self.config, STORE_BYTES)
        door: Any = SimBulkDoor(bulk_name(node_id))
        bulk = SimBulk(door, memory, rules.chunk_bytes, daemon.pump.call_soon)
        self._stack.callback(server.close)
        self._stack.callback(memory.close)
        info = m.NodeInfo(
            node_id=node_id,
            address=m.Address(node_id, node_id, "ipc-" + node_id.hex(), "tcp-" + node_id.hex()),
            ip="10.0.0.1", hostname="host", pid=next(self.pids),
            resources=to_fixed({"CPU": self._cpus_of_next(), "memory": 1e9}),
            labels={}, session_dir=node_id.hex(), log_dir=self.directory, store_path=arena.path,
            store_capacity_bytes=STORE_BYTES, is_head=False, mray_version=VERSION,
            python_version="3.11.0", bulk="bulk-" + node_id.hex(),
        )  # fmt: skip
        return server, info, bulk

    def _cpus_of_next(self) -> float:
        """The first nodes, on which drivers are, have few, so that much is done elsewhere."""
        if len(self.nodes) < 2:
            return float(self.world.rng.choice([0, 1, self.cpus]))
        return float(self.cpus)

    def node_dies(self, node_id: bytes) -> None:
        """SIGKILL of a node daemon: its workers and drivers go with it."""
        if self.nodes.pop(node_id, None) is None:
            return
        self.world.say(f"node {node_id.hex()[:6]} dies")
        self.node_deaths += 1
        self.world.doors[node_id].die()
        self.world.doors[bulk_name(node_id)].die()
        for worker in list(self.workers.values()):
            if worker.node_id == node_id:
                self._bury(worker)
        for rt in list(self.drivers):
            if rt.node.node_id == node_id:
                # As the kernel tells it: its pidfd becomes readable.
                self.driver_dies(rt)

    def node_ends(self, node_id: bytes, reason: str) -> None:
        """A node daemon ends itself."""
        self.world.say(f"node {node_id.hex()[:6]} ends: {reason}")
        self.node_dies(node_id)

    # -- workers

    def worker_begins(self, node_id: bytes, process: Any) -> None:
        """A worker's process is there."""
        if node_id not in self.nodes or self.nodes[node_id]._processes.get(
            process.params.process_id
        ) is not process:  # fmt: skip
            return
        worker = SimWorker(self, node_id, process)
        self.workers[worker.process_id] = worker

    def worker_dies(self, process_id: bytes, signal: int = 9) -> None:
        """A worker's process ends; its node sees it a moment later."""
        worker = self.workers.get(process_id)
        node_id = worker.node_id if worker is not None else None
        last_seq = worker.last_seq if worker is not None else -1
        if worker is not None:
            self.world.say(f"worker {process_id.hex()[:8]} on {node_id.hex()[:6]} dies ({signal})")
            self._bury(worker)
        for key, node in list(self.nodes.items()):
            if node_id in (None, key) and node._processes.get(process_id) is not None:
                self.world.after(
                    REAPED_S, lambda node=node: self._reaped(node, process_id, signal, last_seq)
                )

    def _reaped(self, node: Node, process_id: bytes, signal: int, last_seq: int) -> None:
        door = self.world.doors[node._node_id]
        if door.is_dead:
            return
        if self.world.now < door.stopped_until:
            self.world.after(
                door.stopped_until - self.world.now,
                lambda: self._reaped(node, process_id, signal, last_seq),
            )
            return
        node._processes.ended(process_id, signal, last_seq)
        door.turn_soon()

    def worker_exits(self, worker: SimWorker, code: int) -> None:
        """A worker has come to its end by itself."""
        self.world.after(0.001, lambda: self.worker_dies(worker.process_id, 0))

    def _bury(self, worker: SimWorker) -> None:
        worker.door.die()
        self.workers.pop(worker.process_id, None)
        self.runtimes.pop(worker.process_id, None)
        self.record.worker_died(worker)

    # -- drivers

    def connect(self, node_id: bytes, on_ready: Callable[[Runtime], None]) -> None:
        """A driver on a node; ``on_ready`` when it may be used."""
        process_id = new_process_id(node_id)
        door = SimDoor(process_id)
        address = m.Address(process_id, node_id, "d-" + process_id.hex(), "t-" + process_id.hex())
        pump = SimPump(door, node_id, linked=False)
        node = m.Address(node_id, node_id, "ipc-" + node_id.hex())
        door.dial(node, node_id)
        door.dial(self.head_address, node_id)
        pid = next(self.pids)

        def job_is_there(reply: m.Message) -> None:
            if not isinstance(reply, m.JobRegistered):
                raise Violation(f"a driver was not taken: {reply}")
            job = reply
            pump.request(
                node_id,
                lambda rid: m.RegisterProcess(rid, "driver", address, pid, job.job_id),
                lambda reply: registered(job, reply),
                CONNECT_S,
            )

        def registered(job: m.JobRegistered, reply: m.Message) -> None:
            if not isinstance(reply, m.ProcessRegistered):
                raise Violation(f"a driver was not taken: {reply}")
            rt = Runtime(
                mode="driver", door=door, address=address, node=reply.node, head=reply.head,  # type: ignore[arg-type]
                job_id=JobId(job.job_id), namespace=job.namespace, config=self.config,
            )  # fmt: skip
            self.runtimes[process_id] = door.runtime = rt
            self.all_runtimes.append(rt)
            self.drivers.append(rt)
            on_ready(rt)
            door.turn_soon()

        pump.request(
            self.head_address.process_id,
            lambda rid: m.RegisterJob(
                rid, address, pid, "program", "", "", b"", [], "/", False, False
            ),
            job_is_there,
            CONNECT_S,
        )
        door.turn_soon()

    def driver_dies(self, rt: Runtime) -> None:
        """SIGKILL of a driver; its node sees it a moment later."""
        self.world.say(f"driver {rt.process_id.hex()[:8]} dies")
        self.drivers.remove(rt)
        self.runtimes.pop(rt.process_id, None)
        self.world.doors[rt.process_id].die()
        self.record.driver_died(rt)
        node = self.nodes.get(rt.node.node_id)
        if node is not None:
            peer = node._peers.get(rt.process_id)
            if peer is not None:
                self.world.after(REAPED_S, lambda: self._driver_reaped(node, peer))

    def _driver_reaped(self, node: Node, peer: Any) -> None:
        door = self.world.doors[node._node_id]
        if not door.is_dead:
            node._driver_ended(peer)
            door.turn_soon()

    # -- programs

    def submit(self, rt: Runtime, plan: dict[str, Any], args: Any) -> ObjectRef[Any]:
        """A task that follows a plan."""
        key = ("plan", plan.get("cpus", 1.0), plan.get("retries", 3), plan.get("where"))
        templates = self.record.templates.setdefault(rt.process_id, {})
        template = templates.get(key)
        if template is None:
            template = templates[key] = rt.tasks.template(
                b"", "plan", num_returns=1,
                resources=to_fixed({"CPU": plan.get("cpus", 1.0)}),
                max_retries=plan.get("retries", 3),
            )  # fmt: skip
        with self.as_process(rt):
            (ref,) = rt.tasks.call(template, (plan, *args), {})
        self.record.submitted(rt, plan, ref)
        return ref


__all__ = ["Idle", "LocalRayletDiedError", "SimCluster"]
