"""Errors of two classes: every odd exception class must work, or decline."""

from __future__ import annotations

import abc
import dataclasses
import errno
import json
import subprocess
import urllib.error
from typing import Any, Self

import pytest

from mray.exceptions import RayTaskError, TaskCancelledError


class OddInit(Exception):
    def __init__(self, a: int, b: int, *, c: int) -> None:
        super().__init__(a)
        self.total = a + b + c

    @property
    def doubled(self) -> int:
        return 2 * self.total


class OddNew(Exception):
    def __new__(cls, *args: Any, needed: int) -> Self:
        return super().__new__(cls, *args)

    def __init__(self, *args: Any, needed: int) -> None:
        super().__init__(*args)


class Slotted(Exception):
    __slots__ = ("__secret", "code", "unset")

    def __init__(self, code: int) -> None:
        self.code = code
        self.__secret = 5

    def secret(self) -> int:
        return self.__secret


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    x: int


class Registering(Exception):
    def __init_subclass__(cls, *, plugin: str) -> None:
        raise AssertionError("must not be told of dual classes")


class Meta(type):
    def __call__(cls, *args: Any) -> Any:
        return super().__call__(*args)

    def __new__(mcs, name: str, bases: Any, namespace: Any) -> Any:
        if name.startswith("RayTaskError"):
            raise AssertionError("must not be asked")
        return super().__new__(mcs, name, bases, namespace)


class WithMeta(Exception, metaclass=Meta):
    pass


class Abstract(Exception, metaclass=abc.ABCMeta):
    pass


class Clashing(Exception):
    """Uses names that a RayTaskError has for its own."""

    def __init__(self, pid: int) -> None:
        super().__init__(pid)
        self.pid = pid
        self.cause = "mine"

    def __str__(self) -> str:
        return "mine"

    def __reduce__(self) -> Any:
        return Clashing, (self.pid,)


class OwnGroup(ExceptionGroup[Exception]):
    pass


def dual(cause: BaseException) -> Any:
    return RayTaskError("f", "remote trace", cause, pid=1).as_instanceof_cause()


@pytest.mark.parametrize(
    "cause",
    [
        ValueError("x"), KeyError("k"), OSError(errno.ENOENT, "no", "file"), StopIteration(3),
        KeyboardInterrupt(), SystemExit(3), GeneratorExit(), MemoryError(),
        UnicodeDecodeError("utf8", b"ab", 0, 1, "bad"), SyntaxError("s", ("f", 1, 2, "t")),
        ImportError("i", name="n"), json.JSONDecodeError("m", "doc", 0),
        subprocess.CalledProcessError(2, "cmd"), urllib.error.HTTPError("u", 404, "m", {}, None),  # type: ignore[arg-type]
        OddInit(1, 2, c=3), OddNew(1, needed=2), Slotted(4), Frozen(5), Registering("r"),
        WithMeta("w"), Abstract("a"), Clashing(9), TaskCancelledError("ab"),
        ExceptionGroup("g", [ValueError(1), OSError(2)]), OwnGroup("g", [ValueError(1)]),
    ],
    ids=lambda cause: type(cause).__name__,
)  # fmt: skip
def test_a_dual_error_is_of_both_classes(cause: BaseException) -> None:
    error = dual(cause)
    assert isinstance(error, RayTaskError)
    assert isinstance(error, type(cause))
    assert type(error).__name__ == f"RayTaskError({type(cause).__name__})"
    assert str(error) == "remote trace"
    assert error.cause is cause
    assert error.pid == 1
    assert error.args == cause.args
    with pytest.raises(type(cause)):
        raise error


def test_state_of_every_kind_is_copied() -> None:
    assert dual(OddInit(1, 2, c=3)).doubled == 12
    slotted = dual(Slotted(4))
    assert (slotted.code, slotted.secret()) == (4, 5)
    assert not hasattr(slotted, "unset")
    assert dual(Frozen(5)).x == 5
    missing = dual(OSError(errno.ENOENT, "no", "file"))
    assert isinstance(missing, FileNotFoundError)
    assert (missing.errno, missing.strerror, missing.filename) == (errno.ENOENT, "no", "file")
    assert dual(SystemExit(3)).code == 3
    assert dual(StopIteration(3)).value == 3
    assert dual(UnicodeDecodeError("utf8", b"ab", 0, 1, "bad")).end == 1
    assert dual(ImportError("i", name="n")).name == "n"
    assert dual(subprocess.CalledProcessError(2, "cmd")).returncode == 2


def test_notes_of_the_cause_are_there() -> None:
    cause = ValueError("x")
    cause.add_note("hint")
    assert dual(cause).__notes__ == ["hint"]


def test_groups_can_be_split() -> None:
    caught = []
    try:
        raise dual(ExceptionGroup("g", [ValueError(1), OSError(2)]))
    except* ValueError as group:
        caught += group.exceptions
    except* OSError as group:
        caught += group.exceptions
    assert [type(error) for error in caught] == [ValueError, OSError]


@pytest.mark.parametrize(
    "cause",
    [
        BaseExceptionGroup("g", [KeyboardInterrupt()]),
        Exception("plain"),
        BaseException("plain"),
    ],
    ids=["group of BaseExceptions", "Exception", "BaseException"],
)
def test_where_no_dual_class_is_possible_or_needed_the_task_error_stays(
    cause: BaseException,
) -> None:
    error = dual(cause)
    assert type(error) is RayTaskError
    assert error.cause is cause
    assert error.args == cause.args


def test_a_class_that_refuses_subclasses_is_declined() -> None:
    class Refusing(type):
        def mro(cls) -> Any:
            if cls.__name__.startswith("RayTaskError"):
                raise TypeError("final")
            return super().mro()

    class Closed(Exception, metaclass=Refusing):
        pass

    error = dual(Closed("x"))
    assert type(error) is RayTaskError
    assert error.args == ("x",)


def test_the_class_is_made_once() -> None:
    assert type(dual(OddInit(1, 2, c=3))) is type(dual(OddInit(4, 5, c=6)))


def test_users_attributes_do_not_hide_the_errors_own() -> None:
    error = dual(Clashing(9))
    assert error.pid == 1
    assert isinstance(error.cause, Clashing)
    assert error.cause.pid == 9
