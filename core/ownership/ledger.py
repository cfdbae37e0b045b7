"""The ledger of a process: its machines of references, put together.

Machine. Owns how events reach references, borrowers, borrowing, handover and dialogues, and what
one of them says to another; each of them owns its own decisions. The shell (runtime/borrowing.py)
and the simulation turn the same ledger: they hand in messages, deaths and the time, and send what
``flush`` returns.

Nobody lets go before the next one holds:
  - who reads a reference holds what carried it until the owner knows (borrowing.py)
  - who keeps an argument replies when the owner knows (handover.py)
  - who returns a reference replies when the owner knows the receiver (handover.py)
  - who dies between making the receiver known and replying has made an offer that the receiver
    does not know of: the owner asks it (borrowers.py). Once asked, the receiver takes no reference
    of the dead any more, however late a message of it arrives
  - who throws a message away gives back the references in it (``decline``)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from mray.ownership.borrowers import Borrowers
from mray.ownership.borrowing import Borrowing
from mray.ownership.dialogue import RESEND_FIRST_S, RESEND_MAX_S, Dialogues
from mray.ownership.entry import Entry
from mray.ownership.handover import Handover, Parcel
from mray.ownership.references import Free, Ready, References, Unborrow
from mray.wire.messages import Address, Borrows, BorrowsHeard, RefGroup

#: So many of the last deaths are remembered, for messages that arrive after them.
DEAD_MAX = 10_000


class Outgoing(msgspec.Struct, frozen=True):
    """A message to be sent. ``peer``: an address, or the id of who has just written to us."""

    peer: Address | bytes
    message: Borrows | BorrowsHeard


class Ledger:
    """See the module. ``token_base``: a random number below 2**56."""

    borrowers_type = Borrowers
    borrowing_type = Borrowing
    handover_type = Handover
    dialogues_type = Dialogues

    def __init__(
        self,
        address: Address,
        token_base: int,
        resend_first_s: float = RESEND_FIRST_S,
        resend_max_s: float = RESEND_MAX_S,
    ) -> None:
        self.address = address
        self.references = References(token_base)
        self.dialogues = self.dialogues_type(resend_first_s, resend_max_s)
        self.borrowers = self.borrowers_type(self.references)
        self.borrowing = self.borrowing_type(self.references, self.dialogues)
        self.handover = self.handover_type(
            address, self.references, self.borrowers, self.borrowing, self.dialogues
        )
        #: The dead of whom somebody asked: no reference is taken from them any more.
        self._refused: dict[bytes, None] = {}
        #: Borrowers that others have made known to us. The shell looks whether they live: nobody
        #: tells us of deaths before our time.
        self.strangers: list[Address] = []
        #: Batches to confirm, by who sent them.
        self._to_confirm: dict[bytes, int] = {}

    # -- values with references that arrive

    def receive(self, outer: Entry, group: RefGroup, entries: list[Entry]) -> None:
        """The value of ``outer``, an object of ours, came with these references inside."""
        self.references.nest(outer, group, entries)
        if group.token and group.owner.process_id == self.address.process_id:
            self.borrowers.drop(group.object_ids, self.address.process_id, group.token)

    def refuses(self, sender: bytes) -> bool:
        """Whether references from this process are not taken any more: whatever contains some is
        to be treated as if it had been lost on the way."""
        return sender in self._refused

    def decline(self, groups: Iterable[RefGroup]) -> None:
        """Give back the references of a value that is thrown away: late, unwanted, or come twice.
        Those that an earlier copy brought stay."""
        for group in groups:
            if group.token:
                self._give_up(group.owner, group.token, group.object_ids)

    def _give_up(self, owner: Address, token: int, object_ids: list[bytes]) -> None:
        """Drop what we do not hold under a token; the rest stays."""
        if owner.process_id == self.address.process_id:
            # What was offered to ourselves is held by nothing but the message under way.
            self.borrowers.drop(object_ids, owner.process_id, token)
            return
        entries = self.references.entries
        for object_id in object_ids:
            entry = entries.get(object_id)
            if entry is None or entry.tokens is None or token not in entry.tokens:
                self.borrowing.drop(owner, object_id, [token])

    # -- what others say

    def hear(self, sender: bytes, message: Borrows) -> None:
        """A batch of a peer."""
        if sender in self.references.dead:
            return
        self._to_confirm[sender] = message.seq
        if not self.dialogues.fresh(sender, message.seq):
            return
        borrowers = self.borrowers
        for token, object_ids in message.adds:
            borrowers.add(object_ids, sender, token)
        for borrower, token, object_ids in message.offers:
            if not borrowers.knows(borrower.process_id):
                self.strangers.append(borrower)
            borrowers.offer(sender, borrower, token, object_ids)
        for token, object_ids in message.drops:
            borrowers.drop(object_ids, sender, token)
        for owner, dead, token, object_ids in message.asks:
            self._asked(owner, dead, token, object_ids)

    def _asked(self, owner: Address, dead: bytes, token: int, object_ids: list[bytes]) -> None:
        self._refused[dead] = None
        while len(self._refused) > DEAD_MAX:
            del self._refused[next(iter(self._refused))]
        self._give_up(owner, token, object_ids)

    def confirmed(self, sender: bytes, message: BorrowsHeard) -> None:
        """A peer has heard a batch of ours."""
        self._follow(self.dialogues.confirmed(sender, message.seq), sender)

    def _follow(self, followed: list[Any], peer: bytes) -> None:
        for what in followed:
            if type(what) is Entry:
                self.references.release(what)
            elif type(what) is Parcel:
                self.handover.followed(what)
            else:
                self.borrowing.confirmed(peer, what)

    # -- deaths

    def peers(self, node_id: bytes) -> set[bytes]:
        """Processes that matter here and may not be connected: all borrowers and who is talked
        to, and the owners on this node."""
        found = {*self.borrowers.processes(), *self.dialogues.processes()}
        for entry in list(self.references.entries.values()):
            owner = entry.owner
            if owner is not None and owner.node_id == node_id:
                found.add(owner.process_id)
        return found

    def died(self, process_id: bytes, lost: Callable[[bytes], bytes]) -> None:
        """A process is dead: its borrows go, what it owned is lost (``lost``: the error of one).
        To be told twice does no harm."""
        dead = self.references.dead
        dead[process_id] = None
        while len(dead) > DEAD_MAX:
            del dead[next(iter(dead))]
        self._to_confirm.pop(process_id, None)
        self.borrowing.died(process_id)
        self._follow(self.dialogues.died(process_id), process_id)
        for borrower, token, object_ids in self.borrowers.died(process_id):
            if borrower.process_id == self.address.process_id:
                self._asked(self.address, process_id, token, object_ids)
            else:
                line = self.dialogues.line(borrower)
                line.asks.append((self.address, process_id, token, object_ids))
        self.references.lose(process_id, lost)

    # -- what to do and to send

    def take(self) -> list[Free | Ready]:
        """What the shell has to do since the last call."""
        out: list[Free | Ready] = []
        while self.references.effects:
            for effect in self.references.take():
                if type(effect) is Unborrow:
                    self.borrowing.drop(effect.owner, effect.object_id, effect.tokens)
                else:
                    assert not isinstance(effect, Unborrow)
                    out.append(effect)
        return out

    def busy(self, now: float) -> bool:
        """Whether ``flush`` has anything to send."""
        return bool(self._to_confirm) or self.dialogues.busy(now)

    def flush(self, now: float) -> list[Outgoing]:
        """The messages to send now. Call it once a round, after ``take``."""
        out: list[Outgoing] = []
        if self._to_confirm:
            confirm, self._to_confirm = self._to_confirm, {}
            out = [Outgoing(peer, BorrowsHeard(seq)) for peer, seq in confirm.items()]
        for peer, batch in self.dialogues.flush(now):
            out.append(Outgoing(peer, batch))
        return out

    def deadline(self) -> float | None:
        """When ``flush`` has to be called again even if nothing happens."""
        return self.dialogues.deadline()

    def check(self) -> None:
        """Raise InvariantError on a contradiction."""
        self.references.check()
        self.borrowers.check()
        self.borrowing.check()
        self.dialogues.check()
