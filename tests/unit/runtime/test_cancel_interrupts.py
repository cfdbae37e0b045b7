"""Where a task may be interrupted, by the functions that the main thread is in."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from mray.runtime.interrupts import _in_users_code


def frame_in(*modules: str) -> FrameType:
    """A frame of a function of the last module, called by one of the module before, and so on."""
    call: Any = sys._getframe
    for name in reversed(modules):
        space: dict[str, Any] = {"__name__": name, "call": call}
        exec("def function():\n    return call()", space)
        call = space["function"]
    frame = call()
    assert isinstance(frame, FrameType)
    return frame


@pytest.mark.parametrize(
    "modules",
    [
        ["mray.runtime.executor", "__main__"],
        ["mray.runtime.executor", "users_module", "threading"],
        ["mray.runtime.executor", "mray.runtime.inputs", "mray.serialization.x", "users_module"],
        ["mray.runtime.executor", "mray.runtime.results", "mray.serialization.x", "cloudpickle"],
        ["mray.runtime.executor", "mray.runtime.generators", "users_module"],
        ["mray.runtime.executor", "users_module", "mray.util.queue"],
        ["mray.runtime.executor", "users_module", "mray.util.queue", "time"],
        ["mray.runtime.executor", "mrayless"],
    ],
    ids=str,
)  # fmt: skip
def test_users_code_may_be_interrupted(modules: list[str]) -> None:
    assert _in_users_code(frame_in(*modules))


@pytest.mark.parametrize(
    "modules",
    [
        ["mray.runtime.executor"],
        ["mray.runtime.executor", "mray.runtime.results"],
        ["mray.runtime.executor", "users_module", "mray.runtime.objects"],
        ["mray.runtime.executor", "users_module", "mray.runtime.objects", "mray.store.client"],
        ["mray.runtime.executor", "users_module", "mray.store.copying", "concurrent.futures"],
        ["mray.runtime.executor", "users_module", "mray.runtime.tasks", "threading"],
        ["mray.runtime.executor", "users_module", "mray.serialization.pickler"],
        ["mray.runtime.worker", "atexit", "logging"],
    ],
    ids=str,
)  # fmt: skip
def test_mray_itself_may_not(modules: list[str]) -> None:
    assert not _in_users_code(frame_in(*modules))


def test_a_thread_that_runs_nothing_of_mray_is_left_alone() -> None:
    assert not _in_users_code(frame_in("users_module"))
    assert not _in_users_code(None)
