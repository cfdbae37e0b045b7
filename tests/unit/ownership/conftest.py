"""What the tests of ownership share: entries without a process around them."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from mray.ownership.entry import Entry
from mray.ownership.ledger import Ledger
from mray.wire.messages import Address, Located

PLACE = Located(b"node", 1_000_000)


class Home:
    posts: Any = deque()
    asleep = False

    def wake(self) -> None:
        return None


class Desk:
    """A ledger and quick ways to put something in."""

    def __init__(self) -> None:
        self.me = Address(b"me", b"node")
        self.ledger = Ledger(self.me, 1000)
        self.refs = self.ledger.references

    def owned(self, name: bytes, local: int = 1) -> Entry:
        entry = self.refs.entries[name] = Entry(name, None, Home(), local)
        self.refs.fill(entry, None, PLACE)
        return entry

    def borrowed(self, name: bytes, owner: bytes = b"owner", local: int = 1) -> Entry:
        entry = Entry(name, Address(owner, b"node"), Home(), local)
        self.refs.entries[name] = entry
        return entry

    def sent(self, now: float = 0.0) -> list[tuple[bytes, Any]]:
        """What leaves: (to whom, message)."""
        self.effects = self.ledger.take()
        self.ledger.check()
        out = []
        for outgoing in self.ledger.flush(now):
            peer = outgoing.peer
            out.append((peer if isinstance(peer, bytes) else peer.process_id, outgoing.message))
        return out


@pytest.fixture
def desk() -> Desk:
    return Desk()
