"""A worker process: registers with its node daemon, then runs what owners and the head send.

Owns the worker's dialogues: tasks in, replies out (after the borrows they leave behind are
registered), handing back tasks that are not begun, telling the node daemon when it is blocked,
actors' start and end, its log files. Running user code is executor.py's.
"""

from __future__ import annotations

import gc
import logging
import mmap
import os
import signal
import sys
import threading
from typing import Any, NoReturn

import msgspec

from mray import compat, current
from mray.config import Config, ConfigError, keep_environment
from mray.ids import JobId
from mray.ownership.entry import Entry
from mray.ownership.handover import Parcel
from mray.progress import FILE_BYTES, NO_TASK_YET
from mray.rpc.door import Door, Keys
from mray.rpc.endpoints import join_host_port
from mray.rpc.pump import RequestFailed, Timer
from mray.runtime import process_title
from mray.runtime.batches import cut_replies
from mray.runtime.calls import Done, Work, running_task
from mray.runtime.executor import Executor, Terminated
from mray.runtime.generators import GeneratorsPart, Slot
from mray.runtime.interrupts import Interrupts
from mray.runtime.leaving import leave_in_order
from mray.runtime.output import LossyFile, OutputFiles, open_streams
from mray.runtime.params import WorkerParams
from mray.runtime.printed import Printed
from mray.runtime.runtime import Runtime
from mray.runtime.setting_up import run_hook, set_path
from mray.runtime.stacks import answer_stack_signals
from mray.runtime.titles import Titles
from mray.task_output import index_of
from mray.wire.messages import (
    Ack,
    ActorExiting,
    ActorStarted,
    Address,
    ConstructorRefs,
    DeathCause,
    MayRetire,
    Message,
    OutputLost,
    PushTasks,
    RefGroup,
    Refused,
    RegisterProcess,
    Returned,
    StartActor,
    StealTasks,
    TaskReplies,
    TaskReply,
    TaskTemplate,
    TerminateActor,
    WorkerBlocked,
    WorkerUnblocked,
)

log = logging.getLogger("mray.worker")

#: A get() that is over sooner is not worth two messages to the node daemon.
_BLOCK_GRACE_S = 0.002
_ROTATE_EVERY_S = 5.0


