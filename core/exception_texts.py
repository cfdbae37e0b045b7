"""The phrases that exception texts share: ends of processes, places, short lists.

Owns wording only; mray.exceptions owns the facts.
"""

from __future__ import annotations

from collections.abc import Sequence

# What people know signals by; the rest are told by number.
_SIGNALS = {
    1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE",
    9: "SIGKILL", 11: "SIGSEGV", 13: "SIGPIPE", 15: "SIGTERM", 24: "SIGXCPU",
}  # fmt: skip
_LISTED_MAX = 10


def hex_id(value: str | bytes | None) -> str | None:
    """An id as people see it: hex text; text passes through."""
    return value.hex() if isinstance(value, bytes) else value


def place(pid: int | None, node: str) -> str:
    """`` (pid 12, node ab)``, or nothing when neither is known."""
    facts = [f"pid {pid}"] if pid else []
    if node:
        facts.append(f"node {node}")
    return f" ({', '.join(facts)})" if facts else ""


def ending(
    exit_code: int | None, signal: int | None, cause_text: str, stderr_tail: Sequence[str]
) -> str:
    """How a process ended, with the last lines it wrote to standard error."""
    if signal is not None:
        name = _SIGNALS.get(signal)
        how = f"signal {signal} ({name})" if name else f"signal {signal}"
    elif exit_code is not None:
        how = f"exit code {exit_code}"
    else:
        how = ""
    text = ", ".join(filter(None, (how, cause_text))) or "the cause is not known"
    if stderr_tail:
        text += "\nIts last lines on standard error:\n" + "\n".join(f"  {s}" for s in stderr_tail)
    return text


def listed(lines: Sequence[str]) -> str:
    """Lines joined; from the eleventh on only their number."""
    shown = list(lines[:_LISTED_MAX])
    if len(lines) > _LISTED_MAX:
        shown.append(f"  and {len(lines) - _LISTED_MAX} more")
    return "\n".join(shown)
