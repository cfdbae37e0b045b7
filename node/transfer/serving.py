"""Giving objects to other nodes: what is here of an object, and carrying out what Pushes decides.

Owns the ranges that are pinned because others get them. A copy that is only on disk is read from
its file, in the pool's threads, into the frames that leave. The row of events is service.py's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from mray.node.objects.files import Slot
from mray.node.objects.spill_pool import ReadPart
from mray.node.transfer.bulk import Bulk, Span
from mray.node.transfer.chunks import HEAD_BYTES, Head, new_frame
from mray.node.transfer.effects import PushEffect, Refuse, Release, SendChunk
from mray.node.transfer.pushes import Present, Pushes, PushRules
from mray.units import MIB
from mray.wire.messages import ChunksRefused

if TYPE_CHECKING:
    from mray.node.objects.server import StoreServer
    from mray.node.transfer.service import Transfer

#: What may be on its way to all pullers, and the objects that everybody gets from here at once.
_IN_FLIGHT_BYTES = 64 * MIB
_SMALL_BYTES = 2 * MIB


class Serving:
    """See the module."""

    def __init__(
        self, transfer: Transfer, store: StoreServer, node_id: bytes, chunk_bytes: int
    ) -> None:
        self._transfer = transfer
        self._server = store
        self._store = store.store
        self._node_id = node_id
        rules = PushRules(
            chunk_bytes=chunk_bytes,
            small_chunks=_SMALL_BYTES // chunk_bytes,
            in_flight_max=max(2, _IN_FLIGHT_BYTES // chunk_bytes),
        )
        self.pushes = Pushes(node_id, rules)
        #: Ranges that are pinned because others get them.
        self._held: dict[bytes, Span] = {}

    @property
    def sent_bytes_total(self) -> int:
        """What was sent to other nodes since the start, in whole chunks."""
        return self.pushes.sent_total * self.pushes.rules.chunk_bytes

    def perform(self, bulk: Bulk, effect: PushEffect) -> None:
        """Carry out an effect."""
        match effect:
            case SendChunk(node_id, pull, object_id, chunk):
                self._send_chunk(bulk, node_id, pull, object_id, chunk)
            case Refuse(node_id, pull, node_ids, text):
                bulk.send(node_id, ChunksRefused(pull, list(node_ids), text))
            case Release(object_id):
                self._release(bulk, object_id)
            case _:
                assert_never(effect)

    def keep(self, object_id: bytes, span: Span) -> None:
        """An object that others get while it came is complete."""
        if self.pushes.serves(object_id) and self._store.hold(self._node_id, object_id) is not None:
            self._held[object_id] = span

    def lost(self, object_id: bytes, reason: str) -> None:
        """An object that others get while it came will not be complete."""
        if self.pushes.serves(object_id) and object_id not in self._held:
            text = f"it did not get it: {reason}"
            self._transfer.event(lambda: self.pushes.gone(object_id, text))

    def made_here(self, object_id: bytes, *, whole: bool) -> None:
        """A process of this node has finished, or given up, an object that others may wait for."""
        if not self.pushes.serves(object_id):
            return
        copy = self._store.current(object_id)
        if not whole or copy is None:
            self._transfer.event(lambda: self.pushes.gone(object_id, "its writer gave it up"))
        else:
            chunks = max(1, -(-copy.size // self.pushes.rules.chunk_bytes))
            for chunk in range(chunks):
                self._transfer.event(lambda c=chunk: self.pushes.arrived(object_id, c))  # type: ignore[misc]
        self._transfer.turn()

    def present(self, object_id: bytes) -> Present | None:
        """What is here of an object."""
        filling = self._transfer.filling(object_id)
        if filling is not None:
            return Present(filling[0].size, bytes(filling[0].have))
        copy = self._store.current(object_id)
        if copy is None:
            return None
        if copy.sealed:
            return Present(copy.size)
        # Its writer is about to be done: whoever asks has heard so from its owner.
        count = max(1, -(-copy.size // self.pushes.rules.chunk_bytes))
        return Present(copy.size, bytes(count))


    def _send_chunk(
        self, bulk: Bulk, node_id: bytes, number: int, object_id: bytes, chunk: int
    ) -> None:
        filling = self._transfer.filling(object_id)
        span = filling[1] if filling is not None else self._held.get(object_id)
        if span is None:
            span = self._hold(object_id)
        if span is not None:
            bulk.send_chunk(node_id, number, chunk, span)
            return
        copy = self._store.current(object_id)
        if copy is not None and copy.slot is not None:
            self._read_spilled(bulk, node_id, number, chunk, copy.slot)
            return
        text = "it is not there any more"
        self._transfer.event(lambda: self.pushes.failed(node_id, number, text))

    def _hold(self, object_id: bytes) -> Span | None:
        offset = self._store.hold(self._node_id, object_id)
        if offset is None:
            return None
        copy = self._store.current(object_id)
        assert copy is not None
        span = self._held[object_id] = Span(offset, copy.size)
        return span

    def _read_spilled(
        self, bulk: Bulk, node_id: bytes, number: int, chunk: int, slot: Slot
    ) -> None:
        """Straight from the file, in a thread of the pool."""
        chunk_bytes = self.pushes.rules.chunk_bytes
        at = chunk * chunk_bytes
        length = min(chunk_bytes, slot.size - at)
        frame = new_frame(Head(number, chunk, slot.size, slot.crc), length)

        def done(wrong: str) -> None:
            if not wrong:
                bulk.send_frame(node_id, frame)
                return
            self._transfer.event(lambda: self.pushes.failed(node_id, number, wrong))
            self._transfer.turn()

        part = ReadPart(slot.disk, slot.file, slot.at + at, frame, HEAD_BYTES, done)
        self._server.read_part(part)

    def _release(self, bulk: Bulk, object_id: bytes) -> None:
        span = self._held.pop(object_id, None)
        if span is not None:
            bulk.take_back(span)
            self._server.unhold(object_id)
