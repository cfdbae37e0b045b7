"""Objects of a node that is about to leave: another node has copies made and keeps them.

Owns which primary copies still have to go, to which node each is offered, and the other side, which
takes them. The owner decides: it is told of the copy and that this one will be gone, and makes the
other the one that counts. What nobody takes is lost with the node, and made again where it can be.
Objects whose owners live on this node end with them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from mray.ids import is_on
from mray.node.objects.lifecycle import Copy
from mray.node.objects.server import StoreServer
from mray.node.sched.cluster_view import ClusterView, Neighbour
from mray.node.transfer.pulls import WAIT
from mray.node.transfer.service import Transfer
from mray.rpc.pump import Pump, Timer
from mray.wire.messages import (
    Address,
    AdoptCopies,
    CopiesAdopted,
    CopyGone,
    CopyMade,
    Message,
    Source,
)

log = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 0.2
#: A reply that names an object leaves so soon after it was sealed.
_KNOWN_S: Final = 1.0
#: Objects in one offer, and how long it may take.
_OFFER_MAX: Final = 64
_OFFER_S: Final = 60.0
_TRIES_MAX: Final = 2


class _Adoption(msgspec.Struct):
    """An offer that this node takes: what has still to come, and what did not."""

    sender: bytes
    rid: int
    left: dict[bytes, None]
    missing: list[bytes] = []


class Leaving:
    """See the module. ``begin`` when the node begins to drain; it is ``busy`` until all has gone
    that can go."""

    def __init__(
        self, pump: Pump, server: StoreServer, transfer: Transfer, view: ClusterView
    ) -> None:
        self._pump = pump
        self._server = server
        self._transfer = transfer
        self._view = view
        self._timer: Timer | None = None
        #: When each object was first seen here. A result's owner may not have heard of it yet.
        self._seen_at: dict[bytes, float] = {}
        #: Offers without an answer, by object.
        self._offered: dict[bytes, bytes] = {}
        self._tries: dict[bytes, int] = {}
        #: Given away: others keep these.
        self.moved: dict[bytes, None] = {}
        self._adoptions: list[_Adoption] = []
        transfer.on_fetched.append(self._fetched)
        transfer.is_moved = self.moved.__contains__
        self.handlers: dict[type[Message], Callable[[bytes, Any], None]] = {
            AdoptCopies: self.adopt
        }

    # -- the node that leaves

    def begin(self, deadline_s: float) -> None:
        """Offer what there is, and what tasks that end still make."""
        self._timer = self._pump.every(_LOOK_EVERY_S, self._look)
        self._look()

    def busy(self) -> bool:
        """Whether an object may still go."""
        if self._timer is None or not self._takers():
            return False
        return bool(self._offered) or any(True for _ in self._left())

    def _left(self) -> Iterable[Copy]:
        """Primary copies that nobody has been offered."""
        own = self._view.own_id
        for copy in self._server.store.copies():
            object_id = copy.object_id
            if (
                copy.sealed
                and not copy.dropped
                and copy.further is None
                and not is_on(copy.owner_id, own)
                and object_id not in self.moved
                and object_id not in self._offered
                and self._tries.get(object_id, 0) < _TRIES_MAX
                and self._owner_of(copy) is not None
            ):
                yield copy

    def _owner_of(self, copy: Copy) -> Address | None:
        """How the owner is reached; None where it cannot be told, and the copy is of no use."""
        address = self._server.owners.get(copy.owner_id)
        if address is None and self._pump.door.knows(copy.owner_id):
            return Address(copy.owner_id, b"")
        return address

    def _takers(self) -> list[Neighbour]:
        return [one for one in self._view.others() if not one.draining and one.info.bulk]

    def _look(self) -> None:
        takers = self._takers()
        room = {
            one.info.node_id: one.info.store_capacity_bytes - one.store_used_bytes
            for one in takers
        }  # fmt: skip
        offers: dict[bytes, list[Copy]] = {}
        now = self._pump.clock()
        for copy in list(self._left()) if takers else ():
            if self._seen_at.setdefault(copy.object_id, now) + _KNOWN_S > now:
                continue
            node_id = max(room, key=lambda node: room[node])
            if len(offers.get(node_id, ())) < _OFFER_MAX:
                room[node_id] -= copy.size
                offers.setdefault(node_id, []).append(copy)
        for node_id, copies in offers.items():
            self._offer(node_id, copies)

    def _offer(self, node_id: bytes, copies: list[Copy]) -> None:
        info = self._view.address_of(node_id)
        assert info is not None
        own = self._view.own_id
        owners = {copy.object_id: self._owner_of(copy) or Address(b"", b"") for copy in copies}
        sources = [Source(owners[copy.object_id], copy.size, [own]) for copy in copies]
        ids = list(owners)
        for object_id in ids:
            self._offered[object_id] = node_id

        def answered(reply: Message) -> None:
            taken = isinstance(reply, CopiesAdopted)
            missing = set(reply.missing) if isinstance(reply, CopiesAdopted) else set(ids)
            by_owner: dict[Address, list[bytes]] = {}
            for object_id in ids:
                self._offered.pop(object_id, None)
                if object_id in missing:
                    self._tries[object_id] = self._tries.get(object_id, 0) + 1
                else:
                    self.moved[object_id] = None
                    by_owner.setdefault(owners[object_id], []).append(object_id)
            for owner, theirs in by_owner.items():
                # In this order, on one connection: first where it is, then that it goes here.
                self._transfer.tell_owner(owner, CopyMade(theirs, node_id))
                self._transfer.tell_owner(owner, CopyGone(theirs, own, "its node drains"))
            count, name = len(ids) - len(missing), node_id.hex()[:8]
            log.info(
                "%d of %d objects were given to node %s%s", count, len(ids), name,
                "" if taken else ", which did not answer",
            )  # fmt: skip

        if not self._pump.door.knows(node_id):
            self._pump.door.dial(info.address, own)
        self._pump.request(
            node_id, lambda rid: AdoptCopies(rid, ids, sources), answered, _OFFER_S
        )

    # -- the node that takes

    def adopt(self, sender: bytes, message: AdoptCopies) -> None:
        """Handler, answered by CopiesAdopted when all have come, or cannot."""
        adoption = _Adoption(sender, message.rid, dict.fromkeys(message.object_ids))
        self._adoptions.append(adoption)
        absent = []
        for object_id, source in zip(message.object_ids, message.sources, strict=True):
            if self._transfer.comes(object_id, source):
                absent.append((object_id, source))
            else:
                self._came(adoption, object_id)
        self._transfer.want(absent, WAIT)
        self._settle()

    def _fetched(self, object_id: bytes, reason: str) -> None:
        for adoption in self._adoptions:
            if object_id in adoption.left:
                self._came(adoption, object_id)
        self._settle()

    def _came(self, adoption: _Adoption, object_id: bytes) -> None:
        """It is here, or not to be had. Kept from now on: who offered it is about to go."""
        del adoption.left[object_id]
        adoption.missing += self._server.promote([object_id])

    def _settle(self) -> None:
        for adoption in [one for one in self._adoptions if not one.left]:
            self._adoptions.remove(adoption)
            self._pump.send(adoption.sender, CopiesAdopted(adoption.rid, adoption.missing))
