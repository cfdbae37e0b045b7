"""The processes that have registered at this node: workers, drivers, clients.

Covers: who they are, and seeing the end of those that are not our children (drivers, clients) by a
pidfd. A process that is not in here is not known to live, and gets nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Final

from mray.process import open_pidfd, start_time_of
from mray.rpc.pump import Pump
from mray.wire.messages import DeathCause, RegisterProcess

#: Dead processes that are remembered: a message of theirs may be read after their end was seen.
_DEAD_MAX: Final = 10_000


class Peer:
    """A registered process."""

    __slots__ = ("address", "job_id", "kind", "pid", "pidfd", "process_id", "since")

    def __init__(self, message: RegisterProcess, now: float) -> None:
        self.process_id = message.address.process_id
        self.address = message.address
        self.kind = message.kind
        self.pid = message.pid
        self.job_id = message.job_id
        self.since = now
        #: Watched; -1 for workers, which are our children.
        self.pidfd = -1


class Peers:
    """The table. ``on_gone(peer)`` for drivers and clients whose process has ended."""

    def __init__(self, pump: Pump, on_gone: Callable[[Peer], None]) -> None:
        self._pump = pump
        self._on_gone = on_gone
        self._peers: dict[bytes, Peer] = {}
        self._dead: dict[bytes, None] = {}
        #: Called with each process that is taken out, and why.
        self.on_removed: list[Callable[[Peer, DeathCause], None]] = []

    def __contains__(self, process_id: bytes) -> bool:
        return process_id in self._peers

    def __iter__(self) -> Iterator[Peer]:
        return iter(list(self._peers.values()))

    def get(self, process_id: bytes) -> Peer | None:
        """The process, while it lives."""
        return self._peers.get(process_id)

    def was_here(self, process_id: bytes) -> bool:
        """Whether it was here and has ended."""
        return process_id in self._dead

    def add(self, message: RegisterProcess, now: float) -> None:
        """A process has registered; again is no harm."""
        peer = Peer(message, now)
        if peer.process_id in self._peers:
            return
        self._peers[peer.process_id] = peer
        if peer.kind == "worker":
            return
        try:
            pidfd = open_pidfd(peer.pid, start_time_of(peer.pid))
        except ProcessLookupError:
            pidfd = None
        if pidfd is None:
            self._pump.call_soon(lambda: self._on_gone(peer))
            return
        peer.pidfd = pidfd
        self._pump.door.watch(pidfd, lambda: self._ended(peer))

    def _ended(self, peer: Peer) -> None:
        self._unwatch(peer)
        if peer.kind == "driver":
            try:
                os.unlink(peer.address.ipc)
            except FileNotFoundError:
                pass  # It was not killed, and did it itself.
        self._on_gone(peer)

    def _unwatch(self, peer: Peer) -> None:
        if peer.pidfd >= 0:
            self._pump.door.unwatch(peer.pidfd)
            os.close(peer.pidfd)
            peer.pidfd = -1

    def remove(self, process_id: bytes, cause: DeathCause) -> Peer | None:
        """It has ended, or ended its job."""
        peer = self._peers.pop(process_id, None)
        if peer is not None:
            self._unwatch(peer)
            for call in self.on_removed:
                call(peer, cause)
        self._dead[process_id] = None
        while len(self._dead) > _DEAD_MAX:
            del self._dead[next(iter(self._dead))]
        return peer
