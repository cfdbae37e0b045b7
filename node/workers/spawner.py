"""The node daemon's side of starting workers: the zygote's process and socket, and fresh starts.

Covers: starting the zygote early and again when it dies, handing parameters over in a memory file,
matching its answers to requests. Does not watch workers: processes.py does, with the pids.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import BinaryIO, Final

import msgspec

from mray.node.workers.children import Children
from mray.node.workers.death import cause_of, describe, read_tail
from mray.node.workers.environment import NODE_VARIABLE, THREADS_VARIABLE, RuntimeEnv
from mray.node.workers.zygote import ANSWER, NUMBER, READY
from mray.rpc.pump import Pump, Timer
from mray.runtime.params import WorkerParams

log = logging.getLogger("mray.node")

#: The function that a worker runs.
WORKER_MAIN: Final = "mray.runtime.worker:run_worker"
#: A zygote that died is started again after so long, doubled each time it dies before it was ready.
_RESTART_FIRST_S: Final = 0.1
_RESTART_LAST_S: Final = 10.0
_WORDS_LINES: Final = 10
#: How long it may take to get ready, or to make one worker.
_ANSWER_S: Final = 60.0
#: Descriptors we hand over sit above those a child expects.
_HANDED_FD: Final = 3
#: Python ignores these; a started program must find them as they are by default.
_DEFAULT_SIGNALS: Final = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGCHLD)

OnStarted = Callable[[int, str], None]


class Spawner:
    """Starts worker processes. ``on_started(pid, "")`` or ``(0, why not)`` comes later, once."""

    def __init__(
        self,
        pump: Pump,
        children: Children,
        node_id: bytes,
        worker_main: str,
        answer_s: float = _ANSWER_S,
    ) -> None:
        self._pump = pump
        self._answer_s = answer_s
        self._children = children
        self._node_id = node_id
        self._worker_main = worker_main
        self._zygote_pid = 0
        self._sock: socket.socket | None = None
        self._ready = False
        self._number = READY
        #: Requests that the zygote has not answered.
        self._asked: dict[int, OnStarted] = {}
        #: Requests for a zygote that is not ready yet.
        self._waiting: list[tuple[WorkerParams, OnStarted]] = []
        #: Workers started anew whose pid was not told yet.
        self._unannounced: set[int] = set()
        self._restart_s = _RESTART_FIRST_S
        self._restart: Timer | None = None
        self._closed = False
        self._on_gone: Callable[[], None] = lambda: None

    def started(self, pid: int) -> bool:
        """Whether a child is the zygote, or a worker that is not announced yet."""
        return pid == self._zygote_pid or pid in self._unannounced

    def start(self) -> None:
        """Start the zygote; requests wait for it. OSError where no process could be made."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            self._zygote_pid = self._spawn_python(
                ["mray.node.workers.zygote", str(_HANDED_FD), str(os.getpid()), self._worker_main],
                {},
                theirs.fileno(),
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._sock = ours
        pid = self._zygote_pid
        self._pump.after(
            self._answer_s,
            lambda: self._end_silent(pid, pid == self._zygote_pid and not self._ready),
        )
        self._children.watch(pid, self._zygote_ended)
        self._pump.door.watch(ours.fileno(), self.hear)

    def spawn(self, params: WorkerParams, on_started: OnStarted) -> None:
        """Start a worker: a fork of the zygote, or an interpreter of its own where it needs one.

        ValueError where its runtime_env is none.
        """
        env = RuntimeEnv.read(params.runtime_env)
        if env.acts_early or params.places.python:
            self._spawn_fresh(params, env, on_started)
        elif self._ready:
            self._ask(params, on_started)
        else:
            self._waiting.append((params, on_started))

    def close(self, on_gone: Callable[[], None]) -> None:
        """End the zygote: the closed socket tells it. Workers must have ended before."""
        self._closed = True
        self._on_gone = on_gone
        if self._restart is not None:
            self._restart.cancel()
        was_ready = self._ready
        self._drop_socket()
        if self._zygote_pid == 0:
            self._pump.call_soon(on_gone)
        elif not was_ready:
            # It imports, and would look at its socket only after that.
            os.kill(self._zygote_pid, signal.SIGKILL)

    # -- fresh

    def _spawn_fresh(self, params: WorkerParams, env: RuntimeEnv, on_started: OnStarted) -> None:
        try:
            with _memory_file(params) as file:
                pid = self._spawn_python(
                    ["mray.node.workers.fresh", str(_HANDED_FD), self._worker_main],
                    env.over(os.environ),
                    file.fileno(),
                    params.places.python,
                )
        except OSError as error:
            self._say_later(on_started, 0, f"no process could be started: {error}")
            return
        self._unannounced.add(pid)
        self._say_later(on_started, pid, "")

    def _say_later(self, on_started: OnStarted, pid: int, why_not: str) -> None:
        def say() -> None:
            self._unannounced.discard(pid)
            on_started(pid, why_not)

        self._pump.call_soon(say)

    def _spawn_python(
        self,
        arguments: list[str],
        environ: dict[str, str],
        handed: int,
        python: Sequence[str] = (),
    ) -> int:
        """Start ``python -m`` with ``handed`` as descriptor 3, in a process session of its own."""
        environ = dict(os.environ) | environ
        environ[NODE_VARIABLE] = self._node_id.hex()
        # As Ray does: a task has one CPU unless it says so, and N workers with N threads each in
        # their numerical libraries would only stand in each other's way.
        if "OMP_NUM_THREADS" not in environ:
            environ |= {"OMP_NUM_THREADS": "1", THREADS_VARIABLE: "1"}
        python = python or [sys.executable]
        return os.posix_spawnp(
            python[0],
            # -P: a module called random.py in the user's directory is none of the worker's.
            [*python, "-P", "-m", *arguments],
            environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, handed, _HANDED_FD),
                # Standard output is a log that rotates under us; errors stay in one file.
                (os.POSIX_SPAWN_DUP2, 2, 1),
            ],
            setsid=True,
            setsigdef=_DEFAULT_SIGNALS,
        )

    # -- the zygote

    def _ask(self, params: WorkerParams, on_started: OnStarted) -> None:
        assert self._sock is not None
        self._number += 1
        number = self._number
        try:
            with _memory_file(params) as file:
                socket.send_fds(self._sock, [NUMBER.pack(number)], [file.fileno()])
        except OSError as error:
            self._say_later(on_started, 0, f"the zygote takes no request: {error}")
            return
        self._asked[number] = on_started
        pid = self._zygote_pid
        self._pump.after(
            self._answer_s, lambda: self._end_silent(pid, self._asked.get(number) is on_started)
        )

    def _end_silent(self, pid: int, is_silent: bool) -> None:
        """A zygote that does not answer is of no use, and only a new one can make workers."""
        if is_silent and pid == self._zygote_pid and not self._closed:
            log.error(
                "the zygote (pid %d) has not answered for %g s: killing it", pid, self._answer_s
            )
            os.kill(pid, signal.SIGKILL)

    def hear(self) -> None:
        """Read what the zygote has answered."""
        while self._sock is not None:
            try:
                packet = self._sock.recv(4096)
            except BlockingIOError:
                return
            except ConnectionError:
                packet = b""
            if not packet:
                self._drop_socket()
                return
            number, pid = ANSWER.unpack_from(packet)
            if number == READY:
                self._ready = True
                self._restart_s = _RESTART_FIRST_S
                waiting, self._waiting = self._waiting, []
                for params, on_started in waiting:
                    self._ask(params, on_started)
                continue
            answered = self._asked.pop(number, None)
            if answered is not None:
                answered(pid, packet[ANSWER.size :].decode("utf-8", "replace"))

    def _zygote_ended(self, status: int) -> None:
        pid, self._zygote_pid = self._zygote_pid, 0
        if self._closed:
            self._on_gone()
            return
        self.hear()
        self._drop_socket()
        cause = cause_of(status, pid=pid, node_id=self._node_id)
        log.error(
            "the zygote (pid %d) ended: %s; starting another in %.1f s",
            pid,
            describe(cause),
            self._restart_s,
        )
        # Some may have been forked; those report by themselves and are sent away.
        asked, self._asked = self._asked, {}
        waiting, self._waiting = self._waiting, []
        text = f"the zygote ended ({describe(cause)})"
        if self._restart_s > _RESTART_FIRST_S:
            # It did not get ready: what it wrote says why.
            last = read_tail(os.readlink("/proc/self/fd/2"))[-_WORDS_LINES:]
            text += "; the end of raylet.err:\n" + "\n".join(last)
        for on_started in [*asked.values(), *(one for _, one in waiting)]:
            on_started(0, text)
        self._restart = self._pump.after(self._restart_s, self._start_again)
        self._restart_s = min(self._restart_s * 2, _RESTART_LAST_S)

    def _start_again(self) -> None:
        if self._closed:
            return
        try:
            self.start()
        except OSError as error:
            log.error("the zygote cannot be started: %s", error)
            self._restart = self._pump.after(self._restart_s, self._start_again)
            self._restart_s = min(self._restart_s * 2, _RESTART_LAST_S)

    def _drop_socket(self) -> None:
        self._ready = False
        if self._sock is not None:
            self._pump.door.unwatch(self._sock.fileno())
            self._sock.close()
            self._sock = None


def _memory_file(params: WorkerParams) -> BinaryIO:
    """A memory file that holds the parameters: of any size, and with no name to clean up."""
    file = os.fdopen(os.memfd_create("mray-worker-params", os.MFD_CLOEXEC), "wb", buffering=0)
    file.write(msgspec.msgpack.encode(params))
    return file
