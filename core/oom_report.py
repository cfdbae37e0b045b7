"""What people read of a death for want of memory: at most twelve lines, with the measured numbers.

Owns the wording of OutOfMemoryError; its facts are mray.wire.oom's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mray.units import MIB, format_bytes, format_duration

if TYPE_CHECKING:
    from mray.wire.oom import OomAttempt, OomFacts

#: What a request should leave above the measured peak.
_ADVICE_FACTOR: Final = 1.25
_TOP_MAX: Final = 3
_ATTEMPTS_MAX: Final = 4
#: From this share of what is used the store is the first thing to look at.
_STORE_SHARE: Final = 0.3


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
    what = f"{victim.kind} {victim.name}".strip()
    by = {
        "task_limit": "used more memory than it declared, and was ended by the memory monitor",
        "kernel": "was ended for want of memory by the kernel",
    }.get(facts.kind, "was ended for want of memory by the memory monitor")
    after = f", after {format_duration(victim.runtime_s)}" if victim.runtime_s else ""
    lines = [f"{what} {by} of node {facts.node_id[:8]} (pid {victim.pid}{after})"]
    lines.append(f"  node     {usage(facts)}")
    lines.append(f"  {victim.kind:<9}{_memory(facts)}")
    if facts.why:
        lines.append(f"  chosen   {facts.why}")
    words = [decision] if decision else []
    if len(attempts) > 1:
        shown = attempts[-_ATTEMPTS_MAX:]
        peaks = ", ".join(format_bytes(a.peak_bytes) if a.peak_bytes else "not seen" for a in shown)
        words.append(f"{len(attempts)} attempts ended so, the last with peaks of {peaks}")
    if words:
        lines.append(f"  retry    {'; '.join(words)}")
    if facts.top:
        top = ", ".join(
            f"{p.name} (pid {p.pid}) {format_bytes(p.used_bytes)}" for p in facts.top[:_TOP_MAX]
        )
        lines.append(f"  biggest  {top}")
    if facts.store_capacity_bytes:
        used, capacity = facts.store_used_bytes, facts.store_capacity_bytes
        lines.append(f"  objects  {format_bytes(used)} of {format_bytes(capacity)} in the store")
    lines.append("What helps:")
    lines += [f"  - {advice}" for advice in _advice(facts, attempts)]
    return "\n".join(lines)


def _memory(facts: OomFacts) -> str:
    """What the victim had, and what it declared."""
    victim = facts.victim
    parts = [f"{format_bytes(victim.used_bytes)} of its own"] if victim.used_bytes else []
    if victim.peak_bytes > victim.used_bytes:
        parts.append(f"peak {format_bytes(victim.peak_bytes)}")
    if not parts:
        parts.append("how much it had was not seen")
    asked = format_bytes(victim.requested_bytes) if victim.requested_bytes else "nothing"
    return f"{', '.join(parts)}; memory= asked for {asked}"


def _advice(facts: OomFacts, attempts: Sequence[OomAttempt]) -> list[str]:
    """Three suggestions at most, in the order of their use."""
    victim = facts.victim
    peak = max([victim.peak_bytes, victim.used_bytes, *(a.peak_bytes for a in attempts)])
    wanted = int(peak * _ADVICE_FACTOR)
    found = []
    if victim.kind != "idle" and peak and wanted <= facts.threshold_bytes:
        mib = -(-wanted // MIB)
        found.append(
            f"set memory={mib} * 2**20 (peak {format_bytes(peak)} x {_ADVICE_FACTOR}): then only "
            "as many run at once as fit"
        )
    elif victim.kind != "idle" and peak:
        found.append(
            f"have it use less, or give the node more memory: with {format_bytes(peak)} and a "
            f"margin of {_ADVICE_FACTOR - 1:.0%} it exceeds what this node may use"
        )
    if facts.store_used_bytes > facts.used_bytes * _STORE_SHARE:
        found.append("let go of objects: `mray memory` shows who holds them, and why")
    elif wanted <= facts.threshold_bytes:
        found.append("run fewer at once: ask for more CPUs for each, or add nodes")
    found.append(
        "`mray oom explain` shows who would be next; RAY_memory_usage_threshold is the threshold"
    )
    return found


def _predicate(facts: OomFacts) -> str:
    """The policy's words behind "it"."""
    if facts.why.startswith(("uses", "is ", "cannot", "begun")):
        return facts.why
    return f"is {facts.why}" if facts.why.startswith("the ") else f"was next: {facts.why}"
