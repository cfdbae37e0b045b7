"""What a call leaves, with a store that is a dict."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mray.exceptions import ObjectStoreFullError, RayTaskError, UnserializableException
from mray.runtime import results as results_module
from mray.runtime.calls import OK, RAISED, Done
from mray.runtime.results import Results
from mray.serialization.pickler import deserialize, is_error
from mray.wire.messages import Address, TaskSpec, TaskTemplate

BIG = b"x" * 2000
OWNER = Address(b"owner", b"node")
TASK = b"t" * 24


class Store:
    """Has room for so many objects."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.made: list[bytes] = []

    def put(
        self, made: bytes, owner_id: bytes, size: int, write: Callable[[Any], None], **more: Any
    ) -> None:
        if len(self.made) == self.room:
            raise ObjectStoreFullError("no room")
        self.made.append(made)

    def copy(self, into: memoryview, data: memoryview) -> None:
        into[:] = data


def call(returns: int, room: int = 10) -> tuple[Results, Done, TaskTemplate, Store]:
    store = Store(room)
    runtime: Any = SimpleNamespace(
        objects=SimpleNamespace(inline_max=1000), store=store,
        node=SimpleNamespace(node_id=b"node", ip="127.0.0.1"),
    )  # fmt: skip
    template = TaskTemplate(1, b"f", "f", returns, b"job1", {})
    return Results(runtime), Done(OWNER, TaskSpec(TASK, 1, 0), OK), template, store


def test_big_returns_are_stored_and_small_ones_travel() -> None:
    results, done, template, store = call(2)
    results.take(done, template, [1, BIG])
    assert len(store.made) == 1
    assert [data is not None for data, _ in done.returns] == [True, False]


def test_nothing_is_stored_of_a_call_with_a_return_that_cannot_be_pickled() -> None:
    results, done, template, store = call(3)
    with pytest.raises(TypeError, match="the return value of f"):
        results.take(done, template, [BIG, BIG, threading.Lock()])
    assert store.made == []
    assert done.returns == []


def test_what_is_stored_when_there_is_no_more_room_belongs_to_the_caller() -> None:
    results, done, template, store = call(3, room=1)
    results.take(done, template, [BIG, BIG, 1])
    assert (done.status, len(store.made)) == (RAISED, 1)
    stored, *failed = done.returns
    assert stored[1] is not None
    for data, located in failed:
        assert located is None
        assert data is not None
        assert is_error(data)
        assert isinstance(deserialize(data).cause, ObjectStoreFullError)


def test_a_call_whose_first_return_finds_no_room_fails_as_a_whole() -> None:
    results, done, template, store = call(2, room=0)
    results.take(done, template, [BIG, 1])
    assert store.made == []
    assert all(data is not None and is_error(data) for data, _ in done.returns)


@pytest.mark.parametrize("of", [list, iter], ids=["values", "generator"])
def test_small_returns_are_stored_where_a_reply_would_be_too_big(
    of: Callable[[list[bytes]], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results_module, "REPLY_BYTES_MAX", 3000)
    results, done, template, store = call(5)
    values = [b"x" * 900] * 5
    results.take(done, template, values if of is list else (value for value in values))
    travels = [data is not None for data, _ in done.returns]
    assert travels == [True, True, True, False, False]
    assert len(store.made) == 2
    assert len(done.nested) == 5


@pytest.mark.parametrize("returns", [1, 4])
def test_an_exception_too_big_for_a_reply_is_described(
    returns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results_module, "ERROR_BYTES_MAX", 200_000)
    results, done, template, _ = call(returns)
    results.fail(done, template, ValueError("it carries", b"x" * 100_000))
    error = deserialize(done.returns[0][0] or b"")
    assert isinstance(error, RayTaskError)
    assert isinstance(error.cause, ValueError if returns == 1 else UnserializableException)
    assert "it carries" in str(error)
    if returns > 1:
        assert "and 48.8 KiB may be sent: put() what is big in it" in str(error.cause)
    assert sum(len(data or b"") for data, _ in done.returns) < 200_000
