"""The allocator against a map of pages, and the store machine against a naive twin, at random."""

from __future__ import annotations

from collections import Counter
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from mray.node.objects.allocator import Allocator
from mray.node.objects.cooling import CoolingRules
from mray.node.objects.effects import AnswerPins, Complain, Created, Effect, Punch, Refuse
from mray.node.objects.store import ObjectStore, StoreRules

PAGE = 4096
CAPACITY = 12
LENGTH = CAPACITY * 8


class AllocatorAgainstMap(RuleBasedStateMachine):
    """One byte a page: c cold, w warm and free, u in use, d doubtful."""

    ranges = Bundle("ranges")

    def __init__(self) -> None:
        super().__init__()
        self.allocator = Allocator(CAPACITY * PAGE, LENGTH * PAGE, PAGE)
        self.map = bytearray(b"c" * LENGTH)
        #: Start and length of a live range -> its cold pages while unsettled.
        self.live: dict[tuple[int, int], list[int]] = {}

    @rule(target=ranges, size=st.integers(0, CAPACITY * PAGE + 1))
    def allocate(self, size: int) -> Any:
        count = max(1, -(-size // PAGE))
        place = self.allocator.allocate(size)
        taken = self.map.count(b"u") + self.map.count(b"d")
        if taken + count > CAPACITY:
            assert place is None
            return (-1, 0)
        free = bytes(self.map).replace(b"w", b"c")
        start = free.find(b"c" * count)
        assert place is not None
        assert place[0] == start * PAGE
        cold = [page for page in range(start, start + count) if self.map[page] == ord("c")]
        told = [page // PAGE for at, length in place[1] for page in range(at, at + length, PAGE)]
        assert told == cold
        self.map[start : start + count] = b"u" * count
        self.live[start, count] = cold
        return (start, count)

    @rule(taken=ranges)
    def settle(self, taken: tuple[int, int]) -> None:
        if taken in self.live:
            self.allocator.settle(taken[0] * PAGE)
            self.live[taken] = []

    @rule(taken=consumes(ranges))
    def free(self, taken: tuple[int, int]) -> None:
        if taken not in self.live:
            return
        start, count = taken
        self.allocator.free(start * PAGE)
        self.map[start : start + count] = b"w" * count
        for page in self.live.pop(taken):
            self.map[page] = ord("d")

    @rule(keep=st.integers(0, CAPACITY), most=st.integers(1, CAPACITY))
    def cool(self, keep: int, most: int) -> None:
        doubtful = self.map.count(b"d")
        warm = self.map.count(b"w")
        ranges = self.allocator.cool(keep * PAGE, most * PAGE)
        punched = [page // PAGE for at, length in ranges for page in range(at, at + length, PAGE)]
        first = min(doubtful, most)
        assert all(self.map[page] == ord("d") for page in punched[:first])
        for page in punched[:first]:
            self.map[page] = ord("c")
        wanted = min(most - first, max(0, warm - keep))
        highest = [page for page in range(LENGTH - 1, -1, -1) if self.map[page] == ord("w")]
        assert sorted(punched[first:], reverse=True) == highest[:wanted]
        for page in punched[first:]:
            self.map[page] = ord("c")

    @invariant()
    def figures_agree(self) -> None:
        self.allocator.check()
        count = {state: self.map.count(state) * PAGE for state in (b"u", b"w", b"d")}
        assert self.allocator.used_bytes == count[b"u"] + count[b"d"]
        assert self.allocator.warm_bytes == count[b"w"]
        assert self.allocator.doubtful_bytes == count[b"d"]
        total = sum(count.values())
        assert self.allocator.excess_bytes == max(0, total - CAPACITY * PAGE)


class NaiveCopy:
    """A copy in the naive twin."""

    def __init__(self, object_id: bytes, size: int, owner: bytes, writer: bytes) -> None:
        self.id = object_id
        self.size = size
        self.owner = owner
        self.writer = writer
        self.sealed = False
        self.dropped = False
        self.pins: Counter[bytes] = Counter()


class NaiveStore:
    """What the store promises, with lists and loops. Time and places are left to the test."""

    def __init__(self) -> None:
        self.copies: list[NaiveCopy] = []
        self.queue: list[dict[str, Any]] = []
        self.waits: list[dict[str, Any]] = []
        self.dead: set[bytes] = set()
        #: ("created", client, rid) | ("refused", ...) | ("pinned", client, rid, sizes)
        self.replies: list[tuple[Any, ...]] = []

    def current(self, object_id: bytes) -> NaiveCopy | None:
        return next((c for c in self.copies if c.id == object_id and not c.dropped), None)

    def written(self, client: bytes, object_id: bytes) -> NaiveCopy | None:
        return next(
            (
                copy
                for copy in self.copies
                if copy.id == object_id and copy.writer == client and not copy.sealed
            ),
            None,
        )

    def used(self) -> int:
        return sum(copy.size for copy in self.copies)

    def collect(self) -> None:
        self.copies = [c for c in self.copies if not (c.dropped and c.sealed and not +c.pins)]

    def drop(self, object_id: bytes) -> None:
        current = self.current(object_id)
        if current is not None:
            current.dropped = True
        self.collect()

    def admit(self) -> None:
        while self.queue and self.used() + self.queue[0]["size"] <= CAPACITY:
            one = self.queue.pop(0)
            self.drop(one["id"])
            self.copies.append(NaiveCopy(one["id"], one["size"], one["owner"], one["client"]))
            self.replies.append(("created", one["client"], one["rid"]))

    def create(
        self, client: bytes, rid: int, object_id: bytes, size: int, owner: bytes, now: float
    ) -> None:
        if client in self.dead:
            return
        if owner in self.dead or size > CAPACITY:
            self.replies.append(("refused", client, rid))
            return
        for one in self.queue:
            if one["client"] == client and one["id"] == object_id and one["size"] == size:
                one["rid"] = rid
                return
        self.queue = [q for q in self.queue if (q["client"], q["id"]) != (client, object_id)]
        mine = self.written(client, object_id)
        if mine is not None:
            if mine.size == size and not mine.dropped:
                self.replies.append(("created", client, rid))
                return
            self.copies.remove(mine)
        self.drop(object_id)
        self.queue.append(
            {"client": client, "rid": rid, "id": object_id, "size": size, "owner": owner,
             "deadline": now + 2.0}
        )  # fmt: skip

    def resolve(self, object_id: bytes) -> None:
        copy = self.current(object_id)
        if copy is not None and not copy.sealed:
            return
        for wait in list(self.waits):
            if object_id in wait["missing"]:
                wait["missing"].discard(object_id)
                for at, wanted in enumerate(wait["ids"]):
                    if wanted == object_id and copy is not None:
                        copy.pins[wait["client"]] += 1
                        wait["sizes"][at] = copy.size
                self.finish(wait)

    def finish(self, wait: dict[str, Any]) -> None:
        if not wait["missing"]:
            if wait in self.waits:
                self.waits.remove(wait)
            self.replies.append(("pinned", wait["client"], wait["rid"], tuple(wait["sizes"])))

    def seal(self, client: bytes, object_id: bytes) -> None:
        copy = self.written(client, object_id)
        if copy is not None:
            copy.sealed = True
            self.collect()
            self.resolve(object_id)

    def abort(self, client: bytes, object_id: bytes) -> None:
        self.queue = [q for q in self.queue if (q["client"], q["id"]) != (client, object_id)]
        copy = self.written(client, object_id)
        if copy is not None:
            self.copies.remove(copy)
        self.resolve(object_id)

    def pin(self, client: bytes, rid: int, ids: list[bytes], now: float) -> None:
        wait: dict[str, Any] = {
            "client": client, "rid": rid, "ids": ids, "sizes": [-1] * len(ids), "missing": set(),
            "deadline": now + 2.0,
        }  # fmt: skip
        for at, object_id in enumerate(ids):
            copy = self.current(object_id)
            if copy is not None and copy.sealed:
                copy.pins[client] += 1
                wait["sizes"][at] = copy.size
            elif copy is not None:
                wait["missing"].add(object_id)
        if wait["missing"]:
            self.waits.append(wait)
        self.finish(wait)

    def unpin(self, client: bytes, object_id: bytes, count: int) -> None:
        left = count
        for copy in self.copies:
            if copy.id == object_id and copy.sealed:
                taken = min(left, copy.pins[client])
                copy.pins[client] -= taken
                left -= taken
        if left:
            for wait in list(self.waits):
                if wait["client"] == client and object_id in wait["missing"]:
                    wait["missing"].discard(object_id)
                    if not wait["missing"]:
                        self.waits.remove(wait)
        self.collect()

    def free(self, owner: bytes, object_id: bytes) -> None:
        copy = self.current(object_id)
        if copy is not None and copy.owner == owner:
            self.drop(object_id)
            self.resolve(object_id)

    def client_died(self, client: bytes) -> None:
        self.dead.add(client)
        self.queue = [one for one in self.queue if one["client"] != client]
        self.waits = [one for one in self.waits if one["client"] != client]
        for copy in [c for c in self.copies if c.writer == client and not c.sealed]:
            self.copies.remove(copy)
            self.resolve(copy.id)
        for copy in self.copies:
            copy.pins.pop(client, None)
        self.collect()

    def owner_died(self, owner: bytes) -> None:
        self.dead.add(owner)
        for one in [one for one in self.queue if one["owner"] == owner]:
            self.queue.remove(one)
            self.replies.append(("refused", one["client"], one["rid"]))
        for copy in [c for c in self.copies if c.owner == owner and not c.dropped]:
            self.drop(copy.id)
            self.resolve(copy.id)

    def passed(self, now: float) -> None:
        self.admit()
        while self.queue and self.queue[0]["deadline"] <= now:
            one = self.queue.pop(0)
            self.replies.append(("refused", one["client"], one["rid"]))
            self.admit()
        for wait in [wait for wait in self.waits if wait["deadline"] <= now]:
            wait["missing"].clear()
            self.finish(wait)


PROCESSES = st.sampled_from([b"a", b"b", b"c", b"d"])
OBJECTS = st.sampled_from([b"x", b"y", b"z"])


class StoreAgainstNaive(RuleBasedStateMachine):
    """Every reply agrees, bytes of a sealed copy never change while somebody may read them."""

    def __init__(self) -> None:
        super().__init__()
        cooling = CoolingRules(warm_bytes=6 * PAGE, idle_warm_bytes=PAGE, punch_bytes_max=PAGE)
        allocator = Allocator(CAPACITY * PAGE, LENGTH * PAGE, PAGE)
        self.store = ObjectStore(allocator, StoreRules(cooling=cooling))
        self.naive = NaiveStore()
        self.now = 0.0
        self.rid = 0
        self.replies: list[tuple[Any, ...]] = []
        #: One number a page: 0 no page, else the stamp of who wrote it last.
        self.arena = [0] * LENGTH
        self.stamps = 0
        #: Where each process writes each object: (page, pages, stamp).
        self.writing: dict[tuple[bytes, bytes], tuple[int, int, int]] = {}
        self.written: dict[int, tuple[bytes, bytes, int, int]] = {}
        #: Readers' view: (client, object) -> stamps they must keep seeing, oldest first.
        self.reading: dict[tuple[bytes, bytes], list[tuple[int, int, int]]] = {}
        self.asked: dict[tuple[bytes, int], Any] = {}

    def next_rid(self) -> int:
        self.rid += 1
        return self.rid

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Punch(ranges):
                    assert sum(length for _, length in ranges) <= PAGE
                    for at, length in ranges:
                        for page in range(at // PAGE, (at + length) // PAGE):
                            self.arena[page] = 0
                case Created(client, rid, offset, cold):
                    self.replies.append(("created", client, rid))
                    object_id, size = self.asked[client, rid]
                    self.write(client, object_id, offset // PAGE, size, cold)
                case Refuse(client, rid, _):
                    self.replies.append(("refused", client, rid))
                case AnswerPins(client, rid, places):
                    sizes = tuple(size // PAGE if at >= 0 else -1 for at, size in places)
                    self.replies.append(("pinned", client, rid, sizes))
                    for object_id, (at, size) in zip(self.asked[client, rid], places, strict=True):
                        if at >= 0:
                            page = at // PAGE
                            seen = (page, size // PAGE, self.arena[page])
                            assert seen[2] > 0
                            self.reading.setdefault((client, object_id), []).append(seen)
                case Complain():
                    pass

    def write(
        self, client: bytes, object_id: bytes, page: int, size: int, cold: tuple[Any, ...]
    ) -> None:
        """Claim what is cold, find everything else there, and leave a stamp."""
        claimed = {one // PAGE for at, length in cold for one in range(at, at + length, PAGE)}
        for one in range(page, page + size):
            if one in claimed and self.arena[one] == 0:
                self.arena[one] = -1
            assert self.arena[one] != 0, "a page was promised and is not there"
        assert LENGTH - self.arena.count(0) <= CAPACITY, "the file holds more than the store may"
        self.stamps += 1
        for one in range(page, page + size):
            self.arena[one] = self.stamps

    def settled(self, effects: list[Effect]) -> None:
        """Perform, then tick as long as something is due now; both twins have caught up then."""
        self.perform(effects)
        for _ in range(1000):
            deadline = self.store.deadline()
            if deadline is None or deadline > self.now:
                break
            self.perform(self.store.tick(self.now))
        else:
            raise AssertionError("the machine asks to be called again and again")
        self.naive.passed(self.now)
        assert sorted(self.replies, key=repr) == sorted(self.naive.replies, key=repr)
        self.replies.clear()
        self.naive.replies.clear()

    @rule(client=PROCESSES, object_id=OBJECTS, size=st.integers(1, CAPACITY + 1), owner=PROCESSES)
    def create(self, client: bytes, object_id: bytes, size: int, owner: bytes) -> None:
        rid = self.next_rid()
        self.asked[client, rid] = (object_id, size)
        effects = self.store.create(client, rid, object_id, size * PAGE, owner, self.now)
        self.naive.create(client, rid, object_id, size, owner, self.now)
        self.settled(effects)

    @rule(client=PROCESSES, object_id=OBJECTS)
    def seal(self, client: bytes, object_id: bytes) -> None:
        effects = self.store.seal(client, object_id, self.now)
        self.naive.seal(client, object_id)
        self.settled(effects)

    @rule(client=PROCESSES, object_id=OBJECTS, no_space=st.booleans())
    def abort(self, client: bytes, object_id: bytes, no_space: bool) -> None:
        effects = self.store.abort(client, object_id, self.now, no_space=no_space)
        if client not in self.naive.dead:
            self.naive.abort(client, object_id)
        self.settled(effects)

    @rule(client=PROCESSES, ids=st.lists(OBJECTS, min_size=1, max_size=3))
    def pin(self, client: bytes, ids: list[bytes]) -> None:
        rid = self.next_rid()
        self.asked[client, rid] = ids
        effects = self.store.pin(client, rid, ids, self.now)
        if client not in self.naive.dead:
            self.naive.pin(client, rid, ids, self.now)
        self.settled(effects)

    @rule(client=PROCESSES, object_id=OBJECTS, count=st.integers(1, 3))
    def unpin(self, client: bytes, object_id: bytes, count: int) -> None:
        del self.reading.get((client, object_id), [])[:count]
        effects = self.store.unpin(client, [(object_id, count)], self.now)
        if client not in self.naive.dead:
            self.naive.unpin(client, object_id, count)
        self.settled(effects)

    @rule(owner=PROCESSES, object_id=OBJECTS)
    def free(self, owner: bytes, object_id: bytes) -> None:
        effects = self.store.free(owner, [object_id], self.now)
        self.naive.free(owner, object_id)
        self.settled(effects)

    @rule(client=st.sampled_from([b"c", b"d"]))
    def client_dies(self, client: bytes) -> None:
        self.reading = {key: seen for key, seen in self.reading.items() if key[0] != client}
        effects = self.store.client_died(client, self.now)
        self.naive.client_died(client)
        self.settled(effects)

    @rule(owner=st.sampled_from([b"d", b"e"]))
    def owner_dies(self, owner: bytes) -> None:
        # As in a node: a process that is dead as an owner is dead as a client.
        effects = self.store.client_died(owner, self.now)
        self.reading = {key: seen for key, seen in self.reading.items() if key[0] != owner}
        self.naive.client_died(owner)
        self.settled(effects)
        effects = self.store.owner_died(owner, self.now)
        self.naive.owner_died(owner)
        self.settled(effects)

    @rule()
    def press(self) -> None:
        self.settled(self.store.press(self.now))

    @rule(seconds=st.sampled_from([0.3, 1.0, 2.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.settled([])

    @invariant()
    def readers_see_what_was_sealed(self) -> None:
        for seen in self.reading.values():
            for page, size, stamp in seen:
                assert self.arena[page : page + size] == [stamp] * size

    @invariant()
    def figures_agree(self) -> None:
        self.store.check()
        assert self.store.used_bytes == self.naive.used() * PAGE
        if self.store.deadline() is None:
            assert self.store.warm_bytes <= PAGE


TestAllocator = AllocatorAgainstMap.TestCase
TestAllocator.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestStore = StoreAgainstNaive.TestCase
TestStore.settings = settings(max_examples=250, stateful_step_count=50, deadline=None)
