"""Finding what cannot be pickled, and saying where it is."""

from __future__ import annotations

import collections
import functools
import io
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import mray.util
from mray.serialization.context import collector
from mray.serialization.inspection import (
    Culprit,
    find_culprits,
    inspect_serializability,
    unpicklable_arguments_error,
    unpicklable_error,
)

LOCK = threading.Lock()
LOCK_TYPE = "_thread.lock"
CANNOT = "cannot pickle '_thread.lock' object"


class Holder:
    def __init__(self, lock: Any = None) -> None:
        self._lock = lock
        self.fine = [1, 2]

    def method(self) -> None:
        """Nothing."""


class Slotted:
    __slots__ = ("a", "lock")

    def __init__(self) -> None:
        self.a = 1
        self.lock = LOCK


class OwnState:
    def __getstate__(self) -> dict[str, Any]:
        return {"made up": LOCK}


class OwnReduce:
    def __reduce__(self) -> Any:
        return Holder, (1, LOCK)


class OwnDict(dict[Any, Any]):
    pass


class OwnList(list[Any]):
    pass


def layered() -> dict[str, Any]:
    model = Holder()
    model.layers = [Holder(), Holder(), Holder(), Holder(LOCK)]  # type: ignore[attr-defined]
    return {"model": model}


def closure() -> Callable[[], Any]:
    lock = {"deep": [LOCK]}
    return lambda: lock


def reads_global() -> Callable[[], Any]:
    def outer() -> Any:
        def inner() -> Any:
            return LOCK

        return inner()

    return outer


def with_default() -> Callable[..., Any]:
    def function(a: Any = LOCK, *, b: Any = LOCK) -> Any:
        return a, b

    return function


def local_class() -> type:
    class Local:
        shared = LOCK

        def method(self) -> None:
            """Nothing."""

    return Local


def cycle() -> list[Any]:
    one: list[Any] = [1]
    two = [one]
    one += [two, LOCK]
    return one


def generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("make", "path", "kind"),
    [
        (lambda: LOCK, "x", LOCK_TYPE),
        (lambda: {"a": [1, (2, LOCK)]}, "x['a'][1][1]", LOCK_TYPE),
        (lambda: {3: LOCK}, "x[3]", LOCK_TYPE),
        (lambda: {LOCK: 1}, "x.key(<lock>)", LOCK_TYPE),
        (layered, "x['model'].layers[3]._lock", LOCK_TYPE),
        (Slotted, "x.lock", LOCK_TYPE),
        (OwnState, "x.__getstate__()['made up']", LOCK_TYPE),
        (OwnReduce, "x.__reduce__()[1][1]", LOCK_TYPE),
        (lambda: OwnDict(k=LOCK), "x['k']", LOCK_TYPE),
        (lambda: OwnList([1, LOCK]), "x[1]", LOCK_TYPE),
        (lambda: collections.deque([LOCK]), "x[0]", LOCK_TYPE),
        (closure, "x.__closure__['lock']['deep'][0]", LOCK_TYPE),
        (reads_global, "x.__globals__['LOCK']", LOCK_TYPE),
        (lambda: functools.partial(print, 1, LOCK), "x.args[1]", LOCK_TYPE),
        (lambda: functools.partial(print, end=LOCK), "x.keywords['end']", LOCK_TYPE),
        (lambda: Holder(LOCK).method, "x.__self__._lock", LOCK_TYPE),
        (local_class, "x.shared", LOCK_TYPE),
        (lambda: local_class()(), "x.__class__.shared", LOCK_TYPE),
        (lambda: ValueError("a", LOCK), "x.args[1]", LOCK_TYPE),
        (cycle, "x[2]", LOCK_TYPE),
        (lambda: [generator()], "x[0]", "generator"),
        (lambda: Holder(threading.local()), "x._lock", "_thread._local"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_path_to_the_culprit(make: Callable[[], Any], path: str, kind: str) -> None:
    culprits = find_culprits(make(), "x")
    assert [(c.path.replace(repr(LOCK), "<lock>"), c.type) for c in culprits] == [(path, kind)]
    assert "cannot pickle" in culprits[0].reason


def test_a_socket_in_an_attribute() -> None:
    with socket.socket() as sock:
        (culprit,) = find_culprits(Holder(sock), "x")
    assert (culprit.path, culprit.type) == ("x._lock", "socket.socket")


def test_all_culprits_are_found_each_once_nearest_first() -> None:
    other = threading.Lock()
    value = {"deep": [[[other]]], "near": LOCK, "again": LOCK}
    assert [c.path for c in find_culprits(value, "x")] == ["x['near']", "x['deep'][0][0][0]"]
    function = with_default()
    assert {c.path for c in find_culprits(function, "f")} == {"f.__defaults__[0]"}


def test_a_hook_that_fails_is_the_culprit_itself() -> None:
    class Refusing:
        def __getstate__(self) -> Any:
            raise RuntimeError("not today")

    (culprit,) = find_culprits([Refusing()], "x")
    assert culprit.path == "x[0]"
    assert culprit.reason == "RuntimeError: not today"


def test_sound_values_have_no_culprits() -> None:
    assert find_culprits({"a": [1, Holder(), closure]}, "x") == []


def test_custom_serializers_are_looked_through() -> None:
    mray.util.register_serializer(
        Holder, serializer=lambda holder: [holder._lock], deserializer=Holder
    )
    try:
        assert find_culprits([Holder(1)], "x") == []
        (culprit,) = find_culprits([Holder(LOCK)], "x")
    finally:
        mray.util.deregister_serializer(Holder)
    assert culprit.path == "x[0].serializer()[0]"


def test_references_are_neither_collected_nor_out_of_band() -> None:
    class Ref:
        def __reduce__(self) -> Any:
            assert collector.refs is not None, "out of band"
            collector.refs.append(self)
            return int, ()

    kept: list[Any] = []
    collector.refs = kept
    try:
        find_culprits([Ref(), LOCK], "x")
    finally:
        collector.refs = None
    assert kept == []


def test_the_search_ends_when_its_time_is_over() -> None:
    now = iter(range(1000))
    value: list[Any] = [LOCK]
    for _ in range(50):
        value = [value]
    (culprit,) = find_culprits(value, "x", 10.0, clock=lambda: float(next(now)))
    assert culprit.type == "list"
    assert culprit.path.startswith("x[0][0]")
    assert next(now) < 20


def test_deep_and_wide_values_stay_bounded() -> None:
    deep: list[Any] = [LOCK]
    for _ in range(200):
        deep = [deep]
    (culprit,) = find_culprits(deep, "x", clock=lambda: 0.0)
    assert culprit.type == "list"
    wide = [threading.Lock() for _ in range(500)]
    assert len(find_culprits(wide, "x", clock=lambda: 0.0)) == 20


# --------------------------------------------------------------------------------- error messages


def test_the_error_for_a_value_names_the_path() -> None:
    error: Any = unpicklable_error(layered(), "the value of put", TypeError(CANNOT))
    assert isinstance(error, TypeError)
    text = str(error)
    assert text.startswith(f"the value of put cannot be serialized: {CANNOT}\n")
    assert "the value of put['model'].layers[3]._lock is of type _thread.lock" in text
    assert "register_serializer" in text
    assert error.culprits == (
        Culprit("the value of put['model'].layers[3]._lock", LOCK_TYPE, CANNOT),
    )


def test_the_error_for_a_call_names_the_argument() -> None:
    error: Any = unpicklable_arguments_error(
        "f", (1, [LOCK]), {"k": threading.Lock(), "fine": 2}, TypeError(CANNOT)
    )
    assert str(error).startswith("arg 2 and arg 'k' of f cannot be serialized")
    assert [c.path for c in error.culprits] == ["arg 2[0]", "arg 'k'"]


def test_an_error_that_cannot_be_explained_is_told_all_the_same() -> None:
    error = unpicklable_arguments_error("f", (1,), {}, RuntimeError("odd"))
    assert str(error).startswith("the arguments of f cannot be serialized: RuntimeError: odd")


# ----------------------------------------------------------------------- inspect_serializability


def test_inspecting_a_sound_value_prints_to_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert inspect_serializability([1], name="it") == (True, set())
    assert "Checking Serializability of [1]" in capsys.readouterr().out


def test_inspecting_a_function_finds_the_global() -> None:
    out = io.StringIO()
    function = reads_global()
    sound, failures = mray.util.inspect_serializability(function, "test", print_file=out)
    assert not sound
    (failure,) = failures
    assert (failure.name, failure.obj, failure.parent) == ("LOCK", LOCK, function)
    assert failure.path == "test.__globals__['LOCK']"
    assert repr(failure) == f"FailTuple(LOCK [obj={LOCK!r}, parent={function!r}])"
    for part in ("test", "test.__globals__['LOCK']", CANNOT):
        assert part in out.getvalue()


def test_the_depth_limits_how_far_it_looks() -> None:
    value = [[[[LOCK]]]]
    paths = [
        [f.path for f in inspect_serializability(value, "x", depth, io.StringIO())[1]]
        for depth in (0, 1, 4, 9)
    ]
    assert paths == [["x"], ["x[0]"], ["x[0][0][0][0]"], ["x[0][0][0][0]"]]


def test_what_is_printed_leads_down_to_the_culprit() -> None:
    def function() -> Any:
        return LOCK

    holder = Holder({"f": [function]})
    out = io.StringIO()
    inspect_serializability(holder, "it", depth=9, print_file=out)
    heading = f"Checking Serializability of {holder!r}"
    rule = "=" * min(len(heading), 100)
    fail = f"!!! FAIL serialization: {CANNOT}"
    items = holder._lock["f"]
    expected = [
        rule,
        heading,
        rule,
        fail,
        f"    Serializing '_lock' {holder._lock!r}...",
        f"    {fail}",
        f"        Serializing 'f' {items!r}...",
        f"        {fail}",
        f"            Serializing '[0]' {function!r}...",
        f"            {fail}",
        "            Detected 1 global variables. Checking serializability...",
        f"                Serializing 'LOCK' {LOCK!r}...",
        f"                {fail}",
        rule,
        "Variable:",
        "",
        f"\tFailTuple(LOCK [obj={LOCK!r}, parent={function!r}])",
        f"\t    at it._lock['f'][0].__globals__['LOCK']: {CANNOT}",
        "",
    ]
    lines = out.getvalue().splitlines()
    assert lines[: len(expected)] == expected
    assert lines[len(expected)].startswith("was found to be non-serializable. ")
    assert lines[len(expected) + 1 :] == [rule]


def test_a_sound_value_is_told_in_three_lines() -> None:
    out = io.StringIO()
    assert inspect_serializability(3, print_file=out) == (True, set())
    rule = "=" * len("Checking Serializability of 3")
    assert out.getvalue().splitlines() == [rule, "Checking Serializability of 3", rule]
