"""The processes that this one has dialled: by which name, whether the line stands, when to dial
again. A machine, no IO; door.py has the socket.

Why lines to tcp endpoints are not left to libzmq: after a damaged byte it gives a connection up and
never dials it again, and it aborts the process where a routing id is connected that it had before.
Handshakes that are refused it repeats ninety times a second, without end. So whatever ends a line,
it is dropped and dialled again by us, under a **name** (routing id, known on this side alone) that
was never used before: at once where it had stood, else ever more slowly.

- What is sent before the line stands waits here, so that an end before that loses nothing. What is
  lost with a line that stood, its link (link.py) sends again.
- libzmq tells endpoints and not names. Several processes at one endpoint (all but one are dead) end
  together and are dialled again together.
- Unix sockets keep their first name and are libzmq's to dial again: no bytes are damaged there.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

from mray.machine import InvariantError
from mray.rpc.endpoints import is_same_endpoint

#: A line that stood is dialled again after this long.
AGAIN_S: Final = 0.02
#: One that was refused: at first, at last, and at last where it had stood before: whoever listens
#: there may be about to come back.
REFUSED_S: Final = 0.1
REFUSED_MAX_S: Final = 2.0
STOOD_MAX_S: Final = 0.4
NEVER: Final = float("inf")

#: What is to be sent, and whether libzmq is to copy it.
Waiting = tuple[bytes | bytearray | memoryview, bool]


class Line:
    """One dialled process."""

    __slots__ = (
        "due", "endpoint", "has_lost", "name", "own_name", "process_id", "refusals", "server_key",
        "waiting",
    )  # fmt: skip

    def __init__(
        self, process_id: bytes, endpoint: str, own_name: bytes, server_key: bytes
    ) -> None:
        self.process_id = process_id
        self.endpoint = endpoint
        #: Under which the peer knows us.
        self.own_name = own_name
        #: Of the peer; b"" on unix sockets.
        self.server_key = server_key
        #: Routing id of its connection; b"" while there is none.
        self.name = process_id
        #: What was sent before the line stands, oldest first; None where it stands.
        self.waiting: list[Waiting] | None = [] if self.is_tcp else None
        #: A line to this process that stood has ended since the last one stood.
        self.has_lost = False
        #: Handshakes that failed since one succeeded.
        self.refusals = 0
        self.due = NEVER

    @property
    def is_tcp(self) -> bool:
        """Whether it is ours to dial again."""
        return self.endpoint.startswith("tcp:")


class Dialled:
    """See the module. ``get(process_id)`` and ``names`` are looked up with each message."""

    def __init__(self) -> None:
        self._lines: dict[bytes, Line] = {}
        self.get = self._lines.get
        #: By the name of each connection, whose it is.
        self.names: dict[bytes, bytes] = {}
        #: When due() has something to do.
        self.next_due = NEVER
        self._numbers = itertools.count(1)

    def __contains__(self, process_id: bytes) -> bool:
        return process_id in self._lines

    def __iter__(self) -> Iterator[Line]:
        return iter(self._lines.values())

    def add(
        self, process_id: bytes, endpoint: str, own_name: bytes, server_key: bytes = b""
    ) -> Line:
        """A process that is dialled now, for the first time. ValueError if it is not."""
        if process_id in self._lines:
            raise ValueError(f"{process_id.hex()} is dialled already")
        line = self._lines[process_id] = Line(process_id, endpoint, own_name, server_key)
        self.names[process_id] = process_id
        return line

    def remove(self, process_id: bytes) -> Line | None:
        """Forget a process, which is not dialled any more."""
        line = self._lines.pop(process_id, None)
        if line is not None and line.name:
            del self.names[line.name]
        return line

    def stands(self, endpoint: str) -> list[tuple[Line, list[Waiting], bool]]:
        """A handshake succeeded: the lines that stand now, what waited for each, and whether
        something may have been lost before."""
        found = []
        for line in self._at(endpoint):
            if line.waiting is not None:
                found.append((line, line.waiting, line.has_lost))
                line.waiting = None
                line.has_lost = False
                line.refusals = 0
        return found

    def ended(self, endpoint: str, now: float) -> list[Line]:
        """A connection ended, or its handshake did: the lines to drop now."""
        lines = self._at(endpoint)
        for line in lines:
            self._end(line, now)
        return lines

    def moved(self, process_id: bytes, endpoint: str, now: float) -> None:
        """A dialled process is to be dialled elsewhere; what it had is dropped already."""
        line = self._lines[process_id]
        if line.name:
            self._end(line, now)
        line.endpoint = endpoint
        line.has_lost = True
        line.refusals = 0
        line.due = now
        self.next_due = min(self.next_due, now)

    def due(self, now: float) -> list[Line]:
        """The lines to dial now, each under a new name; all that are to be, at ``NEVER``."""
        if now < self.next_due:
            return []
        lines = [line for line in self if line.due <= now and line.due != NEVER]
        for line in lines:
            line.due = NEVER
            line.name = b"%b/%d" % (line.process_id, next(self._numbers))
            self.names[line.name] = line.process_id
        self.next_due = min((line.due for line in self), default=NEVER)
        return lines

    def _at(self, endpoint: str) -> list[Line]:
        return [
            line
            for line in self
            if line.is_tcp and line.name and is_same_endpoint(line.endpoint, endpoint)
        ]

    def _end(self, line: Line, now: float) -> None:
        del self.names[line.name]
        line.name = b""
        if line.waiting is None:
            line.waiting = []
            line.has_lost = True
            line.due = now + AGAIN_S
        else:
            # Not 2 ** refusals: that number has no bound.
            wait_s = REFUSED_S * 2 ** min(line.refusals, 10)
            line.due = now + min(wait_s, STOOD_MAX_S if line.has_lost else REFUSED_MAX_S)
            line.refusals += 1
        self.next_due = min(self.next_due, line.due)

    def check(self) -> None:
        """Raise InvariantError on a contradiction."""
        named = {line.name: line.process_id for line in self if line.name}
        if named != self.names:
            raise InvariantError(f"names are {self.names}, lines have {named}")
        for line in self:
            if bool(line.name) == (line.due < NEVER):
                raise InvariantError(f"{line.process_id.hex()} is neither dialled nor to be")
            if line.waiting is None and not line.name:
                raise InvariantError(f"{line.process_id.hex()} stands without a connection")
            if line.due < self.next_due:
                raise InvariantError(f"{line.process_id.hex()} is due before anything is")