class Worker:
    """See the module."""

    def __init__(self, params: WorkerParams, files: tuple[LossyFile, ...] = ()) -> None:
        self.params = params
        config = _config(params)
        keys = Keys.from_parts(params.keys)
        door = Door(params.process_id, keys, config.node.same_machine_ipc)
        door.listen_ipc(params.ipc)
        tcp = ""
        if params.tcp_host:
            port = door.listen_tcp_between(params.tcp_host, *params.tcp_ports)
            tcp = join_host_port(params.tcp_shown, port)
        self.address = Address(params.process_id, params.node.node_id, params.ipc, tcp)
        self.rt = Runtime(
            mode="worker",
            door=door,
            address=self.address,
            node=params.node,
            head=params.head,
            job_id=JobId(params.job.job_id),
            namespace=params.job.namespace,
            config=config,
        )
        self.rt.environment = params.runtime_env
        self.rt.serializers.driver = params.job.driver
        self.rt.tasks.parent_of = running_task
        self.output = OutputFiles(
            params.out_path,
            params.err_path,
            config.logs.log_rotation_max_bytes,
            config.logs.log_rotation_backup_count,
            files,
        )
        progress = _map_progress(params.progress_path)
        self.titles = Titles(self.rt, progress, self.output)
        self.executor = Executor(self.rt, self._finished, self._announce, self._leaving, progress)
        if params.out_path:
            self.executor.printed = Printed(self.output, index_of(params.out_path))
            self.executor.printed.skip()
            self.executor.printed.on_output = self.titles.printed
        self.rt.task_reports.executing = self.executor.executing
        self.interrupts = Interrupts(self.rt, self.executor, self._take_back)
        self.generators = GeneratorsPart(self.rt, self.executor.results, self._reply)
        self.executor.generators = self.generators
        self._templates: dict[tuple[bytes, int], TaskTemplate] = {}
        #: Replies ready to leave, by owner.
        self._replies: dict[bytes, tuple[Address, list[TaskReply]]] = {}
        self._exiting = False
        #: Threads that wait in get, and for which task they do. A thread that a task leaves behind
        #: may wait for ever: the worker is not blocked for that.
        self._waiting: dict[int, bytes] = {}
        self._blocked = False
        self._block_timer: Timer | None = None
        self._serving = False
        self._incarnation = 0
        self.rt.borrowing.deliver = self._deliver
        self.rt.objects.before_wait = self._before_wait
        self.rt.objects.after_wait = self._after_wait
        pump = self.rt.pump
        pump.on(PushTasks, self._push)
        pump.on(StealTasks, self._steal)
        pump.on(StartActor, self._start_actor)
        pump.on(TerminateActor, self._terminate_actor)
        pump.on(MayRetire, self._may_retire)
        pump.hooks.append(self._flush)
        pump.every(_ROTATE_EVERY_S, self.output.rotate)
        self.output.watch(self._output_changed)

    def run(self) -> int:
        """Register and serve; the exit code."""
        rt = self.rt
        # The loop first: where no thread can be made any more, this worker is never lent out.
        rt.take_turns(guarded=False)
        self.executor.turn = rt.turn
        rt.start()
        rt.post(self._register)
        code = self.executor.run()
        spec = self.executor.actor_spec
        if spec is not None and self._serving:
            code = self.executor.serve_actor(spec)
        return code

    def _register(self) -> None:
        node, job_id = self.params.node.address, self.params.job.job_id

        def registered(reply: Message) -> None:
            if isinstance(reply, (RequestFailed, Refused)):
                log.error("the node daemon did not take this worker: %s", reply.text)
                self.executor.queue.put(None)
            elif not self.rt.title:
                process_title.show("ray::IDLE")

        self.rt.pump.door.dial(node, node.node_id)
        self.rt.pump.request(
            node.process_id,
            lambda rid: RegisterProcess(rid, "worker", self.address, os.getpid(), job_id),
            registered,
            30.0,
        )

    # -- tasks in

    def _push(self, sender: bytes, message: PushTasks) -> None:
        if message.owner.process_id != sender:
            # Its replies would go where it says: to nowhere, with those of others behind them.
            log.warning("refused tasks of %s in another's name", sender.hex()[:8])
            return
        for template in message.templates:
            self._templates[sender, template.number] = template
        if message.actor_id and (
            self.executor.actor_spec is None
            or message.actor_id != self.executor.actor_spec.actor_id
            or message.incarnation != self._incarnation
        ):
            # The owner hears from the head what became of the one it meant.
            log.warning("refused calls for another incarnation of an actor")
            return
        executor = self.executor
        if message.serializers > self.rt.serializers.wanted:
            self.rt.serializers.wanted = message.serializers
        if self._blocked and not message.actor_id:
            returned = [spec.task_id for spec in message.tasks]
            self.rt.pump.send(sender, TaskReplies([], returned, blocked=True))
            return
        if self.rt.address.tcp:
            self.rt.fetching.queued(message.tasks)
        pending, put, owner = executor.pending, executor.put, message.owner
        for spec in message.tasks:
            work = Work(owner, self._templates[sender, spec.template], spec)
            pending[spec.task_id] = work
            put(work)
        self._kick()

    def _kick(self) -> None:
        kick = self.executor.kick
        if kick is not None:
            kick()

    def _steal(self, sender: bytes, message: StealTasks) -> None:
        """Hand back the last of what is not begun."""
        pending = self.executor.pending
        theirs = [
            task_id for task_id, work in list(pending.items()) if work.owner.process_id == sender
        ]
        last = theirs[-message.count :] if message.count > 0 else []
        returned = [task_id for task_id in last if pending.pop(task_id, None) is not None]
        self.rt.pump.send(sender, TaskReplies([], returned))

    # -- replies out

    def _finished(self, done: Done) -> None:
        """From the executing thread."""
        self.rt.post(lambda: self._reply(done))

    def _reply(self, done: Done) -> None:
        """Send the result once the owners of references in it know who holds them."""
        if self.executor.cancelled:
            self.interrupts.done(done.spec.task_id)
        if self._waiting and self.executor.actor_spec is None:
            self._left_waiting(done.spec.task_id)
        nested, done.nested = done.nested, []
        if done.borrowed or any(nested):
            values = [[ref._entry for ref in refs] for refs in nested]
            self.rt.ledger.handover.pack(done, done.owner, done.borrowed, values)
        else:
            self._queue_reply(done, [[]] * len(nested))

    def _deliver(self, parcel: Parcel) -> None:
        if type(parcel.cargo) is Done:
            self._queue_reply(parcel.cargo, parcel.groups)
        elif type(parcel.cargo) is Slot:
            self.generators.delivered(parcel)
        else:
            parcel.cargo(parcel.groups)

    def _queue_reply(self, done: Done, groups: list[list[RefGroup]]) -> None:
        returns = [
            Returned(data, located, refs)
            for (data, located), refs in zip(done.returns, groups, strict=True)
        ]
        reply = TaskReply(done.spec.task_id, done.status, returns, done.run_us)
        self._replies.setdefault(done.owner.process_id, (done.owner, []))[1].append(reply)
        if done.exiting:
            self._exiting = True

    def _flush(self) -> None:
        self.generators.flush()
        if not self._replies:
            return
        replies, self._replies = self._replies, {}
        exiting = self._exiting
        for owner, batch in replies.values():
            returned = []
            if exiting:
                returned = self._take_back()
            *most, last = cut_replies(batch)
            for part in most:
                self.rt.tell(owner, TaskReplies(part, []))
            self.rt.tell(owner, TaskReplies(last, returned, exiting=exiting))
        if exiting:
            self._leave(DeathCause("intended", "max_calls was reached"))
            self.executor.queue.put(None)

    def _take_back(self) -> list[bytes]:
        pending = self.executor.pending
        return [task_id for task_id in list(pending) if pending.pop(task_id, None) is not None]

    def _leaving(self, why: str) -> None:
        """From the executing thread: the process ends on purpose."""
        self.rt.post(lambda: self._leave(DeathCause("intended", why)))

    def _leave(self, cause: DeathCause) -> None:
        self.rt.tell(self.params.node.address, ActorExiting(cause))

    # -- blocking

    def _before_wait(self) -> None:
        """From any thread: it waits in get."""
        thread, executing = threading.get_ident(), self.executor.executing
        # An actor's calls are not told apart.
        task_id = b"" if self.executor.actor_spec is not None else next(iter([*executing]), None)
        if task_id is not None:
            self.rt.post(lambda: self._wait_began(thread, task_id))

    def _after_wait(self) -> None:
        thread = threading.get_ident()
        self.rt.post(lambda: self._wait_ended(thread))

    def _wait_began(self, thread: int, task_id: bytes) -> None:
        if task_id and task_id not in self.executor.executing:
            return  # A thread that a task has left behind.
        self._waiting[thread] = task_id
        if len(self._waiting) == 1 and not self._blocked:
            if any(sclass.queue for sclass in self.rt.tasks.dispatcher.classes.values()):
                self._declare_blocked()
            elif self._block_timer is None:
                self._block_timer = self.rt.pump.after(_BLOCK_GRACE_S, self._declare_blocked)

    def _declare_blocked(self) -> None:
        self._block_timer = None
        if not self._waiting or self._blocked:
            return
        self._blocked = True
        self._flush()  # Replies first: one that came after would say the block is over.
        self.rt.tell(self.params.node.address, WorkerBlocked())
        if self.executor.actor_spec is None:
            by_owner: dict[bytes, list[bytes]] = {}
            pending = self.executor.pending
            for task_id in list(pending):
                work = pending.pop(task_id, None)
                if work is not None:
                    by_owner.setdefault(work.owner.process_id, []).append(task_id)
            for owner_id, returned in by_owner.items():
                self.rt.pump.send(owner_id, TaskReplies([], returned, blocked=True))

    def _left_waiting(self, task_id: bytes) -> None:
        """A task is over, and threads of it may wait still."""
        for thread, waits_for in list(self._waiting.items()):
            if waits_for == task_id:
                self._wait_ended(thread)

    def _wait_ended(self, thread: int) -> None:
        if self._waiting.pop(thread, None) is None or self._waiting:
            return
        if self._block_timer is not None:
            self._block_timer.cancel()
            self._block_timer = None
        if self._blocked:
            self._blocked = False
            self.rt.tell(self.params.node.address, WorkerUnblocked())

    # -- actors

    def _start_actor(self, sender: bytes, message: StartActor) -> None:
        spec = message.spec
        self._incarnation = message.incarnation
        # Known before any call can arrive: a caller learns of the actor only after ActorStarted.
        self.executor.actor_spec = self.rt.actor_spec = spec
        self.rt.incarnation = message.incarnation
        self.rt.serializers.wanted = max(self.rt.serializers.wanted, spec.serializers)
        self.executor.queue.put(lambda: self._make_actor(spec))

    def _make_actor(self, spec: Any) -> None:
        """In the executing thread."""
        borrowed: list[Entry] = []
        inside: list[Any] = []
        error = self.executor.make_actor(spec, borrowed, inside)
        incarnation = self._incarnation
        if self.executor.printed is not None:
            self.executor.printed.ended(spec.task_id, incarnation, bool(error))

        started = ActorStarted(spec.actor_id, incarnation, self.address, os.getpid(), error)

        def tell() -> None:
            self.rt.tell(self.params.head, started)

        def report() -> None:
            tell()
            if not error:
                # A head that has begun anew may not have read it.
                self.rt.head_link.on_back.append(tell)
            else:
                self._leave(DeathCause("creation_failed", "the actor's constructor raised"))
                self.executor.queue.put(None)

        # The owners of what the actor keeps know of it before anybody can drop the arguments.
        handover = self.rt.ledger.handover

        def ready(groups: list[list[RefGroup]]) -> None:
            if inside:
                self.rt.tell(spec.owner, ConstructorRefs(spec.task_id, groups[0]))
            # Why the constructor failed is worth waiting for a head that is away.
            self.rt.head_link.once_back(report) if error else report()

        values = [[ref._entry for ref in inside]]
        self.rt.post(lambda: handover.pack(ready, spec.owner, borrowed, values))
        if not error:
            self._serving = True
            self.executor.made_actor = True

    def _terminate_actor(self, sender: bytes, message: TerminateActor) -> None:
        spec = self.executor.actor_spec
        if spec is None or message.actor_id != spec.actor_id:
            log.warning("refused to end: this worker is not actor %s", message.actor_id.hex())
            return
        self._leave(DeathCause("out_of_scope", "its last handle is gone"))
        self.executor.queue.put(None)
        self._kick()

    def _may_retire(self, sender: bytes, message: MayRetire) -> None:
        reply: Message = Ack(message.rid)
        if self.rt.ledger.borrowers.processes():
            reply = Refused(message.rid, "RuntimeError", "others hold what this worker owns")
        self.rt.pump.send(sender, reply)

    # -- its log files

    def _output_changed(self) -> None:
        """From any thread, inside print."""
        self.rt.post_to(self.params.node.address, OutputLost(*self.output.lost()))

    def _announce(self, name: str, retriable: bool) -> None:
        """From the executing thread: ``name`` runs from here on."""
        self.titles.announce(name, retriable, self.executor.shown)


