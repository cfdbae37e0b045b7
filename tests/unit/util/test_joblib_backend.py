"""How the joblib backend paces its tasks and passes big arguments, with tasks that are fakes."""

from __future__ import annotations

from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

import pytest

joblib = pytest.importorskip("joblib")

from mray.util.joblib import backend as backend_module  # noqa: E402 (needs joblib)
from mray.util.joblib.backend import MrayBackend, _Call, _filled, _run_batch  # noqa: E402


class Task:
    """Stands for a remote function: the test decides when its calls are done."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, tuple[Any, ...], Future[Any]]] = []

    def remote(self, batch: Any, *stored: Any) -> Any:
        done: Future[Any] = Future()
        self.calls.append((batch, stored, done))

        class Ref:
            number = len(self.calls) - 1

            def future(self) -> Future[Any]:
                return done

        return Ref()

    def finish(self, number: int, result: Any = None) -> None:
        self.calls[number][2].set_result(result)


class Batch:
    def __init__(self, *items: Any) -> None:
        self.items = list(items)

    def __call__(self) -> Any:
        return [function(*args, **kwargs) for function, args, kwargs in self.items]


@pytest.fixture
def task() -> Task:
    return Task()


def test_as_many_tasks_as_jobs_are_under_way(task: Task) -> None:
    call = _Call(task, 2)
    told: SimpleQueue[Future[Any]] = SimpleQueue()
    for _ in range(5):
        call.submit(Batch(), told.put)
    assert len(task.calls) == 2
    task.finish(1, "second")
    assert told.get(timeout=30).result() == "second"
    assert len(task.calls) == 3
    call.end()


def test_after_an_abort_nothing_starts_and_what_runs_is_cancelled(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled: list[Any] = []
    monkeypatch.setattr("mray.util.pacing.cancel", cancelled.append)
    call = _Call(task, 2)
    told: SimpleQueue[Future[Any]] = SimpleQueue()
    for _ in range(4):
        call.submit(Batch(), told.put)
    task.finish(0)
    told.get(timeout=30)
    assert len(task.calls) == 3
    call.abort()
    assert [ref.number for ref in cancelled] == [1, 2]
    for number in (1, 2):
        task.finish(number)
        told.get(timeout=30)
    assert len(task.calls) == 3
    call.end()


def test_a_batch_that_cannot_be_sent_fails_in_its_turn() -> None:
    class Unsendable:
        def remote(self, batch: Any) -> Any:
            raise TypeError("no")

    call = _Call(Unsendable(), 1)
    told: SimpleQueue[Future[Any]] = SimpleQueue()
    call.submit(Batch(), told.put)
    call.submit(Batch(), told.put)
    for _ in range(2):
        assert isinstance(told.get(timeout=30).exception(), TypeError)
    call.end()


def test_a_big_argument_is_stored_once_a_call(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    stored: list[Any] = []

    def put(value: Any) -> str:
        stored.append(value)
        return f"ref {len(stored)}"

    monkeypatch.setattr(backend_module.api, "put", put)
    call = _Call(task, 9)
    big = b"x" * 200_000
    original = Batch((len, [big], {}), (sorted, [big, 3], {"key": big}))
    call.submit(original, print)
    call.submit(Batch((len, [big], {})), print)
    call.submit(Batch((abs, [-1], {})), print)
    assert stored == [big]
    assert [refs for _, refs, _ in task.calls] == [("ref 1",), ("ref 1",), ()]
    (_, (first,), _), (_, (second, three), kwargs) = task.calls[0][0].items
    assert [_filled(arg, [big]) for arg in (first, second, three, kwargs["key"])] == [
        big, big, 3, big,
    ]  # fmt: skip
    assert original.items[0] == (len, [big], {}), "the caller's batch is as it was"
    call.end()


def test_a_worker_puts_the_stored_arguments_back(task: Task) -> None:
    batch = Batch((max, [backend_module._Stored(0), 2], {}))
    assert _run_batch(batch, 5) == [5]
    assert _run_batch(Batch((max, [1, 2], {}))) == [2]


def test_one_job_stays_in_the_process() -> None:
    backend = MrayBackend(nesting_level=0)
    with pytest.raises(backend_module.FallbackToBackend):
        backend.configure(1)
    with pytest.raises(ValueError, match="n_jobs=0"):
        backend.configure(0)
    assert backend.configure(3) == 3
