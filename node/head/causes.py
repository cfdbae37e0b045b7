"""Causes of death in words and numbers, for the head's log, messages and job details."""

from __future__ import annotations

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
