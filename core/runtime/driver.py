"""A driver: connecting to a cluster, showing workers' output, leaving in order.

Owns the driver's registration with its node daemon (which watches its life) and with the head (a
job), and the thread that prints WorkerLines: printing may block, and the loop must not.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final

import msgspec

from mray import compat
from mray.config import Config, Resolved, keep_own
from mray.environments import pack_environment
from mray.exceptions import RaySystemError
from mray.experimental import tqdm_ray
from mray.ids import JobId, new_process_id
from mray.rpc.door import Door, Keys
from mray.rpc.endpoints import join_host_port
from mray.rpc.pump import Pump, RequestFailed
from mray.runtime.runtime import Runtime
from mray.runtime.stacks import answer_stack_signals
from mray.session_files import Session
from mray.uploads import PACKAGE_TIMEOUT_S, Uploads
from mray.wire.messages import (
    Address,
    ClusterKeys,
    DrainLogs,
    FinishJob,
    GetKeys,
    GetNodes,
    JobRegistered,
    LeaseDemand,
    MemoryNews,
    Message,
    NodeGone,
    Nodes,
    ProcessDied,
    ProcessRegistered,
    Refused,
    RegisterJob,
    RegisterProcess,
    WorkerLines,
)

_CONNECT_TIMEOUT_S = 10.0
_DRAIN_TIMEOUT_S = 2.0
#: How often a driver that comes while the head is away looks for it.
_LOOK_S = 0.1
#: Of a demand that is only to have the environment made.
_NO_CLASS: Final = -1


class OutputPrinter:
    """Prints workers' lines as ``(name pid=…) line``, in a thread of its own; with ``ip=…`` those
    that come from another address than ``own_ip``."""

    def __init__(self, own_ip: str) -> None:
        self._own_ip = own_ip
        self._queue: SimpleQueue[WorkerLines | MemoryNews | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="mray-print", daemon=True)
        self._thread.start()

    def show(self, sender: bytes, lines: WorkerLines) -> None:
        """Handler of WorkerLines."""
        self._queue.put(lines)

    def tell(self, sender: bytes, news: MemoryNews) -> None:
        """Handler of MemoryNews."""
        self._queue.put(news)

    def close(self) -> None:
        """Print what is queued and end."""
        self._queue.put(None)
        self._thread.join(timeout=5.0)
        tqdm_ray.close_all()

    def _run(self) -> None:
        while (lines := self._queue.get()) is not None:
            if isinstance(lines, MemoryNews):
                stream = sys.stderr
                text = "".join(f"(raylet) {line}\n" for line in lines.text.splitlines())
            else:
                stream = sys.stderr if lines.is_error else sys.stdout
                who = f"{lines.name} pid={lines.pid}".lstrip()
                prefix = f"({who}) " if lines.ip == self._own_ip else f"({who}, ip={lines.ip}) "
                text = "".join(
                    f"{prefix}{line}\n"
                    for line in lines.lines
                    if not tqdm_ray.take(line, lines.pid, lines.ip)
                )
            try:
                with tqdm_ray.hidden():
                    stream.write(text)
                    stream.flush()
            except (OSError, ValueError):
                return  # nobody reads any more: standard output is closed


class Driver:
    """A connected driver."""

    def __init__(self, runtime: Runtime, printer: OutputPrinter | None, session: Session) -> None:
        self.runtime = runtime
        self.printer = printer
        self.session = session

    def disconnect(self) -> None:
        """Show the last output, end the job, close."""
        rt = self.runtime
        if self.printer is not None:
            _drain_logs(rt)
        rt.post(rt.task_reports.flush)
        rt.post(rt.metrics.end)
        # Without patience: a head that is away learns of the driver's end from its node.
        rt.head_link.say(lambda rid: FinishJob(rid, rt.job_id), _DRAIN_TIMEOUT_S)
        rt.close()
        rt.serializers.end()
        if self.printer is not None:
            self.printer.close()


def _drain_logs(rt: Runtime) -> None:
    """Have every node send what workers of the job have written so far."""
    nodes = [rt.node.address]
    if rt.address.tcp:
        told = rt.ask_any(rt.head, GetNodes, _DRAIN_TIMEOUT_S)
        views = told.nodes if isinstance(told, Nodes) else []
        living = [view.node.address for view in views if view.state == "ALIVE"]
        nodes += [address for address in living if address.node_id != rt.node.node_id]
    done = threading.Lock()
    done.acquire()
    waiting = {address.process_id for address in nodes}

    def sent(address: Address) -> None:
        waiting.discard(address.process_id)
        if not waiting:
            done.release()

    def begin() -> None:
        for address in nodes:
            rt.reach(address)
            rt.pump.request(
                address.process_id,
                lambda rid: DrainLogs(rid, rt.job_id),
                lambda reply, address=address: sent(address),  # type: ignore[misc]
                _DRAIN_TIMEOUT_S,
            )

    rt.post(begin)
    rt.block_on(done, _DRAIN_TIMEOUT_S + 1.0)


def connect(
    session: Session,
    *,
    namespace: str,
    runtime_env: dict[str, Any],
    log_to_driver: bool,
    environ: dict[str, str],
    settings: Resolved,
) -> Driver:
    """Join a cluster through the node daemon of ``session`` on this machine.

    ``settings`` are the driver's own: those that concern single processes hold here.

    Raises ConnectionError when daemon or head do not answer or refuse.
    """
    _await_head(session)
    info = session.info()
    if not info.nodes:
        raise ConnectionError(f"session {session.name} has no node daemon to connect through")
    entry = info.nodes[0]
    node_id = bytes.fromhex(entry.node_id)
    node = Address(node_id, node_id, entry.ipc)
    head = Address(bytes.fromhex(info.head_id), node_id, info.head_ipc, info.head_tcp)
    process_id = new_process_id(node_id)
    door = Door(process_id, None, settings.config.node.same_machine_ipc)
    # What is asked before the runtime is there has its own time limits.
    pump = Pump(door, node_id, linked=False)
    for kind in (ProcessDied, NodeGone):
        # Who is registered is told of every death, and knows nobody yet.
        pump.on(kind, _ignored)
    path = f"{session.sockets}/d-{process_id[1:5].hex()}"
    address = Address(process_id, node_id, path)
    try:
        door.listen_ipc(path)
        if entry.tcp_host:
            door.use_keys(_cluster_keys(pump, node))
            ports = settings.config.node
            port = door.listen_tcp_between(
                entry.tcp_host, ports.min_worker_port, ports.max_worker_port
            )
            tcp = join_host_port(entry.tcp_shown, port)
            address = Address(process_id, node_id, path, tcp)
        registered, job = _register(
            pump, address, node, head, namespace, runtime_env, log_to_driver, environ
        )
    except BaseException:
        door.close()
        raise
    runtime = Runtime(
        mode="driver",
        door=door,
        address=address,
        node=registered.node,
        # The node started beside the head, whose port nobody knew yet: the session's file has it.
        head=msgspec.structs.replace(registered.head, tcp=info.head_tcp),
        job_id=JobId(job.job_id),
        namespace=job.namespace,
        config=keep_own(Config.from_bytes(registered.config), settings),
    )
    runtime.environment = job.runtime_env
    _make_ahead(runtime)
    printer = None
    if log_to_driver:
        printer = OutputPrinter(runtime.node.ip)
        runtime.pump.on(WorkerLines, printer.show)
        runtime.pump.on(MemoryNews, printer.tell)
    else:
        runtime.pump.on(MemoryNews, _ignored)
    answer_stack_signals()
    runtime.take_turns(guarded=True)
    runtime.start()
    runtime.serializers.begin()
    return Driver(runtime, printer, session)


def _ignored(sender: bytes, message: Message) -> None:
    """A driver that shows no output shows none of the node's news either; its log has them."""


