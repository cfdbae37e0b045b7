"""Exceptions that cannot be brought to the driver: their class, text and traceback can."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError

import pytest

import mray
from mray.exceptions import RayTaskError, UnserializableException

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    mray.init(num_cpus=1)
    yield
    mray.shutdown()


class WithLock(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class FiveArguments(Exception):
    def __init__(self, a: int, b: int, c: int, d: int, e: int) -> None:
        super().__init__(f"{a} of {e}")


class EndsTheProcess(Exception):
    def __reduce__(self) -> Any:
        sys.exit(3)


def made_there() -> Exception:
    module = types.ModuleType("only_in_the_worker")
    sys.modules["only_in_the_worker"] = module
    exec("class Boom(Exception): pass", module.__dict__)
    boom: Exception = module.Boom("there")
    return boom


@mray.remote
def fail(make: Any) -> None:
    raise make()


@mray.remote
class Actor:
    def fail(self, make: Any) -> None:
        raise make()


@pytest.mark.parametrize(
    ("make", "name", "text"),
    [
        (lambda: WithLock("held"), "WithLock", "held"),
        (lambda: FiveArguments(1, 2, 3, 4, 5), "FiveArguments", "1 of 5"),
        (lambda: HTTPError("http://x", 404, "gone", {}, None), "urllib.error.HTTPError", "gone"),  # type: ignore[arg-type]
        (made_there, "only_in_the_worker.Boom", "there"),
        (lambda: EndsTheProcess("stay"), "EndsTheProcess", "stay"),
        (lambda: ExceptionGroup("all", [ValueError(), WithLock("in")]), "ExceptionGroup", "all"),
    ],
)
def test_class_text_and_traceback_arrive(make: Any, name: str, text: str) -> None:
    for call in (fail.remote(make), Actor.remote().fail.remote(make)):
        with pytest.raises(RayTaskError) as caught:
            mray.get(call)
        cause = caught.value.cause
        assert isinstance(cause, UnserializableException)
        assert cause.class_name.endswith(name)
        assert text in str(cause)
        assert "raise make()" in str(caught.value)
        assert text in str(caught.value)


def test_causes_that_cannot_be_pickled_arrive_as_text() -> None:
    def make() -> Exception:
        error = RuntimeError("outer")
        error.__cause__ = WithLock("inner")
        return error

    with pytest.raises(RuntimeError, match="outer") as caught:
        mray.get(fail.remote(make))
    assert "WithLock: inner" in str(caught.value)


def test_a_huge_message_is_shortened_in_the_text() -> None:
    with pytest.raises(ValueError, match="characters left out") as caught:
        mray.get(fail.remote(lambda: ValueError("x" * 3_000_000)))
    assert len(str(caught.value)) < 50_000
