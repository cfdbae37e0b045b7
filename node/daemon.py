"""The life of a daemon: parameters, log, signals, readiness, whom to die with, exit code.

Covers what head and node daemon have in common. What a daemon does in between is given by
a ``run(daemon)`` of either, which returns its exit code.
"""

from __future__ import annotations

import errno
import faulthandler
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, Literal

import msgspec

from mray.config import Config
from mray.daemon_params import DaemonParams
from mray.node.daemon_log import open_log
from mray.node.descriptors import raise_limit
from mray.process import open_pidfd
from mray.rpc.chaos import install
from mray.rpc.door import DAEMON_HANDSHAKE_S, Door, Keys
from mray.rpc.endpoints import join_host_port
from mray.rpc.pump import Pump
from mray.session import Session
from mray.wire.messages import (
    Ack,
    Address,
    ClusterKeys,
    DeathCause,
    GetKeys,
    NodeGone,
    Shutdown,
)

#: A cluster that dies with its driver has to be gone 5 s later; workers get this much of it.
OWNER_GONE_GRACE_S: Final = 2.0
#: How long SIGTERM gives, where no message says how long.
SIGNAL_GRACE_S: Final = 5.0
#: How long a head that begins anew waits for its port, and how often it looks.
_PORT_WAIT_S: Final = 5.0
_PORT_LOOK_S: Final = 0.05
#: What an orderly end may take beyond its grace until the process ends itself.
_OVERTIME_S: Final = 2.0
_LOG_NAMES: Final = {"head": "gcs_server", "node": "raylet"}
_PR_SET_CHILD_SUBREAPER: Final = 36
#: Half of what would forbid the kernel to end it at all.
_OOM_SCORE_ADJ: Final = -500