def _cluster_keys(pump: Pump, node: Address) -> Keys:
    """Of a cluster with ports, whose nodes may be elsewhere. Asked of our node and not derived from
    a token: a submitted job is given none, and the user's may be another by now."""
    answers: dict[str, Message] = {}
    pump.door.dial(node, node.node_id)
    pump.request(
        node.process_id, GetKeys, lambda reply: answers.__setitem__("node", reply),
        _CONNECT_TIMEOUT_S,
    )  # fmt: skip
    _turn(pump, answers, 1)
    told = answers["node"]
    if isinstance(told, (Refused, RequestFailed)):
        raise ConnectionError(f"the node daemon did not take this driver: {told.text}")
    assert isinstance(told, ClusterKeys)
    keys = Keys.from_parts(tuple(told.parts))
    if keys is None:
        raise ConnectionError("the node daemon has no keys for tcp connections to give")
    return keys


def _await_head(session: Session) -> None:
    """Wait while the nodes of the session wait for their head."""
    if not session.headless():
        return
    print(f"mray: the head of {session.name} is away; waiting for it", file=sys.stderr, flush=True)
    while session.headless():
        time.sleep(_LOOK_S)


def _register(
    pump: Pump,
    address: Address,
    node: Address,
    head: Address,
    namespace: str,
    runtime_env: dict[str, Any],
    log_to_driver: bool,
    environ: dict[str, str],
) -> tuple[ProcessRegistered, JobRegistered]:
    """Register with node daemon and head at the same time."""
    answers: dict[str, Message] = {}
    pump.door.dial(node, node.node_id)
    pump.door.dial(head, node.node_id)
    pid = os.getpid()
    packed = pack_environment(_resolved(pump, head, runtime_env))
    pump.request(
        head.process_id,
        lambda rid: RegisterJob(
            rid,
            address,
            pid,
            " ".join(sys.argv) or sys.executable,
            namespace,
            environ.get("MRAY_JOB_SUBMISSION_ID", ""),
            packed,
            [os.path.abspath(part) for part in sys.path if part != ""] + [os.getcwd()],
            os.getcwd(),
            compat.installed(),
            log_to_driver,
        ),
        lambda reply: answers.__setitem__("head", reply),
        _CONNECT_TIMEOUT_S,
    )
    # The job first: the node daemon files the driver under it.
    _turn(pump, answers, 1)
    job = answers["head"]
    if isinstance(job, (Refused, RequestFailed)):
        raise ConnectionError(f"the head did not take this driver: {job.text}")
    assert isinstance(job, JobRegistered)
    job_id = job.job_id
    pump.request(
        node.process_id,
        lambda rid: RegisterProcess(rid, "driver", address, pid, job_id),
        lambda reply: answers.__setitem__("node", reply),
        _CONNECT_TIMEOUT_S,
    )
    _turn(pump, answers, 2)
    registered = answers["node"]
    if isinstance(registered, (Refused, RequestFailed)):
        raise ConnectionError(f"the node daemon did not take this driver: {registered.text}")
    assert isinstance(registered, ProcessRegistered)
    return registered, job


