"""One stream: the items of a generator task, as its owner counts them.

Machine. Owns which items are there, taken and still to come, what a run that is repeated brings
again, how the stream ends, and what its producer has to be told.

    open -> ended (final)        either -> dropped: nobody will take what is left

Items are numbered from 1. A run of the generator brings them in order and without gaps; a later
run (``attempt``) brings them again from the first that is missing, or from 1. What an item is, its
keeper knows: here it is a value that goes in and comes out. An error that the generator raised is
stashed until the reply says that it counts: another run may follow.

``items`` is filled by the event loop, ``ended`` is set after its last item, and any thread takes
from the left. So a thread that finds nothing after it has seen ``ended`` has seen the end.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from mray.machine import InvariantError

#: Values of ``num_returns`` on the wire: a stream of items, and a list of them in the end.
STREAMING = -1
DYNAMIC = -2
#: ``num_returns`` of options, in their wire form.
WORDS = {"streaming": STREAMING, "dynamic": DYNAMIC}
#: What a producer is told when nobody wants more items.
UNWANTED = -1


class Stream:
    """See the module. Also what a wait for the next item waits on: it has ``ready`` and
    ``waiters`` as an Entry has."""

    __slots__ = (
        "attempt",
        "dropped",
        "ended",
        "failure",
        "items",
        "limit",
        "producer",
        "received",
        "stored",
        "task_id",
        "told",
        "waiters",
    )

    #: As an entry of this process that has no value.
    object_id = b""
    owner = None
    home = None
    data = None
    located = None

    def __init__(self, task_id: bytes, limit: int = 0) -> None:
        self.task_id = task_id
        #: The producer pauses while so many items are not taken; 0: never.
        self.limit = limit
        #: The run whose items are taken now.
        self.attempt = 0
        #: Items that have come so far, each counted once however often it was brought.
        self.received = 0
        #: The first and the last item that is in a store; None without one.
        self.stored: tuple[int, int] | None = None
        #: Not taken yet, in order. After the end, one more may be the error.
        self.items: deque[Any] = deque()
        #: What the present run raised.
        self.failure: Any = None
        self.ended = False
        self.dropped = False
        #: Who runs the generator, once it has been heard of; and what it was told last.
        self.producer = b""
        self.told = 0
        #: Waits for the next item: objects with fire(stream).
        self.waiters: list[Any] | None = None

    @property
    def ready(self) -> bool:
        """Whether taking the next item needs no wait: it is there, or there is none."""
        return bool(self.items) or self.ended

    @property
    def taken(self) -> int:
        """Items that are gone from ``items``: while the stream is open."""
        return self.received - len(self.items)

    def arrived(self, attempt: int, first: int, count: int, producer: bytes) -> int | None:
        """``count`` items of a run, numbered from ``first``, have come. How many of them, from the
        left, are here already; None if all are to be thrown away: they belong to a former run, or
        some before them are missing."""
        if self.ended or attempt < self.attempt or first > self.received + 1:
            return None
        if attempt > self.attempt:
            self.attempt = attempt
            self.failure = None
        if producer != self.producer:
            self.producer = producer
            # A new one counts what is not sent again as taken.
            self.told = first - 1
        known = min(count, self.received + 1 - first)
        self.received += count - known
        return known

    def stash(self, attempt: int, failure: Any) -> bool:
        """What a run raised after its last item. False if it is to be thrown away."""
        if self.ended or attempt != self.attempt:
            return False
        self.failure = failure
        return True

    def note_stored(self, number: int) -> None:
        """The item with this number is in a store, not with its owner."""
        self.stored = (self.stored[0] if self.stored is not None else number, number)

    def end(self) -> None:
        """The task is over. Whatever is the last item has been appended."""
        self.ended = True

    def drop(self) -> list[Any]:
        """Nobody will take from the stream any more; the items that were left."""
        self.dropped = True
        left = []
        while self.items:
            left.append(self.items.popleft())
        return left

    def news(self) -> int | None:
        """What the producer has to be told now: how many items are taken, UNWANTED, or nothing."""
        if self.ended or not self.producer or self.told == UNWANTED:
            return None
        if self.dropped:
            self.told = UNWANTED
            return UNWANTED
        if self.limit and self.taken != self.told:
            self.told = self.taken
            return self.told
        return None

    def check(self) -> None:
        """Raise InvariantError on a contradiction."""
        who = f"the stream of task {self.task_id.hex()}"
        if self.dropped and self.items:
            raise InvariantError(f"{who} is dropped and has items")
        if len(self.items) > self.received + self.ended:
            raise InvariantError(f"{who} has {len(self.items)} items of {self.received}")
        if self.ready and self.waiters:
            raise InvariantError(f"{who} is ready, and somebody waits")
        if self.told > self.received or self.told < UNWANTED:
            raise InvariantError(f"{who}: its producer was told {self.told} of {self.received}")


class Pace:
    """The producer's side: whether it may go on. Fed by the event loop, asked by the thread that
    runs the generator."""

    __slots__ = ("consumed", "limit", "made", "unwanted")

    def __init__(self, limit: int, skip: int) -> None:
        #: See TaskTemplate.backpressure.
        self.limit = limit
        #: Items yielded so far, in this run.
        self.made = 0
        #: Items that the owner's side has taken, as far as is known.
        self.consumed = skip
        self.unwanted = False

    def heard(self, count: int) -> None:
        """ItemsConsumed."""
        if count == UNWANTED:
            self.unwanted = True
        else:
            self.consumed = count

    def full(self) -> bool:
        """Whether the generator has to pause."""
        return 0 < self.limit <= self.made - self.consumed and not self.unwanted
