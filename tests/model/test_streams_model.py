"""Streams and their producers against a naive twin: runs that die at any point and are repeated,
messages that arrive late or never, consumers that come and go. What the consumer sees is what one
undisturbed run yields: each item once, in order, then the end. And nobody waits for ever."""

from __future__ import annotations

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mray.tasks.streams import Pace, Stream


class StreamWorld(RuleBasedStateMachine):
    """One stream, the present run of its generator, and messages between them."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[int] = []
        self.attempt = -1
        self.ended = False

    @initialize(limit=st.integers(0, 3), total=st.integers(0, 6))
    def begin(self, limit: int, total: int) -> None:
        self.stream = Stream(b"t" * 24, limit)
        self.total = total
        #: Messages to the owner that dead runs have left behind.
        self.stale: deque[tuple[int, int, int, bytes]] = deque()
        self.start_run()

    def start_run(self) -> None:
        self.attempt += 1
        self.producer = str(self.attempt).encode()
        self.skip = self.stream.received
        self.pace = Pace(self.stream.limit, self.skip)
        self.up: deque[tuple[int, int, int, bytes]] = deque()
        self.down: deque[int] = deque()
        self.replied = False

    @property
    def running(self) -> bool:
        return not (self.replied or self.ended)

    def may_yield(self) -> bool:
        return self.running and self.pace.made < self.total and not self.pace.full()

    @precondition(may_yield)
    @rule()
    def item_is_yielded(self) -> None:
        self.pace.made += 1
        if self.pace.made > self.skip and not self.pace.unwanted:
            self.up.append((self.attempt, self.pace.made, 1, self.producer))

    @precondition(lambda self: len(self.up) > 1)
    @rule()
    def items_are_sent_as_one_message(self) -> None:
        attempt, first, count, producer = self.up.popleft()
        _, second, more, _ = self.up.popleft()
        assert second == first + count
        self.up.appendleft((attempt, first, count + more, producer))

    @precondition(lambda self: self.running and self.pace.made == self.total)
    @rule()
    def generator_ends(self) -> None:
        self.replied = True

    def receive(self, message: tuple[int, int, int, bytes]) -> None:
        attempt, first, count, producer = message
        before = self.stream.received
        known = self.stream.arrived(attempt, first, count, producer)
        if known is not None and not self.stream.dropped:
            self.stream.items.extend(range(before + 1, first + count))
        self.tell()

    def tell(self) -> None:
        count = self.stream.news()
        if count is not None and self.stream.producer == self.producer:
            self.down.append(count)

    @precondition(lambda self: self.up and not self.ended)
    @rule()
    def items_arrive(self) -> None:
        self.receive(self.up.popleft())

    @precondition(lambda self: self.stale)
    @rule()
    def items_of_a_dead_run_arrive(self) -> None:
        self.receive(self.stale.popleft())

    @precondition(lambda self: self.down)
    @rule()
    def producer_hears(self) -> None:
        self.pace.heard(self.down.popleft())

    @precondition(lambda self: self.running or self.up)
    @rule()
    def worker_dies(self) -> None:
        if not self.ended:
            self.stale.extend(self.up)
            self.start_run()

    @precondition(lambda self: self.replied and not self.up and not self.ended)
    @rule()
    def reply_arrives(self) -> None:
        self.stream.end()
        self.ended = True

    @precondition(lambda self: self.stream.items)
    @rule()
    def consumer_takes(self) -> None:
        self.taken.append(self.stream.items.popleft())
        self.tell()

    @precondition(lambda self: not self.stream.dropped)
    @rule(very=st.integers(0, 9))
    def consumer_goes(self, very: int) -> None:
        if very == 0:
            self.stream.drop()
            self.tell()

    @rule()
    def owner_looks_again(self) -> None:
        self.tell()

    @invariant()
    def each_item_is_seen_once_and_in_order(self) -> None:
        if not hasattr(self, "stream"):
            return
        self.stream.check()
        assert self.taken == list(range(1, len(self.taken) + 1))
        if not self.stream.dropped:
            there = self.taken + list(self.stream.items)
            assert there == list(range(1, self.stream.received + 1))
            if self.ended:
                assert self.stream.received == self.total

    @invariant()
    def no_more_lie_about_than_allowed(self) -> None:
        """Beyond the limit: what a dead run had sent and the present one counts as taken."""
        if hasattr(self, "stream") and self.stream.limit and not self.stream.dropped:
            assert len(self.stream.items) <= 2 * self.stream.limit + self.attempt

    def teardown(self) -> None:
        """Left alone, everything comes to its end."""
        if not hasattr(self, "stream"):
            return
        for _ in range(200):
            if self.ended:
                break
            if self.may_yield():
                self.item_is_yielded()
            elif self.up:
                self.items_arrive()
            elif self.down:
                self.producer_hears()
            elif self.running and self.pace.made == self.total:
                self.generator_ends()
            elif self.replied:
                self.reply_arrives()
            else:
                assert self.stream.items, "the producer waits, and there is nothing to take"
                self.consumer_takes()
        assert self.ended
        self.stream.check()


TestStreams = StreamWorld.TestCase
TestStreams.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