class StartFailed(Exception):
    """Raised before ready(): told to whoever started the daemon.

    ``kind`` is an exception's name. Any other exception before ready() is told with its type.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Daemon:
    """One per process; its thread runs the pump. ``run_node(daemon) -> int`` gets one and must:

    1. wire handlers on ``daemon.pump``, whose door listens on params.ipc already (and, where
       params.tcp_host says so, on ``daemon.tcp``), and start the registration with the head,
    2. set ``daemon.on_stop``,
    3. call ``daemon.ready(...)`` once it serves, from within the running pump or before,
    4. ``return daemon.run()``, which turns the pump until ``daemon.finish(code)``.

    The door is closed by whoever made the daemon, after run_node has returned.
    """

    def __init__(self, kind: Literal["head", "node"], params: DaemonParams) -> None:
        self.kind = kind
        self.params = params
        self.config = Config.from_bytes(params.config)
        self.session = Session(params.session_dir)
        self.log = logging.getLogger(f"mray.{kind}")
        self._keys = Keys.from_token(params.token) if params.token else None
        own_node = params.head.node_id if kind == "head" else params.process_id
        same_machine = self.config.node.same_machine_ipc
        door = Door(params.process_id, self._keys, same_machine, DAEMON_HANDSHAKE_S)
        self.pump = install(Pump(door, own_node), self.config, kind)
        #: "host:port" of the tcp socket as others reach it; "" where there is none.
        self.tcp = ""
        #: Called once, in the pump's thread, when the daemon is to end: (reason, grace_s). It must
        #: lead to finish() within the grace.
        self.on_stop: Callable[[str, float], None] = lambda reason, grace_s: self.finish(0)
        #: Asked on SIGTERM and SIGINT: whether the end comes later by itself.
        self.on_term: Callable[[str], bool] = lambda name: False
        #: What a node's head is told at the end.
        self.farewell = DeathCause("intended", "the node was stopped", pid=os.getpid())
        self.stopping = False
        self._exit_code: int | None = None
        self._least_code = 0
        self._ready_fd = params.ready_fd
        self._socket_lock = -1

    # -- the start

    def open(self) -> None:
        """Listen, watch, take signals, and be written down. StartFailed where that cannot be."""
        params = self.params
        try:
            raise_limit()
        except OSError as error:
            raise StartFailed("OSError", str(error)) from error
        self.session.hold()
        try:
            self._socket_lock = self.session.claim_socket(os.path.basename(params.ipc))
        except BlockingIOError as error:
            raise StartFailed("RuntimeError", str(error)) from error
        self.session.record_process(self.kind, os.getpid(), params.process_id.hex())
        if os.path.exists(params.ipc):
            os.unlink(params.ipc)  # Of a dead process, for we hold the lock.
        self.pump.door.listen_ipc(params.ipc)
        if params.tcp_host:
            self._listen_tcp(params.tcp_host, params.tcp_port)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        shield(self.log)
        if self.kind == "node":
            _become_subreaper()
        self.pump.on(Shutdown, self._on_shutdown)
        self.pump.on(GetKeys, self._on_get_keys)
        if params.owner_pid:
            reason = f"the driver (pid {params.owner_pid}) that this cluster belongs to has ended"
            self.watch_pid(
                params.owner_pid,
                params.owner_start_time,
                lambda: self.stop(reason, OWNER_GONE_GRACE_S),
            )

    def _on_get_keys(self, sender: bytes, message: GetKeys) -> None:
        # Whoever can ask is in already: by the modes of files, or by these keys.
        parts = self._keys.parts() if self._keys is not None else ()
        self.pump.send(sender, ClusterKeys(message.rid, list(parts)))

    def _listen_tcp(self, host: str, port: int) -> None:
        # Somebody who looked for the former head may have met itself there: for a moment. And a
        # head whose storage was taken over has the port until it finds out.
        patient = self.params.resume or self.params.storage.named
        give_up_at = time.monotonic() + (_PORT_WAIT_S if patient else 0.0)
        try:
            while True:
                try:
                    port = self.pump.door.listen_tcp(host, port)
                    break
                except Exception as error:
                    taken = getattr(error, "errno", None) == errno.EADDRINUSE
                    if not taken or time.monotonic() >= give_up_at:
                        raise
                time.sleep(_PORT_LOOK_S)
        except Exception as error:
            number = getattr(error, "errno", None)  # ZeroMQ's error is no OSError.
            if number == errno.EADDRINUSE:
                raise StartFailed(
                    "OSError",
                    f"port {port} on {host} is in use by another program (or another cluster): "
                    "stop that one, or choose another port",
                ) from error
            if number is not None:
                raise StartFailed("OSError", f"cannot listen on {host}:{port}: {error}") from error
            raise
        shown = self.params.node.ip if host in ("0.0.0.0", "::", "*") else host
        self.tcp = join_host_port(shown, port)

    def ready(self, **facts: Any) -> None:
        """Tell the starter: {"ok": true, **facts}. Facts of a head or node: ``tcp``. Call once.

        Where the starter is gone, nobody knows of this daemon, and it stops.
        """
        if not self._tell({"ok": True, "tcp": self.tcp, **facts}):
            self.pump.call_soon(lambda: self.stop("the program that started this daemon is gone"))
        self.log.info("%s is ready (pid %d)", self.kind, os.getpid())

    def fail(self, kind: str, text: str) -> None:
        """Tell the starter that there will be no daemon."""
        self.log.error("start failed: %s: %s", kind, text)
        self._tell({"error": kind, "text": text})

    def _tell(self, facts: dict[str, Any]) -> bool:
        if self._ready_fd < 0:
            return True
        try:
            os.write(self._ready_fd, json.dumps(facts).encode() + b"\n")
        except BrokenPipeError:
            return False
        finally:
            os.close(self._ready_fd)
            self._ready_fd = -1
        return True

    @property
    def was_ready(self) -> bool:
        """Whether the starter has had its answer."""
        return self._ready_fd < 0

    # -- watching

    def head_moved(self, tcp: str) -> Address:
        """The cluster's head listens at ``tcp`` now; who comes to this session finds it there.

        The session that it has left is a node's from now on: nobody is to start a head in it.
        """
        params = self.params
        head = msgspec.structs.replace(params.head, ipc="", tcp=tcp)
        self.params = msgspec.structs.replace(params, head=head, head_pid=0, head_start_time=0)
        try:
            info = msgspec.structs.replace(
                self.session.info(), role="node", head_ipc="", head_tcp=tcp, head_host="",
                storage=None,
            )  # fmt: skip
            self.session.write_info(info)
        except (OSError, ValueError) as error:
            self.log.warning("session.json cannot be told where the head is now: %s", error)
        return head

    def watch_pid(self, pid: int, start_time: int, on_death: Callable[[], None]) -> None:
        """Call ``on_death`` in the pump's thread when this very process ends (at once if gone)."""
        pidfd = open_pidfd(pid, start_time)
        if pidfd is None:
            self.pump.call_soon(on_death)
            return

        def ended() -> None:
            self.pump.door.unwatch(pidfd)
            os.close(pidfd)
            on_death()

        self.pump.door.watch(pidfd, ended)

    # -- the end

    def stop(self, reason: str, grace_s: float = SIGNAL_GRACE_S, code: int = 0) -> None:
        """Begin the end: calls on_stop, once. In the pump's thread. ``code``: the least exit code.

        A failure (``code`` 1) is also said on standard error, whose end others show.
        """
        if self.stopping:
            return
        self.stopping = True
        self._least_code = code
        if code:
            print(f"mray: the {self.kind} daemon ends: {reason}", file=sys.stderr, flush=True)
        self.log.info("%s stops: %s (grace %.1f s)", self.kind, reason, grace_s)
        self.pump.after(grace_s + _OVERTIME_S, self._overdue)
        try:
            self.on_stop(reason, grace_s)
        except Exception:
            self.log.exception("the orderly end failed")
            self.finish(1)

    def _overdue(self) -> None:
        self.log.error("the orderly end took too long: ending without it")
        self.finish(1)

    def finish(self, code: int = 0) -> None:
        """End run() with this exit code; a node says goodbye to its head."""
        if self._exit_code is not None:
            return
        self._exit_code = code = max(code, self._least_code)
        if self.kind == "node":
            cause = self.farewell
            if self.pump.door.knows(self.params.head.process_id):
                self.pump.send(self.params.head.process_id, NodeGone(self.params.process_id, cause))
        self.pump.stop()

    def run(self) -> int:
        """Turn the pump until finish(); returns the exit code."""
        # Not pump.run(): finish() may have been called before.
        while self._exit_code is None:
            self.pump.run_once(None)
        return self._exit_code

    def close(self) -> None:
        """Let what is queued leave, and be no part of the session any more."""
        self.pump.door.close()
        if self._socket_lock >= 0:
            self.session.give_up_socket(os.path.basename(self.params.ipc), self._socket_lock)
        self.session.forget_process(self.kind, os.getpid())

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name

        def ended() -> None:
            if not self.on_term(name):
                self.stop(f"{name} received")

        self.pump.call_soon(ended)

    def _on_shutdown(self, sender: bytes, message: Shutdown) -> None:
        self.pump.send(sender, Ack(message.rid))
        self.stop(message.reason, message.grace_s)


