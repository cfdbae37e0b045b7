"""Exceptions between processes: every one must arrive, whole or described."""

from __future__ import annotations

import pickle
import sys
import threading
import types
import urllib.error
from collections.abc import Callable
from typing import Any

import pytest

from mray import exceptions as exc
from mray.serialization.context import collector
from mray.serialization.envelope import EnvelopeError, is_error
from mray.serialization.failures import error_envelope, serialize_exception
from mray.serialization.pickler import deserialize, serialize


def caught(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as raised:
        return raised


def sent(error: BaseException, name: str = "f", **facts: Any) -> Any:
    """What the asking process gets of an error raised in the task ``name``."""
    data = serialize_exception(caught(error), name, **facts)
    assert is_error(data)
    result = deserialize(data)
    assert isinstance(result, exc.RayTaskError)
    return result


class WithPayload(Exception):
    def __init__(self, message: str, payload: Any) -> None:
        super().__init__(message, payload)


class NeedsMore(Exception):
    """Pickles, but cannot be unpickled: __init__ wants more than args holds."""

    def __init__(self, url: str, code: int) -> None:
        super().__init__(f"{url} gave {code}")


class Ref:
    def __reduce__(self) -> Any:
        assert collector.refs is not None, "pickled out of band"
        collector.refs.append(self)
        return Ref, ()


# ------------------------------------------------------------------------------------- whole ones


def test_a_picklable_exception_arrives_whole() -> None:
    error = sent(ValueError("boom", 3), pid=12, ip="10.0.0.1")
    assert type(error.cause) is ValueError
    assert error.cause.args == ("boom", 3)
    assert (error.function_name, error.pid, error.ip) == ("f", 12, "10.0.0.1")
    assert error.chain == ("f",)
    assert error.proctitle == "ray::f()"
    text = str(error)
    assert text.startswith("ray::f() (pid=12, ip=10.0.0.1)\n")
    assert "in caught" in text
    assert text.endswith("ValueError: ('boom', 3)")
    with pytest.raises(ValueError, match="boom") as info:
        raise error.as_instanceof_cause()
    assert info.value.args == ("boom", 3)


def test_an_actor_is_named_in_the_heading() -> None:
    error = sent(ValueError("x"), "A.m", pid=1, actor_id="ab", actor_repr="<A 7>")
    assert str(error).startswith("ray::A.m() (pid=1, actor_id=ab, repr=<A 7>)\n")
    assert (error.actor_id, error.actor_repr) == ("ab", "<A 7>")


def test_a_local_exception_class_arrives_whole() -> None:
    class Local(Exception):
        pass

    assert isinstance(sent(Local("x")).as_instanceof_cause(), Local)


def test_groups_and_exits_arrive_whole() -> None:
    group = sent(ExceptionGroup("g", [ValueError(1), KeyError("k")])).as_instanceof_cause()
    assert [type(error) for error in group.exceptions] == [ValueError, KeyError]
    assert sent(SystemExit(3)).as_instanceof_cause().code == 3
    assert isinstance(sent(KeyboardInterrupt()).as_instanceof_cause(), KeyboardInterrupt)


def test_references_inside_are_collected() -> None:
    refs: list[Any] = []
    one = Ref()
    data = serialize_exception(caught(WithPayload("x", one)), "f", refs=refs)
    assert refs == [one]
    assert isinstance(deserialize(data).cause.args[1], Ref)
    assert collector.refs is None


# ------------------------------------------------------------------------------------- described


@pytest.mark.parametrize(
    ("make", "class_name", "args", "reason"),
    [
        (
            lambda: urllib.error.HTTPError("http://x", 404, "Not Found", {}, None),  # type: ignore[arg-type]
            "urllib.error.HTTPError", (), "__init__() missing",
        ),
        (
            lambda: WithPayload("holds a lock", threading.Lock()),
            "WithPayload", ("holds a lock", "<unlocked _thread.lock"), "cannot pickle",
        ),
        (lambda: NeedsMore("http://x", 500), "NeedsMore", ("http://x gave 500",), "missing 1"),
    ],
    ids=["HTTPError", "lock", "odd init"],
)  # fmt: skip
def test_what_cannot_travel_is_described(
    make: Callable[[], BaseException], class_name: str, args: tuple[str, ...], reason: str
) -> None:
    original = make()
    error = sent(original)
    stand_in = error.cause
    assert isinstance(stand_in, exc.UnserializableException)
    assert stand_in.class_name.endswith(class_name)
    assert stand_in.text == str(original)
    assert reason in stand_in.reason
    assert "in caught" in stand_in.original_stack_trace
    assert len(stand_in.original_args) == len(original.args)
    for part, arg in zip(args, stand_in.original_args, strict=True):
        assert arg.startswith(part)
    assert str(original) in str(error)
    with pytest.raises(exc.RayTaskError, match="in caught"):
        raise error.as_instanceof_cause()


def test_a_class_that_only_the_worker_has_is_described_and_kept() -> None:
    module = types.ModuleType("only_in_the_worker")
    exec("class Special(Exception):\n    pass\n", module.__dict__)
    sys.modules[module.__name__] = module
    data = serialize_exception(caught(module.Special("hello", 1)), "f")
    del sys.modules[module.__name__]

    error = deserialize(data)
    assert isinstance(error.cause, exc.UnserializableException)
    assert error.cause.class_name == "only_in_the_worker.Special"
    assert error.cause.text == "('hello', 1)"
    assert error.cause.original_args == ("hello", 1)
    assert "No module named 'only_in_the_worker'" in error.cause.reason

    # Passed on by one who cannot load it to one who can: it is whole again.
    passed_on = serialize_exception(caught(error.as_instanceof_cause()), "g")
    sys.modules[module.__name__] = module
    try:
        assert type(deserialize(passed_on).cause) is module.Special
    finally:
        del sys.modules[module.__name__]


class Hostile(Exception):
    def __str__(self) -> str:
        raise SystemExit("str")

    def __repr__(self) -> str:
        raise KeyboardInterrupt

    def __reduce__(self) -> Any:
        raise GeneratorExit


class HostileArgs(Exception):
    args = property(lambda self: 1 / 0)  # type: ignore[assignment]


class BecomesAnother(Exception):
    def __reduce__(self) -> Any:
        return str, ("not an exception",)


@pytest.mark.parametrize("make", [Hostile, BecomesAnother])
def test_hostile_exceptions_are_described_all_the_same(make: type[Exception]) -> None:
    error = sent(make())
    assert isinstance(error.cause, exc.UnserializableException)
    assert make.__name__ in error.cause.class_name
    assert make.__name__ in str(error)


def test_args_that_cannot_be_read_are_no_hindrance() -> None:
    assert isinstance(sent(HostileArgs()).as_instanceof_cause(), HostileArgs)


def test_huge_messages_and_args_are_cut() -> None:
    lock = threading.Lock()
    data = serialize_exception(caught(WithPayload("x" * 10**6, [lock] * 10**4)), "f")
    assert len(data) < 100_000


# --------------------------------------------------------------------------------------- chains


def test_an_error_that_passes_through_another_task_keeps_cause_and_chain() -> None:
    inner = sent(ValueError("boom"), "inner", pid=1).as_instanceof_cause()
    outer = sent(inner, "outer", pid=2)
    assert outer.chain == ("outer", "inner")
    assert type(outer.cause) is ValueError
    text = str(outer)
    assert text.index("ray::outer() (pid=2)") < text.index("ray::inner() (pid=1)")
    assert text.endswith("ValueError: boom")
    assert isinstance(outer.as_instanceof_cause(), ValueError)
    assert sent(outer.as_instanceof_cause(), "third").chain == ("third", "outer", "inner")


def test_mrays_own_errors_raised_in_a_task_are_caught_as_themselves() -> None:
    crash = exc.WorkerCrashedError(task_name="g", signal=9)
    error = sent(crash).as_instanceof_cause()
    assert isinstance(error, exc.WorkerCrashedError)
    assert isinstance(error, exc.RayTaskError)
    assert error.signal == 9


# ------------------------------------------------------------------------------ mray's own errors


def test_mrays_errors_arrive_as_they_are() -> None:
    error = exc.WorkerCrashedError(task_name="g", exit_code=3, stderr_tail=["a"])
    back = deserialize(error_envelope(error))
    assert type(back) is exc.WorkerCrashedError
    assert (str(back), vars(back)) == (str(error), vars(error))


def test_a_task_error_is_sent_again_as_it_is() -> None:
    error = sent(ValueError("x"), pid=3)
    back = deserialize(error_envelope(error.as_instanceof_cause()))
    assert type(back) is exc.RayTaskError
    assert (str(back), back.pid, back.chain) == (str(error), 3, ("f",))
    assert type(back.cause) is ValueError


def test_a_dead_actors_constructor_error_arrives_even_if_its_class_does_not() -> None:
    module = types.ModuleType("only_in_the_actor")
    exec("class Special(Exception):\n    pass\n", module.__dict__)
    sys.modules[module.__name__] = module
    cause = sent(module.Special("x"), "A.__init__")
    data = error_envelope(exc.ActorDiedError(cause, actor_id="ab", class_name="A"))
    whole = deserialize(data)
    assert type(whole.cause.cause) is module.Special
    del sys.modules[module.__name__]
    back = deserialize(data)
    assert type(back) is exc.ActorDiedError
    assert back.actor_init_failed
    assert back.actor_id == "ab"
    assert isinstance(back.cause.cause, exc.UnserializableException)
    assert "constructor raised" in str(back)


def test_a_task_error_is_a_value_too() -> None:
    error = sent(ValueError("x")).as_instanceof_cause()
    back = deserialize(serialize([error]).to_bytes())[0]
    assert isinstance(back, ValueError)
    assert isinstance(back, exc.RayTaskError)
    assert str(back) == str(error)


@pytest.mark.parametrize("payload", [b"", b"junk", pickle.dumps(5), pickle.dumps((1, 2))])
def test_damaged_errors_are_refused(payload: bytes) -> None:
    with pytest.raises(EnvelopeError):
        deserialize(b"E\x01" + payload)
