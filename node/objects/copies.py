"""The tables of copies: which object has which, who writes and reads them, who owns them.

Owns every copy of the node and its range in the allocator. Does not decide when one comes or goes:
store.py does. An object has at most one current copy, which new readers get. Copies dropped while
somebody writes or reads them are former ones; pins are given back oldest copy first, the order in
which a client took them.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import nlargest

from mray.machine import InvariantError
from mray.node.objects.effects import Holder
from mray.node.objects.files import Slot
from mray.node.objects.lifecycle import Copy
from mray.node.objects.space import Space


def _nothing(copy: Copy) -> None:
    """Nobody waits for copies to go."""


class _Client:
    """What one process does with copies."""

    __slots__ = ("pins", "writing")

    def __init__(self) -> None:
        #: Pins it holds, by object, over all copies. Counts are positive.
        self.pins: dict[bytes, int] = {}
        #: Copies it fills, by object.
        self.writing: dict[bytes, Copy] = {}


class Copies:
    """All copies of a node."""

    __slots__ = (
        "_clients", "_current", "_former", "_owned", "_space", "before_drop", "cached",
        "cached_bytes", "evicted", "loose", "placed", "slots_gone", "spare",
    )  # fmt: skip

    def __init__(self, space: Space) -> None:
        self._space = space
        #: Current copies in the arena that nobody uses, in the order of their last use, and so the
        #: order in which they make room: those of which other nodes have the primary copy, those
        #: that are on disk too, those that may be written there, and those whose owners have to be
        #: asked before.
        self.spare: dict[bytes, Copy] = {}
        self.cached: dict[bytes, Copy] = {}
        self.loose: dict[bytes, Copy] = {}
        self.placed: dict[bytes, Copy] = {}
        #: What ``cached`` takes, in whole pages.
        self.cached_bytes = 0
        #: Called with a copy that is about to be dropped and has a place on disk.
        self.before_drop: Callable[[Copy], None] = _nothing
        #: Further copies that have made room, for store.py to tell their owners.
        self.evicted: list[Copy] = []
        #: Places on disk of copies that have gone, for store.py to release.
        self.slots_gone: list[Slot] = []
        #: None of them is dropped.
        self._current: dict[bytes, Copy] = {}
        #: Dropped copies still in use, oldest first; no empty lists.
        self._former: dict[bytes, list[Copy]] = {}
        #: Current copies by owner; no empty dicts.
        self._owned: dict[bytes, dict[bytes, None]] = {}
        self._clients: dict[bytes, _Client] = {}

    def __len__(self) -> int:
        """How many objects there are."""
        return len(self._current)

    def all(self) -> list[Copy]:
        """Current copies, then former ones."""
        former = [copy for copies in self._former.values() for copy in copies]
        return [*self._current.values(), *former]

    def current(self, object_id: bytes) -> Copy | None:
        """The copy that new readers get, once it is sealed."""
        return self._current.get(object_id)

    def written_by(self, client: bytes, object_id: bytes) -> Copy | None:
        """The copy of an object that a client fills."""
        state = self._clients.get(client)
        return None if state is None else state.writing.get(object_id)

    def owners(self) -> list[bytes]:
        """Who owns current copies."""
        return list(self._owned)

    def of_owner(self, owner_id: bytes) -> list[Copy]:
        """The current copies of an owner's objects."""
        return [self._current[object_id] for object_id in self._owned.get(owner_id, ())]

    def of_writer(self, client: bytes) -> list[Copy]:
        """The copies that a client fills."""
        state = self._clients.get(client)
        return [] if state is None else list(state.writing.values())

    def biggest(self, count: int) -> tuple[Holder, ...]:
        """The biggest copies in the arena, biggest first."""
        return tuple(
            Holder(
                copy.object_id, copy.size, copy.state, copy.pin_count, copy.owner_id,
                copy.by_place and copy.ask_after > 0,
            )
            for copy in nlargest(
                count,
                (copy for copy in self.all() if 0 <= copy.offset < self._space.base),
                key=lambda copy: copy.size,
            )
        )  # fmt: skip

    def add(self, object_id: bytes, offset: int, size: int, owner_id: bytes, writer: bytes) -> Copy:
        """A client begins to fill an allocated range; an older copy of the object is dropped.

        It does not fill another copy of the object.
        """
        older = self._current.get(object_id)
        if older is not None:
            self.drop(older)
        copy = Copy(object_id, offset, size, owner_id, writer)
        self._current[object_id] = copy
        self._owned.setdefault(owner_id, {})[object_id] = None
        self._client(writer).writing[object_id] = copy
        return copy

    def seal(self, copy: Copy) -> None:
        """The writer of an unsealed copy is done with it."""
        del self._clients[copy.writer].writing[copy.object_id]
        copy.sealed = True
        self._space.settle(copy.offset)
        if copy.dropped:
            self._release_former(copy)
        else:
            self.track(copy)

    def give_up(self, copy: Copy) -> None:
        """The writer of an unsealed copy will never be done with it."""
        del self._clients[copy.writer].writing[copy.object_id]
        if copy.dropped:
            self._release_former(copy)
        else:
            self._forget_current(copy)
            self._gone(copy)

    def drop(self, copy: Copy) -> None:
        """Nobody new may have a current copy; it goes when nobody uses it."""
        if copy.slot is not None:
            self.before_drop(copy)
        copy.dropped = True
        self._forget_current(copy)
        if copy.group is not None:
            self.track(copy)
        if copy.in_use:
            self._former.setdefault(copy.object_id, []).append(copy)
        else:
            self._gone(copy)

    def pin(self, copy: Copy, client: bytes) -> tuple[int, int]:
        """A client reads a current copy that is here: its offset and size."""
        copy.pin(client)
        if copy.group is not None:
            self.track(copy)
        pins = self._client(client).pins
        pins[copy.object_id] = pins.get(copy.object_id, 0) + 1
        return copy.offset, copy.size

    def unpin(self, client: bytes, object_id: bytes, count: int) -> int:
        """Take up to ``count`` pins of a client back; returns how many it held."""
        state = self._clients.get(client)
        held = 0 if state is None else state.pins.get(object_id, 0)
        if state is None or not held:
            return 0
        left = given = min(count, held)
        if given == held:
            del state.pins[object_id]
        else:
            state.pins[object_id] = held - given
        for copy in list(self._former.get(object_id, ())):
            left -= copy.unpin(client, left)
            if not copy.in_use:
                self._release_former(copy)
        if left:
            current = self._current[object_id]
            current.unpin(client, left)
            if current.pins or current.offset < self._space.base:
                if not current.pins:
                    self.track(current)
            elif current.slot is not None:
                self.vacate(current)  # It is on disk twice.
            elif current.further is not None:
                self.evict(current)  # To have it on a slow disk is no gain.
        return given

    def settle(self, copy: Copy) -> None:
        """A copy has its bytes again, or will never have them: its restore is over."""
        copy.restoring = False
        if copy.dropped:
            if not copy.in_use:
                self._release_former(copy)
        else:
            self._space.settle(copy.offset)
            self.track(copy)

    def vacate(self, copy: Copy) -> None:
        """Take the range of a current copy that is on disk too."""
        self._space.free(copy.offset)
        copy.offset = -1
        copy.restoring = False
        self.track(copy)

    def evict(self, copy: Copy) -> None:
        """Take a further copy that nobody uses away."""
        self.drop(copy)
        self.evicted.append(copy)

    def promote(self, copy: Copy) -> None:
        """A further copy is the primary one from now on."""
        copy.further = None
        self.track(copy)

    def track(self, copy: Copy) -> None:
        """Note whether a copy may make room. To be called when that may have changed."""
        group: dict[bytes, Copy] | None = None
        if (
            copy.here
            and not (copy.pins or copy.dropped or copy.spilling or copy.asked)
            and copy.offset < self._space.base
        ):
            if copy.further is not None:
                group = self.spare
            elif copy.slot is not None:
                group = self.cached
            else:
                group = self.placed if copy.by_place else self.loose
        before = copy.group
        if group is before:
            return
        if before is not None:
            del before[copy.object_id]
            if before is self.cached:
                self.cached_bytes -= self._space.rounded(copy.size)
        if group is not None:
            group[copy.object_id] = copy
            if group is self.cached:
                self.cached_bytes += self._space.rounded(copy.size)
        copy.group = group

    def forget_client(self, client: bytes) -> None:
        """Take all pins of a client back. It fills nothing any more."""
        state = self._clients.get(client)
        if state is not None:
            for object_id, count in list(state.pins.items()):
                self.unpin(client, object_id, count)
            del self._clients[client]

    def check(self) -> None:
        """Raise InvariantError if the tables contradict each other or the allocator."""
        self._space.check()
        pinned: dict[bytes, dict[bytes, int]] = {}
        writing: dict[bytes, dict[bytes, Copy]] = {}
        arena = self._space.arena
        taken = [arena.doubtful_bytes, 0]
        grouped = 0
        for copy in self.all():
            copy.check()
            if copy.offset >= 0:
                taken[copy.offset >= self._space.base] += self._space.rounded(copy.size)
            for client, count in copy.pins.items():
                counts = pinned.setdefault(client, {})
                counts[copy.object_id] = counts.get(copy.object_id, 0) + count
            if not copy.sealed:
                writing.setdefault(copy.writer, {})[copy.object_id] = copy
            if copy.group is not None:
                grouped += copy.group.get(copy.object_id) is copy
            before = copy.group
            self.track(copy)
            if copy.group is not before:
                raise InvariantError(f"{copy.object_id.hex()} is listed wrong for making room")
        groups = (self.spare, self.cached, self.loose, self.placed)
        if grouped != sum(map(len, groups)):
            raise InvariantError("copies that have gone are listed for making room")
        if taken != [arena.used_bytes, self._space.overflow_bytes]:
            raise InvariantError(
                f"copies take {taken} of {arena.used_bytes} and {self._space.overflow_bytes} bytes"
            )
        for client, state in self._clients.items():
            if state.pins != pinned.pop(client, {}) or state.writing != writing.pop(client, {}):
                raise InvariantError(f"pins or writes of client {client.hex()} are noted wrong")
        if pinned or writing:
            raise InvariantError(f"unknown clients pin {pinned} and write {writing}")
        if any(copy.dropped for copy in self._current.values()):
            raise InvariantError("a dropped copy is current")
        for copies in self._former.values():
            if not copies or any(not copy.dropped or not copy.in_use for copy in copies):
                raise InvariantError("a former copy is not dropped, or nobody uses it")
        owned = {(copy.owner_id, id) for id, copy in self._current.items()}
        if owned != {(owner, id) for owner, ids in self._owned.items() for id in ids}:
            raise InvariantError("the objects of owners are noted wrong")

    def _client(self, client: bytes) -> _Client:
        state = self._clients.get(client)
        if state is None:
            state = self._clients[client] = _Client()
        return state

    def _forget_current(self, copy: Copy) -> None:
        del self._current[copy.object_id]
        owned = self._owned[copy.owner_id]
        del owned[copy.object_id]
        if not owned:
            del self._owned[copy.owner_id]

    def _release_former(self, copy: Copy) -> None:
        others = self._former[copy.object_id]
        others.remove(copy)
        if not others:
            del self._former[copy.object_id]
        self._gone(copy)

    def _gone(self, copy: Copy) -> None:
        if copy.offset >= 0:
            self._space.free(copy.offset)
        if copy.slot is not None:
            self.slots_gone.append(copy.slot)
