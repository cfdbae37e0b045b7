"""What the state API says of a worker's end: Ray's types of exits, and the cause in words."""

from __future__ import annotations

from mray.wire.messages import DeathCause

#: By DeathCause.kind; what is not here is SYSTEM_ERROR.
_TYPES = {
    "killed": "INTENDED_SYSTEM_EXIT",
    "intended": "INTENDED_SYSTEM_EXIT",
    "out_of_scope": "INTENDED_SYSTEM_EXIT",
    "owner_died": "INTENDED_SYSTEM_EXIT",
    "ray_kill": "INTENDED_SYSTEM_EXIT",
    "kernel_oom": "NODE_OUT_OF_MEMORY",
    "creation_failed": "USER_ERROR",
    "env_failed": "USER_ERROR",
}


def exit_type(cause: DeathCause) -> str:
    """Ray's word for it: INTENDED_USER_EXIT, INTENDED_SYSTEM_EXIT, USER_ERROR, SYSTEM_ERROR or
    NODE_OUT_OF_MEMORY."""
    if cause.oom:
        return "NODE_OUT_OF_MEMORY"
    # Whoever leaves by itself (exit_actor, max_calls, sys.exit) exits with 0; who is ended, does
    # not.
    if cause.kind in ("exit", "intended") and cause.exit_code == 0:
        return "INTENDED_USER_EXIT"
    return _TYPES.get(cause.kind, "SYSTEM_ERROR")


def exit_detail(cause: DeathCause) -> str:
    """The cause in words, with the exit code or the signal and the last lines of its errors."""
    parts = [cause.text or cause.kind]
    if cause.exit_code is not None:
        parts.append(f"exit code {cause.exit_code}")
    if cause.signal is not None:
        parts.append(f"signal {cause.signal}")
    told = "; ".join(parts)
    if cause.stderr_tail:
        told += "; its last lines:\n" + "\n".join(cause.stderr_tail)
    return told
