"""What fills this node: its store, joined with what each of its processes holds.

Owns asking the processes (also to collect garbage) and putting their answers beside the store's
tables. Decides nothing about objects. A process whose interpreter is busy with a long computation
answers late or never: it is named, and the others are reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from heapq import nlargest
from typing import Any

import msgspec

from mray.class_names import short_name
from mray.node.objects.server import StoreServer
from mray.node.sched.holds import Holds
from mray.node.workers.asking import Asking
from mray.node.workers.peers import Peer, Peers
from mray.node.workers.pool import Worker
from mray.rpc.pump import Pump
from mray.wire.messages import (
    Ack,
    CollectGarbage,
    GetMemory,
    GetReferences,
    MemoryReport,
    Message,
    ProcessReferences,
    ReferenceViews,
    StoredView,
)

#: Views asked of one process at most: about 300 bytes each.
_LIMIT_MAX = 20_000


class MemoryReports:
    """Answers GetMemory. ``title_of``: what a worker ran when it last said so."""

    def __init__(
        self,
        pump: Pump,
        store: StoreServer,
        peers: Peers,
        workers: Mapping[bytes, Worker],
        holds: Holds,
        title_of: Callable[[bytes], str],
    ) -> None:
        self._pump = pump
        self._store = store
        self._peers = peers
        self._workers = workers
        self._holds = holds
        self._title_of = title_of
        #: For the daemon's table of handlers.
        self.handlers: dict[type[Message], Callable[[bytes, Any], None]] = {
            GetMemory: self.get_memory,
            CollectGarbage: self.collect_garbage,
        }
        self._asking = Asking(pump)

    def get_memory(self, sender: bytes, message: GetMemory) -> None:
        """Ask all processes at once; the answer leaves when the last has answered or run late."""
        limit = max(0, min(message.limit, _LIMIT_MAX))
        peers = self._holders()
        processes = [self._process(peer) for peer in peers]

        def finish(answers: dict[bytes, Message], silent: list[int]) -> None:
            report = MemoryReport(
                message.rid,
                self._store.stats(message.rid, objects=False),
                self._stored(limit),
                [_with_views(process, answers.get(process.process_id)) for process in processes],
            )
            self._pump.send(sender, report)

        question = GetReferences(0, limit)
        self._asking.ask(sender, message.rid, peers, question, message.wait_s, finish)

    def collect_garbage(self, sender: bytes, message: CollectGarbage) -> None:
        """Hand on to all processes; answered by Ack."""
        for peer in self._holders():
            self._pump.send(peer.process_id, message)
        self._pump.send(sender, Ack(message.rid))

    def _stored(self, limit: int) -> list[StoredView]:
        biggest = nlargest(limit, self._store.store.copies(), key=lambda copy: copy.size)
        return [
            StoredView(
                copy.object_id, copy.owner_id, copy.size, copy.state, list(copy.pins.items())
            )
            for copy in biggest
        ]

    def _holders(self) -> list[Peer]:
        """The drivers and workers that live here: clients hold no references."""
        return [peer for peer in self._peers if peer.kind in ("driver", "worker")]

    def _process(self, peer: Peer) -> ProcessReferences:
        """What is known here of a process."""
        hold = self._holds.by_worker.get(peer.process_id)
        spec = hold.actor.spec if hold is not None and hold.actor is not None else None
        title = self._title_of(peer.process_id) or (short_name(spec.class_name) if spec else "")
        actor_id = spec.actor_id if spec is not None else b""
        worker = self._workers.get(peer.process_id)
        job_id = peer.job_id if worker is None else worker.key.job_id
        return ProcessReferences(
            peer.process_id, peer.pid, peer.kind, job_id, title, actor_id, None
        )


def _with_views(process: ProcessReferences, answer: Message | None) -> ProcessReferences:
    """With what it told, if it did."""
    if not isinstance(answer, ReferenceViews):
        return process
    return msgspec.structs.replace(process, title=answer.title or process.title, views=answer)
