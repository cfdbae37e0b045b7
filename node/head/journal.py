"""What the head has decided leaves it when it is written: one commit a round of the loop.

Owns the rows to be written, the messages that wait for them, and what happens while the storage
cannot be written. A head in memory has no journal.

    round: rows and messages collect -> commit -> messages leave, in order
    commit fails: messages wait; the same rows, and those that come, are tried again
                  requests that would change something wait for WAIT_S, then are refused
                  what only reads is answered; what nodes and workers tell is taken in
    another head rules: nothing leaves any more; the head ends

So nothing is ever acknowledged, and no node is told to start anything, that a head begun anew would
not know of. And a head that was overtaken cannot have anybody do anything: its commit is refused.
What was refused for want of storage may still come to be, once that can be written again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from mray.node.head.storage.store import Fenced, Storage, StorageError
from mray.rpc.pump import Pump
from mray.units import format_duration
from mray.wire.messages import (
    CreatePlacementGroup,
    FinishJob,
    KillActor,
    KvDelete,
    KvPut,
    Message,
    Refused,
    RegisterActor,
    RegisterJob,
    RegisterNode,
    RemovePlacementGroup,
    StopJob,
    SubmitJob,
)

log = logging.getLogger("mray.head")

#: Requests that change what is stored.
WRITES: Final = (
    KvPut, KvDelete, RegisterActor, KillActor, RegisterJob, FinishJob, SubmitJob, StopJob,
    CreatePlacementGroup, RemovePlacementGroup, RegisterNode,
)  # fmt: skip
#: How long requests wait for a storage that cannot be written, before they are refused.
WAIT_S: Final = 3.0
_RETRY_S: Final = 0.25
#: What comes in a trouble that has lasted waits no shorter than this.
_AT_LEAST_S: Final = 2 * _RETRY_S
#: A head that has nothing to write looks so often whether it still rules, and could write.
_LOOK_S: Final = 2.0


class Journal:
    """``on_fenced(text)``: this head has to end."""

    def __init__(self, pump: Pump, storage: Storage, on_fenced: Callable[[str], None]) -> None:
        self._pump = pump
        self._storage = storage
        self._on_fenced = on_fenced
        self._rows: dict[tuple[str, bytes], bytes | None] = {}
        self._outbox: list[tuple[bytes, Message]] = []
        #: Requests of which the answers may be in the outbox.
        self._asked: dict[tuple[bytes, int], None] = {}
        #: Requests that came while the storage could not be written, and are not begun; each with
        #: the moment to refuse it.
        self._deferred: list[tuple[float, bytes, Any, Callable[[], None]]] = []
        #: Why the storage cannot be written, since when, and when it is tried again.
        self.trouble = ""
        self._since = 0.0
        self._retry_at = 0.0
        self._ended = False
        #: Answers of what only reads leave at once, while the storage cannot be written.
        self._direct = False
        #: Nothing was written since the last look.
        self._idle = True
        pump.hooks.append(self.flush)
        pump.every(_LOOK_S, self._look)

    def handle(self, sender: bytes, message: Any, go: Callable[[], None]) -> None:
        """``go`` is to take a message in: now, later, or never."""
        if not isinstance(message, WRITES):
            self._direct = bool(self.trouble)
            try:
                go()
            finally:
                self._direct = False
        elif not self.trouble:
            self._asked[sender, message.rid] = None
            go()
        else:
            # However long the trouble has lasted: the storage is tried once more before it counts.
            due_at = max(self._since + WAIT_S, self._pump.clock() + _AT_LEAST_S)
            self._deferred.append((due_at, sender, message, go))
            self._pump.at(due_at, self._lose_patience)

    def persist(self, table: str, key: bytes, value: bytes | None) -> None:
        """A row that the present round's messages wait for."""
        if not self._ended:
            self._rows[table, key] = value

    def send(self, to: bytes, message: Message) -> None:
        """Send when the rows so far are written; an answer at once where nothing was asked for
        but that."""
        if self._ended or (self._direct and getattr(message, "rid", None) is not None):
            self._pump.send(to, message)
        else:
            self._outbox.append((to, message))

    def flush(self) -> None:
        """At the end of each round: write, then send."""
        if self._ended or (self.trouble and self._pump.clock() < self._retry_at):
            return
        if self._rows or self.trouble:
            self._idle = False
            try:
                self._storage.commit(self._rows)
            except Fenced as error:
                self._end()
                self._on_fenced(str(error))
                return
            except StorageError as error:
                self._failed(str(error))
                return
            self._rows = {}
        if self.trouble:
            self._recovered()
        if self._outbox:
            for to, message in self._outbox:
                self._pump.send(to, message)
            self._outbox = []
        if self._asked:
            self._asked = {}

    def _look(self) -> None:
        """Now and then: another head may have taken over while this one stood still."""
        if self._idle and not self._ended and not self.trouble:
            try:
                self._storage.commit({})
            except Fenced as error:
                self._end()
                self._on_fenced(str(error))
            except StorageError as error:
                self._failed(str(error))
        self._idle = True

    # -- a storage that cannot be written

    def _failed(self, why: str) -> None:
        now = self._pump.clock()
        if not self.trouble:
            self._since = now
            log.error("%s; until it can be, what would change anything waits or is refused", why)
            self._pump.after(WAIT_S, self._lose_patience)
        self.trouble = why
        self._retry_at = now + _RETRY_S
        # Only to end the wait: flush() is a hook.
        self._pump.at(self._retry_at, lambda: None)

    def _lose_patience(self) -> None:
        """Refuse what waits, if it has waited for long enough."""
        now = self._pump.clock()
        if not self.trouble or now < self._since + WAIT_S:
            return
        asked, self._asked = self._asked, {}
        self._outbox = [
            (to, message)
            for to, message in self._outbox
            if (to, getattr(message, "rid", None)) not in asked
        ]
        for sender, rid in asked:
            self._refuse(sender, rid)
        for due_at, sender, message, _ in self._deferred:
            if due_at <= now:
                self._refuse(sender, message.rid)
        self._deferred = [one for one in self._deferred if one[0] > now]

    def _refuse(self, sender: bytes, rid: int) -> None:
        since = format_duration(self._pump.clock() - self._since)
        text = f"{self.trouble} (for {since} now)"
        self._pump.send(sender, Refused(rid, "OSError", text))

    def _recovered(self) -> None:
        since = format_duration(self._pump.clock() - self._since)
        log.warning("the head's storage can be written again, after %s", since)
        self.trouble = ""
        deferred, self._deferred = self._deferred, []
        for _, sender, message, go in deferred:
            self._asked[sender, message.rid] = None
            self._pump.call_soon(go)

    # -- the end

    def end(self, rows: dict[tuple[str, bytes], bytes | None]) -> None:
        """Write what is left and ``rows``; from now on nothing is, and messages leave at once: the
        cluster ends, and what ends with it is not to be remembered as its own end."""
        self._rows.update(rows)
        self.flush()
        self._end()

    def _end(self) -> None:
        self._ended = True
        self._rows, self._outbox = {}, []
