"""The store machine with disks, at random: bytes never change under a reader, nothing is lost that
was not lost by a disk, everybody is answered, and nothing stays behind.

The world around it is played here: an arena and disks of stamps (one number a page), writes and
reads that take as long as the test likes and may fail, and owners that read by place, answer late
or die. A stamp stands for the bytes of one version of an object.
"""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mray.node.objects.allocator import Allocator
from mray.node.objects.cooling import CoolingRules
from mray.node.objects.effects import (
    AnswerPins,
    AskPlaces,
    Complain,
    Created,
    DeleteSpill,
    Effect,
    Punch,
    PunchSpill,
    ReadSpill,
    Refuse,
    Tell,
    TellLost,
    WriteSpill,
)
from mray.node.objects.files import DiskFailure
from mray.node.objects.spilling import SpillRules
from mray.node.objects.store import ObjectStore, StoreRules

PAGE = 4096
CAPACITY = 10
LENGTH = CAPACITY * 8
OVERFLOW = 64

CLIENTS = (b"a", b"b", b"c")
IDS = st.integers(0, 7)


class World(RuleBasedStateMachine):
    """See the module."""

    overflow_pages = OVERFLOW
    disks = ("d0", "d1")

    def __init__(self) -> None:
        super().__init__()
        cooling = CoolingRules(warm_bytes=4 * PAGE, idle_warm_bytes=PAGE, punch_bytes_max=3 * PAGE)
        spill = SpillRules(
            disks=self.disks, batch_bytes=2 * PAGE, file_bytes_max=4 * PAGE, fused_max=3, workers=3
        )
        self.store = ObjectStore(
            Allocator(CAPACITY * PAGE, LENGTH * PAGE, PAGE),
            StoreRules(cooling=cooling, spill=spill, overflow_bytes=self.overflow_pages * PAGE),
        )
        self.now = 0.0
        self.rid = 0
        self.stamps = 0
        self.memory = [0] * (LENGTH + OVERFLOW)
        #: (disk, file) -> {where in the file: stamp}
        self.files: dict[tuple[int, int], dict[int, int]] = {}
        self.io: list[WriteSpill | ReadSpill] = []
        self.questions: list[AskPlaces] = []
        #: Open requests: (client, rid) -> (what, details)
        self.asked: dict[tuple[bytes, int], tuple[str, Any]] = {}
        #: What clients fill: (client, object) -> (page, pages, stamp)
        self.writing: dict[tuple[bytes, bytes], tuple[int, int, int]] = {}
        #: Living objects: object -> (owner, stamp, pages)
        self.objects: dict[bytes, tuple[bytes, int, int]] = {}
        #: Objects that a disk has lost.
        self.lost: set[bytes] = set()
        #: Of which owners were told.
        self.told_lost: set[bytes] = set()
        #: Pinned buffers: (client, object) -> list of (page, pages, stamp), oldest first
        self.pins: dict[tuple[bytes, bytes], list[tuple[int, int, int]]] = {}
        #: Owners' places, and the buffers they have over them.
        self.places: dict[bytes, tuple[int, int, int]] = {}
        self.in_use: set[bytes] = set()
        self.refused: set[bytes] = set()
        self.dead: set[bytes] = set()

    # ------------------------------------------------------------------------------- the world

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Punch(ranges):
                    for at, length in ranges:
                        for page in range(at // PAGE, (at + length) // PAGE):
                            self.memory[page] = 0
                case Created(client, rid, offset, cold):
                    self.created(client, rid, offset // PAGE, cold)
                case Refuse(client, rid, _):
                    kind, ids = self.asked.pop((client, rid))
                    if kind == "pin":
                        # As the client does: it gives back what it may have.
                        back = [(object_id, 1) for object_id in ids]
                        self.perform(self.store.unpin(client, back, self.now))
                case AnswerPins(client, rid, places, _):
                    self.answered(client, rid, places)
                case WriteSpill() | ReadSpill():
                    self.io.append(effect)
                case DeleteSpill(disk, file):
                    del self.files[disk, file]
                case PunchSpill(disk, file, at, _):
                    del self.files[disk, file][at]
                case AskPlaces():
                    self.questions.append(effect)
                case TellLost(_, object_id, _):
                    assert object_id in self.lost, "an owner was told of a loss that was none"
                    self.told_lost.add(object_id)
                case Tell() | Complain():
                    pass

    def created(self, client: bytes, rid: int, page: int, cold: tuple[Any, ...]) -> None:
        kind, (object_id, pages, _) = self.asked.pop((client, rid))
        assert kind == "create"
        claimed = {one // PAGE for at, length in cold for one in range(at, at + length, PAGE)}
        for one in range(page, page + pages):
            assert one in claimed or self.memory[one] != 0, "a page was promised and is not there"
        arena = [stamp for stamp in self.memory[:LENGTH] if stamp]
        if page < LENGTH:
            fresh = [one for one in claimed if not self.memory[one]]
            assert len(arena) + len(fresh) <= CAPACITY, "the arena holds more than it may"
        self.stamps += 1
        for one in range(page, page + pages):
            self.memory[one] = self.stamps
        self.writing[client, object_id] = (page, pages, self.stamps)

    def answered(self, client: bytes, rid: int, places: tuple[tuple[int, int], ...]) -> None:
        kind, ids = self.asked.pop((client, rid))
        assert kind == "pin"
        for object_id, (offset, size) in zip(ids, places, strict=True):
            if offset >= 0:
                page, pages = offset // PAGE, size // PAGE
                seen = (page, pages, self.memory[page])
                assert object_id not in self.objects or self.objects[object_id][1] == seen[2]
                self.pins.setdefault((client, object_id), []).append(seen)
            else:
                assert object_id not in self.objects or object_id in self.unsealed(), (
                    "a living object was said not to be here"
                )

    def unsealed(self) -> set[bytes]:
        return {object_id for _, object_id in self.writing}

    def step(self, effects: list[Effect]) -> None:
        """Perform, and tick as long as something is due at once."""
        self.perform(effects)
        self.store.check()
        for _ in range(500):
            deadline = self.store.deadline()
            if deadline is None or deadline > self.now:
                return
            self.perform(self.store.tick(self.now))
            self.store.check()
        raise AssertionError("the machine asks to be called again and again")

    # ---------------------------------------------------------------------------------- clients

    @rule(client=st.sampled_from(CLIENTS), number=IDS, pages=st.integers(1, 6), own=st.booleans())
    def create_only(self, client: bytes, number: int, pages: int, own: bool) -> None:
        self.create(client, number, pages, own)

    def create(self, client: bytes, number: int, pages: int, own: bool) -> None:
        if own:
            # What an owner puts has a new id each time.
            self.rid += 1
            object_id, owner = b"p%d" % self.rid, client
        else:
            object_id, owner = b"t%d" % number, CLIENTS[number % 3]
        if client in self.dead or owner in self.dead or (client, object_id) in self.writing:
            return
        if any(kind == "create" and data[0] == object_id for kind, data in self.asked.values()):
            return
        # A task's output is made again only by a retry, when it has been lost or freed.
        if object_id in self.objects or object_id in self.unsealed():
            return
        self.rid += 1
        self.asked[client, self.rid] = ("create", (object_id, pages, owner))
        self.step(self.store.create(client, self.rid, object_id, pages * PAGE, owner, self.now))

    @rule(client=st.sampled_from(CLIENTS), number=IDS, pages=st.integers(1, 4), own=st.booleans())
    def make(self, client: bytes, number: int, pages: int, own: bool) -> None:
        """Create and seal in one, where there is room."""
        before = set(self.writing)
        self.create(client, number, pages, own)
        for key in set(self.writing) - before:
            self.finish_writing(*key)

    @precondition(lambda self: self.writing)
    @rule(data=st.data())
    def seal(self, data: st.DataObject) -> None:
        self.finish_writing(*data.draw(st.sampled_from(sorted(self.writing))))

    def finish_writing(self, client: bytes, object_id: bytes) -> None:
        page, pages, stamp = self.writing.pop((client, object_id))
        owner = client if object_id[:1] == b"p" else CLIENTS[int(object_id[1:]) % 3]
        if owner in self.dead:
            self.step(self.store.seal(client, object_id, self.now))
            return
        self.lost.discard(object_id)
        self.told_lost.discard(object_id)
        self.objects[object_id] = (owner, stamp, pages)
        if object_id[:1] == b"p":
            self.places[object_id] = (page, pages, stamp)
        self.step(self.store.seal(client, object_id, self.now))

    @precondition(lambda self: self.writing)
    @rule(data=st.data(), no_space=st.booleans())
    def abort(self, data: st.DataObject, no_space: bool) -> None:
        client, object_id = data.draw(st.sampled_from(sorted(self.writing)))
        del self.writing[client, object_id]
        self.step(self.store.abort(client, object_id, self.now, no_space=no_space))

    @precondition(lambda self: self.objects)
    @rule(data=st.data(), client=st.sampled_from(CLIENTS), count=st.integers(1, 3))
    def pin(self, data: st.DataObject, client: bytes, count: int) -> None:
        known = sorted(self.objects)
        ids = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=count, unique=True))
        # A client asks for what it has no buffers over, and once at a time.
        asking = {
            one
            for (who, _), (kind, what) in self.asked.items()
            if who == client and kind == "pin"
            for one in what
        }
        ids = [
            one
            for one in ids
            if not self.pins.get((client, one))
            and one not in asking
            and not (self.objects[one][0] == client and one in self.places)
        ]
        if client in self.dead or not ids:
            return
        self.rid += 1
        self.asked[client, self.rid] = ("pin", ids)
        self.step(self.store.pin(client, self.rid, ids, self.now))

    @precondition(lambda self: self.pins)
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.pins)))
        self.pins[key].pop(0)
        if not self.pins[key]:
            del self.pins[key]
        self.step(self.store.unpin(key[0], [(key[1], 1)], self.now))

    @precondition(lambda self: self.places)
    @rule(data=st.data())
    def owner_reads_by_place(self, data: st.DataObject) -> None:
        self.in_use.add(data.draw(st.sampled_from(sorted(self.places))))

    @precondition(lambda self: self.in_use)
    @rule(data=st.data())
    def owner_drops_its_buffers(self, data: st.DataObject) -> None:
        object_id = data.draw(st.sampled_from(sorted(self.in_use)))
        self.in_use.discard(object_id)
        if object_id in self.refused:
            # Unasked, as soon as it can.
            self.refused.discard(object_id)
            self.places.pop(object_id)
            owner = self.objects[object_id][0]
            self.step(self.store.places_given_up(owner, 0, [object_id], self.now))

    @precondition(lambda self: self.questions)
    @rule(data=st.data())
    def owner_answers(self, data: st.DataObject) -> None:
        question = data.draw(st.sampled_from(self.questions))
        self.questions.remove(question)
        if question.owner in self.dead:
            return
        given = [one for one in question.object_ids if one not in self.in_use]
        self.refused.update(one for one in question.object_ids if one in self.in_use)
        for object_id in given:
            self.places.pop(object_id, None)
        self.step(self.store.places_given_up(question.owner, question.rid, given, self.now))

    @precondition(lambda self: self.objects)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        object_id = data.draw(st.sampled_from(sorted(self.objects)))
        if object_id in self.in_use:
            return
        owner = self.objects.pop(object_id)[0]
        self.places.pop(object_id, None)
        self.step(self.store.free(owner, [object_id], self.now))

    @precondition(lambda self: self.stamps > 12)
    @rule(client=st.sampled_from(CLIENTS[1:]))
    def process_dies(self, client: bytes) -> None:
        if client in self.dead:
            return
        self.dead.add(client)
        self.asked = {key: asked for key, asked in self.asked.items() if key[0] != client}
        self.writing = {key: one for key, one in self.writing.items() if key[0] != client}
        self.pins = {key: one for key, one in self.pins.items() if key[0] != client}
        for object_id, (owner, _, _) in list(self.objects.items()):
            if owner == client:
                del self.objects[object_id]
                self.places.pop(object_id, None)
                self.in_use.discard(object_id)
        self.perform(self.store.client_died(client, self.now))
        self.step(self.store.owner_died(client, self.now))

    # ------------------------------------------------------------------------------- disks, time

    @precondition(lambda self: self.io)
    @rule(data=st.data(), outcome=st.sampled_from(["ok"] * 8 + ["full", "broken"]))
    def disk_is_done(self, data: st.DataObject, outcome: str) -> None:
        job = self.io.pop(data.draw(st.integers(0, len(self.io) - 1)))
        self.finish(job, outcome)

    def finish(self, job: WriteSpill | ReadSpill, outcome: str) -> None:
        if isinstance(job, WriteSpill):
            if outcome != "ok":
                failure = DiskFailure(outcome == "full", outcome)
                self.step(self.store.spill_failed(job.file, failure, self.now))
                return
            content = {at: self.memory[offset // PAGE] for offset, _, at in job.parts}
            self.files[job.disk, job.file] = content
            self.step(self.store.spill_written(job.file, [7] * len(job.parts), 0.1, self.now))
            return
        copy = self.store.copy_at(job.offset)
        if outcome == "full":
            self.step(self.store.spill_read_no_space(job.number, self.now))
        elif outcome == "broken":
            if not copy.dropped:
                self.objects.pop(copy.object_id)
                self.lost.add(copy.object_id)
            self.step(self.store.spill_read_failed(job.number, "broken", self.now))
            assert self.lost <= self.told_lost, "an owner was not told of a loss"
        else:
            stamp = self.files[job.disk, job.file][job.at]
            for page in range(job.offset // PAGE, (job.offset + job.size) // PAGE):
                self.memory[page] = stamp
            self.step(self.store.spill_read(job.number, 0.1, self.now))

    @rule(seconds=st.sampled_from([0.3, 1.0, 2.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.step([])

    @rule(pages=st.integers(0, 12))
    def press(self, pages: int) -> None:
        self.step(self.store.press(self.now, pages * PAGE))

    @rule()
    def relax(self) -> None:
        self.step(self.store.relax(self.now))

    # -------------------------------------------------------------------------------- invariants

    @invariant()
    def readers_see_what_was_sealed(self) -> None:
        for seen in self.pins.values():
            for page, pages, stamp in seen:
                assert self.memory[page : page + pages] == [stamp] * pages

    @invariant()
    def an_owner_reads_by_place_only_what_the_node_leaves_there(self) -> None:
        for page, pages, stamp in self.places.values():
            assert self.memory[page : page + pages] == [stamp] * pages
        by_place = {copy.object_id for copy in self.store.copies() if copy.by_place}
        assert set(self.places) <= by_place

    @invariant()
    def every_living_object_is_somewhere(self) -> None:
        copies = {copy.object_id: copy for copy in self.store.copies() if not copy.dropped}
        for object_id, (_, stamp, _) in self.objects.items():
            copy = copies[object_id]
            if copy.here:
                assert self.memory[copy.offset // PAGE] == stamp
            elif copy.slot is not None:
                slot = copy.slot
                assert self.files[slot.disk, slot.file][slot.at] == stamp

    @invariant()
    def the_arena_holds_no_more_than_its_capacity(self) -> None:
        assert self.store.used_bytes <= CAPACITY * PAGE

    def teardown(self) -> None:
        """Disks recover, readers and writers finish: all is answered, and freed without a trace."""
        for _ in range(200):
            if self.io:
                self.finish(self.io.pop(0), "ok")
            elif self.questions:
                question = self.questions.pop(0)
                if question.owner not in self.dead:
                    given = [one for one in question.object_ids if one not in self.in_use]
                    for object_id in given:
                        self.places.pop(object_id, None)
                    self.step(
                        self.store.places_given_up(question.owner, question.rid, given, self.now)
                    )
            elif self.writing:
                client, object_id = next(iter(self.writing))
                del self.writing[client, object_id]
                self.step(self.store.abort(client, object_id, self.now))
            elif self.asked:
                self.now += 1.0
                self.step([])
            else:
                break
        assert not self.asked, "somebody was never answered"
        for client, object_id in list(self.pins):
            count = len(self.pins.pop((client, object_id)))
            self.step(self.store.unpin(client, [(object_id, count)], self.now))
        for object_id, (owner, _, _) in list(self.objects.items()):
            del self.objects[object_id]
            self.places.pop(object_id, None)
            self.step(self.store.free(owner, [object_id], self.now))
        for _ in range(100):
            if not self.io:
                break
            self.finish(self.io.pop(0), "ok")
        self.now += 60.0
        self.step([])
        assert not self.io
        left = [(copy.object_id, copy.state, copy.pins) for copy in self.store.copies()]
        assert (left, self.files, self.store.used_bytes) == ([], {}, 0)
        assert self.store.space.overflow_bytes == 0
        assert not any(self.memory[LENGTH:])


class WorldWithoutOverflow(World):
    """Only a remote disk: what cannot have room is refused."""

    overflow_pages = 0
    disks = ("d0",)


TestSpilling = World.TestCase
TestSpilling.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestSpillingWithoutOverflow = WorldWithoutOverflow.TestCase
TestSpillingWithoutOverflow.settings = settings(
    max_examples=25, stateful_step_count=60, deadline=None
)
