"""Parts of environments under way: fetching their packages, and the processes that make them.

Shell. Owns the builders (builder.py), their logs and time limits, and what is half fetched. Never
blocks the loop: packages come in pieces and builders are children.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Final

import msgspec

from mray.node.environments.parts import RESULT_FD, Order, Part
from mray.node.workers.children import Children
from mray.node.workers.death import cause_of, describe, read_tail
from mray.node.workers.environment import NODE_VARIABLE
from mray.rpc.pump import Pump, RequestFailed, Timer
from mray.wire.messages import GetPackage, Message, PackagePiece, Refused

log = logging.getLogger("mray.node")

AskHead = Callable[
    [Callable[[int], Message], Callable[[Message], None], float],
    None,
]
#: The head answers a piece from its disk.
_PIECE_TIMEOUT_S: Final = 60.0
_TAIL_LINES: Final = 20
_DEFAULT_SIGNALS: Final = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGCHLD)


class Making:
    """``root``: the directory of the parts. Results go to ``on_made(name, bytes)`` and
    ``on_failed(name, why)``, never from within ``make``."""

    def __init__(
        self,
        pump: Pump,
        children: Children,
        ask_head: AskHead,
        *,
        root: str,
        log_dir: str,
        node_id: bytes,
        on_made: Callable[[str, int], None],
        on_failed: Callable[[str, str], None],
    ) -> None:
        self._pump = pump
        self._children = children
        self._ask_head = ask_head
        self._root = root
        self._log_dir = log_dir
        self._node_id = node_id
        self._on_made = on_made
        self._on_failed = on_failed
        #: Builders that run: pid -> the part, or what is removed.
        self._builders: dict[int, str] = {}
        self._trash_count = 0
        self._closed = False

    def make(self, part: Part, timeout_s: float | None) -> None:
        """Begin to make a part."""
        work = _Work(part, timeout_s)
        if timeout_s is not None:
            work.timer = self._pump.after(timeout_s, lambda: self._overdue(work))
        if part.package:
            self._pump.call_soon(lambda: self._fetch(work))
        else:
            self._pump.call_soon(lambda: self._build(work, ""))

    def remove(self, name: str) -> None:
        """Remove the directory of a part; its name can be used again at once."""
        self._trash_count += 1
        trash = f"{self._root}/trash-{self._trash_count}"
        try:
            os.replace(f"{self._root}/{name}", trash)
            if os.path.isdir(trash):
                self._spawn(Order("remove", trash), f"{self._log_dir}/runtime_env_setup.log")
            else:
                os.unlink(trash)
        except OSError as error:
            log.warning("%s of a runtime environment cannot be removed: %s", name, error)

    def close(self) -> None:
        """End all builders."""
        self._closed = True
        for pid in self._builders:
            _kill_group(pid)

    # -- fetching

    def _fetch(self, work: _Work) -> None:
        if work.over:
            return
        try:
            os.makedirs(self._root, 0o700, exist_ok=True)
            path = f"{self._root}/{work.part.package}.part"
            if work.part.kind == "wheel":
                # pip reads what a wheel is from its name.
                os.makedirs(f"{self._root}/{work.part.name}.in", 0o700, exist_ok=True)
                name = work.part.package.partition(".")[2]
                path = f"{self._root}/{work.part.name}.in/{name}"
            work.path = path
            work.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._fail(work, f"{work.part.package} cannot be stored on the node: {error}")
            return
        self._ask_piece(work)

    def _ask_piece(self, work: _Work) -> None:
        name, offset = work.part.package, work.have
        self._ask_head(
            lambda rid: GetPackage(rid, name, offset),
            lambda reply: self._piece(work, reply),
            _PIECE_TIMEOUT_S,
        )

    def _piece(self, work: _Work, reply: Message) -> None:
        if work.over:
            return
        name = work.part.package
        if not isinstance(reply, PackagePiece):
            text = reply.text if isinstance(reply, (Refused, RequestFailed)) else repr(reply)
            self._fail(work, f"the package {name} could not be fetched from the head: {text}")
        elif reply.total_bytes < 0:
            self._fail(
                work,
                f"the head has no package {name}: it is of another cluster, or was dropped to make "
                "room for others; upload it again by naming the directory",
            )
        elif not reply.data and work.have < reply.total_bytes:
            self._fail(work, f"the package {name} ends before its {reply.total_bytes} bytes")
        else:
            try:
                os.pwrite(work.fd, reply.data, work.have)
            except OSError as error:
                self._fail(work, f"{name} cannot be stored on the node: {error}")
                return
            work.have += len(reply.data)
            if work.have < reply.total_bytes:
                self._ask_piece(work)
            else:
                work.close_file()
                self._build(work, work.path)

    # -- building

    def _build(self, work: _Work, package: str) -> None:
        if work.over or self._closed:
            return
        part = work.part
        order = Order(part.kind, f"{self._root}/{part.name}", package, part.detail)
        work.log_path = f"{self._log_dir}/runtime_env_setup-{part.name[:24]}.log"
        try:
            os.makedirs(self._root, 0o700, exist_ok=True)
            work.pid = self._spawn(order, work.log_path, work)
        except OSError as error:
            self._fail(work, f"no process could be started for it: {error}")

    def _spawn(self, order: Order, log_path: str, work: _Work | None = None) -> int:
        """Start a builder. OSError."""
        order_fd = os.memfd_create("mray-environment", os.MFD_CLOEXEC)
        result_fd = os.memfd_create("mray-environment-result", os.MFD_CLOEXEC)
        log_fd = -1
        try:
            os.pwrite(order_fd, msgspec.msgpack.encode(order), 0)
            log_fd = os.open(
                log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
            )
            environ = {**os.environ, NODE_VARIABLE: self._node_id.hex()}
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", "-m", "mray.node.environments.builder"],
                environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, result_fd, RESULT_FD),
                    (os.POSIX_SPAWN_DUP2, order_fd, 0),
                    (os.POSIX_SPAWN_DUP2, log_fd, 1),
                    (os.POSIX_SPAWN_DUP2, log_fd, 2),
                ],
                setsid=True,
                setsigdef=_DEFAULT_SIGNALS,
            )
        except OSError:
            os.close(result_fd)
            raise
        finally:
            os.close(order_fd)
            if log_fd >= 0:
                os.close(log_fd)
        self._builders[pid] = order.target
        self._children.watch(pid, lambda status: self._exited(pid, status, result_fd, work))
        return pid

    def _exited(self, pid: int, status: int, result_fd: int, work: _Work | None) -> None:
        del self._builders[pid]
        # What it started and left behind goes with it.
        _kill_group(pid)
        result = os.pread(result_fd, 64, 0)
        os.close(result_fd)
        if work is None or work.over:
            return
        if status == 0 and result.isdigit():
            work.end()
            self._on_made(work.part.name, int(result))
            return
        cause = cause_of(status, pid=pid, node_id=self._node_id)
        tail = "\n".join(f"  {line}" for line in read_tail(work.log_path)[-_TAIL_LINES:])
        what = "it failed" if status and os.WIFEXITED(status) else describe(cause)
        self._fail(work, f"{work.part.describe()}: {what}; the end of {work.log_path}:\n{tail}")

    def _overdue(self, work: _Work) -> None:
        if work.over:
            return
        tail = ""
        if work.pid:
            _kill_group(work.pid)
            lines = read_tail(work.log_path)[-_TAIL_LINES:]
            tail = f"; the end of {work.log_path}:\n" + "\n".join(f"  {line}" for line in lines)
        self._fail(
            work,
            f"{work.part.describe()}: not done within {work.timeout_s:g} s "
            f"(runtime_env['config']['setup_timeout_seconds']){tail}",
        )

    def _fail(self, work: _Work, why: str) -> None:
        work.end()
        log.warning("a runtime environment cannot be made: %s", why)
        self._on_failed(work.part.name, why)


class _Work:
    """A part under way."""

    __slots__ = ("fd", "have", "log_path", "over", "part", "path", "pid", "timeout_s", "timer")

    def __init__(self, part: Part, timeout_s: float | None) -> None:
        self.part = part
        self.timeout_s = timeout_s
        self.timer: Timer | None = None
        self.path = ""
        self.fd = -1
        self.have = 0
        self.pid = 0
        self.log_path = ""
        self.over = False

    def close_file(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def end(self) -> None:
        self.over = True
        self.close_file()
        if self.timer is not None:
            self.timer.cancel()


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # All of it has ended.
