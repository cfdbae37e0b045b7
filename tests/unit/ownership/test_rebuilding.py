"""Which tasks run again, step by step. tests/sim/test_nodes.py has the random lives."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from mray.ids import object_id
from mray.ownership.entry import Entry
from mray.ownership.lineage import MAX_ATTEMPTS
from mray.ownership.rebuilding import NOT_MADE, PUT, UNKNOWN, Again, Hopeless, Rebuilding
from mray.ownership.references import References
from mray.wire.messages import Located

HOME = SimpleNamespace(posts=deque(), resolved=deque(), asleep=False)


class Bench:
    """A machine, and tasks for it."""

    def __init__(self, parallel_max: int = 10) -> None:
        self.references = References(1)
        self.machine = Rebuilding(self.references, parallel_max)
        self.count = 0

    def task(
        self, *args: Entry, returns: int = 1, retries: int = 3, num_returns: int = 1
    ) -> list[Entry]:
        """A finished task with its returns in a store."""
        self.count += 1
        task_id = bytes([self.count]) + bytes(23)
        template = SimpleNamespace(num_returns=num_returns)
        stream = SimpleNamespace(dropped=False, received=0)
        task = SimpleNamespace(
            task_id=task_id, retries_left=retries, attempt=0, template=template, stream=stream
        )
        entries = [
            self.entry(object_id(task_id, index))  # type: ignore[arg-type]
            for index in range(1, returns + 1)
        ]
        self.references.lineage.keep(task_id, task, 10, args, entries)
        return entries

    def entry(self, made: bytes) -> Entry:
        entry = Entry(made, None, HOME, 1)  # type: ignore[arg-type]
        entry.located, entry.ready = Located(b"n", 1000), True
        self.references.entries[made] = entry
        return entry

    def again(self) -> list[int]:
        """The tasks that run now, by number."""
        return [effect.task.task_id[0] for effect in self.machine.take() if type(effect) is Again]

    def end(self, number: int, *made: Entry) -> None:
        for entry in made:
            self.references.fill(entry, None, Located(b"m", 1000))
        self.machine.ended(bytes([number]) + bytes(23))
        self.machine.check()

    def record(self, entry: Entry) -> Any:
        record = self.references.lineage.records[entry.object_id[:24]]
        return record.task


def test_a_lost_return_has_its_task_run_once_more_and_pays_for_it() -> None:
    bench = Bench()
    (a,) = bench.task()
    bench.machine.lost([a], "gone")
    (effect,) = bench.machine.take()
    assert isinstance(effect, Again)
    assert (effect.wanted, effect.loss) == ([a], "gone")
    assert not a.ready
    assert (bench.record(a).retries_left, bench.record(a).attempt) == (2, 1)
    bench.machine.lost([a], "reported again")
    assert bench.machine.take() == []
    bench.end(1, a)
    assert not bench.machine.jobs


def test_two_returns_lost_are_one_run() -> None:
    bench = Bench()
    a, b = bench.task(returns=2)
    bench.machine.lost([a], "gone")
    bench.machine.lost([b], "gone")
    assert bench.again() == [1]


def test_retries_without_limit_are_not_charged() -> None:
    bench = Bench()
    (a,) = bench.task(retries=-1)
    bench.machine.lost([a], "gone")
    assert bench.record(a).retries_left == -1


def test_arguments_that_went_are_made_first() -> None:
    bench = Bench()
    (a,) = bench.task()
    (b,) = bench.task(a)
    (c,) = bench.task(b)
    bench.references.drop_local(a)
    bench.references.drop_local(b)
    bench.machine.lost([c], "gone")
    assert bench.again() == [1]
    bench.end(1, a)
    assert bench.again() == [2]
    assert not a.freed, "it is held until the second task has run"
    bench.end(2, b)
    assert a.freed
    assert bench.again() == [3]
    bench.end(3, c)
    assert b.freed
    bench.references.drop_local(c)
    assert not bench.references.entries


def test_a_chain_of_thousands_needs_no_recursion() -> None:
    bench = Bench()
    entries = []
    last: list[Entry] = []
    for number in range(1, 256):
        last = bench.task(*last)
        entries += last
        assert bench.count == number
    for entry in entries[:-1]:
        bench.references.drop_local(entry)
    bench.machine.lost([entries[-1]], "gone")
    for number, entry in enumerate(entries, 1):
        assert bench.again() == [number]
        bench.end(number, entry)


def test_no_more_run_at_a_time_than_may() -> None:
    bench = Bench(parallel_max=2)
    entries = [entry for _ in range(5) for entry in bench.task()]
    for entry in entries:
        bench.machine.lost([entry], "gone")
    assert bench.again() == [1, 2]
    bench.end(2, entries[1])
    assert bench.again() == [3]


def test_one_that_waits_for_its_argument_makes_room_for_it() -> None:
    bench = Bench(parallel_max=1)
    (a,) = bench.task()
    (b,) = bench.task(a)
    bench.machine.lost([b], "gone")
    assert bench.again() == [2]
    bench.machine.lost([a], "gone while the second task runs")
    assert bench.again() == [1]
    bench.machine.check()
    bench.end(1, a)
    bench.end(2, b)
    assert not bench.machine.jobs


def test_one_argument_for_two_is_made_once() -> None:
    bench = Bench()
    (a,) = bench.task()
    (b,) = bench.task(a)
    (c,) = bench.task(a)
    bench.references.drop_local(a)
    bench.machine.lost([b], "gone")
    bench.machine.lost([c], "gone")
    assert bench.again() == [1]
    bench.end(1, a)
    assert sorted(bench.again()) == [2, 3]


@pytest.mark.parametrize("why", [PUT, UNKNOWN, MAX_ATTEMPTS])
def test_what_cannot_be_made_again_is_given_up(why: str) -> None:
    bench = Bench()
    index = 0 if why == PUT else 1
    entry = bench.entry(object_id(bytes(24), index))  # type: ignore[arg-type]
    if why == MAX_ATTEMPTS:
        bench.references.lineage.forgo(bytes(24), why, [entry])
    bench.machine.lost([entry], "gone")
    assert bench.machine.take() == [Hopeless(entry, why, "gone")]


def test_a_hopeless_argument_does_not_hold_up_its_task() -> None:
    bench = Bench()
    (a,) = bench.task()
    (b,) = bench.task(a)
    bench.references.drop_local(a)
    record = bench.references.lineage.records[a.object_id[:24]]
    bench.references.lineage._whole.pop(a.object_id[:24])
    record.task, record.why = None, MAX_ATTEMPTS
    bench.machine.lost([b], "gone")
    first, second = bench.machine.take()
    assert first == Hopeless(a, MAX_ATTEMPTS, "")
    assert isinstance(second, Again)


def test_what_the_second_run_did_not_make_is_given_up() -> None:
    bench = Bench()
    a, b = bench.task(returns=2)
    bench.machine.lost([a], "gone")
    bench.machine.lost([b], "gone")
    bench.again()
    bench.end(1, a)
    assert bench.machine.take() == [Hopeless(b, NOT_MADE, "gone")]


def test_an_item_lost_behind_a_running_generator_takes_another_run() -> None:
    bench = Bench()
    a, b = bench.task(returns=2, num_returns=-1)
    bench.machine.lost([b], "gone")
    assert bench.again() == [1]
    bench.record(a).stream.received = 1
    bench.machine.lost([a], "gone")
    assert bench.machine.take() == []
    bench.end(1, b)
    assert bench.again() == [1]


def test_an_item_lost_ahead_of_a_running_generator_is_made_by_that_run() -> None:
    bench = Bench()
    a, b, c = bench.task(returns=3, num_returns=-1)
    bench.machine.lost([b], "gone")
    assert bench.again() == [1]
    bench.machine.lost([c], "gone")
    bench.end(1, b, c)
    assert bench.again() == []
    assert a.ready


def test_what_is_lost_together_is_one_run() -> None:
    bench = Bench(parallel_max=1)
    a, b = bench.task(returns=2, num_returns=-1)
    bench.machine.lost([a, b], "gone")
    (effect,) = bench.machine.take()
    assert isinstance(effect, Again)
    assert effect.wanted == [a, b]


def test_items_of_a_generator_that_still_runs_wait_for_its_end() -> None:
    bench = Bench()
    (a,) = bench.task(num_returns=-1)
    task_id = a.object_id[:24]
    bench.machine.lost([a], "gone", {task_id})
    assert bench.machine.take() == []
    assert not a.ready
    bench.machine.ended(task_id)
    assert bench.again() == [1]


def test_a_copy_that_turns_up_in_time_saves_the_run() -> None:
    bench = Bench(parallel_max=1)
    (a,) = bench.task()
    (b,) = bench.task()
    bench.machine.lost([a], "gone")
    bench.machine.lost([b], "gone")
    assert not bench.machine.found(a), "its task runs already"
    assert bench.machine.found(b)
    assert bench.record(b).retries_left == 3
    bench.again()
    bench.end(1, a)
    assert bench.machine.take() == []
    assert not bench.machine.jobs


def test_at_least_one_may_run() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Rebuilding(References(1), 0)
