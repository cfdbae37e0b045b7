"""Carries exceptions from the process that raised them to the one that asked.

Owns the payload of ERROR envelopes: who raised, the traceback as text, the exception itself where
it survives the journey, and a description of it in any case. The envelope's kind is envelope.py's.

The exception itself travels as bytes inside the payload: if the reader cannot load it (a class only
the worker can import), the facts arrive all the same and UnserializableException takes its place.
Whether it survives is tried out in the sender, ``loads(dumps(error))``: many exceptions pickle well
and cannot be unpickled, because their ``__init__`` wants more than ``args`` holds.
"""

from __future__ import annotations

import pickle
import sys
from typing import Any, cast

from mray.exceptions import ActorDiedError, RayError, RayTaskError, UnserializableException
from mray.serialization.dumper import dump
from mray.serialization.envelope import ERROR_PREFIX, EnvelopeError
from mray.serialization.tracebacks import MESSAGE_MAX_CHARS, cap, format_remote
from mray.units import format_bytes

_REPR_MAX_CHARS = 500
_ARGS_MAX = 20
_PLAIN_TYPES = (type(None), bool, int, float, complex, str, bytes)


def serialize_exception(
    error: BaseException,
    function_name: str,
    pid: int | None = None,
    ip: str | None = None,
    *,
    actor_repr: str | None = None,
    actor_id: str | None = None,
    proctitle: str | None = None,
    refs: list[Any] | None = None,
    bytes_max: int = sys.maxsize,
) -> bytes:
    """The ERROR envelope of what a task raised; it deserializes to a RayTaskError.

    An error that came from another task is passed on: its cause stays the cause and ``chain``
    grows by ``function_name``. ObjectRefs inside the exception are appended to ``refs``. Of one
    whose pickle has more than ``bytes_max`` only the description travels.
    Never raises: whatever user code does while it is described or pickled is part of the report.
    """
    cause: BaseException | None = error
    chain: tuple[str, ...] = (function_name,)
    if isinstance(error, RayTaskError):
        cause = error.cause
        chain += error.chain
    heading = _heading(function_name, pid, ip, actor_repr, actor_id)
    try:
        text = format_remote(error, heading)
    except BaseException as failure:  # user code: __str__, __notes__, __cause__ properties
        text = f"{heading}\n{_class_name(error)} (no traceback: {_describe(failure)})"
    facts = (
        function_name, text, proctitle or f"ray::{function_name}()", pid, ip, actor_repr,
        actor_id, chain,
    )  # fmt: skip
    return _envelope((facts, *_pack(cause, refs, bytes_max), None))


def error_envelope(error: RayError, refs: list[Any] | None = None) -> bytes:
    """The ERROR envelope of one of mray's own exceptions (a crash, a cancel, a lost object).

    It deserializes to an equal exception; a RayTaskError to a plain one, not to a dual class.
    Never raises, see ``serialize_exception``.
    """
    return _envelope(_parts(error, refs))


def load_error(payload: bytes | memoryview) -> BaseException:
    """The exception of an ERROR envelope's payload.

    Raises EnvelopeError when the payload is damaged.
    """
    try:
        return _from_parts(pickle.loads(payload))
    except (pickle.UnpicklingError, EOFError, TypeError, ValueError) as failure:
        raise EnvelopeError(f"a stored exception is damaged: {failure}") from failure


# An exception as it travels, made of plain values only:
#   facts of a RayTaskError (all but its cause) or None,
#   the pickled cause, or the pickled exception itself if there are no facts, None if unpicklable,
#   what stands in for that: class name, str(), traceback, args, why it is needed,
#   the same four for the RayTaskError in ``cause`` of an ActorDiedError.
_StandIn = tuple[str, str, str, tuple[Any, ...], str]
_Parts = tuple[tuple[Any, ...] | None, bytes | None, _StandIn | None, Any]


def _envelope(parts: _Parts) -> bytes:
    return ERROR_PREFIX + pickle.dumps(parts, 5)


def _parts(error: BaseException, refs: list[Any] | None) -> _Parts:
    if isinstance(error, RayTaskError):
        facts = error._task_failure
        return facts[:2] + facts[3:], *_pack(facts.cause, refs), None
    if isinstance(error, ActorDiedError) and error.cause is not None:
        return None, *_pack(error.without_cause(), refs), _parts(error.cause, refs)
    return None, *_pack(error, refs), None


