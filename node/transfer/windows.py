"""What each node may be asked for: the bytes that are under way, and who asks for more.

Owns a window for each node and the lines of pulls that may ask it, most urgent first. Does not
decide which nodes a pull asks: pulls.py does.
"""

from __future__ import annotations

from collections.abc import Iterable

from mray.machine import InvariantError
from mray.node.transfer.effects import Ask, PullEffect
from mray.node.transfer.pull import RUNNING, USABLE, Pull, PullSource


class _Peer:
    """A node that gives us chunks."""

    __slots__ = ("in_flight_bytes", "lines")

    def __init__(self) -> None:
        self.in_flight_bytes = 0
        #: Running pulls that may ask it for more, by priority, in order of arrival.
        self.lines: tuple[dict[int, Pull], ...] = ({}, {}, {})


class Windows:
    """See the module. ``window_bytes``: what one node may owe."""

    def __init__(self, window_bytes: int) -> None:
        self._window_bytes = window_bytes
        self._peers: dict[bytes, _Peer] = {}

    def ask(self, now: float) -> list[PullEffect]:
        """Ask for what there is room for."""
        effects: list[PullEffect] = []
        for node_id, peer in self._peers.items():
            if any(peer.lines):
                effects += self._ask(node_id, peer, now)
        return effects

    def line(self, pull: Pull) -> None:
        """Note with whom a pull may ask for more. To be called when that may have changed."""
        self.unline(pull)
        if pull.state == RUNNING and pull.is_hungry:
            for node, one in pull.sources.items():
                if one.state == USABLE:
                    peer = self._peers.setdefault(node, _Peer())
                    peer.lines[pull.priority][pull.number] = pull

    def unline(self, pull: Pull) -> None:
        """A pull asks nobody for more."""
        for node in pull.sources:
            peer = self._peers.get(node)
            for line in peer.lines if peer is not None else ():
                line.pop(pull.number, None)

    def take_back(self, pull: Pull, source: PullSource) -> None:
        """What a node owes a pull is not expected of it any more."""
        if source.in_flight:
            self._peers[source.node_id].in_flight_bytes -= pull.give_back(source)

    def landed(self, pull: Pull, chunk: int) -> None:
        """A chunk is here: nobody owes it, and it is not asked for again."""
        for node, one in pull.sources.items():
            if chunk in one.in_flight:
                del one.in_flight[chunk]
                self._peers[node].in_flight_bytes -= pull.length(chunk)
        if chunk in pull.again:
            pull.again.remove(chunk)
            pull.again.sort()  # A sorted list is a heap, and this one is short.
            self.line(pull)

    def forget(self, node_id: bytes) -> None:
        """A node is dead, and owes nothing."""
        self._peers.pop(node_id, None)

    def check(self, pulls: Iterable[Pull]) -> None:
        """Raise InvariantError unless this is what these pulls expect, and no more."""
        flying: dict[bytes, int] = {}
        for pull in pulls:
            for one in pull.sources.values():
                size = sum(pull.length(chunk) for chunk in one.in_flight)
                flying[one.node_id] = flying.get(one.node_id, 0) + size
                peer = self._peers.get(one.node_id)
                lined = peer is not None and pull.number in peer.lines[pull.priority]
                hungry = pull.state == RUNNING and one.state == USABLE and pull.is_hungry
                if lined != hungry:
                    name = one.node_id.hex()
                    raise InvariantError(f"{pull.object_id.hex()} asks node {name}: {lined}")
        for node, peer in self._peers.items():
            if peer.in_flight_bytes != flying.pop(node, 0):
                raise InvariantError(f"{peer.in_flight_bytes} bytes in flight of {node.hex()}")
        if any(flying.values()):
            raise InvariantError("bytes are in flight of an unknown node")

    def _ask(self, node_id: bytes, peer: _Peer, now: float) -> list[PullEffect]:
        effects: list[PullEffect] = []
        window = self._window_bytes
        while True:
            free = window - peer.in_flight_bytes
            if free <= 0 or (peer.in_flight_bytes and free < window // 4):
                return effects  # Few questions for many chunks.
            pull = next((one for line in peer.lines for one in line.values()), None)
            if pull is None:
                return effects
            source = pull.sources[node_id]
            if not source.in_flight:
                source.asked_at = now
            chunks = []
            while free > 0 and pull.is_hungry:
                chunk = pull.take()
                chunks.append(chunk)
                source.in_flight[chunk] = None
                free -= pull.length(chunk)
                peer.in_flight_bytes += pull.length(chunk)
            if not pull.is_hungry:
                self.unline(pull)
            effects.append(
                Ask(
                    node_id, pull.number, pull.object_id, tuple(chunks), len(source.in_flight),
                    pull.failed,
                )
            )  # fmt: skip
