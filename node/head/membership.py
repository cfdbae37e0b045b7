"""The nodes of the cluster: who has joined, who is silent, who is gone.

    (unknown) --RegisterNode--> ALIVE <--Heartbeat-- SUSPECT
                                  |  --silence------>   |
                                  +---- silence, NodeGone by itself, process ended ---> DEAD

A node that was declared dead stays dead: it has to come back under a new id, because its actors
and tasks may run elsewhere by then. Does not decide what happens to a lost node's processes.

A head that has begun anew *expects* the nodes that it had. Each counts as SUSPECT until it has
registered again, with what it has; whoever has not in the time is dead. Epochs tell which of two
heads is the newer one: the older ends when it hears of the newer, a node never obeys an older one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from mray.machine import InvariantError
from mray.node.head.causes import describe
from mray.node.head.events import (
    Effect,
    Fence,
    From,
    NodeLost,
    NodeProcessEnded,
    NodeUp,
    Note,
    Persist,
    RoomSeen,
    Send,
    Tick,
    ToNodes,
)
from mray.node.head.news import News
from mray.units import format_duration
from mray.wire.messages import (
    Address,
    DeathCause,
    GetNodes,
    Heartbeat,
    LostOutput,
    NodeContents,
    NodeGone,
    NodeInfo,
    NodeJoined,
    NodeRegistered,
    Nodes,
    NodeView,
    Refused,
    RegisterAgain,
    RegisterNode,
    SpillFigures,
)

#: Dead nodes that are remembered, for GetNodes.
DEAD_NODES_MAX: Final = 1000
#: A tick that comes so much too late means that the head itself stood still.
_ASLEEP_S: Final = 1.0
#: Its table in the head's storage; keys are node ids.
TABLE: Final = "nodes"
#: A node that registers again is told of the last deaths of others: it may have missed them.
_DEATHS_TOLD: Final = 100


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """How long a node may say nothing."""

    suspect_after_s: float
    dead_after_s: float
    #: After the head has begun anew, until its nodes have registered again.
    return_within_s: float = 60.0


class _NodeRow(msgspec.Struct, frozen=True):
    """A node as it is stored. ``cause``: of a dead one."""

    info: NodeInfo
    cause: DeathCause | None


_encode: Final = msgspec.msgpack.Encoder().encode
_row: Final = msgspec.msgpack.Decoder(_NodeRow)


class _Member(msgspec.Struct):
    info: NodeInfo
    #: ALIVE, SUSPECT or DEAD.
    state: str
    heard_at: float
    available: dict[str, int]
    pending: list[tuple[dict[str, int], int]] = []
    store_used_bytes: int = 0
    store_spilled_bytes: int = 0
    spilling: SpillFigures = SpillFigures()
    workers: int = 0
    memory_used_bytes: int = 0
    memory_limit_bytes: int = 0
    memory_threshold_bytes: int = 0
    draining: bool = False
    lost_output: LostOutput = LostOutput()
    #: Set exactly for dead ones.
    cause: DeathCause | None = None
    #: SUSPECT, and of a former life of this head: has to register again.
    expected: bool = False


class Membership:
    """The table of nodes. See the module. ``kept``: what changes is to be persisted."""

    def __init__(
        self, *, cluster_id: str, config: bytes, head: Address, silence: Silence, now: float,
        epoch: int = 1, kept: bool = False,
    ) -> None:  # fmt: skip
        self._epoch = epoch
        self._kept = kept
        self._cluster_id = cluster_id
        self._config = config
        self._head = head
        self._silence = silence
        self._started_at = now
        #: In the order of joining; the dead ones among them at most DEAD_NODES_MAX.
        self._members: dict[bytes, _Member] = {}
        self._news = News()

    def is_expected(self, node_id: bytes) -> bool:
        """Whether a node of the former head has not come back yet."""
        member = self._members.get(node_id)
        return member is not None and member.expected

    def expected(self) -> list[NodeInfo]:
        """The nodes of the former head that have not come back yet."""
        return [m.info for m in self._members.values() if m.expected]

    def living(self) -> list[NodeInfo]:
        """The nodes that are not dead, in the order of joining."""
        return [m.info for m in self._members.values() if m.state != "DEAD"]

    def handle(self, event: From | Tick | NodeProcessEnded, now: float) -> list[Effect]:
        """Take a message of or about nodes, the deadline, or the end of a daemon."""
        match event:
            case Tick():
                return self._tick(now)
            case NodeProcessEnded(node_id):
                cause = DeathCause("node_died", "the node daemon's process ended", node_id=node_id)
                return self._lose(node_id, cause)
            case From(sender, RegisterNode() as message):
                return self._register(sender, message, now)
            case From(sender, Heartbeat() as message):
                return self._heartbeat(sender, message, now)
            case From(sender, NodeGone(node_id, cause)):
                # Only the node itself may say so, when it leaves.
                return self._lose(node_id, cause) if sender == node_id else []
            case From(sender, GetNodes(rid)):
                return [Send(sender, self._view(rid, now))]
            case other:
                raise TypeError(f"not for the membership: {other!r}")

    def deadline(self) -> float | None:
        """When the next node becomes suspect or dead, if it stays silent."""
        moments = [self._due(m) for m in self._members.values() if m.state != "DEAD"]
        news_at = self._news.deadline()
        return min(moments if news_at is None else [*moments, news_at], default=None)

    def _due(self, member: _Member) -> float:
        """When a living member's state changes by silence."""
        silence = self._silence
        if member.state == "ALIVE":
            return member.heard_at + silence.suspect_after_s
        if member.expected:
            return member.heard_at + max(silence.return_within_s, silence.dead_after_s)
        return member.heard_at + silence.dead_after_s

    def _register(self, sender: bytes, message: RegisterNode, now: float) -> list[Effect]:
        node = message.node
        known = self._members.get(node.node_id)
        if message.cluster_id == self._cluster_id and message.epoch > self._epoch:
            return [self._fence(node.node_id, message.epoch)]
        self._news.joined()
        refusal = self._objection(sender, message, known)
        if refusal:
            return [
                Send(sender, Refused(message.rid, "RuntimeError", refusal)),
                Note(f"refused node {_short(node.node_id)} at {node.ip}: {refusal}"),
            ]
        others = [info for info in self.living() if info.node_id != node.node_id]
        reply = NodeRegistered(
            message.rid, self._cluster_id, self._config, self._head, [*others, node], self._epoch
        )
        if known is not None and not known.expected:
            known.heard_at = now
            return [Send(sender, reply)]
        if known is not None:
            deaths = [(key, m.cause) for key, m in self._members.items() if m.cause is not None]
            known.info, known.state, known.heard_at = node, "ALIVE", now
            known.expected, known.available = False, dict(node.resources)
            contents = message.running or NodeContents([], [], [], [], [])
            return [
                *self._persist(node.node_id),
                Send(sender, reply),
                *(Send(sender, NodeGone(*death)) for death in deaths[-_DEATHS_TOLD:]),
                ToNodes(NodeJoined(node), but=node.node_id),
                Note(
                    f"node {_short(node.node_id)} is back with {len(contents.processes)} processes "
                    f"and {len(contents.actors)} actors"
                ),
                NodeUp(node, contents),
            ]
        self._members[node.node_id] = _Member(
            node, "ALIVE", heard_at=now, available=dict(node.resources)
        )
        return [
            *self._persist(node.node_id),
            Send(sender, reply),
            ToNodes(NodeJoined(node), but=node.node_id),
            Note(f"node {_short(node.node_id)} joined: {node.hostname} {node.ip} pid {node.pid}"),
            NodeUp(node, message.running),
        ]

    def _objection(self, sender: bytes, message: RegisterNode, known: _Member | None) -> str:
        """Why a node may not register, or ""."""
        node = message.node
        if message.cluster_id not in ("", self._cluster_id):
            return (
                f"node {_short(node.node_id)} belongs to cluster {message.cluster_id[:12]} and this"
                f" head is that of {self._cluster_id[:12]}: what the node runs is not known here"
            )
        if sender != node.node_id:
            return f"process {_short(sender)} cannot register node {_short(node.node_id)}"
        if known is not None and known.state == "DEAD":
            return f"node {_short(node.node_id)} was declared dead and may not come back as itself"
        first = next(iter(self._members.values()), None)
        if first is not None:
            mine, theirs = _versions(first.info), _versions(node)
            if mine != theirs:
                return f"this cluster runs {mine}, the node {theirs}: install the same on both"
        return ""

    def _heartbeat(self, sender: bytes, beat: Heartbeat, now: float) -> list[Effect]:
        member = self._members.get(beat.node_id)
        if member is None or member.state == "DEAD":
            if beat.epoch > self._epoch:
                return [self._fence(beat.node_id, beat.epoch)]
            cause = member.cause if member is not None else None
            if cause is None:
                cause = DeathCause("node_died", "this head does not know the node")
            # Whoever hears of its own death has to end itself.
            return [Send(sender, NodeGone(beat.node_id, cause))]
        if beat.epoch > self._epoch:
            return [self._fence(beat.node_id, beat.epoch)]
        if member.expected:
            return [Send(sender, RegisterAgain(self._epoch))]
        effects: list[Effect] = []
        if member.state == "SUSPECT":
            silent_s = format_duration(now - member.heard_at)
            effects.append(Note(f"node {_short(beat.node_id)} is back after {silent_s}"))
        member.state = "ALIVE"
        member.heard_at = now
        member.available = beat.available
        member.pending = beat.pending
        member.store_used_bytes = beat.store_used_bytes
        member.store_spilled_bytes = beat.store_spilled_bytes
        member.spilling = beat.spilling
        member.workers = beat.workers
        member.draining = beat.draining
        member.lost_output = beat.lost_output
        member.memory_used_bytes = beat.memory_used_bytes
        member.memory_limit_bytes = beat.memory_limit_bytes
        member.memory_threshold_bytes = beat.memory_threshold_bytes
        effects.append(RoomSeen(beat.node_id, beat.available, beat.draining))
        self._news.heard(beat)
        return [*effects, *self._tell(now)]

    def _tell(self, now: float) -> list[Effect]:
        news = self._news.take(len(self.living()), now)
        return [ToNodes(news)] if news is not None else []

    def _tick(self, now: float) -> list[Effect]:
        due = self.deadline()
        if due is not None and now - due > _ASLEEP_S:
            # Stopped or suspended: what the nodes said meanwhile still waits in our socket.
            for member in self._members.values():
                member.heard_at += now - due
        effects = self._tell(now)
        for node_id, member in list(self._members.items()):
            # The same sum as in deadline(), so that rounding cannot make a due tick do nothing.
            if member.state == "DEAD" or self._due(member) > now:
                continue
            silent_s = now - member.heard_at
            if member.state == "ALIVE":
                member.state = "SUSPECT"
                effects.append(
                    Note(f"node {_short(node_id)} silent for {format_duration(silent_s)}")
                )
            if self._due(member) <= now:
                text = f"nothing was heard of the node for {format_duration(silent_s)}"
                effects += self._lose(node_id, DeathCause("node_died", text, node_id=node_id))
        return effects

    def _lose(self, node_id: bytes, cause: DeathCause) -> list[Effect]:
        member = self._members.get(node_id)
        if member is None or member.state == "DEAD":
            return []
        self._news.gone(node_id)
        member.state = "DEAD"
        member.cause = cause
        member.available, member.pending, member.expected = {}, [], False
        rows = self._persist(node_id)
        dead = [key for key, m in self._members.items() if m.state == "DEAD"]
        for key in dead[: max(0, len(dead) - DEAD_NODES_MAX)]:
            del self._members[key]
            rows += self._persist(key)
        return [
            *rows,
            ToNodes(NodeGone(node_id, cause)),
            Note(f"node {_short(node_id)} is gone: {describe(cause)}"),
            NodeLost(node_id, cause),
        ]

    def _fence(self, node_id: bytes, epoch: int) -> Fence:
        return Fence(
            f"node {_short(node_id)} obeys a newer head of this cluster (epoch {epoch}; this "
            f"head's is {self._epoch})"
        )

    # -- what outlives the head

    def _persist(self, node_id: bytes) -> list[Effect]:
        if not self._kept:
            return []
        member = self._members.get(node_id)
        row = None if member is None else _encode(_NodeRow(member.info, member.cause))
        return [Persist(TABLE, node_id, row)]

    def restore(self, rows: Mapping[bytes, bytes], now: float) -> None:
        """Take in what was stored, before anything else: the living ones are expected."""
        for node_id, data in rows.items():
            row = _row.decode(data)
            member = self._members[node_id] = _Member(row.info, "DEAD", now, {}, cause=row.cause)
            if row.cause is None:
                member.state, member.expected = "SUSPECT", True

    def rows(self) -> dict[bytes, bytes]:
        """What should be stored now."""
        return {key: _encode(_NodeRow(m.info, m.cause)) for key, m in self._members.items()}

    def _view(self, rid: int, now: float) -> Nodes:
        views = [
            NodeView(
                m.info,
                m.state,
                m.available,
                m.pending,
                m.store_used_bytes,
                m.workers,
                now - m.heard_at,
                m.cause,
                store_spilled_bytes=m.store_spilled_bytes,
                spilling=m.spilling,
                memory_used_bytes=m.memory_used_bytes,
                memory_limit_bytes=m.memory_limit_bytes,
                memory_threshold_bytes=m.memory_threshold_bytes,
                draining=m.draining,
                lost_output=m.lost_output,
            )
            for m in self._members.values()
        ]
        return Nodes(rid, self._cluster_id, self._head, views, now - self._started_at)

    def check(self) -> None:
        """See mray.machine."""
        for node_id, member in self._members.items():
            if node_id != member.info.node_id:
                raise InvariantError("a node stands under another's id")
            if (member.state == "DEAD") != (member.cause is not None):
                raise InvariantError(f"node {_short(node_id)}: {member.state}, {member.cause}")
            if member.expected and member.state != "SUSPECT":
                raise InvariantError(f"node {_short(node_id)} is expected and {member.state}")
        if sum(m.state == "DEAD" for m in self._members.values()) > DEAD_NODES_MAX:
            raise InvariantError("too many dead nodes are kept")


def _versions(node: NodeInfo) -> str:
    """What must be alike on all nodes: pickles and messages travel between them."""
    python = ".".join(node.python_version.split(".")[:2])
    return f"mray {node.mray_version} on Python {python}"


def _short(process_id: bytes) -> str:
    return process_id.hex()[:10]
