"""The references of one process: what keeps each object alive, and what follows when nothing does.

Machine. Owns the table of entries, the counts of this process by kind, the nesting of values, and
the value or place of each object. Who else holds an object is borrowers.py's, making ourselves
known to owners borrowing.py's. Moves no data and sends nothing: it returns effects. All methods are
called by one thread; only the making of a fresh ``Entry`` and reading ``ready`` happen elsewhere.

What keeps an object alive, by kind:
  local      ObjectRefs in this process
  held       arguments of tasks submitted here and not finished (or actors not dead), values that
             are being read or handed over
  inside     values alive in this process's table that contain the reference
  borrowers  (owner only) processes that registered, each under one or more tokens
  pinned     pickled by user code with mray.cloudpickle: until the process ends
  captured   inside exported functions and classes: until the job ends
  lineage    arguments of finished tasks that may be run again, unless the argument can be made
             again too (lineage.py)

An entry that was let go can be wanted again by a thread that had looked it up just before. If a
message has made a second entry of the object by then, the first follows it: it keeps the second
alive and gets its value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from mray.machine import InvariantError
from mray.ownership.entry import Entry as Entry
from mray.ownership.entry import Pins
from mray.ownership.lineage import Lineage
from mray.wire.messages import Address, Located, RefGroup

# ---- effects: what the runtime has to do after a call


class Free(msgspec.Struct, frozen=True):
    """An owned object's last reference is gone: give back its store space, end its actor."""

    entry: Any


class Unborrow(msgspec.Struct, frozen=True):
    """Tell the owner that we hold the reference no more."""

    owner: Address
    object_id: bytes
    tokens: list[int]


class Ready(msgspec.Struct, frozen=True):
    """A watched object is there (or lost): tell these processes."""

    entry: Any
    watchers: list[bytes]


Effect = Free | Unborrow | Ready


