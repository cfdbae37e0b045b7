"""What scheduling on a node wants done, and the words for what cannot be."""

from __future__ import annotations

import msgspec

from mray.node.workers.pool import Kill, Spawn
from mray.wire.messages import ActorStartFailed, DeathCause, Message, StartActor


class Send(msgspec.Struct, frozen=True):
    """Send to a process of this node."""

    process_id: bytes
    message: Message


class TellHead(msgspec.Struct, frozen=True):
    """Send to the head."""

    message: Message


Effect = Send | TellHead | Spawn | Kill


def start_failed(start: StartActor, text: str, kind: str = "creation_failed") -> TellHead:
    """An actor cannot be started here."""
    cause = DeathCause(kind, text)
    return TellHead(ActorStartFailed(start.spec.actor_id, start.incarnation, cause))


def group_removed(start: StartActor) -> TellHead:
    """An actor cannot be started because its placement group is not here any more."""
    text = f"its placement group {start.spec.group.hex()} was removed"
    return start_failed(start, text, "group_removed")