def run_daemon(
    kind: Literal["head", "node"],
    run: Callable[[Daemon], int],
    prepare: Callable[[DaemonParams], DaemonParams] = lambda params: params,
) -> int:
    """Be a daemon, with parameters from standard input; returns the process's exit code.

    ``prepare`` may change them, before anything is opened under their ids.
    """
    with os.fdopen(os.dup(0), "rb") as pipe:
        params = msgspec.msgpack.decode(pipe.read(), type=DaemonParams)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.set_inheritable(params.ready_fd, False)
    os.umask(0o077)
    faulthandler.enable(sys.stderr)
    faulthandler.register(signal.SIGUSR1, sys.stderr, all_threads=True)
    unprepared: Exception | None = None
    try:
        params = prepare(params)
    except Exception as error:
        unprepared = error  # Told below: there is no log yet.
    daemon = Daemon(kind, params)
    logs = daemon.config.logs
    open_log(
        f"{daemon.session.logs}/{_LOG_NAMES[kind]}.out",
        logs.log_rotation_max_bytes,
        logs.log_rotation_backup_count,
    )
    try:
        if unprepared is not None:
            raise unprepared
        daemon.open()
        code = run(daemon)
    except StartFailed as error:
        daemon.fail(error.kind, str(error))
        code = 1
    except Exception as error:
        if daemon.was_ready:
            daemon.log.exception("%s ends by an error of its own", kind)
        else:
            daemon.log.exception("start failed")
            daemon.fail(type(error).__name__, str(error))
        code = 1
    daemon.close()
    daemon.log.info("%s has ended with code %d", kind, code)
    return code


def shield(log: logging.Logger, path: str = "/proc/self/oom_score_adj") -> None:
    """Have the kernel, when it is out of memory, end anything else before this daemon.

    Workers raise their own score, job drivers put theirs back (node/jobs/launcher.py).
    """
    try:
        with open(path, "r+", encoding="ascii") as file:
            wanted = min(int(file.read()), _OOM_SCORE_ADJ)
            file.seek(0)
            file.write(str(wanted))
    except OSError as error:
        log.warning(
            "the kernel cannot be told to spare this daemon when memory runs out (oom_score_adj "
            "%d: %s): that needs root or CAP_SYS_RESOURCE; workers still go before it",
            _OOM_SCORE_ADJ,
            error.strerror,
        )


def _become_subreaper() -> None:
    """Orphaned grandchildren (a worker's children) become ours and not init's."""
    import ctypes  # 3 ms and 1 MB that the head does not need.

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_CHILD_SUBREAPER): {os.strerror(number)}")
