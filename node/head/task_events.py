"""Attempts of tasks that ended: kept as their owners told them, read when somebody asks.

Machine. Owns the newest ``keep`` attempts, as bytes: a task costs the head a message's share and
about 80 bytes. A question reads them in slices: the head goes on with everything else in between.
Tasks that have not ended are not here; their owners are asked for them.
"""

from __future__ import annotations

from collections import deque
from heapq import nlargest
from typing import Final

import msgspec

from mray.machine import InvariantError
from mray.node.head.events import Effect, Event, From, Send, Value
from mray.task_counts import Counter
from mray.task_filters import Filter, passes
from mray.tasks.event_batch import views_of
from mray.wire.messages import (
    Ack,
    CountTasks,
    GetTaskEvents,
    TaskCounts,
    TaskEvents,
    TaskView,
    TaskViews,
)

#: A question reads so many attempts before anything else gets its turn: about 20 ms.
_SLICE: Final = 10_000
#: A message with more views than this would hold up the head.
_LIMIT_MAX: Final = 100_000


class GoOn(Value, frozen=True):
    """A question is not answered yet: give the machine ReadOn soon."""


class ReadOn(Value, frozen=True):
    """Read the next slice for each question."""


class _Batch(msgspec.Struct, frozen=True):
    count: int
    data: bytes


class _Question:
    """Reads batches, the newest first. One of ``counter`` and ``filters`` is in use."""

    def __init__(
        self, asker: bytes, rid: int, batches: list[_Batch], left: int, filters: list[Filter],
        limit: int, counter: Counter | None,
    ) -> None:  # fmt: skip
        self.asker = asker
        self.rid = rid
        self.batches = batches
        #: Attempts that count still: the oldest batch may hold more than is kept.
        self.left = left
        self.filters = filters
        self.limit = limit
        self.counter = counter
        self.total = 0
        self.found: list[TaskView] = []
        #: Batches of which nothing can be read, that is, of another version of mray.
        self.unread = 0

    def step(self) -> bool:
        """Read a slice; whether that was the last."""
        read = 0
        while self.batches and self.left > 0 and read < _SLICE:
            batch = self.batches.pop()
            read += batch.count
            try:
                for view in views_of(batch.data):
                    if self.left <= 0:
                        break
                    self.left -= 1
                    self._take(view)
            except msgspec.MsgspecError:
                self.left -= batch.count
                self.unread += batch.count
        if len(self.found) > self.limit:
            self.found = newest(self.found, self.limit)
        return not self.batches or self.left <= 0

    def _take(self, view: TaskView) -> None:
        if self.counter is not None:
            self.counter.add(view)
        elif passes(view, self.filters):
            self.total += 1
            self.found.append(view)


class TaskEventStore:
    """See the module."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._batches: deque[_Batch] = deque()
        #: Attempts in the batches: at most ``keep`` and what is left over of the oldest batch.
        self._held = 0
        #: Attempts that ended in all, those that owners dropped too.
        self.told = 0
        self._questions: list[_Question] = []

    def handle(self, event: Event | ReadOn, now: float) -> list[Effect | GoOn]:
        """Raises TypeError for an event that is not meant for it."""
        match event:
            case From(sender, TaskEvents() as message):
                return self._events(sender, message)
            case From(sender, GetTaskEvents(rid, filters, limit)):
                limit = max(0, min(limit, _LIMIT_MAX))
                return self._ask(sender, rid, filters, limit, None)
            case From(sender, CountTasks(rid)):
                return self._ask(sender, rid, [], 0, Counter())
            case ReadOn():
                return self._read()
        raise TypeError(f"not for the store of task events: {event!r}")

    def deadline(self) -> float | None:
        """Nothing happens by itself."""
        return None

    def _events(self, sender: bytes, message: TaskEvents) -> list[Effect | GoOn]:
        self.told += max(0, message.count) + max(0, message.dropped)
        if message.count > 0 and message.batch and self._keep:
            self._batches.append(_Batch(message.count, message.batch))
            self._held += message.count
            while self._held - self._batches[0].count >= self._keep:
                self._held -= self._batches.popleft().count
        return [Send(sender, Ack(message.rid))] if message.rid else []

    def _ask(
        self, sender: bytes, rid: int, filters: list[Filter], limit: int, counter: Counter | None
    ) -> list[Effect | GoOn]:
        left = min(self._held, self._keep)
        question = _Question(sender, rid, list(self._batches), left, filters, limit, counter)
        self._questions.append(question)
        return [GoOn()] if len(self._questions) == 1 else []

    def _read(self) -> list[Effect | GoOn]:
        if not self._questions:
            return []
        effects: list[Effect | GoOn] = []
        question = self._questions.pop(0)
        if question.step():
            effects.append(Send(question.asker, self._answer(question)))
        else:
            self._questions.append(question)
        if self._questions:
            effects.append(GoOn())
        return effects

    def _answer(self, question: _Question) -> TaskViews | TaskCounts:
        forgotten = self.told - min(self._held, self._keep) + question.unread
        if question.counter is not None:
            return TaskCounts(question.rid, question.counter.rows(), forgotten)
        views = newest(question.found, question.limit)
        return TaskViews(question.rid, question.total, views, forgotten)

    def check(self) -> None:
        """See mray.machine."""
        if self._held != sum(batch.count for batch in self._batches):
            raise InvariantError(f"{self._held} attempts are counted, others are there")
        if self._batches and self._held - self._batches[0].count >= self._keep:
            raise InvariantError(f"{self._held} attempts are kept, {self._keep} may be")
        if self._held > self.told:
            raise InvariantError(f"{self._held} attempts are kept, {self.told} were told")


def newest(views: list[TaskView], limit: int) -> list[TaskView]:
    """The ``limit`` that were submitted last, the last first."""
    return nlargest(limit, views, key=_submitted)


def _submitted(view: TaskView) -> tuple[float, bytes, int]:
    return view.created_unix_s, view.task_id, view.attempt
