"""The head's store of attempts that ended: bounded, newest kept, filtered where it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mray.node.head.events import From, Send, Tick
from mray.node.head.task_events import GoOn, ReadOn, TaskEventStore
from mray.tasks.event_batch import EventBatch, Kind, Part, Record, encode
from mray.wire.messages import (
    Ack,
    CountTasks,
    GetTaskEvents,
    Message,
    TaskCounts,
    TaskEvents,
    TaskViews,
)

OWNER = b"o" * 28


def events(numbers: range, name: str = "f", failed: bool = False, rid: int = 0) -> TaskEvents:
    """Attempts number ``numbers``, submitted in this order."""
    records = [
        Record(
            n.to_bytes(24, "little"), 1, 0, 1.0 + n, 0.0, 2.0 + n, 1000, failed, b"", b"", 3.0 + n
        )
        for n in numbers
    ]
    errors = dict.fromkeys(range(len(records)), ("WORKER_DIED", "gone")) if failed else {}
    kind = Kind(1, name, "NORMAL_TASK", {"CPU": 10_000})
    part = Part(b"w" * 28, b"n" * 28, 42, records, errors)
    return TaskEvents(
        rid, len(records), 0, encode(EventBatch(OWNER, b"\x01\0\0\0", 0.0, [kind], [part]))
    )


def tell(store: TaskEventStore, message: Message) -> list[Message]:
    """What the head answers, all slices read."""
    effects = store.handle(From(b"asker", message), 0.0)
    answers: list[Message] = []
    while effects:
        store.check()
        sent = [effect.message for effect in effects if isinstance(effect, Send)]
        answers += sent
        effects = store.handle(ReadOn(), 0.0) if GoOn() in effects else []
    return answers


def ask(store: TaskEventStore, *filters: tuple[str, str, str], limit: int = 100) -> TaskViews:
    (answer,) = tell(store, GetTaskEvents(5, list(filters), limit))
    assert isinstance(answer, TaskViews)
    assert answer.rid == 5
    return answer


def numbers(views: TaskViews) -> list[int]:
    return [int.from_bytes(view.task_id, "little") for view in views.views]


def test_the_newest_come_first_and_the_total_is_told() -> None:
    store = TaskEventStore(1000)
    tell(store, events(range(5)))
    tell(store, events(range(5, 10)))
    found = ask(store, limit=3)
    assert (found.total, numbers(found), found.forgotten) == (10, [9, 8, 7], 0)


def test_filters_apply_before_the_limit() -> None:
    store = TaskEventStore(100_000)
    tell(store, events(range(3), name="rare", failed=True))
    for start in range(3, 50_003, 10_000):
        tell(store, events(range(start, start + 10_000)))
    found = ask(store, ("state", "=", "FAILED"), limit=2)
    assert (found.total, numbers(found)) == (3, [2, 1])
    assert ask(store, ("name", "!=", "f"), ("state", "!=", "FAILED")).total == 0


def test_a_question_is_read_in_slices() -> None:
    store = TaskEventStore(100_000)
    for start in range(0, 40_000, 10_000):
        tell(store, events(range(start, start + 10_000)))
    assert store.handle(From(b"asker", GetTaskEvents(1, [], 5)), 0.0) == [GoOn()]
    assert store.handle(ReadOn(), 0.0) == [GoOn()]


def test_questions_take_turns_and_each_is_answered() -> None:
    store = TaskEventStore(1000)
    tell(store, events(range(5)))
    store.handle(From(b"a", GetTaskEvents(1, [], 5)), 0.0)
    assert store.handle(From(b"b", CountTasks(2)), 0.0) == []
    first, *more = store.handle(ReadOn(), 0.0)
    (second,) = store.handle(ReadOn(), 0.0)
    assert isinstance(first, Send)
    assert isinstance(second, Send)
    assert (first.to, second.to, more) == (b"a", b"b", [GoOn()])
    assert store.handle(ReadOn(), 0.0) == []


def test_counts_are_by_function_and_state() -> None:
    store = TaskEventStore(1000)
    tell(store, events(range(5)))
    tell(store, events(range(5, 7), failed=True))
    (answer,) = tell(store, CountTasks(9))
    assert isinstance(answer, TaskCounts)
    (row,) = answer.rows
    assert (row.name, row.states) == ("f", {"FINISHED": 5, "FAILED": 2})
    assert row.p50_us == pytest.approx(1000, abs=2)


def test_who_wants_to_know_is_told_that_it_arrived() -> None:
    assert tell(TaskEventStore(10), events(range(2), rid=4)) == [Ack(4)]


def test_what_owners_dropped_is_forgotten() -> None:
    store = TaskEventStore(10)
    tell(store, TaskEvents(0, 0, 7, b""))
    assert ask(store).forgotten == 7


def test_junk_of_an_owner_spoils_only_its_own() -> None:
    store = TaskEventStore(100)
    tell(store, TaskEvents(0, 3, 0, b"junk"))
    tell(store, events(range(2)))
    found = ask(store)
    assert (found.total, found.forgotten) == (2, 3)


def test_a_head_that_keeps_nothing_counts() -> None:
    store = TaskEventStore(0)
    tell(store, events(range(5)))
    found = ask(store)
    assert (found.total, found.forgotten) == (0, 5)


def test_other_events_are_a_mistake() -> None:
    with pytest.raises(TypeError, match="not for the store"):
        TaskEventStore(1).handle(Tick(), 0.0)


@given(st.lists(st.integers(0, 30), max_size=30), st.integers(0, 60), st.integers(0, 50))
def test_it_keeps_exactly_the_newest(sizes: list[int], keep: int, limit: int) -> None:
    store, told = TaskEventStore(keep), 0
    for size in sizes:
        tell(store, events(range(told, told + size)))
        told += size
        store.check()
    found = ask(store, limit=limit)
    kept = min(keep, told)
    assert (found.total, found.forgotten) == (kept, told - kept)
    assert numbers(found) == list(range(told - 1, told - 1 - min(limit, kept), -1))
