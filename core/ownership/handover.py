"""The lender's side of borrowing: what has to be known before a value with references may leave.

Machine. Owns parcels: values on their way out that wait for owners to know who holds the
references in them, or among the arguments they were made from. Sends nothing: a parcel that is
ready goes back to who packed it.

The lender keeps what a parcel contains until it leaves. The receiver keeps the arguments of a task
until its reply is there, so what is returned to the owner of an argument needs no registration.
"""

from __future__ import annotations

from typing import Any

from mray.ownership.borrowers import Borrowers
from mray.ownership.borrowing import Borrowing
from mray.ownership.dialogue import Dialogues
from mray.ownership.entry import Entry
from mray.ownership.references import References
from mray.wire.messages import Address, RefGroup


class Parcel:
    """A value with references on its way out."""

    __slots__ = ("cargo", "contents", "groups", "waiting")

    def __init__(self, cargo: Any) -> None:
        #: What the packer wants back.
        self.cargo = cargo
        #: For each value, the references inside it as the receiver has to be told.
        self.groups: list[list[RefGroup]] = []
        #: Entries held until the parcel leaves.
        self.contents: list[Entry] = []
        #: Confirmations that are missing.
        self.waiting = 0


class Handover:
    """All parcels of a process."""

    def __init__(
        self,
        address: Address,
        references: References,
        borrowers: Borrowers,
        borrowing: Borrowing,
        dialogues: Dialogues,
    ) -> None:
        self._address = address
        self._references = references
        self._borrowers = borrowers
        self._borrowing = borrowing
        self._dialogues = dialogues
        #: Parcels that may leave, in order.
        self.ready: list[Parcel] = []

    def pack(
        self, cargo: Any, receiver: Address, borrowed: list[Entry], values: list[list[Entry]]
    ) -> None:
        """Make ready what a task leaves: ``borrowed`` are the references among its arguments,
        ``values`` those inside each of its results. The parcel comes up in ``ready``."""
        parcel = Parcel(cargo)
        self._keep(parcel, borrowed)
        if receiver.process_id in self._references.dead:
            parcel.groups = [[] for _ in values]
        else:
            covered = dict.fromkeys(borrowed)
            parcel.groups = [
                self._groups(parcel, receiver, entries, covered) if entries else []
                for entries in values
            ]
        if parcel.waiting:
            parcel.contents = [entry for entries in values for entry in entries]
            for entry in parcel.contents:
                self._references.hold(entry)
        else:
            self.ready.append(parcel)

    def _keep(self, parcel: Parcel, borrowed: list[Entry]) -> None:
        """Register what this process keeps beyond the task."""
        followed: dict[int, None] = {}
        references, borrowing = self._references, self._borrowing
        for entry in borrowed:
            if references.unregistered(entry):
                borrowing.register(entry)
            if not entry.tokens or entry.freed or borrowing.known(entry):
                continue
            token = entry.tokens[-1]
            if token not in followed:
                followed[token] = None
                borrowing.follow(entry, parcel)
                parcel.waiting += 1

    def _groups(
        self, parcel: Parcel, receiver: Address, entries: list[Entry], covered: dict[Entry, None]
    ) -> list[RefGroup]:
        groups: dict[tuple[bytes, bool], tuple[Address | None, list[bytes]]] = {}
        for entry in entries:
            owner = entry.owner
            owner_id = owner.process_id if owner is not None else b""
            free = owner_id == receiver.process_id and entry in covered
            groups.setdefault((owner_id, free), (owner, []))[1].append(entry.object_id)
        out = []
        for (owner_id, free), (owner, object_ids) in groups.items():
            if free:
                assert owner is not None
                out.append(RefGroup(owner, object_ids, 0))
                continue
            token = self._references.token()
            if owner is None:
                self._borrowers.add(object_ids, receiver.process_id, token)
            elif owner_id not in self._references.dead:
                self.offer(parcel, owner, receiver, token, object_ids)
            out.append(RefGroup(owner or self._address, object_ids, token))
        return out

    def offer(
        self,
        parcel: Parcel,
        owner: Address,
        receiver: Address,
        token: int,
        object_ids: list[bytes],
    ) -> None:
        """Register the receiver with the owner of what is inside, and have the parcel wait."""
        line = self._dialogues.line(owner)
        line.offers.append((receiver, token, object_ids))
        line.follow.append(parcel)
        parcel.waiting += 1

    def followed(self, parcel: Parcel) -> None:
        """An owner knows what this parcel waited for, or is dead."""
        parcel.waiting -= 1
        if not parcel.waiting:
            self.ready.append(parcel)

    def left(self, parcel: Parcel) -> None:
        """The parcel has been sent."""
        contents, parcel.contents = parcel.contents, []
        for entry in contents:
            self._references.release(entry)
