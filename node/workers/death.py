"""The one exact cause of a process's end, from the status that waitpid gives and other evidence.

Covers: exit codes and signals, who sent a SIGKILL (mray, the kernel's out-of-memory killer by its
counters, or somebody else), the last lines of standard error, the last task begun. Kills nothing.
"""

from __future__ import annotations

import os
import signal
from typing import Final

from mray.progress import NO_TASK_YET
from mray.wire.messages import DeathCause

_TAIL_LINES: Final = 20
_TAIL_BYTES: Final = 16 * 1024
_TAIL_LINE_CHARS: Final = 1000


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
