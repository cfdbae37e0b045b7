"""The head: routes messages to the machines and carries out what they answer.

Covers: which machine a message is for, effects, one timer a machine, the orderly end of the
cluster. Decides nothing about nodes, jobs, actors or keys. What has to outlive the head is written
by journal.py before anything that follows from it leaves; the head of a cluster that ends with its
driver has no journal, and keeps all in memory.
"""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from mray.config import Config
from mray.daemon_params import CONFIG_KEY, CONFIG_NAMESPACE, DaemonParams
from mray.node.daemon import Daemon, StartFailed
from mray.node.head.actors import ActorTable
from mray.node.head.calling import Calling
from mray.node.head.events import (
    ActorGone,
    Effect,
    Fence,
    From,
    GroupEnded,
    GroupPlaced,
    JobEnded,
    JobOver,
    LastActorGone,
    NodeLost,
    NodeProcessEnded,
    NodeUp,
    Note,
    Persist,
    RoomSeen,
    Send,
    Tick,
    ToNodes,
)
from mray.node.head.farewells import Farewells
from mray.node.head.inheritance import Inheritance, nodes_removed, restore, take_over
from mray.node.head.jobs import JobTable, StopPolicy
from mray.node.head.journal import Journal
from mray.node.head.kv import KeyValues
from mray.node.head.membership import Membership, Silence
from mray.node.head.packages import Packages
from mray.node.head.placement_groups import GroupTable
from mray.node.head.port import objection
from mray.node.head.storage.store import StorageError
from mray.node.head.task_events import GoOn, ReadOn, TaskEventStore
from mray.process import start_time_of
from mray.rpc.deadlines import Deadlines
from mray.rpc.pump import Timer
from mray.session_files import Session
from mray.wire.messages import (
    ActorOutOfScope,
    ActorStarted,
    ActorStartFailed,
    BundlesReserved,
    CountTasks,
    CreatePlacementGroup,
    FinishJob,
    GetActor,
    GetJobInfo,
    GetJobs,
    GetNodes,
    GetPackage,
    GetPlacementGroups,
    GetTaskEvents,
    Heartbeat,
    JobExited,
    JobStarted,
    KillActor,
    KvDelete,
    KvGet,
    KvKeys,
    KvPut,
    ListActors,
    Message,
    NodeGone,
    NodeInfo,
    ProcessDied,
    PutPackage,
    RegisterActor,
    RegisterJob,
    RegisterNode,
    RemovePlacementGroup,
    Shutdown,
    StopJob,
    SubmitJob,
    TaskEvents,
    WatchActor,
    WatchPlacementGroup,
)

#: How often a head with nodes elsewhere says so on its disk.
_SIGN_S: Final = 2.0
#: A node that is called by this head hears of its own end so long.
_LAST_WORD_S: Final = 60.0
#: What of the grace of a shutdown the nodes get for themselves.
_NODES_SHARE: Final = 0.8


class _Machine(Protocol):
    """A machine of the head. Any: each takes the events that are meant for it."""

    def handle(self, event: Any, now: float) -> Sequence[Effect | GoOn]: ...

    def deadline(self) -> float | None: ...