def _config(params: WorkerParams) -> Config:
    """What the node sent, with what the environment of the worker's tasks sets for them."""
    sent = Config.from_bytes(params.config)
    env = msgspec.msgpack.decode(params.runtime_env) if params.runtime_env else {}
    try:
        config, warnings = keep_environment(sent, env.get("env_vars") or {})
    except ConfigError as error:
        log.error("a setting in runtime_env is not used: %s", error)
        return sent
    for warning in warnings:
        log.warning("%s", warning)
    return config


def _map_progress(path: str) -> mmap.mmap:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(fd).st_size < FILE_BYTES:
            os.pwrite(fd, NO_TASK_YET.to_bytes(8, "little", signed=True), 0)
            os.truncate(fd, FILE_BYTES)
        return mmap.mmap(fd, FILE_BYTES)
    finally:
        os.close(fd)


def run_worker(params: WorkerParams) -> NoReturn:
    """The life of a worker process, from right after the fork to its exit."""
    files = open_streams()
    logging.basicConfig(level=logging.WARNING, format="[mray] %(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _on_sigterm)
    if params.job.as_ray:
        compat.install(force=True)
    cwd = params.places.working_dir or params.job.cwd
    if cwd:
        try:
            os.chdir(cwd)
        except OSError as error:
            log.warning("cannot work in %s: %s", cwd, error)
    set_path(params)
    answer_stack_signals()
    worker = Worker(params, files)
    current.runtime = worker.rt
    run_hook(params)
    gc.freeze()
    code = 1
    try:
        code = worker.run()
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 0 if exit_.code is None else 1
    except BaseException:
        log.exception("the worker failed")
    sys.stdout.flush()
    sys.stderr.flush()
    limit_s = worker.rt.config.workers.actor_graceful_shutdown_timeout_ms / 1000
    leave_in_order(worker.rt, worker.executor.actor, limit_s, code)


def _on_sigterm(signum: int, frame: object) -> None:
    raise Terminated(143)
