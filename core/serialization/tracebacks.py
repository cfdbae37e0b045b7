"""The text of a remote traceback: user code only, of bounded length.

Owns trimming, heading and capping. Sends nothing.
"""

from __future__ import annotations

import traceback
from types import FrameType

#: Modules whose frames lie between the user's functions and tell the user nothing.
_OWN = ("mray.runtime", "mray.node")
#: Longest text sent, in characters. Errors must stay far below the 100 KiB of inline values;
#: the longest useful traceback, a thousand different frames, is cut in its middle.
TEXT_MAX_CHARS = 40_000
#: Longest str() of an exception that is sent on its own.
MESSAGE_MAX_CHARS = 8_000


def format_remote(error: BaseException, heading: str) -> str:
    """``heading`` and the traceback of ``error`` with its causes, without mray's own frames.

    Where only frames of mray are left they stay: then the error is mray's. Raises what formatting
    the error raises, which can be anything.
    """
    trace = traceback.TracebackException.from_exception(error, compact=True)
    _trim(trace, error)
    lines = list(trace.format())
    begin = "Traceback (most recent call last):\n"
    if lines and lines[0] == begin:  # Ray's shape: the heading takes the place of this line
        lines = lines[1:]
    return cap(f"{heading}\n" + "".join(lines).rstrip("\n"), TEXT_MAX_CHARS)


def cap(text: str, limit: int) -> str:
    """``text``, its middle left out when it is longer than ``limit`` characters."""
    if len(text) <= limit:
        return text
    head = limit // 3
    tail = limit - head
    left_out = len(text) - limit
    return f"{text[:head]}\n... {left_out} characters left out ...\n{text[-tail:]}"


def _trim(trace: traceback.TracebackException, error: BaseException) -> None:
    """Drop mray's frames from ``trace`` and from all it hangs together with."""
    todo: list[tuple[traceback.TracebackException, BaseException]] = [(trace, error)]
    while todo:  # each TracebackException is met once: they form a tree
        trace, error = todo.pop()
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        if len(frames) == len(trace.stack):
            kept = [s for s, f in zip(trace.stack, frames, strict=True) if not _is_own(f)]
            if kept:
                trace.stack[:] = kept
        if trace.__cause__ is not None and error.__cause__ is not None:
            todo.append((trace.__cause__, error.__cause__))
        if trace.__context__ is not None and error.__context__ is not None:
            todo.append((trace.__context__, error.__context__))
        if trace.exceptions and isinstance(error, BaseExceptionGroup):
            todo += zip(trace.exceptions, error.exceptions, strict=False)


def _is_own(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__")
    return isinstance(name, str) and any(name == own or name.startswith(own + ".") for own in _OWN)
