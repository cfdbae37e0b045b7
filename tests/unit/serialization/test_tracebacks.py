"""Texts of remote tracebacks."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest

from mray.serialization.tracebacks import TEXT_MAX_CHARS, cap, format_remote


def in_module(name: str, source: str) -> dict[str, Any]:
    """The names a module of that name would have after running ``source``."""
    module = types.ModuleType(name)
    exec(compile(source, f"<{name}>", "exec"), module.__dict__)
    return module.__dict__


CALL = "def call(f, *args):\n    return f(*args)\n"
executor = in_module("mray.runtime.executor", CALL)["call"]
worker = in_module("mray.node.workers.main", CALL)["call"]
lookalike = in_module("mray.runtime_of_the_user", CALL)["call"]


def caught(function: Callable[..., Any], *args: Any) -> BaseException:
    try:
        function(*args)
    except BaseException as error:
        return error
    raise AssertionError("it did not raise")


def boom() -> None:
    raise ValueError("boom")


def test_the_heading_comes_first_and_the_error_last() -> None:
    lines = format_remote(caught(boom), "ray::f() (pid=1)").splitlines()
    assert lines[0] == "ray::f() (pid=1)"
    assert lines[-1] == "ValueError: boom"
    assert any("in boom" in line for line in lines)
    assert "Traceback (most recent call last)" not in "\n".join(lines)


def test_frames_of_mray_are_left_out() -> None:
    text = format_remote(caught(worker, executor, lookalike, executor, boom), "h")
    assert "mray.runtime.executor" not in text
    assert "mray.node" not in text
    assert "mray.runtime_of_the_user" in text
    assert "in boom" in text


def test_an_error_of_mray_itself_keeps_its_frames() -> None:
    error = caught(in_module("mray.runtime.x", "def f():\n    1 / 0\n")["f"])
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next  # this test's own frame
    assert "mray.runtime.x" in format_remote(error, "h")


def test_causes_contexts_and_groups_are_trimmed_too() -> None:
    def chained() -> None:
        try:
            executor(boom)
        except ValueError as error:
            raise KeyError("second") from error

    def grouped() -> None:
        raise ExceptionGroup("several", [caught(executor, boom), caught(executor, chained)])  # type: ignore[list-item]

    text = format_remote(caught(executor, grouped), "h")
    assert "mray.runtime" not in text
    for part in ("several", "boom", "second", "direct cause"):
        assert part in text


def test_an_error_without_a_traceback_is_its_last_line() -> None:
    assert format_remote(ValueError("x"), "h") == "h\nValueError: x"


def test_cyclic_causes_come_to_an_end() -> None:
    first, second = ValueError(1), ValueError(2)
    first.__cause__, second.__cause__ = second, first
    assert "ValueError: 1" in format_remote(first, "h")


def test_notes_are_shown() -> None:
    error = ValueError("x")
    error.add_note("look here")
    assert format_remote(error, "h").endswith("look here")


def test_long_texts_lose_their_middle() -> None:
    text = format_remote(ValueError("a" * 10**6 + "end"), "heading")
    assert len(text) < TEXT_MAX_CHARS + 100
    assert text.startswith("heading\nValueError: aaa")
    assert text.endswith("aend")
    assert "characters left out" in text


@pytest.mark.parametrize("length", [0, 29, 30])
def test_short_texts_stay(length: int) -> None:
    assert cap("x" * length, 30) == "x" * length
