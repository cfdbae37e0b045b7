"""The borrower's side of borrowing: making ourselves known to owners, and taking leave.

Machine. Owns ``Entry.tokens``, and which of them owners do not know yet. Counts are
references.py's, what an owner makes of it borrowers.py's, the way there dialogue.py's.

The carrier of a reference (the value it was found in) is held until the owner of the reference
knows us: the carrier keeps the reference alive, and whoever lent us the carrier keeps that.
"""

from __future__ import annotations

from typing import Any

from mray.machine import InvariantError
from mray.ownership.dialogue import Dialogues
from mray.ownership.entry import Entry
from mray.ownership.references import References
from mray.wire.messages import Address


class Borrowing:
    """All that a process borrows."""

    def __init__(self, references: References, dialogues: Dialogues) -> None:
        self._references = references
        self._dialogues = dialogues
        self._dead = references.dead
        #: Tokens that their owner has not confirmed, by owner.
        self._unknown: dict[bytes, dict[int, None]] = {}

    def register(self, entry: Entry, carrier: Entry | None = None) -> None:
        """Have the owner know that we hold the reference. All that is registered with one owner
        until its next batch leaves shares a token."""
        owner = entry.owner
        assert owner is not None
        line = self._dialogues.line(owner)
        if not line.add_token:
            line.add_token = self._references.token()
            line.add_ids = []
            line.adds.append((line.add_token, line.add_ids))
            self._unknown.setdefault(owner.process_id, {})[line.add_token] = None
            line.follow.append(line.add_token)
        entry.tokens = [line.add_token]
        line.add_ids.append(entry.object_id)
        if carrier is not None:
            self._references.hold(carrier)
            line.follow.append(carrier)

    def known(self, entry: Entry) -> bool:
        """Whether the owner knows that we hold the reference."""
        assert entry.owner is not None
        unknown = self._unknown.get(entry.owner.process_id)
        if unknown is None:
            return bool(entry.tokens)
        return any(token not in unknown for token in entry.tokens or ())

    def follow(self, entry: Entry, what: Any) -> None:
        """Have ``what`` followed up when the owner knows that we hold the reference, or is dead."""
        assert entry.owner is not None
        assert entry.tokens
        line = self._dialogues.line(entry.owner)
        unsent = any(token == entry.tokens[-1] for token, _ in line.adds)
        (line.follow if unsent else line.followed).append(what)

    def drop(self, owner: Address, object_id: bytes, tokens: list[int]) -> None:
        """Have the owner know that we hold nothing under these tokens any more."""
        if owner.process_id in self._dead:
            return
        line = self._dialogues.line(owner)
        for token in tokens:
            line.drops.setdefault(token, []).append(object_id)
            if token == line.add_token:
                # Adds come before drops: one more under this token would be undone by this drop.
                line.add_token = 0

    def confirmed(self, owner_id: bytes, token: int) -> None:
        """The owner knows us under this token."""
        unknown = self._unknown.get(owner_id)
        if unknown is not None:
            unknown.pop(token, None)
            if not unknown:
                del self._unknown[owner_id]

    def died(self, owner_id: bytes) -> None:
        """An owner is dead."""
        self._unknown.pop(owner_id, None)

    def check(self) -> None:
        """Raise InvariantError on a contradiction."""
        for owner_id, tokens in self._unknown.items():
            if owner_id in self._dead:
                raise InvariantError(f"{owner_id.hex()}: a dead owner is to confirm something")
            if not tokens:
                raise InvariantError(f"{owner_id.hex()}: nothing left to be confirmed")
