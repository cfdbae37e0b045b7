"""The simulation can fail: each rule of the ledger, when broken, is noticed.

Every mutant is a ledger with one rule broken. Some of the first seeds must end in a violation.
"""

from __future__ import annotations

from typing import Any

import pytest

from mray.ownership.borrowers import Borrowers
from mray.ownership.borrowing import Borrowing
from mray.ownership.dialogue import Dialogues
from mray.ownership.entry import Entry
from mray.ownership.handover import Handover
from mray.ownership.ledger import Ledger
from mray.wire.messages import Address

from .life import hand_over, live
from .world import Violation

SEEDS = 400


class NoWithholding(Handover):
    """Replies leave before the owners know the receiver."""

    def offer(
        self, parcel: Any, owner: Address, receiver: Address, token: int, object_ids: list[bytes]
    ) -> None:
        self._dialogues.line(owner).offers.append((receiver, token, object_ids))


class NothingKept(Handover):
    """A worker replies before the owners know what it keeps."""

    def _keep(self, parcel: Any, borrowed: list[Entry]) -> None:
        for entry in borrowed:
            if self._references.unregistered(entry):
                self._borrowing.register(entry)


class NoWaitForOthers(Borrowing):
    """What another task of the process registers a moment ago counts as known."""

    def known(self, entry: Entry) -> bool:
        return bool(entry.tokens)


class NoCarrier(Borrowing):
    """What carried a reference is let go before the owner of the reference knows."""

    def register(self, entry: Entry, carrier: Entry | None = None) -> None:
        super().register(entry)


class SharedToken(Borrowing):
    """A token goes on being used after it was dropped in the same batch."""

    def drop(self, owner: Address, object_id: bytes, tokens: list[int]) -> None:
        line = self._dialogues.line(owner)
        token = line.add_token
        super().drop(owner, object_id, tokens)
        line.add_token = token


class ForgottenOffers(Borrowers):
    """Nobody remembers who registered a borrower."""

    def offer(
        self, registrar: bytes, borrower: Address, token: int, object_ids: list[bytes]
    ) -> None:
        self.add(object_ids, borrower.process_id, token)


class BelievesTheDead(Borrowers):
    """Offers of the dead are taken."""

    def offer(
        self, registrar: bytes, borrower: Address, token: int, object_ids: list[bytes]
    ) -> None:
        dead, self._dead = self._dead, {}
        try:
            super().offer(registrar, borrower, token, object_ids)
        finally:
            self._dead = dead


class ObeysTwice(Dialogues):
    """A batch that comes again is obeyed again."""

    def fresh(self, peer_id: bytes, seq: int) -> bool:
        return True


class SaysOnce(Dialogues):
    """What is lost stays lost."""

    def flush(self, now: float) -> Any:
        self._next_at = max(self._next_at, now + 1)
        return super().flush(now)


class KeepsDeclined(Ledger):
    """What is in replies that are thrown away is not given back."""

    def decline(self, groups: Any) -> None:
        return None


class TakesFromTheDead(Ledger):
    """Replies of the dead are taken after they were asked about."""

    def refuses(self, sender: bytes) -> bool:
        return False


class NeverAnswers(Ledger):
    """The receiver of an offer does not say what it did not get."""

    def _asked(self, owner: Address, dead: bytes, token: int, object_ids: list[bytes]) -> None:
        self._refused[dead] = None


def mutant(part: type) -> type[Ledger]:
    """A ledger with one part replaced."""
    if issubclass(part, Ledger):
        return part
    names = {
        Handover: "handover_type",
        Borrowing: "borrowing_type",
        Borrowers: "borrowers_type",
        Dialogues: "dialogues_type",
    }
    return type(part.__name__, (Ledger,), {names[part.__mro__[1]]: part})


@pytest.mark.parametrize(
    "part",
    [
        NoWithholding, NothingKept, NoWaitForOthers, NoCarrier, SharedToken, ForgottenOffers,
        BelievesTheDead, ObeysTwice, SaysOnce, KeepsDeclined, TakesFromTheDead, NeverAnswers,
    ],
)  # fmt: skip
def test_a_broken_rule_is_noticed(part: type) -> None:
    ledger = mutant(part)

    def lives() -> None:
        for seed in range(SEEDS):
            hand_over(seed, ledger=ledger)
        for seed in range(SEEDS):
            live(seed, ledger=ledger)

    with pytest.raises(Violation, match="seed "):
        lives()
