"""Streams of this process's generator tasks: their items in, and who takes them.

The shell around tasks/streams.py, at the owner: makes an object of each item, wakes who waits for
it, and tells the worker how far its items are taken. The worker's side is generators.py.

The object 1 of such a task is its completion; item n is object n + 1. The end of the task, whatever
it is, makes the completion ready, and that ends the stream: a dead worker, a failed argument or a
cancelled task needs nothing of its own here.
"""

from __future__ import annotations

import concurrent.futures
from time import monotonic
from typing import TYPE_CHECKING, Any

from mray.call_sites import capture
from mray.ids import NIL_OBJECT, TaskId, object_id
from mray.object_ref import ObjectRef
from mray.object_ref_generator import ObjectRefGenerator
from mray.ownership.entry import Entry
from mray.runtime.mailbox import Watcher
from mray.serialization.pickler import is_error
from mray.tasks.streams import DYNAMIC, UNWANTED, Stream
from mray.tasks.task import Task
from mray.wire.messages import ItemsConsumed, ItemsYielded, RefGroup, Returned, StreamPart

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime

#: See call_sites.py.
CALLS_FOR_USERS = True


class Source:
    """A generator task that is not over: its stream, and what its items inherit."""

    __slots__ = ("completion", "part", "replays", "stream", "task")

    def __init__(self, part: StreamsPart, stream: Stream, task: Task, completion: Entry) -> None:
        self.part = part
        self.stream = stream
        self.task = task
        self.completion = completion
        #: It runs again, for items that are lost. See replaying.py.
        self.replays = False

    def fire(self, entry: Entry) -> None:
        """The completion is ready."""
        self.part.over(self)


