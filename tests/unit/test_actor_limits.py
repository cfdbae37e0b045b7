"""Counting the calls that one process has under way on an actor."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

from mray.actor_limits import PendingCalls
from mray.object_ref import ObjectRef
from mray.ownership.references import Entry
from mray.runtime.mailbox import Mailbox
from mray.tasks.actor_calls import ActorCalls
from mray.tasks.task import Task, Template
from mray.wire.messages import TaskTemplate

ACTOR = b"a" * 16


class Process:
    """What PendingCalls looks at."""

    def __init__(self) -> None:
        self.mailbox = Mailbox(lambda: None)
        self.entries: dict[bytes, Entry] = {}
        self.calls: dict[bytes, ActorCalls] = {}
        runtime = SimpleNamespace(
            references=SimpleNamespace(entries=self.entries),
            actors=SimpleNamespace(calls=self.calls),
            mailbox=self.mailbox,
        )
        self.pending = PendingCalls(runtime, ACTOR)

    def call(self, number: int) -> tuple[Entry, Any]:
        entry = Entry(number.to_bytes(28, "little"), None, self.mailbox, 1)
        self.entries[entry.object_id] = entry
        ref: ObjectRef[Any] = ObjectRef(entry)
        self.pending.add(ref)
        return entry, ref


def task(actor_id: bytes) -> Task:
    template = Template(TaskTemplate(1, b"", "A.m", 0, b"job1", {}), -1, 0)
    made = Task(b"t" * 24, template, b"", [], [], [])
    made.actor_id = actor_id
    return made


def test_calls_count_until_their_result_is_there_in_whatever_order() -> None:
    process = Process()
    made = [process.call(number) for number in range(3)]
    assert process.pending.count(3) == 3
    made[1][0].ready = True
    assert process.pending.count(3) == 2
    for entry, _ in made:
        entry.ready = True
    assert process.pending.count(3) == 0


def test_results_that_were_freed_do_not_count() -> None:
    process = Process()
    process.call(1)
    process.entries.clear()
    assert process.pending.count(1) == 0


def test_of_several_returns_one_counts() -> None:
    process = Process()
    _, ref = process.call(1)
    process.pending.add([ref, ref])
    process.pending.add(None)
    assert process.pending.count(9) == 2


def test_calls_without_results_count_from_the_note_on() -> None:
    process = Process()
    process.mailbox.posts = deque([task(ACTOR), task(b"b" * 16)])
    process.pending = PendingCalls(
        SimpleNamespace(
            references=SimpleNamespace(entries={}),
            actors=SimpleNamespace(calls=process.calls),
            mailbox=process.mailbox,
        ),
        ACTOR,
    )
    assert process.pending.count(5) == 1
    calls = process.calls[ACTOR] = ActorCalls(ACTOR, "A")
    calls.submit(task(ACTOR))
    assert process.pending.count(5) == 2
