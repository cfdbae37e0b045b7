"""What people read of a death for want of memory: at most twelve lines, with the measured numbers.

Owns the wording of OutOfMemoryError; its facts are mray.wire.oom's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mray.units import format_bytes, format_count, format_duration

if TYPE_CHECKING:
    from mray.wire.oom import OomAttempt, OomFacts

#: What a request should leave above the measured peak.
_ADVICE_FACTOR: Final = 1.25
_TOP_MAX: Final = 3
_ATTEMPTS_MAX: Final = 4


def one_line(facts: OomFacts) -> str:
    """Who was ended, why, on which evidence: for logs and ``DeathCause.text``."""
    victim = facts.victim
    asked = f", asked for {format_bytes(victim.requested_bytes)}" if victim.requested_bytes else ""
    what = f"{victim.kind} {victim.name}".strip()
    if facts.kind == "task_limit":
        because = "it used more memory than it declared"
    elif facts.kind == "kernel":
        because = "the kernel ended it for want of memory"
    else:
        because = f"the node was short of memory: {usage(facts)}"
    if facts.kind == "kernel":
        seen = f"{format_bytes(victim.peak_bytes)} when last seen" if victim.peak_bytes else ""
    else:
        seen = format_bytes(victim.used_bytes)
    facts_of_it = ", ".join(filter(None, (f"pid {victim.pid}", seen))) + asked
    return f"{what} ({facts_of_it}) was ended because {because}" + (
        f"; chosen because it {_predicate(facts)}" if facts.why else ""
    )


def usage(facts: OomFacts) -> str:
    """Used, limit and threshold."""
    share = facts.threshold_bytes / facts.limit_bytes if facts.limit_bytes else 0.0
    return (
        f"{format_bytes(facts.used_bytes)} of {format_bytes(facts.limit_bytes)} used, threshold "
        f"{format_bytes(facts.threshold_bytes)} ({share:.0%})"
    )


def report(facts: OomFacts, attempts: Sequence[OomAttempt], decision: str) -> str:
    """The text of OutOfMemoryError."""
    victim = facts.victim
    lines = [f"{one_line(facts)}; node {facts.node_id[:8]}"]
    if victim.runtime_s:
        lines[0] += f", after {format_duration(victim.runtime_s)}"
    if decision:
        lines.append(f"It was {decision}." if decision.startswith("not ") else f"{decision}.")
    if len(attempts) > 1:
        shown = attempts[-_ATTEMPTS_MAX:]
        peaks = ", ".join(format_bytes(a.peak_bytes) if a.peak_bytes else "not seen" for a in shown)
        count = format_count(len(attempts), "attempt ended", "attempts ended")
        lines.append(f"{count} so; the last peaks: {peaks}")
    if facts.top:
        top = ", ".join(
            f"{p.name} (pid {p.pid}) {format_bytes(p.used_bytes)}" for p in facts.top[:_TOP_MAX]
        )
        lines.append(f"Biggest processes: {top}")
    if facts.store_capacity_bytes:
        lines.append(
            f"Object store: {format_bytes(facts.store_used_bytes)} of "
            f"{format_bytes(facts.store_capacity_bytes)}"
        )
    lines.append("What helps:")
    peak = max([victim.peak_bytes, victim.used_bytes, *(a.peak_bytes for a in attempts)])
    if victim.kind != "idle" and peak:
        wanted = int(peak * _ADVICE_FACTOR)
        lines.append(
            f"  - set memory={wanted} ({format_bytes(wanted)}: peak {format_bytes(peak)} x "
            f"{_ADVICE_FACTOR}), so that no more of them run at once than fit"
        )
    lines.append("  - run fewer tasks at once: ask for more CPUs a task, or add memory or nodes")
    lines.append(
        "  - see who would be next with `mray oom explain`; the threshold is "
        "RAY_memory_usage_threshold"
    )
    return "\n".join(lines)


def _predicate(facts: OomFacts) -> str:
    """The policy's words behind "it"."""
    if facts.why.startswith(("uses", "is ", "cannot", "begun")):
        return facts.why
    return f"is {facts.why}" if facts.why.startswith("the ") else f"was next: {facts.why}"