class StreamsPart:
    """See the module."""

    def __init__(self, runtime: Runtime) -> None:
        self.rt = runtime
        self.references = runtime.references
        #: By task id; until the task is over.
        self.sources: dict[bytes, Source] = {}
        runtime.pump.on(ItemsYielded, self._yielded)

    # ----------------------------------------------------------------------------- any thread

    def submit(self, task: Task) -> list[Any]:
        """Submit a generator task; the one thing that its caller gets: an ObjectRefGenerator, or
        the reference of a DynamicObjectRefGenerator."""
        rt, template = self.rt, task.template
        entry = Entry(object_id(TaskId(task.task_id), 1), None, rt.mailbox, 1)
        entry.name = template.name
        entry.born = monotonic()
        if rt.objects.records_sites:
            entry.call_site = capture(3)
        rt.references.entries[entry.object_id] = entry
        task.returns = [entry]
        stream = task.stream = Stream(task.task_id, template.wire.backpressure)
        source = self.sources[task.task_id] = Source(self, stream, task, entry)
        entry.waiters = [source]
        ref: ObjectRef[Any] = ObjectRef(entry)
        mailbox = rt.mailbox
        mailbox.posts.append(task)
        if mailbox.asleep:
            mailbox.wake()
        return [ref if template.num_returns == DYNAMIC else ObjectRefGenerator(self, stream, ref)]

    def take(self, stream: Stream) -> ObjectRef[Any] | None:
        """The next reference, None if there is none now."""
        try:
            entry = stream.items.popleft()
        except IndexError:
            return None
        if stream.limit:
            self._leave(lambda: self._tell(stream))
        # The count that the stream had on it becomes this reference's.
        return ObjectRef(entry)

    def gone(self, stream: Stream) -> None:
        """Nobody will take from the stream any more. From finalizers."""
        self._leave(lambda: self._drop(stream))

    def _leave(self, note: Any) -> None:
        mailbox = self.rt.mailbox
        mailbox.posts.append(note)
        if mailbox.asleep:
            mailbox.wake()

    def wait(self, generator: Any, timeout_s: float | None) -> None:
        """Wait until the next item or the end is there, ``timeout_s`` seconds at most."""
        self.rt.objects.wait([generator], 1, timeout_s)

    def arrival(self, stream: Stream) -> concurrent.futures.Future[None]:
        """Done when the next item or the end is there."""
        future: concurrent.futures.Future[None] = concurrent.futures.Future()

        def arrived(stream: Any) -> None:
            if future.set_running_or_notify_cancel():
                future.set_result(None)

        def begin() -> None:
            if stream.ready:
                arrived(stream)
                return
            if stream.waiters is None:
                stream.waiters = []
            stream.waiters.append(Watcher(arrived))

        self.rt.post(begin)
        return future

    def nil(self) -> ObjectRef[Any]:
        """The reference of nothing."""
        entry = Entry(NIL_OBJECT, None, self.rt.mailbox, 2)
        return ObjectRef(entry)

    # ------------------------------------------------------------------------------- the loop

    def _yielded(self, sender: bytes, message: ItemsYielded) -> None:
        refuses = self.rt.ledger.refuses(sender)
        for part in message.parts:
            source = self.sources.get(part.task_id)
            if source is None:
                self._decline(part, part.items)
                self.rt.pump.send(sender, ItemsConsumed(part.task_id, UNWANTED))
            elif part.attempt != source.task.attempt or (
                refuses and any(item.refs for item in part.items)
            ):
                # What a dead run left behind. Its places in the store are the next run's.
                self.rt.borrowing.decline(part.items)
            else:
                self._arrived(source, sender, part)

    def _arrived(self, source: Source, sender: bytes, part: StreamPart) -> None:
        stream = source.stream
        before = stream.received
        known = stream.arrived(part.attempt, part.first, len(part.items), sender)
        if known is None:
            self._decline(part, part.items)
            return
        self._decline(part, part.items[:known])
        if stream.dropped:
            self._decline(part, part.items[known:])
        elif source.replays:
            for number, returned in enumerate(part.items[known:], before + 1):
                self.rt.recovering.replays.arrived(source, number, returned)
        else:
            items = stream.items
            for number, returned in enumerate(part.items[known:], before + 1):
                items.append(self._make(source, number, returned))
        if part.error is not None and not stream.stash(part.attempt, part.error):
            self.rt.borrowing.decline([part.error])
        self._fire(stream)
        self._tell(stream)

    def _make(self, source: Source, number: int, returned: Returned) -> Entry:
        """The object of an item, with one count for whoever takes it."""
        completion = source.completion
        made = object_id(TaskId(source.task.task_id), number + 1)
        entry = Entry(made, None, self.rt.mailbox, 1)
        entry.name = completion.name
        entry.call_site = completion.call_site
        entry.born = monotonic()
        self.references.entries[made] = entry
        if returned.refs:
            self.rt.borrowing.receive_refs(entry, returned.refs)
        entry.data = returned.data
        entry.located = returned.located
        entry.ready = True
        if returned.located is not None:
            source.stream.note_stored(number)
        return entry

    def _decline(self, part: StreamPart, items: list[Returned]) -> None:
        """Items that nobody wants, or that are here already."""
        self.rt.borrowing.decline(items)
        for number, returned in enumerate(items, part.first):
            if returned.located is not None:
                made = object_id(TaskId(part.task_id), number + 1)
                self.rt.recovering.copies.discard(made, returned.located)

    @staticmethod
    def _fire(stream: Stream) -> None:
        waiters = stream.waiters
        if waiters and stream.ready:
            stream.waiters = None
            for waiter in waiters:
                waiter.fire(stream)

    def _tell(self, stream: Stream) -> None:
        count = stream.news()
        if count is not None:
            self.rt.pump.send(stream.producer, ItemsConsumed(stream.task_id, count))

    def _drop(self, stream: Stream) -> None:
        for entry in stream.drop():
            self.references.drop_local(entry)
        self._tell(stream)

    def over(self, source: Source) -> None:
        """The task has ended, and its completion says how."""
        stream, completion = source.stream, source.completion
        self.sources.pop(source.task.task_id, None)
        error = completion.data if completion.data is not None else b""
        failed = bool(error) and is_error(error)
        if failed and stream.producer:
            # It may run on, and wait for room.
            self.rt.pump.send(stream.producer, ItemsConsumed(stream.task_id, UNWANTED))
        failure, stream.failure = stream.failure, None
        if failed and failure is not None:
            self.rt.borrowing.decline([failure])
        if source.task.template.num_returns == DYNAMIC:
            self._collect(source, None if failed else failure)
        else:
            self._last(source, error if failed else b"", None if failed else failure)
        stream.end()
        self._fire(stream)
        if stream.dropped:
            for entry in stream.drop():
                self.references.drop_local(entry)

    def _last(self, source: Source, error: bytes, failure: Returned | None) -> None:
        """The error of a stream is its last item."""
        stream = source.stream
        if failure is not None:
            stream.items.append(self._make(source, stream.received + 1, failure))
        elif error:
            entry = self._make(source, stream.received + 1, Returned(error))
            if source.completion.nested:
                group = RefGroup(self.rt.address, [])
                self.references.nest(entry, group, list(source.completion.nested))
            stream.items.append(entry)

    def _collect(self, source: Source, failure: Returned | None) -> None:
        """All items become the contents of the one value."""
        stream, completion = source.stream, source.completion
        if failure is not None:
            stream.items.append(self._make(source, stream.received + 1, failure))
        entries = list(stream.items)
        stream.items.clear()
        if completion.data is not None and not is_error(completion.data):
            self.references.nest(completion, RefGroup(self.rt.address, []), entries)
        for entry in entries:
            self.references.drop_local(entry)
