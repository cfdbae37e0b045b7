"""What a process says to others about references: every batch counts once and in order.

Machine. Owns the numbering, resending and confirming of batches, one peer at a time. Knows nothing
of what a batch means: borrowing.py and handover.py put words in, ledger.py reads them.

To each peer one batch is under way; what comes meanwhile makes up the next. So the peer has to
remember one number, that of the last batch, however long the two talk: a batch of that number or
less is an old one sent again and is only confirmed. Words of one batch are heard in a fixed order
(adds, offers, drops, asks), words of two batches in that of the batches. That is why a registration
never arrives after its own end, whatever the network does.

A batch goes again, ever more slowly, until it is confirmed or the peer is dead.
"""

from __future__ import annotations

from typing import Any

from mray.machine import InvariantError
from mray.wire.messages import Address, Borrows

#: A peer that runs user code answers after milliseconds; one that is stopped, when it goes on.
RESEND_FIRST_S = 1.0
RESEND_MAX_S = 30.0


class Line:
    """Our half of the dialogue with one peer."""

    __slots__ = (
        "add_ids", "add_token", "adds", "asks", "batch", "delay_s", "drops", "follow",
        "followed", "offers", "peer", "resend_at", "seq",
    )  # fmt: skip

    def __init__(self, peer: Address) -> None:
        self.peer = peer
        #: Number of the last batch sent.
        self.seq = 0
        #: The batch under way, None if the peer has confirmed all.
        self.batch: Borrows | None = None
        #: What waits for that batch to be confirmed, and for the next one.
        self.followed: list[Any] = []
        self.follow: list[Any] = []
        self.resend_at = 0.0
        self.delay_s = 0.0
        # -- the next batch
        self.adds: list[tuple[int, list[bytes]]] = []
        #: The group of adds that takes further ones; token 0: none does.
        self.add_token = 0
        self.add_ids: list[bytes] = []
        self.offers: list[tuple[Address, int, list[bytes]]] = []
        self.drops: dict[int, list[bytes]] = {}
        self.asks: list[tuple[Address, bytes, int, list[bytes]]] = []


class Dialogues:
    """All dialogues of a process."""

    def __init__(
        self, resend_first_s: float = RESEND_FIRST_S, resend_max_s: float = RESEND_MAX_S
    ) -> None:
        self._first_s = resend_first_s
        self._max_s = resend_max_s
        self._lines: dict[bytes, Line] = {}
        #: Lines with something to say.
        self.talkative: dict[bytes, Line] = {}
        #: Lines with a batch under way, and a time before which none of them goes again.
        self._under_way: dict[bytes, Line] = {}
        self._next_at = float("inf")
        #: Number of the last batch heard from each peer.
        self._heard: dict[bytes, int] = {}

    def line(self, peer: Address) -> Line:
        """Where words to a peer go; they leave with the next ``flush``."""
        peer_id = peer.process_id
        line = self._lines.get(peer_id)
        if line is None:
            line = self._lines[peer_id] = Line(peer)
        self.talkative[peer_id] = line
        return line

    def processes(self) -> list[bytes]:
        """Those that we say something to."""
        return list(self._lines)

    def busy(self, now: float) -> bool:
        """Whether ``flush`` may have anything to send."""
        return bool(self.talkative) or self._next_at <= now

    def flush(self, now: float) -> list[tuple[Address, Borrows]]:
        """What to send now: new batches, and old ones whose time has come."""
        out: list[tuple[Address, Borrows]] = []
        if self._next_at <= now:
            for line in self._under_way.values():
                if line.resend_at <= now:
                    line.delay_s = min(line.delay_s * 2, self._max_s)
                    line.resend_at = now + line.delay_s
                    assert line.batch is not None
                    out.append((line.peer, line.batch))
            self._next_at = min(
                (line.resend_at for line in self._under_way.values()), default=float("inf")
            )
        if self.talkative:
            talkative, self.talkative = self.talkative, {}
            for peer_id, line in talkative.items():
                if line.batch is None:
                    out.append((line.peer, self._begin(line, now)))
                    self._under_way[peer_id] = line
        return out

    def _begin(self, line: Line, now: float) -> Borrows:
        line.seq += 1
        line.batch = Borrows(line.seq, line.adds, line.offers, list(line.drops.items()), line.asks)
        line.followed, line.follow = line.follow, []
        line.adds, line.offers, line.drops, line.asks = [], [], {}, []
        line.add_token, line.add_ids = 0, []
        line.delay_s = self._first_s
        line.resend_at = now + line.delay_s
        self._next_at = min(self._next_at, line.resend_at)
        return line.batch

    def confirmed(self, peer_id: bytes, seq: int) -> list[Any]:
        """The peer has heard a batch. Returns what waited for that."""
        line = self._under_way.get(peer_id)
        if line is None or line.seq != seq:
            return []
        del self._under_way[peer_id]
        line.batch = None
        if line.adds or line.offers or line.drops or line.asks:
            self.talkative[peer_id] = line
        followed, line.followed = line.followed, []
        return followed

    def fresh(self, peer_id: bytes, seq: int) -> bool:
        """Whether a batch of a peer is a new one, to be obeyed; all are to be confirmed."""
        if seq <= self._heard.get(peer_id, 0):
            return False
        self._heard[peer_id] = seq
        return True

    def died(self, peer_id: bytes) -> list[Any]:
        """A peer is dead. Returns what waited for it."""
        self._heard.pop(peer_id, None)
        self.talkative.pop(peer_id, None)
        self._under_way.pop(peer_id, None)
        line = self._lines.pop(peer_id, None)
        return [*line.followed, *line.follow] if line is not None else []

    def deadline(self) -> float | None:
        """When something may have to go again; None when all is confirmed."""
        return self._next_at if self._under_way else None

    def check(self) -> None:
        """Raise InvariantError on a contradiction."""
        for peer_id, line in self._lines.items():
            if (line.batch is not None) != (peer_id in self._under_way):
                raise InvariantError(f"{peer_id.hex()}: a batch is under way unfiled")
            if line.batch is None and line.followed:
                raise InvariantError(f"{peer_id.hex()}: something waits for nothing")
            if line.batch is not None and line.resend_at < self._next_at:
                raise InvariantError(f"{peer_id.hex()}: a batch would be sent again too late")
            words = line.adds or line.offers or line.drops or line.asks
            if words and line.batch is None and peer_id not in self.talkative:
                raise InvariantError(f"{peer_id.hex()}: words that nobody would send")
