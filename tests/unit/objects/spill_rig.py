"""A store machine with disks for tests, an object in a line."""

from __future__ import annotations

from typing import Any, TypeVar

from mray.node.objects.allocator import Allocator
from mray.node.objects.cooling import CoolingRules
from mray.node.objects.effects import (
    AnswerPins,
    AskPlaces,
    Created,
    Effect,
    ReadSpill,
    Refuse,
    WriteSpill,
)
from mray.node.objects.files import DiskFailure
from mray.node.objects.lifecycle import Copy
from mray.node.objects.spilling import SpillRules
from mray.node.objects.store import ObjectStore, StoreRules

PAGE = 4096
ME, TASK, READER = b"me", b"task", b"reader"

_E = TypeVar("_E")


class Rig:
    """``pages``: capacity. The threshold is all of it unless ``spill`` says otherwise."""

    def __init__(self, pages: int = 10, overflow_pages: int = 100, **spill: Any) -> None:
        rules: dict[str, Any] = {"disks": ("d0",), "threshold": 1.0, "batch_bytes": PAGE} | spill
        self.store = ObjectStore(
            Allocator(pages * PAGE, pages * 8 * PAGE, PAGE),
            StoreRules(
                cooling=CoolingRules(warm_bytes=pages * PAGE),
                spill=SpillRules(**rules),
                overflow_bytes=overflow_pages * PAGE,
            ),
        )
        self.now = 100.0
        self.rid = 0
        #: All effects since the last ``take``.
        self.effects: list[Effect] = []

    def note(self, effects: list[Effect]) -> list[Effect]:
        self.effects += effects
        self.store.check()
        return effects

    def take(self, kind: type[_E]) -> list[_E]:
        """The effects of a kind since the last time."""
        taken = [effect for effect in self.effects if isinstance(effect, kind)]
        self.effects = [effect for effect in self.effects if not isinstance(effect, kind)]
        return taken

    def create(self, name: bytes, pages: int, writer: bytes = TASK) -> int:
        self.rid += 1
        self.note(self.store.create(writer, self.rid, name, pages * PAGE, ME, self.now))
        return self.rid

    def make(self, name: bytes, pages: int, writer: bytes = TASK) -> bool:
        """Create and seal; False if there is no room at once."""
        rid = self.create(name, pages, writer)
        if not any(one.rid == rid for one in self.take(Created)):
            return False
        self.note(self.store.seal(writer, name, self.now))
        return True

    def pin(self, *names: bytes, reader: bytes = READER) -> AnswerPins | None:
        """The answer, if there is one at once."""
        self.rid += 1
        self.note(self.store.pin(reader, self.rid, names, self.now))
        return next((one for one in self.take(AnswerPins) if one.rid == self.rid), None)

    def unpin(self, name: bytes, reader: bytes = READER) -> None:
        self.note(self.store.unpin(reader, [(name, 1)], self.now))

    def free(self, *names: bytes) -> None:
        self.note(self.store.free(ME, names, self.now))

    def written(self, write: WriteSpill) -> None:
        crcs = [7] * len(write.parts)
        self.note(self.store.spill_written(write.file, crcs, 0.1, self.now))

    def failed(self, write: WriteSpill, *, full: bool = False) -> None:
        failure = DiskFailure(full, "full" if full else "broken")
        self.note(self.store.spill_failed(write.file, failure, self.now))

    def read(self, read: ReadSpill) -> None:
        self.note(self.store.spill_read(read.number, 0.1, self.now))

    def give_up(self, question: AskPlaces, *names: bytes) -> None:
        self.note(self.store.places_given_up(question.owner, question.rid, names, self.now))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for _ in range(100):
            deadline = self.store.deadline()
            if deadline is None or deadline > self.now:
                return
            self.note(self.store.tick(self.now))
        raise AssertionError("the machine asks to be called again and again")

    def spilled(self, name: bytes, pages: int) -> None:
        """Make an object and have it go to disk."""
        assert self.make(name, pages)
        filler = b"filler of " + name
        self.create(filler, self.store.capacity_bytes // PAGE)
        for _ in range(10):
            writes = self.take(WriteSpill)
            for write in writes:
                self.written(write)
            if not writes:
                break
        self.note(self.store.abort(TASK, filler, self.now))
        self.take(Created)
        assert self.state(name) == "spilled"

    def copy(self, name: bytes) -> Copy:
        return next(one for one in self.store.copies() if one.object_id == name)

    def state(self, name: bytes) -> str:
        return next((one.state for one in self.store.copies() if one.object_id == name), "gone")

    def refused(self) -> list[str]:
        return [type(one.why).__name__ for one in self.take(Refuse)]
