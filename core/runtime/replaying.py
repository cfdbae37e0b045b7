"""Generators that run again because items of theirs were lost.

Owns what becomes of the items of such a run: the lost ones get their values back, the others are
there and are thrown away. The run skips what comes before the first lost item, and goes on without
sending once the last has come. Streams that users take from are streams.py's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mray.ids import TASK_BYTES, TaskId, object_id
from mray.ownership.entry import Entry
from mray.runtime.streams import Source
from mray.tasks.streams import DYNAMIC, Stream
from mray.tasks.task import Task
from mray.wire.messages import Returned

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime


class Replays:
    """See the module. All in the loop."""

    def __init__(self, runtime: Runtime) -> None:
        self.rt = runtime
        self.sources = runtime.streams.sources

    def stored(self, task: Task) -> list[Entry]:
        """The items of a generator that are in a store and still known here."""
        if task.template.num_returns >= 0 or task.stream.stored is None:
            return []
        first, last = task.stream.stored
        entries, task_id = self.rt.references.entries, TaskId(task.task_id)
        found = []
        for number in range(first, last + 1):
            entry = entries.get(object_id(task_id, number + 1))
            if entry is not None and entry.located is not None:
                found.append(entry)
        return found

    def begin(self, task: Task, wanted: list[Entry]) -> None:
        """A generator is about to run again for these items, and perhaps its completion."""
        items = [number for entry in wanted if (number := _number_of(entry)) > 0]
        former = task.stream
        stream = Stream(task.task_id, former.limit)
        stream.received = min(items) - 1 if items else former.received
        stream.stored = former.stored
        task.stream = stream
        source = Source(self.rt.streams, stream, task, task.returns[0])
        source.replays = True
        stream.dropped = not items
        self.sources[task.task_id] = source

    def arrived(self, source: Source, number: int, returned: Returned) -> None:
        """An item of such a run."""
        made = object_id(TaskId(source.task.task_id), number + 1)
        wanted = self._wanted(source.task.task_id)
        entry = wanted.get(made)
        if entry is not None:
            self.rt.recovering.refill(entry, returned)
            source.stream.dropped = all(one.ready for one in wanted.values())
            return
        self.rt.borrowing.decline([returned])
        if returned.located is not None:
            self.rt.recovering.copies.discard(made, returned.located)

    def end(self, task: Task, error: bytes | None) -> None:
        """The run is over; with an error, or with what it raised itself."""
        if task.template.num_returns >= 0:
            return
        source = self.sources.pop(task.task_id, None)
        if source is None or not source.replays:
            return
        failure, source.stream.failure = source.stream.failure, None
        if error is None and failure is not None:
            error = failure.data
        if failure is not None:
            self.rt.borrowing.decline([failure])
        if error is not None:
            for entry in self._wanted(task.task_id).values():
                if not entry.ready:
                    self.rt.recovering.fill(entry, error, None)
        # The next run may have to skip as much as the first one yielded.
        task.stream.received = max(task.stream.received, _last_of(task))

    def _wanted(self, task_id: bytes) -> dict[bytes, Entry]:
        """The lost returns that a run is to make: more may be lost while it runs."""
        job = self.rt.recovering.rebuilding.jobs.get(task_id)
        return job.wanted if job is not None else {}

    def collects(self, made: bytes) -> bool:
        """Whether an object is the list of all items of a generator that runs again."""
        source = self.sources.get(made[:TASK_BYTES])
        return (
            source is not None
            and source.task.template.num_returns == DYNAMIC
            and source.completion.object_id == made
        )


def _number_of(entry: Entry) -> int:
    """The number of an item, from 1; 0 for the completion of its task."""
    return int.from_bytes(entry.object_id[TASK_BYTES:], "little") - 1


def _last_of(task: Task) -> int:
    return task.stream.stored[1] if task.stream.stored is not None else 0
