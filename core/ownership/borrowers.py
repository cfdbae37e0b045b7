"""The owner's side of borrowing: who holds our objects, each under which tokens.

Machine. Owns ``Entry.borrowers`` and what was offered on behalf of whom. The counts of this
process and the end of an object are references.py's; whether a message is an old one sent again
was settled before (dialogue.py), so each add and each drop comes here once, the add first.

A borrower registers itself (add), or whoever lends it a reference does (offer). Of an offer the
borrower learns by a message of its lender, which the lender may not live to send. So the owner
remembers who made each offer that is not given up yet, and when that process dies it asks the
borrower, who gives up what it did not get.
"""

from __future__ import annotations

from mray.machine import InvariantError
from mray.ownership.entry import Entry
from mray.ownership.references import References
from mray.wire.messages import Address


class Offer:
    """Registrations of one borrower under one token, made by another process."""

    __slots__ = ("borrower", "object_ids", "registrar")

    def __init__(self, registrar: bytes, borrower: Address) -> None:
        self.registrar = registrar
        self.borrower = borrower
        #: Those not given up yet. Never empty once filed.
        self.object_ids: dict[bytes, None] = {}


class Borrowers:
    """All borrowers of the objects of a process."""

    def __init__(self, references: References) -> None:
        self._references = references
        self._dead = references.dead
        #: Objects each process borrows from us, for its death.
        self._borrowed_by: dict[bytes, dict[bytes, None]] = {}
        #: By token; and the tokens of each who made offers.
        self._offers: dict[int, Offer] = {}
        self._offered_by: dict[bytes, dict[int, None]] = {}

    def processes(self) -> list[bytes]:
        """Those that borrow anything of ours, or made offers."""
        return [*self._borrowed_by, *self._offered_by]

    def knows(self, process_id: bytes) -> bool:
        """Whether a process borrows anything of ours."""
        return process_id in self._borrowed_by

    def add(self, object_ids: list[bytes], borrower: bytes, token: int) -> list[bytes]:
        """A process holds these of our objects, under a token. Returns those that we know."""
        if borrower in self._dead:
            return []
        entries = self._references.entries
        known = []
        objects = self._borrowed_by.setdefault(borrower, {})
        for object_id in object_ids:
            entry = entries.get(object_id)
            if entry is not None and entry.owner is None:
                if entry.borrowers is None:
                    entry.borrowers = {}
                entry.borrowers.setdefault(borrower, set()).add(token)
                objects[object_id] = None
                known.append(object_id)
        if not objects:
            del self._borrowed_by[borrower]
        return known

    def offer(
        self, registrar: bytes, borrower: Address, token: int, object_ids: list[bytes]
    ) -> None:
        """A process registers another one, to which it is about to send the references."""
        if registrar in self._dead:
            return
        known = self.add(object_ids, borrower.process_id, token)
        if known:
            offer = self._offers[token] = Offer(registrar, borrower)
            offer.object_ids.update(dict.fromkeys(known))
            self._offered_by.setdefault(registrar, {})[token] = None

    def drop(self, object_ids: list[bytes], borrower: bytes, token: int) -> None:
        """A process gives up what it holds under a token. What it does not hold is ignored."""
        entries = self._references.entries
        for object_id in object_ids:
            entry = entries.get(object_id)
            if entry is None or entry.borrowers is None:
                continue
            tokens = entry.borrowers.get(borrower)
            if tokens is None or token not in tokens:
                continue
            self._close(object_id, token)
            tokens.discard(token)
            if not tokens:
                self._forget(entry, borrower)
                self._references.settle(entry)

    def _close(self, object_id: bytes, token: int) -> None:
        offer = self._offers.get(token)
        if offer is None:
            return
        offer.object_ids.pop(object_id, None)
        if not offer.object_ids:
            del self._offers[token]
            tokens = self._offered_by[offer.registrar]
            del tokens[token]
            if not tokens:
                del self._offered_by[offer.registrar]

    def _forget(self, entry: Entry, borrower: bytes) -> None:
        assert entry.borrowers is not None
        del entry.borrowers[borrower]
        if not entry.borrowers:
            entry.borrowers = None
        objects = self._borrowed_by[borrower]
        del objects[entry.object_id]
        if not objects:
            del self._borrowed_by[borrower]

    def died(self, process_id: bytes) -> list[tuple[Address, int, list[bytes]]]:
        """A process is dead: its borrows go. Returns its offers, whose borrowers must be asked."""
        asks = []
        for token in self._offered_by.pop(process_id, {}):
            offer = self._offers.pop(token)
            if offer.borrower.process_id != process_id:
                asks.append((offer.borrower, token, list(offer.object_ids)))
        for object_id in list(self._borrowed_by.get(process_id, ())):
            entry = self._references.entries[object_id]
            assert entry.borrowers is not None
            if self._offers:
                for token in entry.borrowers[process_id]:
                    self._close(object_id, token)
            self._forget(entry, process_id)
            self._references.settle(entry)
        return asks

    def check(self) -> None:
        """Raise InvariantError on a contradiction."""
        for object_id, entry in self._references.entries.items():
            if entry.borrowers is None:
                continue
            if entry.owner is not None:
                raise InvariantError(f"{object_id.hex()}: borrowed from a borrower")
            if not entry.borrowers or not all(entry.borrowers.values()):
                raise InvariantError(f"{object_id.hex()}: a borrower without a token")
            for borrower in entry.borrowers:
                if object_id not in self._borrowed_by.get(borrower, ()):
                    raise InvariantError(f"{object_id.hex()}: {borrower.hex()} borrows unfiled")
                if borrower in self._dead:
                    raise InvariantError(f"{object_id.hex()}: the dead {borrower.hex()} borrows")
        for borrower, objects in self._borrowed_by.items():
            for object_id in objects:
                filed = self._references.entries.get(object_id)
                if filed is None or borrower not in (filed.borrowers or ()):
                    raise InvariantError(f"{object_id.hex()}: {borrower.hex()} is filed wrongly")
        for token, offer in self._offers.items():
            if token not in self._offered_by.get(offer.registrar, ()):
                raise InvariantError(f"offer {token:x} is not filed under who made it")
            if offer.registrar in self._dead:
                raise InvariantError(f"offer {token:x} of a dead process was not followed up")
            for object_id in offer.object_ids:
                filed = self._references.entries.get(object_id)
                tokens = (filed.borrowers or {}) if filed is not None else {}
                if token not in tokens.get(offer.borrower.process_id, ()):
                    raise InvariantError(f"offer {token:x} outlives its registration")
        filed_offers = sum(len(tokens) for tokens in self._offered_by.values())
        if filed_offers != len(self._offers):
            raise InvariantError("an offer is filed that is over")
