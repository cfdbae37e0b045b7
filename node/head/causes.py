"""Causes of death in words and numbers, for the head's log, messages and job details."""

from __future__ import annotations

from typing import Final

from mray.wire.messages import DeathCause


def exit_code_of(cause: DeathCause) -> int | None:
    """The exit code as a shell would report it; None where it is not known."""
    if cause.signal is not None:
        return 128 + cause.signal
    return cause.exit_code


def describe(cause: DeathCause) -> str:
    """How a process ended, in words."""
    how = cause.text
    if not how and cause.signal is not None:
        how = f"killed by signal {cause.signal}"
    elif not how and cause.exit_code is not None:
        how = f"exit code {cause.exit_code}"
    return f"{how or cause.kind} (pid {cause.pid})" if cause.pid else how or cause.kind


#: What `ray.kill()` does.
KILLED: Final = DeathCause("ray_kill", "it was killed by ray.kill()")


def group_removed(group_id: bytes) -> DeathCause:
    """Of what lived in a placement group."""
    return DeathCause("group_removed", f"its placement group {group_id.hex()} was removed")


def for_memory(cause: DeathCause) -> bool:
    """Whether it was want of memory."""
    return bool(cause.oom) or cause.kind == "kernel_oom"


def owner_died(cause: DeathCause) -> DeathCause:
    """Of what ends with its owner."""
    text = f"its owner died: {describe(cause)}"
    return DeathCause("owner_died", text, pid=cause.pid, node_id=cause.node_id)
