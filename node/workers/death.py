"""The one exact cause of a process's end, from the status that waitpid gives and other evidence.

Covers: exit codes and signals, who sent a SIGKILL (mray, the kernel's out-of-memory killer by its
counters, or somebody else), the last lines of standard error, the last task begun. Kills nothing.
"""

from __future__ import annotations

import os
import signal
import struct
from typing import Final

import msgspec

from mray.wire.messages import DeathCause

_TAIL_LINES: Final = 20
_TAIL_BYTES: Final = 16 * 1024
_TAIL_LINE_CHARS: Final = 1000
#: What a worker writes into its progress file before its first task.
NO_TASK_YET: Final = -1
#: Of the task begun last: its number, when (ns of the monotonic clock), its id, its attempt.
_PROGRESS: Final = struct.Struct("<qq24sq")


def cause_of(
    status: int,
    *,
    pid: int,
    node_id: bytes,
    intent: DeathCause | None = None,
    by_kernel_oom: str = "",
    by_kernel_facts: bytes = b"",
    stderr_tail: list[str] | None = None,
    last_seq: int = NO_TASK_YET,
) -> DeathCause:
    """The cause of an end with this wait status.

    ``intent``: why mray ended it, or the worker itself said it would go. ``by_kernel_oom``: the
    evidence that the kernel killed for memory meanwhile, "" for none; ``by_kernel_facts``: what
    ``DeathCause.oom`` is then.
    """
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
    oom = by_kernel_facts if by_kernel_oom else b""
    if intent is not None:
        kind, text, oom = intent.kind, intent.text, intent.oom
    elif number is None:
        kind, text = "exit", ""
    elif number == signal.SIGKILL and by_kernel_oom:
        kind, text = "kernel_oom", f"killed by the kernel for want of memory ({by_kernel_oom})"
    elif number == signal.SIGKILL:
        kind = "signal"
        text = (
            "a SIGKILL from outside: mray did not send it, and the kernel's out-of-memory killer "
            "has counted no kill"
        )
    else:
        kind, text = "signal", ""
    return DeathCause(
        kind,
        text,
        exit_code=code,
        signal=number,
        pid=pid,
        node_id=node_id,
        stderr_tail=stderr_tail or [],
        last_seq=last_seq,
        oom=oom if kind in ("killed", "kernel_oom") else b"",
    )


def describe(cause: DeathCause) -> str:
    """A cause for a line of the log."""
    parts = []
    if cause.signal is not None:
        try:
            parts.append(signal.Signals(cause.signal).name)
        except ValueError:
            parts.append(f"signal {cause.signal}")
    elif cause.exit_code is not None:
        parts.append(f"exit code {cause.exit_code}")
    if cause.text:
        parts.append(cause.text)
    return f"{cause.kind}: " + (", ".join(parts) or "status unknown")


def read_tail(path: str) -> list[str]:
    """The last lines of a log; with those of the file before, where it was rotated just now."""
    data = b""
    for name in (path, f"{path}.1"):
        try:
            with open(name, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                room = _TAIL_BYTES - len(data)
                file.seek(max(0, size - room))
                data = file.read(room) + data
        except OSError:
            break  # Never written, or removed by somebody: there are no last words.
        if data.count(b"\n") > _TAIL_LINES or len(data) >= _TAIL_BYTES:
            break
    lines = data.decode("utf-8", "replace").splitlines()
    return [line[:_TAIL_LINE_CHARS] for line in lines[-_TAIL_LINES:]]


def read_progress(path: str) -> int:
    """The number of the last task a worker began; NO_TASK_YET where it never began one."""
    try:
        with open(path, "rb") as file:
            data = file.read(8)
    except OSError:
        return NO_TASK_YET
    return int.from_bytes(data, "little", signed=True) if len(data) == 8 else NO_TASK_YET


class Begun(msgspec.Struct, frozen=True):
    """The last task a worker began. ``at``: monotonic seconds."""

    at: float
    task_id: bytes
    attempt: int


def read_begun(path: str) -> Begun | None:
    """What a worker began last; None where it never began a task."""
    try:
        with open(path, "rb") as file:
            data = file.read(_PROGRESS.size)
    except OSError:
        return None
    if len(data) != _PROGRESS.size:
        return None
    _, begun_ns, task_id, attempt = _PROGRESS.unpack(data)
    return Begun(begun_ns / 1e9, task_id, attempt) if begun_ns > 0 else None


class ProgressFile(msgspec.Struct, frozen=True):
    """The file in which a worker keeps the number of its last task; the node makes and removes it.

    Beside the sockets, or the store: what it says is wanted only while the node lives.
    """

    path: str

    def create(self) -> None:
        """Make it, saying that no task was begun."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, _PROGRESS.pack(NO_TASK_YET, 0, b"", 0))
        finally:
            os.close(descriptor)

    def read(self) -> int:
        """What it says now."""
        return read_progress(self.path)

    def take(self) -> int:
        """What it says at last; removes it."""
        number = read_progress(self.path)
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            return number
        return number
