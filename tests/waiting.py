"""Waiting in tests: for a condition, with a deadline, never for a length of time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], timeout_s: float = 10.0, what: str = "") -> T:
    """The first true value of ``condition()``. AssertionError when there is none in time."""
    give_up_at = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= give_up_at:
            raise AssertionError(f"not within {timeout_s} s: {what or condition}; got {value!r}")
        time.sleep(0.01)