def _resolved(pump: Pump, head: Address, runtime_env: dict[str, Any]) -> dict[str, Any]:
    """The job's environment with its packages uploaded, before there is a runtime."""

    def ask(make: Callable[[int], Message]) -> Message:
        answers: dict[str, Message] = {}
        pump.request(
            head.process_id,
            make,
            lambda reply: answers.__setitem__("head", reply),
            PACKAGE_TIMEOUT_S,
        )
        _turn(pump, answers, 1, PACKAGE_TIMEOUT_S)
        return answers["head"]

    return Uploads().resolve(runtime_env, ask) if runtime_env else {}


def _make_ahead(runtime: Runtime) -> None:
    """Have the node make the job's environment now and not with the first task."""
    env = msgspec.msgpack.decode(runtime.environment) if runtime.environment else {}
    if (env.get("config") or {}).get("eager_install", True) and set(env) - {"env_vars", "config"}:
        runtime.tell(
            runtime.node.address,
            LeaseDemand(_NO_CLASS, 0, {}, bytes(runtime.job_id), runtime.environment),
        )


def _turn(
    pump: Pump, answers: dict[str, Message], count: int, timeout_s: float = _CONNECT_TIMEOUT_S
) -> None:
    give_up_at = time.monotonic() + timeout_s + 1.0
    while len(answers) < count:
        pump.run_once(1.0)
        if time.monotonic() > give_up_at and len(answers) < count:
            raise RaySystemError("the daemons of this session do not answer; see `mray logs`")
