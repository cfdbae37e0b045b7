"""A stream counts items once, in order, whatever runs bring them, and tells its producer enough."""

from __future__ import annotations

import pytest

from mray.machine import InvariantError
from mray.tasks.streams import UNWANTED, Pace, Stream

TASK = b"t" * 24
ONE, TWO = b"1" * 28, b"2" * 28


@pytest.fixture
def make():
    streams = []

    def make(limit: int = 0) -> Stream:
        streams.append(Stream(TASK, limit))
        return streams[-1]

    yield make
    for stream in streams:
        stream.check()


def bring(stream: Stream, first: int, count: int, attempt: int = 0, producer: bytes = ONE):
    """Items as the shell keeps them: those that are new, by number."""
    before = stream.received
    known = stream.arrived(attempt, first, count, producer)
    if known is not None and not stream.dropped:
        stream.items.extend(range(before + 1, first + count))
    return known


def test_items_come_in_order_and_the_stream_is_ready_while_some_are_left(make):
    stream = make()
    assert not stream.ready
    assert bring(stream, 1, 2) == 0
    assert bring(stream, 3, 1) == 0
    assert (list(stream.items), stream.received, stream.taken) == ([1, 2, 3], 3, 0)
    assert stream.items.popleft() == 1
    assert stream.ready
    assert stream.taken == 1


def test_items_that_come_again_are_known(make):
    stream = make()
    bring(stream, 1, 3)
    assert bring(stream, 1, 5, attempt=1, producer=TWO) == 3
    assert list(stream.items) == [1, 2, 3, 4, 5]
    assert bring(stream, 2, 2, attempt=1, producer=TWO) == 2
    assert stream.received == 5


def test_a_run_may_begin_with_the_first_that_is_missing(make):
    stream = make()
    bring(stream, 1, 3)
    assert bring(stream, 4, 1, attempt=1, producer=TWO) == 0
    assert list(stream.items) == [1, 2, 3, 4]


def test_items_of_a_former_run_are_thrown_away(make):
    stream = make()
    bring(stream, 1, 1, attempt=1)
    assert bring(stream, 2, 1, attempt=0) is None
    assert stream.received == 1


def test_items_behind_a_gap_are_thrown_away(make):
    stream = make()
    bring(stream, 1, 1)
    assert bring(stream, 3, 1) is None
    assert stream.received == 1


def test_nothing_comes_after_the_end(make):
    stream = make()
    bring(stream, 1, 1)
    stream.end()
    assert bring(stream, 2, 1) is None
    assert not stream.stash(0, "error")
    assert stream.ready


def test_the_error_of_a_run_is_forgotten_when_the_next_begins(make):
    stream = make()
    bring(stream, 1, 1)
    assert stream.stash(0, "error")
    assert stream.failure == "error"
    bring(stream, 1, 1, attempt=1, producer=TWO)
    assert stream.failure is None
    assert not stream.stash(0, "late")


def test_an_error_before_the_first_item_is_stashed(make):
    stream = make()
    assert bring(stream, 1, 0) == 0
    assert stream.stash(0, "error")


def test_without_a_limit_the_producer_is_told_nothing(make):
    stream = make()
    bring(stream, 1, 2)
    stream.items.popleft()
    assert stream.news() is None


def test_with_a_limit_the_producer_is_told_each_change_once(make):
    stream = make(limit=2)
    assert stream.news() is None
    bring(stream, 1, 2)
    assert stream.news() is None
    stream.items.popleft()
    assert stream.news() == 1
    assert stream.news() is None
    stream.items.popleft()
    assert stream.news() == 2


def test_a_new_producer_is_told_what_is_taken(make):
    stream = make(limit=2)
    bring(stream, 1, 2)
    stream.items.popleft()
    assert stream.news() == 1
    bring(stream, 3, 1, attempt=1, producer=TWO)
    assert stream.news() == 1


def test_who_drops_a_stream_gets_what_is_left_and_the_producer_hears_of_it(make):
    stream = make()
    bring(stream, 1, 3)
    stream.items.popleft()
    assert stream.drop() == [2, 3]
    assert stream.news() == UNWANTED
    assert stream.news() is None
    assert bring(stream, 4, 2) == 0
    assert not stream.items


def test_a_stream_dropped_before_its_first_item_tells_its_producer_then(make):
    stream = make(limit=1)
    assert stream.drop() == []
    assert stream.news() is None
    bring(stream, 1, 1)
    assert stream.news() == UNWANTED


def test_a_second_producer_of_a_dropped_stream_is_told_too(make):
    stream = make()
    bring(stream, 1, 1)
    stream.drop()
    assert stream.news() == UNWANTED
    bring(stream, 2, 1, attempt=1, producer=TWO)
    assert stream.news() == UNWANTED


def test_nobody_is_told_anything_after_the_end(make):
    stream = make(limit=1)
    bring(stream, 1, 1)
    stream.end()
    stream.items.popleft()
    assert stream.news() is None


def test_a_contradiction_is_noticed():
    stream = Stream(TASK)
    stream.items.append("from nowhere")
    with pytest.raises(InvariantError, match="1 items of 0"):
        stream.check()
    ready = Stream(TASK)
    ready.end()
    ready.waiters = [object()]
    with pytest.raises(InvariantError, match="somebody waits"):
        ready.check()


def test_a_pace_is_full_while_so_many_are_not_taken():
    pace = Pace(limit=2, skip=0)
    pace.made = 1
    assert not pace.full()
    pace.made = 2
    assert pace.full()
    pace.heard(1)
    assert not pace.full()


def test_a_pace_without_limit_is_never_full():
    pace = Pace(limit=0, skip=0)
    pace.made = 10_000
    assert not pace.full()


def test_a_pace_counts_what_a_former_run_sent_as_taken():
    pace = Pace(limit=1, skip=3)
    pace.made = 3
    assert not pace.full()
    pace.made = 4
    assert pace.full()


def test_a_pace_runs_on_when_nobody_wants_the_items():
    pace = Pace(limit=1, skip=0)
    pace.made = 1
    pace.heard(UNWANTED)
    assert pace.unwanted
    assert not pace.full()
