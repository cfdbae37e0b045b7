"""A call is refused where Python would refuse it."""

from __future__ import annotations

import functools
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from mray.remote_function import Signature


def plain(a: int, b: int) -> None: ...
def nothing() -> None: ...
def defaults(a: int, b: int = 2, *, c: int = 3) -> None: ...
def required_keyword(*, key: int) -> None: ...
def positional(a: int, /, b: int = 0) -> None: ...
def anything(*args: int, **kwargs: int) -> None: ...


FUNCTIONS = [plain, nothing, defaults, required_keyword, positional, anything]
FUNCTIONS.append(functools.partial(plain, b=1))
CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}), ((1,), {}), ((1, 2), {}), ((1, 2, 3), {}), ((1,), {"b": 2}), ((), {"a": 1, "b": 2}),
    ((1, 2), {"b": 3}), ((), {"key": 1}), ((1,), {"c": 1}), ((1,), {"z": 1}), ((), {"a": 1}),
]  # fmt: skip


def accepts(check: Callable[..., None], args: Any, kwargs: Any) -> bool:
    try:
        check(args, kwargs)
    except TypeError:
        return False
    return True


def binds(function: Callable[..., Any], args: Any, kwargs: Any) -> bool:
    return accepts(lambda a, k: inspect.signature(function).bind(*a, **k), args, kwargs)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("function", FUNCTIONS, ids=str)
@pytest.mark.parametrize(("args", "kwargs"), CALLS, ids=str)
def test_a_signature_agrees_with_python(function: Any, args: Any, kwargs: Any) -> None:
    check = Signature(function)
    travelled = Signature.of_parameters("f", pickle.loads(pickle.dumps(check.parameters())))
    expected = binds(function, args, kwargs)
    assert accepts(check, args, kwargs) is expected
    assert accepts(travelled, args, kwargs) is expected
    if not args and not kwargs and not expected:
        assert check.needs_arguments
        assert travelled.needs_arguments
    if check.needs_arguments:
        assert not binds(function, (), {})


def test_the_first_parameter_of_a_method_is_its_object() -> None:
    class Counter:
        def add(self, amount: int) -> None: ...

        def any_form(*args: Any) -> None: ...

    check = Signature(Counter.add, skip_first=True)
    assert check.parameters() == [("amount", int(inspect.Parameter.POSITIONAL_OR_KEYWORD), False)]
    assert accepts(check, (1,), {})
    assert not accepts(check, (1, 2), {})
    assert accepts(Signature(Counter.any_form, skip_first=True), (1, 2, 3), {})


def test_what_has_no_signature_takes_anything() -> None:
    check = Signature(type)
    assert not check.needs_arguments
    assert accepts(check, (1, 2, 3), {"a": 1})


def test_the_error_names_the_function() -> None:
    with pytest.raises(TypeError, match=r"^plain: .*'b'"):
        Signature(plain)((1,), {})


def test_a_signature_can_be_pickled() -> None:
    check = pickle.loads(pickle.dumps(Signature(defaults)))
    assert check.needs_arguments
    assert accepts(check, (1,), {})
