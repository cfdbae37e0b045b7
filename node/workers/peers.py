"""The processes that have registered at this node: workers, drivers, clients.

Covers: who they are, and seeing the end of those that are not our children (drivers, clients) by a
pidfd. A process that is not in here is not known to live, and gets nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from mray.process import start_time_of
from mray.wire.messages import RegisterProcess

#: Dead processes that are remembered: a message of theirs may be read after their end was seen.
_DEAD_MAX: Final = 10_000


class Peer:
    """A registered process."""

    __slots__ = ("address", "job_id", "kind", "pid", "process_id", "since")

    def __init__(self, message: RegisterProcess, now: float) -> None:
        self.process_id = message.address.process_id
        self.address = message.address
        self.kind = message.kind
        self.pid = message.pid
        self.job_id = message.job_id
        self.since = now


#: ``watch_pid(pid, start time, on_death)``
WatchPid = Callable[[int, int, Callable[[], None]], None]


class Peers:
    """The table. ``on_gone(peer)`` for drivers and clients whose process has ended."""

    def __init__(self, watch_pid: WatchPid, on_gone: Callable[[Peer], None]) -> None:
        self._watch_pid = watch_pid
        self._on_gone = on_gone
        self._peers: dict[bytes, Peer] = {}
        self._dead: dict[bytes, None] = {}

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
            return  # Our child: its end is seen by waitpid.
        try:
            start_time = start_time_of(peer.pid)
        except ProcessLookupError:
            start_time = 0  # It has ended meanwhile, which watching finds out.
        self._watch_pid(peer.pid, start_time, lambda: self._on_gone(peer))

    def remove(self, process_id: bytes) -> Peer | None:
        """Its end was told to everybody."""
        peer = self._peers.pop(process_id, None)
        self._dead[process_id] = None
        while len(self._dead) > _DEAD_MAX:
            del self._dead[next(iter(self._dead))]
        return peer
