"""Calls leave for an actor's worker, or fail once each."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mray.runtime import batches
from mray.runtime.actors import ActorsPart
from mray.tasks.actor_calls import ActorCalls
from mray.tasks.task import Task, Template
from mray.wire.messages import ActorState, Address, TaskTemplate

TEMPLATE = Template(TaskTemplate(1, b"", "A.m", 1, b"job1", {}), -1, 0)


def call(number: int, size: int = 1) -> Task:
    return Task(number.to_bytes(24, "little"), TEMPLATE, bytes(size), [], [], [])


def test_a_call_too_big_for_an_actor_that_cannot_be_dialled_fails_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batches, "BATCH_BYTES", 1000)
    monkeypatch.setattr(batches, "CALL_BYTES_MAX", 2000)
    failed: list[Task] = []

    def tell(worker: Address, message: object) -> None:
        raise ValueError("it has no address to dial")

    runtime: Any = SimpleNamespace(
        pump=SimpleNamespace(on=lambda kind, handler: None, clock=lambda: 1.0),
        head_link=SimpleNamespace(on_back=[]),
        tasks=SimpleNamespace(fail=lambda task, error: failed.append(task)),
        serializers=SimpleNamespace(version=0),
        address=Address(b"me", b"n"), tell=tell,
    )  # fmt: skip
    calls, big, small = ActorCalls(b"a", "A"), call(1, 5000), call(2)
    calls.changed(ActorState(b"a", "ALIVE", 0, Address(b"w", b"n")))
    for task in (big, small):
        calls.submit(task)
    assert calls.advance()
    ActorsPart(runtime)._push(calls)
    assert failed == [big, small]
    assert not calls.inflight
