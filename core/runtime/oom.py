"""From a death for want of memory to the error of those who waited for its work."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from mray.exceptions import OutOfMemoryError
from mray.oom_report import report
from mray.wire.messages import DeathCause
from mray.wire.oom import OomAttempt, OomFacts

log = logging.getLogger("mray.runtime")


def is_oom(cause: DeathCause | None) -> bool:
    """Whether a process ended for want of memory."""
    return cause is not None and (bool(cause.oom) or cause.kind == "kernel_oom")


def facts_of(cause: DeathCause) -> OomFacts | None:
    """What the node tells of it; None where it could not tell."""
    if not cause.oom:
        return None
    try:
        return OomFacts.from_bytes(cause.oom)
    except msgspec.MsgspecError as error:
        log.warning("the facts of a death for want of memory cannot be read: %s", error)
        return None


def oom_error(
    cause: DeathCause,
    facts: OomFacts | None,
    name: str,
    attempts: Sequence[OomAttempt] = (),
    decision: str = "",
) -> OutOfMemoryError:
    """The error for those who waited. ``decision``: why it is not run again."""
    if facts is None:
        text = f"the worker of {name} (pid {cause.pid}) ended for want of memory: {cause.text}"
        if decision:
            text += f"; {decision}"
        return OutOfMemoryError(
            text, node=cause.node_id.hex(), attempts=attempts, retry_decision=decision
        )
    return OutOfMemoryError(
        report(facts, attempts, decision),
        kind=facts.kind,
        node=facts.node_id,
        used=facts.used_bytes,
        limit=facts.limit_bytes,
        threshold=facts.threshold_bytes,
        victims=(facts.victim,),
        top_processes=facts.top,
        object_store=(facts.store_used_bytes, facts.store_capacity_bytes),
        attempts=attempts,
        retry_decision=decision,
        reason=facts.why,
    )
