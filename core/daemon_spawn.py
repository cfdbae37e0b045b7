"""Spawns a daemon process and hears from it when it is ready.

Covers: the command line, pipes, log files and environment of a daemon, its one line of readiness,
and telling why it did not come up. Knows nothing of what the daemons are for.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from typing import Any, Final, Literal

import msgspec

from mray.daemon_params import DaemonParams
from mray.session import Session
from mray.session_end import SESSION_VARIABLE

DaemonKind = Literal["head", "node"]
_LOG_NAMES: Final = {"head": "gcs_server", "node": "raylet"}
#: The token goes to daemons by the pipe; jobs and workers must not inherit it (case as found).
_SECRET_VARIABLES: Final = ("RAY_AUTH_TOKEN", "MRAY_AUTH_TOKEN")
_TAIL_BYTES: Final = 2000


class _Process(subprocess.Popen[bytes]):
    """A child that may outlive us: nobody complains at our end that it runs still."""

    def __del__(self) -> None:
        return


#: Those that were not waited for.
_dropped: list[_Process] = []


class StartError(RuntimeError):
    """A daemon did not start. ``kind`` is an exception's name, ``daemon`` head or node,
    ``log_path`` where to read more."""

    def __init__(self, daemon: str, kind: str, text: str, log_path: str = "") -> None:
        where = f"; its log is {log_path}" if log_path else ""
        super().__init__(f"the {daemon} did not start: {text}{where}")
        self.daemon = daemon
        self.kind = kind
        self.text = text
        self.log_path = log_path


class StartRefused(StartError, ValueError):
    """What a daemon was given cannot be: more GPUs or memory than there are, say."""


class Spawned:
    """A daemon that was spawned, and the pipe its answer comes by."""

    def __init__(
        self, kind: DaemonKind, process: _Process, answer_fd: int, log_path: str
    ) -> None:
        self.kind: DaemonKind = kind
        self.pid = process.pid
        self.log_path = log_path
        self.answer_fd = answer_fd
        self.answer = b""
        self._process = process
        _dropped.append(process)

    def terminate(self) -> None:
        """SIGTERM, unless it has ended."""
        self._process.terminate()

    def reap(self, timeout_s: float = 1.0) -> int | None:
        """Wait for its end, at last with SIGKILL; returns the exit code as Popen gives it."""
        self.close()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process in _dropped:
            _dropped.remove(self._process)
        return self._process.returncode

    def has_ended(self) -> bool:
        """Whether it has ended; then it is reaped."""
        return self._process.poll() is not None

    def close(self) -> None:
        """Close the pipe."""
        if self.answer_fd >= 0:
            os.close(self.answer_fd)
            self.answer_fd = -1

    def hear(self) -> dict[str, Any] | None:
        """Read what there is of the answer: its facts, None while not whole. Raises StartError."""
        data = os.read(self.answer_fd, 65_536)
        self.answer += data
        if data and not self.answer.endswith(b"\n"):
            return None
        self.close()
        if not self.answer.endswith(b"\n"):
            code = self.reap()
            how = f"it was killed by signal {-code}" if code and code < 0 else f"exit code {code}"
            raise self._error("RuntimeError", f"it ended before it was ready ({how}){self._tail()}")
        facts: dict[str, Any] = json.loads(self.answer)
        if "error" in facts:
            raise self._error(facts["error"], facts["text"])
        return facts

    def late(self, timeout_s: float) -> StartError:
        """The error of a daemon that has not answered in time."""
        return self._error("TimeoutError", f"not ready within {timeout_s:g} s{self._tail()}")

    def _error(self, kind: str, text: str) -> StartError:
        made = StartRefused if kind == "ValueError" else StartError
        return made(self.kind, kind, text, self.log_path)

    def _tail(self) -> str:
        """The end of what it wrote to standard error."""
        try:
            with open(self.log_path.removesuffix(".out") + ".err", "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
                text = file.read().decode(errors="replace").strip()
        except FileNotFoundError:
            return ""
        return f"; it wrote:\n{text}\n" if text else ""


def spawn(kind: DaemonKind, params: DaemonParams, session: Session) -> Spawned:
    """Spawn a daemon, in a process session of its own, and hand over its parameters.

    Does not wait. OSError where no process could be made.
    """
    if not sys.executable:
        raise StartError(kind, "RuntimeError", "this program does not know its Python interpreter")
    log_path = f"{session.logs}/{_LOG_NAMES[kind]}.out"
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    out = os.open(log_path, flags, 0o600)
    err = os.open(log_path.removesuffix(".out") + ".err", flags, 0o600)
    params_read, params_write = os.pipe()
    answer_read, answer_write = os.pipe()
    environ = {k: v for k, v in os.environ.items() if k.upper() not in _SECRET_VARIABLES}
    environ[SESSION_VARIABLE] = session.path
    try:
        process = _Process(
            # -P: a module called random.py in the user's directory is none of the daemon's.
            [sys.executable, "-P", "-m", "mray.node", kind],
            stdin=params_read,
            stdout=out,
            stderr=err,
            env=environ,
            pass_fds=(answer_write,),
            start_new_session=True,
        )
    except BaseException:
        os.close(params_write)
        os.close(answer_read)
        raise
    finally:
        for descriptor in (out, err, params_read, answer_write):
            os.close(descriptor)
    spawned = Spawned(kind, process, answer_read, log_path)
    params = msgspec.structs.replace(params, ready_fd=answer_write)
    with os.fdopen(params_write, "wb", buffering=0) as pipe:
        try:
            pipe.write(msgspec.msgpack.encode(params))
        except BrokenPipeError:
            return spawned  # It ended at once; hear() says why.
    return spawned


def wait_ready(spawned: list[Spawned], timeout_s: float) -> list[dict[str, Any]]:
    """Wait for the answers of all; returns their facts in order. Raises StartError."""
    deadline = time.monotonic() + timeout_s
    facts: dict[int, dict[str, Any]] = {}
    poller = select.poll()
    for one in spawned:
        poller.register(one.answer_fd, select.POLLIN)
    while len(facts) < len(spawned):
        missing = [one for one in spawned if id(one) not in facts]
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise missing[0].late(timeout_s)
        ready = {descriptor for descriptor, _ in poller.poll(left_s * 1000)}
        for one in missing:
            if one.answer_fd in ready:
                descriptor = one.answer_fd
                heard = one.hear()
                if heard is not None:
                    poller.unregister(descriptor)
                    facts[id(one)] = heard
    return [facts[id(one)] for one in spawned]
