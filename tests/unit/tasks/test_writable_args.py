"""The option writable_args: which arguments it chooses, and which names it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import mray
from mray.remote_function import Signature
from mray.tasks.writable import TemplateOptions, WritableArgs, choose, options_of


def chosen(function: Callable[..., Any], wanted: Any) -> WritableArgs | None:
    return choose(wanted, Signature(function).parameters(), "f()")


def f(a: Any, /, b: Any, *rest: Any, c: Any = 1, **others: Any) -> None:
    """Parameters of every kind."""


def plain(a: Any, b: Any = 1) -> None:
    """Parameters of the common kind."""


def places(writable: WritableArgs | None, candidates: list[Any]) -> list[Any]:
    assert writable is not None
    return [place for place in candidates if writable.has(place)]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (True, [0, 1, 2, 7, "a", "b", "c", "x"]),
        (["a"], [0, "a"]),
        (("b", "c"), [1, "b", "c"]),
        (["rest"], [2, 7]),
        (["others"], ["x"]),
        (["x"], ["x"]),
        (["rest", "others", "b"], [1, 2, 7, "b", "x"]),
    ],
)
def test_what_is_chosen(wanted: Any, expected: list[Any]) -> None:
    found = places(chosen(f, wanted), [0, 1, 2, 7, "a", "b", "c", "x"])
    assert found == expected


@pytest.mark.parametrize("nothing", [None, False, [], ()])
def test_nothing_chosen_costs_nothing(nothing: Any) -> None:
    assert chosen(f, nothing) is None
    assert options_of({"writable_args": nothing}, [], "f()") == b""
    assert options_of({}, [], "f()") == b""


def test_the_choice_survives_the_wire() -> None:
    parameters = Signature(f).parameters()
    data = options_of({"writable_args": ["b", "others"]}, parameters, "f()")
    found = TemplateOptions.decode(data).writable_args
    assert found == choose(["b", "others"], parameters, "f()")
    assert TemplateOptions.decode(b"") == TemplateOptions()


def test_a_name_that_is_no_parameter_is_refused_when_decorating() -> None:
    with pytest.raises(ValueError, match=r"plain\(\) has no parameter 'z'; it has \['a', 'b'\]"):
        mray.remote(writable_args=["z"])(plain)
    with pytest.raises(ValueError, match="no parameter 'z'"):
        mray.remote(plain).options(writable_args=["z"])

    class Actor:
        def __init__(self, a: Any) -> None: ...

        @mray.method(writable_args=["z"])
        def method(self, b: Any) -> None: ...

    with pytest.raises(ValueError, match=r"Actor\.method\(\) has no parameter 'z'; it has \['b'\]"):
        mray.remote(Actor)
    del Actor.method
    with pytest.raises(ValueError, match=r"Actor\.__init__\(\) has no parameter 'b'"):
        mray.remote(writable_args=["b"])(Actor)


@pytest.mark.parametrize("bad", ["a", 1, [1], [""], {"a": 1}])
def test_a_value_of_another_type_is_refused(bad: Any) -> None:
    with pytest.raises(TypeError, match="writable_args must be a bool or a list of names"):
        mray.remote(writable_args=bad)(plain)
