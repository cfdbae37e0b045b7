"""References and handles that a program kept over shutdown() and a new init(): refused at once.

Owns how they are known and what is said. A value that this process has itself can still be read.
What lives on in the same cluster (a detached actor's handle, a group) is not refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mray import current
from mray.exceptions import ActorHandleNotFoundError, ReferenceLostError
from mray.ownership.entry import Entry

_REASON = (
    "this process made or got the reference before shutdown() and the last init(): what it stands "
    "for ended with that connection"
)


def cluster_now() -> bytes:
    """Which cluster this process belongs to; b"" for none."""
    rt = current.runtime
    return rt.head.process_id if rt is not None else b""


def is_former(entry: Entry, rt: Any) -> bool:
    """Whether it is of a connection that this process had before ``rt``."""
    return entry.home is not rt.mailbox and type(entry.home) is type(rt.mailbox)


def refuse_former(entries: Iterable[Entry], rt: Any) -> None:
    """Raise ReferenceLostError where one of them is former and its value is not here."""
    for entry in entries:
        if entry.home is not rt.mailbox and entry.data is None:
            refuse_to_lend(entry, rt)


def refuse_to_lend(entry: Entry, rt: Any) -> None:
    """Raise ReferenceLostError where others cannot ask this process for the value any more."""
    if is_former(entry, rt):
        raise ReferenceLostError(entry.object_id.hex(), task_name=entry.name, reason=_REASON)


def refuse_handle(handle: Any, rt: Any) -> None:
    """Raise ActorHandleNotFoundError for a handle of another cluster, or of an actor that ended
    with this process's former connection."""
    ref = handle._ref
    cluster = handle._cluster
    if cluster and cluster != rt.head.process_id:
        why = "it is of another cluster, which this process has left by shutdown()"
    elif ref is not None and is_former(ref._entry, rt):
        why = "it was made before shutdown() and the last init(), and its actor ended with that"
    else:
        return
    raise ActorHandleNotFoundError(f"{handle!r} cannot be called: {why}. Make the actor anew")


def refuse_group(group_id: str, cluster: bytes) -> None:
    """Raise ValueError for a placement group of another cluster."""
    now = cluster_now()
    if cluster and now and cluster != now:
        raise ValueError(
            f"placement group {group_id} is of another cluster, which this process has left by "
            "shutdown(): make it anew"
        )