def _from_parts(parts: _Parts) -> BaseException:
    facts, pickled, stand_in, nested = parts
    if facts is None:
        error = _unpack(pickled, stand_in, "") or RayError("an error of which nothing is known")
        if nested is not None and isinstance(error, ActorDiedError):
            error.cause = cast(RayTaskError, _from_parts(nested))
        return error
    function_name, text, proctitle, pid, ip, actor_repr, actor_id, chain = facts
    cause = _unpack(pickled, stand_in, text)
    return RayTaskError(
        function_name, text, cause, proctitle, pid, ip, actor_repr, actor_id, chain=chain
    )


def _pack(
    error: BaseException | None, refs: list[Any] | None, bytes_max: int = sys.maxsize
) -> tuple[bytes | None, _StandIn | None]:
    """The pickled exception, None if it does not survive, and its description."""
    if error is None:
        return None, None
    if type(error) is UnserializableException:
        # It came from elsewhere and could not be loaded here: whoever reads it may fare better.
        pickled = error.pickled
        return None if pickled is None or len(pickled) > bytes_max else pickled, (
            error.class_name, error.text, error.original_stack_trace, error.original_args,
            error.reason,
        )  # fmt: skip
    pickled = None
    reason = ""
    try:
        data, _, found = dump(error, out_of_band=False)
        loaded = pickle.loads(data)
        if len(data) > bytes_max:
            reason = (
                f"it is {format_bytes(len(data))} pickled, and {format_bytes(bytes_max)} may be "
                "sent: put() what is big in it, and have it carry the reference"
            )
        elif isinstance(loaded, BaseException):
            pickled = data
            if refs is not None:
                refs += found
        else:
            reason = f"it comes back as a {_class_name(loaded)}"
    except BaseException as failure:  # user code: __reduce__, __setstate__, __init__
        reason = _describe(failure)
    return pickled, (_class_name(error), _text(error), "", _plain_args(error), reason)


def _unpack(
    pickled: bytes | None, stand_in: _StandIn | None, remote_text: str
) -> BaseException | None:
    if stand_in is None:
        return None
    class_name, text, trace, args, reason = stand_in
    if pickled is not None:
        try:
            loaded = pickle.loads(pickled)
            if isinstance(loaded, BaseException):
                return loaded
            reason = f"it comes back as a {_class_name(loaded)}"
        except Exception as failure:  # the class cannot be imported here, or user code
            reason = _describe(failure)
    return UnserializableException(
        trace or remote_text, class_name=class_name, text=text, original_args=args,
        reason=reason, pickled=pickled,
    )  # fmt: skip


def _heading(
    function_name: str,
    pid: int | None,
    ip: str | None,
    actor_repr: str | None,
    actor_id: str | None,
) -> str:
    facts = {"pid": pid, "ip": ip, "actor_id": actor_id, "repr": actor_repr}
    known = ", ".join(f"{name}={value}" for name, value in facts.items() if value is not None)
    return f"ray::{function_name}()" + (f" ({known})" if known else "")


def _class_name(value: object) -> str:
    cls = type(value)
    if cls.__module__ == "builtins":
        return cls.__qualname__
    return f"{cls.__module__}.{cls.__qualname__}"


def _text(error: BaseException) -> str:
    try:
        return cap(str(error), MESSAGE_MAX_CHARS)
    except BaseException as failure:  # user code: __str__
        return f"(its str() failed with {type(failure).__name__})"


def _describe(failure: BaseException) -> str:
    return f"{_class_name(failure)}: {_text(failure)}"


def _plain_args(error: BaseException) -> tuple[Any, ...]:
    """args of an exception as any process can load them."""
    try:
        args = tuple(error.args)[:_ARGS_MAX]
    except BaseException:  # user code: args may be a property
        return ()
    return tuple(
        arg if type(arg) in _PLAIN_TYPES and _is_short(arg) else _repr(arg) for arg in args
    )


def _is_short(arg: object) -> bool:
    return not isinstance(arg, (str, bytes)) or len(arg) <= MESSAGE_MAX_CHARS


def _repr(value: object) -> str:
    try:
        return cap(repr(value), _REPR_MAX_CHARS)
    except BaseException as failure:  # user code: __repr__
        return f"<{_class_name(value)}: its repr() failed with {type(failure).__name__}>"
