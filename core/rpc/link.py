"""A reliable, ordered way to one process on another machine: a machine, no IO.

ZeroMQ loses what is under way when a tcp connection breaks, in silence, and both ends live on. All
dialogues of mray assume that messages between two living processes arrive once and in order, as
they do over a unix socket. A link makes that true over tcp: it numbers what it sends, keeps it
until the peer has confirmed it, and drops what comes twice.

- A frame that skips a number means that something was lost; the receiver says once from where on
  it needs the frames again (GAP), and throws away what comes before that.
- Confirmations travel with frames that go anyway; where none goes, alone, after ``ACK_AFTER_S`` or
  ``ACK_AFTER_BYTES``.
- Unconfirmed frames make the sender ask how far the peer is (PROBE), ever more slowly. One small
  frame and not all again: mostly the peer is busy and nothing is lost.
- Numbers belong to a ``stream``. Where one begins, the receiver's count begins with it.
- Each end has a ``life``, a number that grows when the same process id begins anew without its
  memory (a head that was started again). A peer in a higher life than before has forgotten all: a
  new stream begins with what the former life has not confirmed, and the owner of the link is told,
  for what it has confirmed may be lost. Frames of or for a former life are not read.

Does not know when the peer is dead: its node or the head tells, and the link is thrown away.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Final, NamedTuple

from mray.machine import InvariantError

#: First byte of every frame: no version of a plain message has it.
LINK_BYTE: Final = 0xF5
#: A confirmation alone leaves this long after what it confirms, or after so many bytes.
ACK_AFTER_S: Final = 0.1
ACK_AFTER_BYTES: Final = 1 << 20
#: When the peer is first asked what it has, and how rarely at last.
PROBE_AFTER_S: Final = 0.5
PROBE_AFTER_MAX_S: Final = 4.0

_DATA, _ACK, _PROBE, _GAP = range(4)
# first byte, kind, sender's life, receiver's life (0: not known), stream, number, and of the
# receiver's stream: which, confirmed up to
_HEAD: Final = struct.Struct("<BBQQIQIQ")
HEAD_BYTES: Final = _HEAD.size


def is_data(frame: bytes | bytearray | memoryview) -> bool:
    """Whether a frame carries a message."""
    return frame[1] == _DATA


class Received(NamedTuple):
    """What a frame comes to."""

    #: Messages, in order.
    payloads: list[bytes]
    #: Frames to send to the peer.
    frames: list[bytes]
    #: The peer has begun anew: what it was told before is lost.
    reset: bool


class Link:
    """See the module. ``life``: of this end, 1 or more."""

    __slots__ = (
        "_ack_at",
        "_awaits_gap",
        "_confirmed",
        "_kept",
        "_life",
        "_next",
        "_peer_life",
        "_peer_stream",
        "_probe_after_s",
        "_probe_at",
        "_received",
        "_stream",
        "_told",
        "_unacked_bytes",
    )

    def __init__(self, life: int = 1) -> None:
        if life < 1:
            raise ValueError(f"lives are counted from 1, not {life}")
        self._life = life
        self._peer_life = 0
        self._stream = 1
        #: 0: nothing of the peer's has come.
        self._peer_stream = 0
        #: Number of the next frame of ours.
        self._next = 1
        #: The peer has all up to here.
        self._confirmed = 0
        #: Payloads of what it may not have, oldest first: numbers _confirmed + 1 and on.
        self._kept: deque[bytes] = deque()
        #: We have all up to here, and have told so up to _told.
        self._received = 0
        self._told = 0
        self._unacked_bytes = 0
        self._ack_at: float | None = None
        #: We have said that something is missing, and it has not come.
        self._awaits_gap = False
        self._probe_at: float | None = None
        self._probe_after_s = PROBE_AFTER_S

    @property
    def kept_count(self) -> int:
        """Messages that the peer has not confirmed."""
        return len(self._kept)

    def send(self, payload: bytes, now: float) -> bytes:
        """The frame of a message. It is kept until the peer has it."""
        number = self._next
        self._next = number + 1
        self._kept.append(payload)
        if self._probe_at is None:
            self._probe_at = now + self._probe_after_s
        return self._frame(_DATA, number) + payload

    def receive(self, frame: bytes, now: float) -> Received:
        """Take a frame of the peer. ValueError if it is none; nothing has changed then."""
        if len(frame) < HEAD_BYTES:
            raise ValueError(f"a frame of {len(frame)} bytes, at least {HEAD_BYTES} are needed")
        first, kind, theirs, ours, stream, number, to_stream, confirmed = _HEAD.unpack_from(frame)
        if first != LINK_BYTE or kind > _GAP or not theirs or not stream:
            raise ValueError(f"no frame of a link: first byte {first}, kind {kind}")
        if theirs < self._peer_life:
            return Received([], [], False)
        reset = theirs > self._peer_life > 0
        is_ours = ours == self._life and to_stream == self._stream and not reset
        if is_ours and confirmed >= self._next:
            raise ValueError(f"a frame that confirms {confirmed} of {self._next - 1}")
        if reset:
            self._forget_peer(now)
        self._peer_life = theirs
        frames = self._all_kept() if reset else []
        if ours not in (0, self._life):
            # Meant for a former life of this process: the sender has to learn of this one.
            return Received([], frames or [self._frame(_ACK, 0)], reset)
        if stream > self._peer_stream:
            self._peer_stream = stream
            self._received = 0
            self._awaits_gap = False
        elif stream < self._peer_stream:
            return Received([], frames, reset)
        if is_ours:
            self._confirm(confirmed, now)
            missing = confirmed == self._confirmed if kind == _GAP else number > self._confirmed
            if kind in (_ACK, _GAP) and missing:
                frames = self._all_kept()
        payloads: list[bytes] = []
        if kind == _DATA:
            if number == self._received + 1:
                self._received = number
                self._awaits_gap = False
                payloads.append(frame[HEAD_BYTES:])
                self._unacked_bytes += len(frame)
                if self._unacked_bytes >= ACK_AFTER_BYTES:
                    frames.append(self._frame(_ACK, 0))
                elif self._ack_at is None:
                    self._ack_at = now + ACK_AFTER_S
            elif number > self._received + 1:
                if not self._awaits_gap:
                    self._awaits_gap = True
                    frames.append(self._frame(_GAP, 0))
            else:
                # Once more: the confirmation may be what was lost.
                self._ack_at = now if self._ack_at is None else min(self._ack_at, now)
        elif kind == _PROBE:
            # The number tells what was sent before: what of it is not here now never comes.
            frames.append(self._frame(_ACK, number))
        return Received(payloads, frames, reset)

    def _all_kept(self) -> list[bytes]:
        first = self._confirmed + 1
        return [
            self._frame(_DATA, first + place) + payload for place, payload in enumerate(self._kept)
        ]

    def _forget_peer(self, now: float) -> None:
        """The peer has lost its memory: both directions begin anew."""
        self._stream += 1
        self._next, self._confirmed = 1 + len(self._kept), 0
        self._peer_stream = self._received = self._told = self._unacked_bytes = 0
        self._ack_at = None
        self._awaits_gap = False
        self._probe_after_s = PROBE_AFTER_S
        self._probe_at = now + PROBE_AFTER_S if self._kept else None

    def _confirm(self, confirmed: int, now: float) -> None:
        if confirmed <= self._confirmed:
            return
        for _ in range(confirmed - self._confirmed):
            self._kept.popleft()
        self._confirmed = confirmed
        self._probe_after_s = PROBE_AFTER_S
        self._probe_at = now + PROBE_AFTER_S if self._kept else None

    def _frame(self, kind: int, number: int) -> bytes:
        """A header; it confirms all that has come."""
        self._told = self._received
        self._unacked_bytes = 0
        self._ack_at = None
        return _HEAD.pack(
            LINK_BYTE, kind, self._life, self._peer_life, self._stream, number,
            self._peer_stream, self._received,
        )  # fmt: skip

    def again(self) -> list[bytes]:
        """The connection broke and stands again: asks what of either side was lost with it."""
        return [self._frame(_GAP, 0), self._frame(_PROBE, self._next - 1)]

    def deadline(self) -> float | None:
        """When tick() has something to do."""
        ack_at, probe_at = self._ack_at, self._probe_at
        if ack_at is None or (probe_at is not None and probe_at < ack_at):
            return probe_at
        return ack_at

    def tick(self, now: float) -> list[bytes]:
        """Frames that are due: a confirmation, a question."""
        frames = []
        if self._probe_at is not None and self._probe_at <= now:
            frames.append(self._frame(_PROBE, self._next - 1))
            self._probe_after_s = min(self._probe_after_s * 2, PROBE_AFTER_MAX_S)
            self._probe_at = now + self._probe_after_s
        elif self._ack_at is not None and self._ack_at <= now:
            frames.append(self._frame(_ACK, 0))
        return frames

    def check(self) -> None:
        """Raise InvariantError on a contradiction."""
        if self._confirmed + len(self._kept) + 1 != self._next:
            raise InvariantError(
                f"{self._confirmed} confirmed, {len(self._kept)} kept, next is {self._next}"
            )
        if self._kept and self._probe_at is None:
            raise InvariantError("something is unconfirmed and nobody will ask")
        if self._told < self._received and self._ack_at is None:
            raise InvariantError("something is to be confirmed and nobody will")
