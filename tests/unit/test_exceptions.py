"""The exception tree: names, ancestry, facts, texts, pickling."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from mray import exceptions as exc

# Ray 2.60's classes and the classes they can be caught as, besides RayError.
ANCESTRY: dict[str, tuple[type[BaseException], ...]] = {
    "RayError": (Exception,),
    "CrossLanguageError": (),
    "TaskCancelledError": (),
    "RayTaskError": (),
    "LocalRayletDiedError": (),
    "WorkerCrashedError": (),
    "RayActorError": (),
    "ActorDiedError": (exc.RayActorError,),
    "ActorUnavailableError": (exc.RayActorError,),
    "RaySystemError": (),
    "AuthenticationError": (),
    "UserCodeException": (),
    "ObjectStoreFullError": (),
    "OutOfDiskError": (),
    "OutOfMemoryError": (),
    "NodeDiedError": (),
    "ObjectLostError": (),
    "ObjectFetchTimedOutError": (exc.ObjectLostError,),
    "RpcError": (),
    "ReferenceCountingAssertionError": (exc.ObjectLostError, AssertionError),
    "ObjectFreedError": (exc.ObjectLostError,),
    "OwnerDiedError": (exc.ObjectLostError,),
    "ObjectReconstructionFailedError": (exc.ObjectLostError,),
    "GetTimeoutError": (TimeoutError,),
    "PlasmaObjectNotAvailable": (),
    "AsyncioActorExit": (),
    "RuntimeEnvSetupError": (),
    "TaskPlacementGroupRemoved": (),
    "ActorPlacementGroupRemoved": (),
    "PendingCallsLimitExceeded": (),
    "TaskUnschedulableError": (),
    "ActorUnschedulableError": (),
    "ObjectRefStreamEndOfStreamError": (),
    "StreamingGeneratorReplayInconsistentError": (exc.RaySystemError,),
    "OufOfBandObjectRefSerializationException": (),
    "RayChannelError": (exc.RaySystemError,),
    "RayChannelTimeoutError": (exc.RayChannelError, TimeoutError),
    "RayCgraphCapacityExceeded": (exc.RaySystemError,),
    "RayDirectTransportError": (exc.RaySystemError,),
    "UnserializableException": (),
    "ActorAlreadyExistsError": (ValueError,),
    "ActorHandleNotFoundError": (ValueError,),
}
OWN: dict[str, tuple[type[BaseException], ...]] = {
    "ReferenceLostError": (exc.ObjectLostError, exc.GetTimeoutError, TimeoutError),
    "ObjectReconstructionFailedMaxAttemptsExceededError": (exc.ObjectReconstructionFailedError,),
    "ObjectReconstructionFailedLineageEvictedError": (exc.ObjectReconstructionFailedError,),
}
ALL = ANCESTRY | OWN

WITH_FACTS: list[exc.RayError] = [
    exc.TaskCancelledError(b"\xab\xcd", "by user", task_name="f"),
    exc.WorkerCrashedError(
        task_name="f", pid=12, node="n1", signal=9, cause_text="killed", stderr_tail=["oops"]
    ),
    exc.LocalRayletDiedError(node="n1", cause_text="exit code 1"),
    exc.NodeDiedError("gone", node_id=b"\x01"),
    exc.RayActorError("ab", "broken", True, class_name="A"),
    exc.ActorDiedError(actor_id="ab", class_name="A", pid=3, exit_code=1, cause_text="crash"),
    exc.ActorDiedError(exc.RayTaskError("A.__init__", "the trace", ValueError(1)), actor_id="ab"),
    exc.ActorUnavailableError("restarting", b"\x01\x02", class_name="A"),
    exc.GetTimeoutError(pending=[("ab", "f", "waits for 1 CPU")], timeout_s=2.0),
    exc.ObjectLostError("ab", None, "x.py:3", task_name="f", reason="node died"),
    exc.OwnerDiedError("ab"),
    exc.ObjectReconstructionFailedError("ab", "retries", "no retries left"),
    exc.ReferenceLostError("ab", timeout_s=1.0),
    exc.ObjectStoreFullError(
        requested_bytes=2**20, capacity_bytes=2**30, used_bytes=2**29, holders=[("driver", 7)]
    ),
    exc.OutOfDiskError(path="/tmp/spill", used_fraction=0.97),
    exc.RpcError("no answer", 14),
    exc.RaySystemError("bad", "trace"),
    exc.UnserializableException("trace", class_name="m.E", text="x", original_args=(1,)),
    exc.RuntimeEnvSetupError("no such directory"),
]


@pytest.mark.parametrize("name", ALL)
def test_the_tree_is_rays(name: str) -> None:
    cls = getattr(exc, name)
    assert issubclass(cls, exc.RayError)
    for base in ALL[name]:
        assert issubclass(cls, base)
    assert cls.__module__ == "mray.exceptions"
    assert name in (exc.__doc__ or "")


def test_the_table_above_is_complete() -> None:
    there = {
        name for name, value in vars(exc).items()
        if isinstance(value, type) and issubclass(value, BaseException)
    }  # fmt: skip
    assert there == set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_every_class_takes_one_string_or_nothing(name: str) -> None:
    cls = getattr(exc, name)
    error = cls("boom and more")
    assert "boom and more" in (str(error), getattr(error, "actor_id", None)) or "boom" in str(error)
    if name != "RayTaskError":
        assert isinstance(cls(), exc.RayError)


@pytest.mark.parametrize(
    "error", [*WITH_FACTS, *(getattr(exc, name)("boom") for name in ALL)],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
@pytest.mark.parametrize("way", ["pickle", "copy"])
def test_every_class_is_pickled_with_its_facts(error: exc.RayError, way: str) -> None:
    back = pickle.loads(pickle.dumps(error)) if way == "pickle" else copy.copy(error)
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert back.args == error.args
    assert repr(vars(back)) == repr(vars(error))


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (WITH_FACTS[0], ["task f abcd", "cancelled", "by user"]),
        (WITH_FACTS[1], ["task f", "pid 12", "node n1", "signal 9 (SIGKILL)", "killed", "oops"]),
        (WITH_FACTS[5], ["actor A ab", "pid 3", "dead", "exit code 1", "crash"]),
        (WITH_FACTS[6], ["constructor raised", "the trace"]),
        (WITH_FACTS[7], ["actor A 0102", "unavailable", "restarting"]),
        (WITH_FACTS[8], ["2 s", "ab of f", "waits for 1 CPU"]),
        (WITH_FACTS[9], ["object ab of task f", "node died", "x.py:3"]),
        (WITH_FACTS[10], ["object ab", "process that owned it has ended"]),
        (WITH_FACTS[13], ["1 MiB", "512 MiB of 1 GiB", "driver: 7 B"]),
        (WITH_FACTS[14], ["/tmp/spill", "97.0%"]),
        (exc.WorkerCrashedError(), ["cause is not known"]),
        (exc.WorkerCrashedError(signal=44), ["signal 44"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_texts_are_made_of_facts(error: exc.RayError, parts: list[str]) -> None:
    for part in parts:
        assert part in str(error)


def test_long_lists_are_shortened() -> None:
    error = exc.GetTimeoutError(pending=[(f"r{i}", "", "") for i in range(25)])
    assert "25 not ready" in str(error)
    assert "r9:" in str(error)
    assert "r10" not in str(error)
    assert "and 15 more" in str(error)
    assert len(error.pending) == 25


def test_actor_errors_know_whether_the_constructor_failed() -> None:
    cause = exc.RayTaskError("A.__init__", "trace", ValueError("x"))
    assert exc.ActorDiedError(cause).actor_init_failed
    assert not exc.ActorDiedError().actor_init_failed
    assert exc.RayActorError("ab", preempted=True).preempted


class Own(exc.RayError):
    """A user's own subclass, with an __init__ that could not be called with args."""

    def __init__(self, a: int, *, b: int) -> None:
        super().__init__(f"{a} {b}")
        self.b = b


