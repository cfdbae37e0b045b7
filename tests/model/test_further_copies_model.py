"""The world of the spilling model with copies of what other nodes keep.

They come, are read, sent on, promoted, freed; and they make room before anything is written to
disk, without a word but to their owners.
"""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import precondition, rule

from mray.node.objects.effects import Effect, Evicted, WriteSpill
from mray.wire.messages import Address
from tests.model.test_spill_model import PAGE, World

NODE = b"node"
FAR = Address(b"far", b"another node")


class FurtherWorld(World):
    """See the module. Further copies are called f<number>."""

    def __init__(self) -> None:
        super().__init__()
        #: Copies that are no more than that, and those that are sent to others.
        self.further: set[bytes] = set()
        self.held: dict[bytes, int] = {}

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Evicted):
                assert effect.owner == FAR
                for object_id in effect.object_ids:
                    assert object_id in self.further
                    assert not any(one == object_id for _, one in self.pins), "it was read"
                    assert object_id not in self.held, "it was being sent"
                    self.further.discard(object_id)
                    del self.objects[object_id]
                continue
            if isinstance(effect, WriteSpill):
                names = {self.store.copy_at(offset).object_id for offset, _, _ in effect.parts}
                assert not names & self.further, "a copy of what others keep goes to disk"
            super().perform([effect])

    def step(self, effects: list[Effect]) -> None:
        # Whatever rule of the base it was: what is freed is no copy any more.
        self.further &= set(self.objects)
        super().step(effects)

    @rule(number=st.integers(0, 5), pages=st.integers(1, 6))
    def bring(self, number: int, pages: int) -> None:
        object_id = b"f%d" % number
        if object_id in self.objects or (NODE, object_id) in self.writing:
            return
        if any(kind == "create" and data[0] == object_id for kind, data in self.asked.values()):
            return
        self.rid += 1
        self.asked[NODE, self.rid] = ("create", (object_id, pages, FAR.process_id))
        self.step(
            self.store.create(
                NODE, self.rid, object_id, pages * PAGE, FAR.process_id, self.now
            )
        )

    @precondition(lambda self: any(client == NODE for client, _ in self.writing))
    @rule()
    def all_that_came_is_complete(self) -> None:
        for key in [key for key in self.writing if key[0] == NODE]:
            if key in self.writing:
                self.finish_writing(*key)

    def finish_writing(self, client: bytes, object_id: bytes) -> None:
        if client != NODE:
            super().finish_writing(client, object_id)
            return
        _, pages, stamp = self.writing.pop((client, object_id))
        self.objects[object_id] = (FAR.process_id, stamp, pages)
        self.further.add(object_id)
        self.step(self.store.seal_further(NODE, object_id, FAR, self.now))

    @rule(number=st.integers(0, 5))
    def promote(self, number: int) -> None:
        object_id = b"f%d" % number
        effects, missing = self.store.promote([object_id], self.now)
        assert missing == ([] if object_id in self.objects else [object_id])
        self.further.discard(object_id)
        self.step(effects)

    @rule(number=st.integers(0, 5))
    def hold(self, number: int) -> None:
        object_id = b"f%d" % number
        if object_id in self.held or object_id not in self.objects:
            return
        offset = self.store.hold(NODE, object_id)
        if offset is not None:
            assert self.memory[offset // PAGE] == self.objects[object_id][1]
            self.held[object_id] = offset

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        object_id = data.draw(st.sampled_from(sorted(self.held)))
        del self.held[object_id]
        self.step(self.store.unpin(NODE, [(object_id, 1)], self.now))

    @rule()
    def owners_elsewhere_free_all(self) -> None:
        ids = [b"f%d" % number for number in range(6)]
        for object_id in ids:
            self.objects.pop(object_id, None)
        self.further.clear()
        self.step(self.store.free(FAR.process_id, ids, self.now))
        for key in [key for key in self.writing if key[0] == NODE]:
            del self.writing[key]
            self.step(self.store.abort(NODE, key[1], self.now))

    @precondition(lambda self: self.further)
    @rule(data=st.data())
    def owner_elsewhere_frees(self, data: st.DataObject) -> None:
        object_id = data.draw(st.sampled_from(sorted(self.further)))
        self.further.discard(object_id)
        del self.objects[object_id]
        self.step(self.store.free(FAR.process_id, [object_id], self.now))

    def teardown(self) -> None:
        for object_id in list(self.held):
            del self.held[object_id]
            self.step(self.store.unpin(NODE, [(object_id, 1)], self.now))
        super().teardown()


TestFurtherCopies = FurtherWorld.TestCase
TestFurtherCopies.settings = settings(max_examples=50, stateful_step_count=60, deadline=None)
