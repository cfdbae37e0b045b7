"""Callbacks for want of memory, in a process without a runtime."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mray import memory_pressure
from mray.memory_pressure import MemoryPressure, has_callbacks, on_memory_pressure, run_callbacks

PRESSURE = MemoryPressure(used_bytes=9, limit_bytes=12, threshold_bytes=10, soft_mark_bytes=8)


@pytest.fixture(autouse=True)
def no_callbacks() -> Iterator[None]:
    yield
    memory_pressure._callbacks.clear()


def test_callbacks_are_called_in_the_order_of_their_registration() -> None:
    heard: list[Any] = []
    on_memory_pressure(lambda pressure: heard.append(("first", pressure)))
    on_memory_pressure(lambda pressure: heard.append(("second", pressure)))
    run_callbacks(PRESSURE)
    assert heard == [("first", PRESSURE), ("second", PRESSURE)]


def test_one_that_raises_keeps_none_of_the_others_from_being_called(caplog: Any) -> None:
    heard: list[MemoryPressure] = []
    on_memory_pressure(lambda pressure: 1 / 0)
    on_memory_pressure(heard.append)
    run_callbacks(PRESSURE)
    assert heard == [PRESSURE]
    assert "a callback of on_memory_pressure() failed" in caplog.text


def test_what_was_taken_back_is_not_called_and_taking_back_twice_is_no_harm() -> None:
    remove = on_memory_pressure(lambda pressure: 1 / 0)
    assert has_callbacks()
    remove()
    remove()
    assert not has_callbacks()


def test_what_cannot_be_called_is_refused() -> None:
    wrong: Any = 7
    with pytest.raises(TypeError, match="takes a function, not int"):
        on_memory_pressure(wrong)