class References:
    """All entries of a process. Effects collect in ``effects`` until ``take()``."""

    def __init__(self, token_base: int) -> None:
        #: Every entry that is alive. A fresh owned entry is put in by the thread that made it.
        self.entries: dict[bytes, Entry] = {}
        self.effects: list[Effect] = []
        #: Processes that are dead: nothing is sent to them or taken from them. The ledger fills it.
        self.dead: dict[bytes, None] = {}
        #: What is kept of finished tasks.
        self.lineage = Lineage()
        #: Entries that came back when another had their place; by id(), until they are let go.
        self._followers: dict[int, Entry] = {}
        self._next_token = token_base

    def take(self) -> list[Effect]:
        """The effects since the last call."""
        effects, self.effects = self.effects, []
        return effects

    def token(self) -> int:
        """A token nobody else uses: the base is random per process."""
        self._next_token += 1
        return self._next_token

    # -- local references

    def add_local(self, entry: Entry) -> None:
        """An ObjectRef was made by unpickling."""
        entry.local += 1
        if entry.freed:
            self._revive(entry)

    def _revive(self, entry: Entry) -> None:
        """A reference came back after the entry was dropped: what carried it keeps it alive at
        its owner. An owned object that is freed cannot come back: reading it says so."""
        entry.freed = False
        present = self.entries.setdefault(entry.object_id, entry)
        if present is entry:
            return
        self._followers[id(entry)] = entry
        present.inside += 1
        entry.nested = [present]
        if entry.ready:
            return
        if present.ready:
            self.fill(entry, present.data, present.located)
            return
        if present.waiters is None:
            present.waiters = []
        present.waiters.append(_Follower(self, entry))

    def drop_local(self, entry: Entry) -> None:
        """An ObjectRef is gone."""
        entry.local -= 1
        if not entry.local:
            self.settle(entry)

    def hold(self, entry: Entry) -> None:
        """A submitted task needs the object."""
        entry.held += 1
        if entry.freed:
            self._revive(entry)

    def release(self, entry: Entry) -> None:
        """That task is over."""
        entry.held -= 1
        if not entry.held:
            self.settle(entry)

    def pin(self, entry: Entry) -> None:
        """User code pickled the reference by itself: the object stays until the process ends."""
        self._pins(entry).pinned += 1

    def capture(self, entry: Entry) -> None:
        """An exported function or class contains the reference: the object stays until the job
        ends."""
        self._pins(entry).captured += 1

    def _pins(self, entry: Entry) -> Pins:
        pins = entry.pins
        if pins is None:
            pins = entry.pins = Pins()
        if entry.freed:
            self._revive(entry)
        return pins

    def unregistered(self, entry: Entry) -> bool:
        """Borrower: whether the owner does not know that we hold the reference, and must."""
        return (
            entry.owner is not None
            and not entry.tokens
            and not entry.freed
            and entry.kept
            and entry.owner.process_id not in self.dead
        )

    # -- values

    def fill(self, entry: Entry, data: bytes | None, located: Located | None) -> None:
        """The value is there. Whoever waits is fired, whoever watches is told."""
        entry.data = data
        entry.located = located
        entry.ready = True
        waiters = entry.waiters
        if waiters is not None:
            entry.waiters = None
            for waiter in waiters:
                waiter.fire(entry)
        if entry.watchers is not None:
            self.effects.append(Ready(entry, entry.watchers))
            entry.watchers = None

    def nest(self, outer: Entry, group: RefGroup, entries: list[Entry]) -> None:
        """The value of ``outer`` contains these references, borrowed under the group's token."""
        if outer.nested is None:
            outer.nested = []
        for inner in entries:
            inner.inside += 1
            if inner.freed:
                self._revive(inner)
            if group.token and inner.owner is not None:
                if inner.tokens is None:
                    inner.tokens = [group.token]
                else:
                    inner.tokens.append(group.token)
            outer.nested.append(inner)

    def watch(self, entry: Entry, watcher: bytes) -> bool:
        """Owner: a borrower wants the value. True when it can be answered at once."""
        if entry.ready:
            return True
        if entry.watchers is None:
            entry.watchers = []
        if watcher not in entry.watchers:
            entry.watchers.append(watcher)
        return False

    # -- the end

    def lose(self, process_id: bytes, lost: Callable[[bytes], bytes]) -> None:
        """A process is dead: what it owned is lost (``lost``: the error of one)."""
        orphans = [
            entry
            for entry in [*self.entries.values(), *self._followers.values()]
            if entry.owner is not None and entry.owner.process_id == process_id
        ]
        for entry in orphans:
            if not entry.ready or entry.located is not None:
                self.fill(entry, lost(entry.object_id), None)

    def _only_for_lineage(self, entry: Entry) -> bool:
        """Whether the entry is kept by what needs no value of it: it can be made again."""
        pins = entry.pins
        assert pins is not None
        if pins.pinned or pins.captured:
            return False
        return entry.located is not None and self.lineage.can_rebuild(entry)

    def settle_all(self, entries: list[Entry]) -> None:
        """``settle`` of what the lineage has let go."""
        for entry in entries:
            self.settle(entry)

    def settle(self, entry: Entry) -> None:
        """Let the object go if nothing keeps it. A value still being made is let go when made.

        A loop, not a recursion: references nest as deep as users nest them.
        """
        stack = [entry]
        while stack:
            entry = stack.pop()
            if entry.local or entry.held or entry.inside or entry.borrowers or entry.freed:
                continue
            if entry.pins is not None and not self._only_for_lineage(entry):
                continue
            if entry.owner is None and not entry.ready:
                continue
            entry.freed = True
            if self.entries.get(entry.object_id) is entry:
                del self.entries[entry.object_id]
            elif self._followers:
                self._followers.pop(id(entry), None)
            if entry.owner is None:
                if entry.located is not None:
                    self.effects.append(Free(entry))
                    if self.lineage.records:
                        stack += self.lineage.close(entry)
                elif entry.is_actor:
                    self.effects.append(Free(entry))
            elif entry.tokens:
                tokens, entry.tokens = entry.tokens, None
                self.effects.append(Unborrow(entry.owner, entry.object_id, tokens))
            nested = entry.nested
            if nested is not None:
                entry.nested = None
                for inner in nested:
                    inner.inside -= 1
                    if not inner.inside:
                        stack.append(inner)

    def check(self) -> None:
        """Raise InvariantError on a contradiction."""
        self.lineage.check()
        inside: dict[int, int] = {}
        for entry in [*self.entries.values(), *self._followers.values()]:
            for inner in entry.nested or ():
                inside[id(inner)] = inside.get(id(inner), 0) + 1
        for object_id, entry in self.entries.items():
            if entry.object_id != object_id or entry.freed:
                raise InvariantError(f"{object_id.hex()}: freed or misfiled")
            if min(entry.local, entry.held, entry.inside) < 0:
                raise InvariantError(
                    f"{object_id.hex()}: a count below zero: local {entry.local}, "
                    f"held {entry.held}, inside {entry.inside}"
                )
            if entry.inside != inside.get(id(entry), 0):
                raise InvariantError(f"{object_id.hex()}: inside {entry.inside} is miscounted")
            if entry.ready and entry.data is None and entry.located is None and not entry.is_actor:
                raise InvariantError(f"{object_id.hex()}: ready without a value")
            if entry.ready and (entry.waiters or entry.watchers):
                raise InvariantError(f"{object_id.hex()}: ready, and somebody waits")


class _Follower:
    """Gives an entry the value of the one that has its place."""

    __slots__ = ("_entry", "_references")

    def __init__(self, references: References, entry: Entry) -> None:
        self._references = references
        self._entry = entry

    def fire(self, entry: Any) -> None:
        """The other is ready."""
        if not self._entry.ready:
            self._references.fill(self._entry, entry.data, entry.located)
