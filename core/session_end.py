"""Ends a session's processes, exactly those, and cleans up after sessions that died.

Covers: asking daemons to shut down, SIGTERM and SIGKILL with the process's identity checked before
each, removal of sockets and stores, pruning of old sessions. Does not touch drivers that users
started themselves: they see their cluster end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mray.session import ProcessRecord, Session


@dataclass(frozen=True, kw_only=True)
class EndReport:
    """What end_session did. ``survivors`` is empty unless something could not be ended."""

    stopped: list[ProcessRecord] = field(default_factory=list)
    survivors: list[ProcessRecord] = field(default_factory=list)


def end_session(
    session: Session, *, force: bool = False, grace_s: float = 5.0, reason: str = "mray stop"
) -> EndReport:
    """End every process of the session, then remove its sockets and stores; logs stay.

    Asks the daemons first, sends SIGTERM to what is left, then SIGKILL, all within ``grace_s`` and
    a second. ``force`` starts with SIGKILL. A session that has ended gives an empty report.
    """
    raise NotImplementedError


def clean_stale(
    tmpdir: str, *, retention_s: float, retention_count: int, now_unix_s: float | None = None
) -> list[Session]:
    """Clean up after sessions that nobody holds, and prune ended ones; returns the former.

    Costs a directory listing where nothing is stale.
    """
    raise NotImplementedError
