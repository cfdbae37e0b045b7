"""Stand-ins for what a head and its nodes have of the machine they run on.

Parts that only look at the machine, or that nobody asks in a simulation, are ``Idle``. The others
do the least that their neighbours lean on.
"""

from __future__ import annotations

import logging
import traceback
import types
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from mray.node.head.storage.store import StorageError, Tables, Writes
from mray.node.transfer.bulk import Bulk
from mray.node.workers.peers import Peer, Peers
from mray.runtime.params import Places
from mray.wire import messages as m

if TYPE_CHECKING:
    from .cluster import SimCluster

#: A worker's process is there so soon, at most.
START_S = 0.05


class Idle:
    """A part of a node that has nothing to do here."""

    handlers: dict[Any, Any] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.reading = types.SimpleNamespace(used_bytes=0, limit_bytes=0)
        self.threshold_bytes = 0
        self.used_bytes = self.spilled_bytes = 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None

    def __len__(self) -> int:
        return 0

    def running(self) -> list[Any]:
        """No submitted jobs."""
        return []

    def lost_output(self) -> m.LostOutput:
        """Nothing is printed."""
        return m.LostOutput()


class SimBulk(Bulk):
    """A bulk connection whose thread is the world."""

    def start(self) -> None:
        """Its door turns it."""
        door: Any = self._door
        door.bulk = self

    def close(self) -> None:
        """Nobody turns it any more."""


class OpenEnvironments(Idle):
    """Every environment is there."""

    def __init__(self, pump: Any, children: Any, head: Any, session: Any, **calls: Any) -> None:
        super().__init__()
        self._on_demand = calls["on_demand"]
        self._on_actor = calls["on_actor"]

    def demand(self, sender: bytes, message: Any) -> None:
        """Goes on at once."""
        self._on_demand(sender, message)

    def start_actor(self, sender: bytes, message: Any) -> None:
        """Goes on at once."""
        self._on_actor(message)

    def stop_actor(self, message: Any) -> bool:
        """Nothing waits here."""
        return False

    def owners(self) -> set[bytes]:
        """Nobody waits here."""
        return set()

    def places(self, runtime_env: bytes) -> Any:
        """Of nothing."""
        return Places()


class Failures(logging.Handler):
    """What handlers and notes raised: event loops log it and go on."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the traceback."""
        if record.exc_info and record.exc_info[0] is not None:
            self.texts.append("".join(traceback.format_exception(*record.exc_info)))


class SimPeers:
    """Registered processes: the ends of drivers are told by the cluster, not by descriptors."""

    def __new__(cls, pump: Any, on_gone: Any) -> Any:
        """A real table whose ``add`` watches nothing."""

        class Table(Peers):
            def add(self, message: m.RegisterProcess, now: float) -> None:
                self._peers.setdefault(message.address.process_id, Peer(message, now))

        return Table(pump, on_gone)


class SimStorage:
    """The head's storage: what was committed outlives it."""

    text = "a simulated disk"

    def __init__(self) -> None:
        self.tables: Tables = {}
        self.epoch = 0
        #: Commits fail.
        self.is_broken = False

    def load(self) -> Tables:
        """See Storage."""
        return {name: dict(rows) for name, rows in self.tables.items()}

    def take_over(self, writes: Writes) -> int:
        """See Storage."""
        self.epoch += 1
        self.commit(writes)
        return self.epoch

    def commit(self, writes: Writes) -> None:
        """See Storage."""
        if self.is_broken:
            raise StorageError("the simulated disk is full")
        for (table, key), value in writes.items():
            rows = self.tables.setdefault(table, {})
            if value is None:
                rows.pop(key, None)
            else:
                rows[key] = value

    def close(self) -> None:
        """Nothing is open."""


class SimProcesses:
    """The workers of a node, as node/workers/processes.py has them."""

    cluster: SimCluster  # set by the patch that puts this class in place

    def __init__(
        self, pump: Any, children: Any, spawner: Any, node_id: bytes, started: Any, ended: Any
    ) -> None:
        self._node_id = node_id
        self._started, self._ended = started, ended
        self._workers: dict[bytes, Any] = {}
        self.other_makers: dict[int, Any] = {}
        self.kernel_facts = lambda process_id: b""

    def __len__(self) -> int:
        return len(self._workers)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._workers.values())

    def get(self, process_id: bytes) -> Any:
        """The worker, if it lives."""
        return self._workers.get(process_id)

    def spawn(self, params: Any) -> None:
        """Start a worker."""
        cluster = self.cluster
        process = types.SimpleNamespace(
            params=params, pid=next(cluster.pids), intent=None, job_id=params.job.job_id,
            start_time=1, ended=False,
        )  # fmt: skip
        self._workers[params.process_id] = process
        self._started(process)
        delay_s = cluster.world.rng.uniform(0.0, START_S)
        cluster.world.after(delay_s, lambda: cluster.worker_begins(self._node_id, process))

    def kill(self, process_id: bytes, cause: m.DeathCause, grace_s: float) -> None:
        """End a worker."""
        process = self._workers.get(process_id)
        if process is None:
            return
        if process.intent is None:
            process.intent = cause
        self.cluster.world.after(
            min(grace_s, 0.001), lambda: self.cluster.worker_dies(process_id, signal=9)
        )

    def end_task(self, sender: bytes, message: Any, hold: Any) -> None:
        """Cancelling by force is not simulated."""
        raise AssertionError("nobody cancels by force here")

    def announce(self, process_id: bytes, cause: m.DeathCause) -> None:
        """A worker says that it will end, and why."""
        process = self._workers.get(process_id)
        if process is not None and process.intent is None:
            process.intent = cause

    def refresh_evidence(self) -> None:
        """There is no kernel."""

    def sweep(self) -> None:
        """There are no strays."""

    def ended(self, process_id: bytes, signal: int, last_seq: int) -> None:
        """For the cluster: its end has been seen."""
        process = self._workers.pop(process_id, None)
        if process is None:
            return
        intent = process.intent
        cause = m.DeathCause(
            intent.kind if intent else "signal",
            intent.text if intent else f"killed by signal {signal}",
            signal=signal, pid=process.pid, node_id=self._node_id, last_seq=last_seq,
        )  # fmt: skip
        self._ended(process_id, cause)