class Head:
    """The machines of the head and the pump they are fed from."""

    def __init__(self, daemon: Daemon, inherited: Inheritance) -> None:
        self._daemon = daemon
        self._pump = daemon.pump
        self._pump.life = inherited.epoch
        self._log = daemon.log
        params = daemon.params
        config = Config.from_bytes(params.config)
        self._journal: Journal | None = None
        if inherited.storage is not None:
            self._journal = Journal(self._pump, inherited.storage, self._fenced)
        self._send: Callable[[bytes, Message], object] = (
            self._pump.send if self._journal is None else self._journal.send
        )
        kept = self._journal is not None
        head = msgspec.structs.replace(params.head, tcp=daemon.tcp)
        now = self._pump.clock()
        liveness = config.liveness
        period_s = liveness.health_check_period_ms / 1000
        self.membership = Membership(
            cluster_id=params.cluster_id,
            config=params.config,
            head=head,
            # Nodes speak up each second by themselves: a check that nothing came in a period is a
            # failed one, and the threshold or the timeout, whichever is first, ends the waiting.
            silence=Silence(
                suspect_after_s=period_s,
                dead_after_s=min(
                    liveness.health_check_timeout_ms / 1000,
                    period_s * liveness.health_check_failure_threshold,
                ),
                return_within_s=liveness.gcs_rpc_server_reconnect_timeout_s,
            ),
            now=now,
            epoch=inherited.epoch,
            kept=kept,
        )
        self.jobs = JobTable(
            stop=StopPolicy(
                signal=int(signal.Signals[config.jobs.job_stop_signal]),
                wait_s=config.jobs.job_stop_wait_time_s,
            ),
            unix_offset_s=time.time() - now,
            kept=kept,
        )
        self.actors = ActorTable(kept=kept)
        self.groups = GroupTable(kept=kept)
        self.keys = KeyValues(kept=kept)
        self.task_events = TaskEventStore(config.tasks.task_events_max_num_task_in_gcs)
        self.keys.put(CONFIG_NAMESPACE, CONFIG_KEY, params.config)
        self.packages = Packages(f"{daemon.session.path}/runtime_resources/head", self._pump.send)
        #: One for each machine, by its id().
        self._timers: Deadlines[int] = Deadlines(self._pump)
        self._ending = False
        self._sign_timer: Timer | None = None
        #: What nodes that are expected back were not told.
        self._held_back: dict[bytes, list[Message]] = {}
        self._farewells = Farewells(self._pump)
        self._wire()
        self._perform(restore(self, inherited.tables, now))
        for node in self.membership.living():
            self._watch_node(node)  # One of this machine may have ended meanwhile.
        for machine in (self.membership, self.jobs, self.actors, self.groups):
            self._arm(machine)
        self._calling = Calling(self._pump, head, inherited.epoch, self.membership.expected)

    def _wire(self) -> None:
        routes: list[tuple[_Machine, tuple[type[Message], ...]]] = [
            (self.membership, (RegisterNode, Heartbeat, NodeGone, GetNodes)),
            (
                self.jobs,
                (RegisterJob, FinishJob, GetJobInfo, SubmitJob, JobStarted, JobExited, StopJob,
                 GetJobs),
            ),
            (
                self.actors,
                (RegisterActor, ActorStarted, ActorStartFailed, KillActor, ActorOutOfScope,
                 WatchActor, GetActor, ListActors),
            ),
            (
                self.groups,
                (CreatePlacementGroup, RemovePlacementGroup, WatchPlacementGroup,
                 GetPlacementGroups, BundlesReserved),
            ),
            (self.keys, (KvPut, KvGet, KvDelete, KvKeys)),
            (self.task_events, (TaskEvents, GetTaskEvents, CountTasks)),
        ]  # fmt: skip
        for machine, kinds in routes:
            for kind in kinds:
                self._pump.on(kind, self._handler(machine))
        self._pump.on(ProcessDied, self._process_died)
        self._pump.on(PutPackage, self.packages.put)
        self._pump.on(GetPackage, self.packages.get)

    def _handler(self, machine: _Machine) -> Callable[[bytes, Message], None]:
        journal = self._journal
        if journal is None:
            return lambda sender, message: self._feed(machine, From(sender, message))
        return lambda sender, message: journal.handle(
            sender, message, lambda: self._feed(machine, From(sender, message))
        )

    def _process_died(self, sender: bytes, message: ProcessDied) -> None:
        self._perform([ToNodes(message, but=sender)])
        self._feed(self.jobs, From(sender, message))
        self._feed(self.actors, From(sender, message))
        self._feed(self.groups, From(sender, message))
        self.packages.process_died(message.process_id)
        self._farewells.process_died(message.process_id)

    # -- machines

    def _feed(self, machine: _Machine, event: Any) -> None:
        """One event for one machine, its effects, and its next moment."""
        self._perform(machine.handle(event, self._pump.clock()))
        self._arm(machine)

    def _perform(self, effects: Iterable[Effect | GoOn]) -> None:
        """Carry out effects in order; what they mean to other machines is worked off with them."""
        waiting = deque(effects)
        while waiting:
            effect = waiting.popleft()
            match effect:
                case Send(to, message):
                    # False: the peer is gone. Its node tells of its end, and requests have theirs.
                    self._send(to, message)
                case ToNodes(message, but):
                    for node in self.membership.living():
                        if node.node_id != but:
                            self._tell_node(node.node_id, message)
                case Persist(table, key, value):
                    assert self._journal is not None
                    self._journal.persist(table, key, value)
                case Fence(text):
                    self._fenced(text)
                case Note(text):
                    self._log.info("%s", text)
                case NodeUp(node):
                    self._watch_node(node)
                    for message in self._held_back.pop(node.node_id, ()):
                        self._send(node.node_id, message)
                    waiting.extend(self._tell(self.jobs, effect))
                    waiting.extend(self._tell(self.actors, effect))
                    waiting.extend(self._tell(self.groups, effect))
                case NodeLost(node_id):
                    self._held_back.pop(node_id, None)
                    # After what it is told of its own end.
                    self._pump.after(_LAST_WORD_S, partial(self._calling.lost, node_id))
                    self._farewells.node_lost(node_id)
                    waiting.extend(self._tell(self.jobs, effect))
                    waiting.extend(self._tell(self.actors, effect))
                    waiting.extend(self._tell(self.groups, effect))
                    self._maybe_finish()
                case GoOn():
                    self._pump.call_soon(lambda: self._feed(self.task_events, ReadOn()))
                case RoomSeen() | JobEnded():
                    waiting.extend(self._tell(self.actors, effect))
                    waiting.extend(self._tell(self.groups, effect))
                case ActorGone():
                    waiting.extend(self._tell(self.groups, effect))
                case LastActorGone():
                    waiting.extend(self._tell(self.jobs, effect))
                case JobOver():
                    waiting.extend(self._tell(self.keys, effect))
                case GroupPlaced() | GroupEnded():
                    waiting.extend(self._tell(self.actors, effect))

    def _tell_node(self, node_id: bytes, message: Message) -> None:
        """Now, or when the node is back: it cannot be reached before it has reached us."""
        if self.membership.is_expected(node_id):
            self._held_back.setdefault(node_id, []).append(message)
        else:
            self._send(node_id, message)

    def _tell(self, machine: _Machine, event: Any) -> Sequence[Effect | GoOn]:
        effects = machine.handle(event, self._pump.clock())
        self._arm(machine)
        return effects

    def _arm(self, machine: _Machine) -> None:
        self._timers.arm(id(machine), machine.deadline(), partial(self._tick, machine))

    def _tick(self, machine: _Machine) -> None:
        due = machine.deadline()
        if due is not None and due <= self._pump.clock():
            self._feed(machine, Tick())
        else:
            self._arm(machine)

    # -- nodes on this machine

    def _watch_node(self, node: NodeInfo) -> None:
        """See the end of a daemon on this machine at once and not by its silence."""
        if node.session_dir != self._daemon.session.path and self._journal is not None:
            self._leave_signs()
        start_time = -1
        if node.session_dir == self._daemon.session.path:
            try:
                start_time = start_time_of(node.pid)
            except ProcessLookupError:
                start_time = 0  # watch_pid will find nothing of that age and say so.
        else:
            # In a session of its own: its record is here, and names a process of this age, only if
            # the node is on this machine.
            for record in Session(node.session_dir).processes():
                if record.kind == "node" and record.pid == node.pid and record.alive:
                    start_time = record.start_time
        if start_time >= 0:
            self._daemon.watch_pid(
                node.pid,
                start_time,
                lambda: self._feed(self.membership, NodeProcessEnded(node.node_id)),
            )

    def _leave_signs(self) -> None:
        if self._sign_timer is None:
            self._sign_timer = self._pump.every(_SIGN_S, self._leave_sign)
            self._leave_sign()

    def _leave_sign(self) -> None:
        """For who starts a head on this machine after all of it was killed: nodes elsewhere wait.

        On the disk and not in the storage, which may be full, and whose every write costs."""
        path = self._daemon.session.path
        if any(node.session_dir != path for node in self.membership.living()):
            try:
                with open(self._daemon.session.sign, "w", encoding="ascii"):
                    os.utime(self._daemon.session.sign)
            except OSError as error:
                self._log.warning("%s cannot be touched: %s", self._daemon.session.sign, error)

    # -- the end

    def stop(self, reason: str, grace_s: float) -> None:
        """Ask all nodes to end, wait for them within the grace, then end."""
        self._ending = True
        if self._journal is not None:
            self._journal.end(nodes_removed(self.membership))
        share_s = grace_s * _NODES_SHARE
        for node in self.membership.living():
            self._pump.request(
                node.node_id,
                lambda rid: Shutdown(rid, f"the head stops: {reason}", share_s),
                lambda reply: None,
                grace_s,
            )
        self._pump.after(grace_s, lambda: self._daemon.finish(0))
        self._maybe_finish()

    def _maybe_finish(self) -> None:
        if self._ending and not self.membership.living():
            self._daemon.finish(0)

    def _fenced(self, text: str) -> None:
        """There is a newer head: this one ends, and touches nothing of what is the other's now."""
        self._log.error("this head ends: %s", text)
        self._daemon.finish(1)

    def close(self) -> None:
        """After the loop: with the cluster go its packages; a later head has a use for them."""
        if self._ending or self._journal is None:
            self.packages.close()


class HeadLife:
    """What `python -m mray.node head` is: first the storage, then the rest."""

    def __init__(self) -> None:
        self._inherited = Inheritance()

    def prepare(self, params: DaemonParams) -> DaemonParams:
        """Become the head that the storage says. StartFailed where it cannot be used."""
        taken = objection(params)
        if taken:
            raise StartFailed("OSError", taken)
        try:
            params, self._inherited = take_over(params)
        except StorageError as error:
            raise StartFailed(type(error).__name__, str(error)) from error
        return params

    def run(self, daemon: Daemon) -> int:
        """Be the head until the daemon is told to end; returns the exit code."""
        inherited = self._inherited
        head = Head(daemon, inherited)
        if inherited.storage is not None:
            words = "takes up the cluster in" if inherited.begun_anew else "keeps its state in"
            daemon.log.info("epoch %d %s %s", inherited.epoch, words, inherited.storage.text)
        daemon.on_stop = head.stop
        params = daemon.params
        daemon.ready(
            head_id=params.process_id.hex(), cluster_id=params.cluster_id, epoch=inherited.epoch
        )
        try:
            return daemon.run()
        finally:
            head.close()
            if inherited.storage is not None:
                inherited.storage.close()