def test_users_subclasses_are_pickled_too() -> None:
    back: Any = pickle.loads(pickle.dumps(Own(1, b=2)))
    assert (type(back), str(back), back.b) == (Own, "1 2", 2)


# ----------------------------------------------------------------------------------- RayTaskError


def task_error(cause: BaseException | None, **facts: Any) -> exc.RayTaskError:
    return exc.RayTaskError("f", "ray::f()\n  trace", cause, **facts)


def test_a_task_error_shows_the_remote_traceback_and_keeps_its_facts() -> None:
    error = task_error(ValueError("x"), pid=4, ip="1.2.3.4", actor_id="ab")
    assert str(error) == "ray::f()\n  trace"
    assert (error.function_name, error.pid, error.ip, error.actor_id) == ("f", 4, "1.2.3.4", "ab")
    assert error.chain == ("f",)
    assert error.args == ("x",)


def test_facts_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="pid of a RayTaskError"):
        task_error(ValueError(1)).pid = 4


def test_unknown_attributes_are_the_causes() -> None:
    cause = ValueError("x")
    cause.code = 7  # type: ignore[attr-defined]
    assert task_error(cause).code == 7
    with pytest.raises(AttributeError, match="nothing"):
        _ = task_error(cause).nothing
    with pytest.raises(AttributeError, match="code"):
        _ = task_error(None).code


def test_a_dual_error_survives_pickling_with_its_attributes() -> None:
    cause = ValueError("x")
    cause.code = 7  # type: ignore[attr-defined]
    dual = task_error(cause, pid=5).as_instanceof_cause()
    dual.later = 8  # type: ignore[attr-defined]
    back: Any = pickle.loads(pickle.dumps(dual))
    assert isinstance(back, ValueError)
    assert isinstance(back, exc.RayTaskError)
    assert (back.args, back.code, back.later, back.pid) == (("x",), 7, 8, 5)
    assert repr(back) == "RayTaskError(ValueError)('x')"
    assert type(back.cause) is ValueError
