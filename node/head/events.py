"""What goes into the head's machines and what comes out: values only.

A message from a process arrives as From. Machines answer with effects; some effects are events for
the other machines as well (NodeUp, NodeLost, RoomSeen, JobEnded, ActorGone, LastActorGone,
JobOver, GroupPlaced, GroupEnded): the server hands them on.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from mray.wire.messages import DeathCause, Message, NodeContents, NodeInfo


class Value(msgspec.Struct, frozen=True):
    """Base of events and effects."""


class From(Value, frozen=True):
    """A message and the process id of its sender."""

    sender: bytes
    message: Message


class Tick(Value, frozen=True):
    """The machine's deadline has come."""


class NodeUp(Value, frozen=True):
    """A node has registered. ``contents``: what it has, of one that had registered at a former
    life of this head."""

    node: NodeInfo
    contents: NodeContents | None = None


class NodeLost(Value, frozen=True):
    """A node is gone for good, and all its processes with it."""

    node_id: bytes
    cause: DeathCause


class NodeProcessEnded(Value, frozen=True):
    """The kernel says that the daemon of a node on this machine has ended."""

    node_id: bytes


class RoomSeen(Value, frozen=True):
    """A node's heartbeat told what it has free."""

    node_id: bytes
    available: dict[str, int]
    #: It takes nothing new.
    draining: bool = False


class JobEnded(Value, frozen=True):
    """A driver's job is over; what belongs to it goes."""

    job_id: bytes


class ActorGone(Value, frozen=True):
    """A detached actor has ended for good; what it made that lives as long as it goes."""

    actor_id: bytes


class LastActorGone(Value, frozen=True):
    """No actor lives that may outlive the driver of its job."""

    job_id: bytes


class JobOver(Value, frozen=True):
    """Neither the driver of a job lives nor what outlived it; what only they could use goes."""

    job_id: bytes


class GroupPlaced(Value, frozen=True):
    """Where the bundles of a placement group are now; b"" for those that are nowhere."""

    group_id: bytes
    nodes: list[bytes]


class GroupEnded(Value, frozen=True):
    """A placement group was removed; what lives in it goes."""

    group_id: bytes


class Send(Value, frozen=True):
    """Send to one process, if it is there."""

    to: bytes
    message: Message


class ToNodes(Value, frozen=True):
    """Send to every living node but one."""

    message: Message
    but: bytes = b""


class Persist(Value, frozen=True):
    """A row of the head's storage is now this; None: it is no more. What the event leads to
    besides is done when this is written."""

    table: str
    key: bytes
    value: bytes | None


class Fence(Value, frozen=True):
    """A newer head of the cluster rules: this one has to end."""

    text: str


class Note(Value, frozen=True):
    """A line for the head's log."""

    text: str


Event: TypeAlias = From | Tick | NodeUp | NodeLost | NodeProcessEnded | RoomSeen | JobEnded
Told: TypeAlias = (
    NodeUp | NodeLost | RoomSeen | JobEnded | ActorGone | LastActorGone | JobOver
    | GroupPlaced | GroupEnded
)  # fmt: skip
Effect: TypeAlias = Send | ToNodes | Persist | Fence | Note | Told
