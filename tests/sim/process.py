"""A process of the simulation, and the calls between processes.

Owns what a process is made of: its ledger, what user code there has in its hands, and the tasks
under way. What happens to them is world.py's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from mray.ownership.entry import Entry
from mray.ownership.ledger import Ledger
from mray.wire.messages import Address, Located, RefGroup

PLACE = Located(b"node", 1_000_000)


class Home:
    """Notes of finalizers: nobody leaves any here."""

    posts: Any = deque()
    asleep = False

    def wake(self) -> None:
        return None


HOME = Home()


class Task:
    """A call, from its submission to its reply."""

    __slots__ = ("args", "caller", "depth", "groups", "number", "result", "sent", "worker")

    def __init__(
        self, number: int, caller: Process, worker: Process, args: list[Entry], depth: int
    ) -> None:
        self.number = number
        self.caller = caller
        self.worker = worker
        self.args = args
        self.depth = depth
        self.result = Entry(b"r%d" % number, None, HOME, 0)
        #: The reply, once it has left.
        self.groups: list[RefGroup] | None = None
        self.sent = False


class Process:
    """A process: its ledger, and what user code there has in its hands."""

    def __init__(self, number: int, born: float, ledger: Callable[..., Ledger]) -> None:
        self.address = Address(b"p%d" % number, b"node")
        self.id = self.address.process_id
        self.ledger = ledger(self.address, number << 32)
        self.refs = self.ledger.references
        self.born = born
        self.died_at: float | None = None
        #: Entries of the ObjectRefs here, with repetition.
        self.reach: list[Entry] = []
        #: Tasks that this process waits for, and those it was sent.
        self.pending: dict[int, Task] = {}
        self.got: dict[int, Task] = {}
        self.timer_at = float("inf")

    def entry_for(self, object_id: bytes, owner: Address) -> Entry:
        """As runtime/borrowing.py has it."""
        entry = self.refs.entries.get(object_id)
        if entry is None:
            mine = owner.process_id == self.id
            entry = Entry(object_id, None if mine else owner, HOME, 0)
            if mine:  # It was freed: an excused reference can bring it back.
                entry.data, entry.ready = b"gone", True
            self.refs.entries[object_id] = entry
        return entry
