"""Lineage: what the owner keeps of finished tasks, so that lost results can be made again.

Machine. Owns which tasks are kept, what that keeps of their arguments, how many bytes all of it may
take, and when it is let go. Runs nothing again: rebuilding.py decides that. What a value or a
reference is, references.py knows; the two call each other.

Only values in a store can be lost while their owner lives, so only tasks with such returns are
here. A record lives as long as one of those returns does, or is needed to make another. It can be
hollow: then its task cannot be run again, and it says why.

What a record keeps of an argument (``Pins.lineage``) depends on the argument:
  - one that can itself be made again keeps its record, and its value may go
  - any other (put, inline, borrowed) keeps its value
An actor's handle is no argument here: a result does not keep the actor alive that made it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mray.ids import TASK_BYTES
from mray.machine import InvariantError
from mray.ownership.entry import Entry, Pins

#: As in Ray. When it is reached, the older half goes.
LINEAGE_MAX_BYTES = 1 << 30

#: Why a task is not run again, by Ray's names of errors. See rebuilding.py for the texts.
RETRIES_DISABLED = "OBJECT_UNRECONSTRUCTABLE_RETRIES_DISABLED"
MAX_ATTEMPTS = "OBJECT_UNRECONSTRUCTABLE_MAX_ATTEMPTS_EXCEEDED"
EVICTED = "OBJECT_UNRECONSTRUCTABLE_LINEAGE_EVICTED"
CANCELLED = "OBJECT_UNRECONSTRUCTABLE_TASK_CANCELLED"


class Record:
    """What is kept of one finished task."""

    __slots__ = ("inputs", "open", "size_bytes", "task", "why")

    def __init__(self, task: Any, size_bytes: int, inputs: list[Entry], why: str) -> None:
        #: What is needed to run it again; None: it cannot be, and ``why`` says why not.
        self.task = task
        self.size_bytes = size_bytes
        self.inputs = inputs
        self.why = why
        #: Its returns that are in a store, or were and are needed by other records.
        self.open: dict[bytes, None] = {}


class Lineage:
    """See the module. Methods that let something go return the entries to settle."""

    def __init__(self, max_bytes: int = LINEAGE_MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        #: By task id; those that are not hollow in ``_whole`` too, oldest first.
        self.records: dict[bytes, Record] = {}
        self._whole: dict[bytes, Record] = {}
        self.total_bytes = 0
        #: Tasks dropped so far because there was no room.
        self.evicted = 0

    def can_rebuild(self, entry: Entry) -> bool:
        """Whether the value of an entry can be made again."""
        record = self.records.get(entry.object_id[:TASK_BYTES])
        return record is not None and record.task is not None and entry.object_id in record.open

    # -- events

    def keep(
        self,
        task_id: bytes,
        task: Any,
        size_bytes: int,
        inputs: Iterable[Entry],
        returns: Iterable[Entry],
    ) -> list[Entry]:
        """A task has finished, and these returns of it are in a store. It may be run again."""
        inputs = [entry for entry in inputs if not entry.is_actor]
        record = Record(task, size_bytes, inputs, "")
        for entry in inputs:
            if entry.pins is None:
                entry.pins = Pins()
            entry.pins.lineage += 1
        loose = self._file(task_id, record, returns)
        if record.open:
            self._whole[task_id] = record
            self.total_bytes += size_bytes
            if self.total_bytes > self.max_bytes:
                loose += self._evict()
        else:
            del self.records[task_id]
            loose += self._drop([record])
        return loose

    def forgo(self, task_id: bytes, why: str, returns: Iterable[Entry]) -> list[Entry]:
        """A task has finished, and these returns of it are in a store. It may not be run again."""
        record = Record(None, 0, [], why)
        loose = self._file(task_id, record, returns)
        if not record.open:
            del self.records[task_id]
        return loose

    def _file(self, task_id: bytes, record: Record, returns: Iterable[Entry]) -> list[Entry]:
        """Put a record in the place of the one before, if there is one."""
        former = self.records.pop(task_id, None)
        record.open = dict.fromkeys(entry.object_id for entry in returns)
        self.records[task_id] = record
        if former is None:
            return []
        record.open.update(former.open)
        if self._whole.pop(task_id, None) is not None:
            self.total_bytes -= former.size_bytes
        return self._drop([former])

    def close(self, entry: Entry) -> list[Entry]:
        """The value of an object is not in a store any more, and will not be again."""
        return self._close([entry], [])

    def _close(self, stack: list[Entry], loose: list[Entry]) -> list[Entry]:
        # A loop, not a recursion: chains of tasks are as long as users make them.
        while stack:
            entry = stack.pop()
            if entry.pins is not None and entry.pins.lineage and entry.located is not None:
                continue
            task_id = entry.object_id[:TASK_BYTES]
            record = self.records.get(task_id)
            if record is None or entry.object_id not in record.open:
                continue
            del record.open[entry.object_id]
            if not record.open:
                del self.records[task_id]
                if self._whole.pop(task_id, None) is not None:
                    self.total_bytes -= record.size_bytes
                self._release(record, stack, loose)
        return loose

    def _drop(self, records: list[Record]) -> list[Entry]:
        stack: list[Entry] = []
        loose: list[Entry] = []
        for record in records:
            self._release(record, stack, loose)
        return self._close(stack, loose)

    @staticmethod
    def _release(record: Record, stack: list[Entry], loose: list[Entry]) -> None:
        """A record needs its arguments no more."""
        inputs, record.inputs, record.task = record.inputs, [], None
        for entry in inputs:
            pins = entry.pins
            assert pins is not None
            pins.lineage -= 1
            if pins.lineage:
                continue
            if not (pins.pinned or pins.captured):
                entry.pins = None
            if entry.freed:
                stack.append(entry)
            else:
                loose.append(entry)

    def _evict(self) -> list[Entry]:
        """Drop the oldest tasks until half of the room is free."""
        going = []
        for task_id in list(self._whole):
            if self.total_bytes <= self.max_bytes // 2:
                break
            record = self._whole.pop(task_id)
            self.total_bytes -= record.size_bytes
            record.why = EVICTED
            going.append(record)
        self.evicted += len(going)
        return self._drop(going)

    def check(self) -> None:
        """Raise InvariantError on a contradiction."""
        counts: dict[int, int] = {}
        total = 0
        for task_id, record in self.records.items():
            if not record.open:
                raise InvariantError(f"the lineage of task {task_id.hex()} is kept for nothing")
            if (record.task is None) == (task_id in self._whole) or (
                record.task is None and (record.inputs or not record.why)
            ):
                raise InvariantError(f"the lineage of task {task_id.hex()} is hollow and is not")
            total += record.size_bytes if record.task is not None else 0
            for entry in record.inputs:
                counts[id(entry)] = counts.get(id(entry), 0) + 1
        if total != self.total_bytes or len(self._whole) > len(self.records):
            raise InvariantError(f"the lineage has {total} bytes, and {self.total_bytes} are noted")
        for record in self.records.values():
            for entry in record.inputs:
                if entry.pins is None or entry.pins.lineage != counts[id(entry)]:
                    raise InvariantError(
                        f"{entry.object_id.hex()}: needed by the lineage of {counts[id(entry)]} "
                        "tasks, which is miscounted"
                    )
