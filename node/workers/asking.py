"""One question to many processes of this node, and one answer made of theirs.

Covers: a question asked again while it is being answered, processes that answer late or never, and
the end. Decides nothing: the asker says whom and what, and joins the answers.
A process whose interpreter is busy with a long computation answers late or never; the answers of
the others count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from mray.node.workers.peers import Peer
from mray.rpc.pump import Pump, RequestFailed
from mray.wire.messages import Message, Refused

_WAIT_MAX_S: Final = 30.0

#: The answers by process id, also what came in place of one (Refused, RequestFailed); and the pids
#: of the processes that let the time run out.
OnAnswers = Callable[[dict[bytes, Message], list[int]], None]


class Asking:
    """See the module. One for each part that asks."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        #: Questions that are being answered, by who asked and under which number.
        self._open: set[tuple[bytes, int]] = set()

    def ask(
        self,
        sender: bytes,
        rid: int,
        peers: Sequence[Peer],
        question: Any,  # A message that has a ``rid``; the type checker has no word for that.
        wait_s: float,
        finish: OnAnswers,
    ) -> None:
        """Ask ``peers`` the ``question`` for ``sender``, whose request has number ``rid``.

        ``finish`` is called once: at once where there is nobody to ask, else when the last has
        answered or ``wait_s`` (seconds, 30 at most) is over. The same request again is not begun
        again.
        """
        key = sender, rid
        if key in self._open:
            return
        if not peers:
            finish({}, [])
            return
        self._open.add(key)
        answers: dict[bytes, Message] = {}
        silent: list[int] = []
        wait_s = max(0.0, min(wait_s, _WAIT_MAX_S))
        until = self._pump.clock() + wait_s

        def arrived(peer: Peer, reply: Message) -> None:
            answers[peer.process_id] = reply
            # Of one that has ended it is known sooner; nothing waits there.
            if isinstance(reply, (RequestFailed, Refused)) and self._pump.clock() >= until:
                silent.append(peer.pid)
            if len(answers) == len(peers):
                self._open.discard(key)
                finish(answers, silent)

        for peer in peers:
            self._pump.request(
                peer.process_id,
                lambda asked: _renumbered(question, asked),
                lambda reply, peer=peer: arrived(peer, reply),  # type: ignore[misc]
                wait_s,
            )


def _renumbered(question: Any, rid: int) -> Message:
    made: Message = msgspec.structs.replace(question, rid=rid)
    return made
