"""Says why a value cannot be pickled: which part of it, by its full path.

Owns the search and its report. A part is tried by pickling it; of a part that fails, the parts are
tried in turn; one that fails while all its parts are sound is a culprit. Bounded in depth, number
and time, for it runs inside a failing ``.remote()``. No side effects but those of pickling itself:
references met on the way are neither pinned nor reported.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from types import FunctionType
from typing import Any, NamedTuple, TextIO

from mray.serialization.anatomy import Part, parts
from mray.serialization.context import collector
from mray.serialization.dumper import new_cloud_pickler

_DEPTH_MAX = 30
_TRIALS_MAX = 20_000
_CULPRITS_MAX = 20
#: Parts tried together first: sound parts are by far the most, and a pickler costs 5 us to make.
_BATCH = 64
_REASON_MAX_CHARS = 300
_SOUND = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray})

Clock = Callable[[], float]


class Culprit(NamedTuple):
    """A part that cannot be pickled although its own parts can."""

    #: How to reach it: ``arg 1['model'].layers[3]._lock``.
    path: str
    #: Full name of its type: ``_thread.lock``.
    type: str
    #: What the pickler says.
    reason: str


class UnpicklableError(TypeError):
    """A value cannot be pickled. ``culprits`` are the parts at fault, nearest first."""

    def __init__(self, message: str = "", culprits: Sequence[Culprit] = ()) -> None:
        super().__init__(message)
        self.culprits = tuple(culprits)


class FailureTuple:
    """A part that ``inspect_serializability`` found: Ray's three attributes, path and reason."""

    def __init__(self, obj: Any, name: str, parent: Any, path: str, reason: str) -> None:
        self.obj = obj
        self.name = name
        self.parent = parent
        self.path = path
        self.reason = reason

    def __repr__(self) -> str:
        return f"FailTuple({self.name} [obj={self.obj!r}, parent={self.parent!r}])"


def find_culprits(
    obj: Any, name: str, time_limit_s: float = 1.0, *, clock: Clock = time.monotonic
) -> list[Culprit]:
    """The parts of ``obj`` that cannot be pickled, nearest first; empty if all is well.

    ``name`` begins their paths. When the time is over (``clock`` in seconds) or the search gets
    too large, the innermost parts known to fail are returned.
    """
    search = _Search(clock() + time_limit_s, clock, _DEPTH_MAX)
    return [
        Culprit(found.path, _type_name(found.obj), found.reason) for found in search.run(obj, name)
    ]


def unpicklable_error(
    value: Any, what: str, error: BaseException, *, clock: Clock = time.monotonic
) -> TypeError:
    """The TypeError to raise from ``error``, which pickling ``value`` raised.

    ``what`` names the value to the user ("the value of put", "arg 1"); paths begin with it.
    """
    return _error(what, error, find_culprits(value, what, clock=clock))


def unpicklable_arguments_error(
    function_name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    error: BaseException,
    *,
    clock: Clock = time.monotonic,
) -> TypeError:
    """The same for a call: names the argument too ("arg 1" is the first, "arg 'x'" a keyword)."""
    named = [(f"arg {i}", arg) for i, arg in enumerate(args, 1)]
    named += [(f"arg {name!r}", arg) for name, arg in kwargs.items()]
    end = clock() + 1.0
    culprits: list[Culprit] = []
    failing: list[str] = []
    for name, arg in named:
        found = find_culprits(arg, name, end - clock(), clock=clock)
        if found:
            failing.append(name)
            culprits += found
    what = f"{' and '.join(failing) or 'the arguments'} of {function_name}"
    return _error(what, error, culprits)


def inspect_serializability(
    base_obj: Any, name: str | None = None, depth: int = 3, print_file: TextIO | None = None
) -> tuple[bool, set[FailureTuple]]:
    """Try to pickle ``base_obj`` and print what is in the way.

    Args:
        base_obj: any value, function or class.
        name: what to call it; by default its repr.
        depth: how many levels of parts to look into.
        print_file: where to print, standard output by default.

    Returns whether it can be pickled, and the parts that cannot.
    """
    search = _Search(None, time.monotonic, depth)
    failures = set(search.run(base_obj, name if name is not None else _shown(base_obj)))
    print("\n".join(_report(base_obj, search, failures)), file=print_file)
    return not failures, failures


def _report(base_obj: Any, search: _Search, failures: set[FailureTuple]) -> Iterator[str]:
    """What ``inspect_serializability`` prints, in Ray's shape: the way down to each culprit, then
    the culprits, with their full paths."""
    heading = f"Checking Serializability of {_shown(base_obj)}"
    rule = "=" * min(len(heading), 100)
    yield from (rule, heading, rule)
    if search.root is None:
        return
    yield from _descent(search, search.root, "")
    yield from (rule, "Variable:" if len(failures) == 1 else "Variables:", "")
    for failure in sorted(failures, key=lambda found: found.path):
        yield f"\t{failure!r}"
        yield f"\t    at {failure.path}: {failure.reason}"
    yield from ("", f"was found to be non-serializable. {_ADVICE}", rule)


def _descent(search: _Search, failure: FailureTuple, indent: str) -> Iterator[str]:
    yield f"{indent}!!! FAIL serialization: {failure.reason}"
    if isinstance(failure.obj, FunctionType):
        places = [suffix.partition("[")[0] for suffix, _ in _careful_parts(failure.obj)]
        for place, kind in ((".__globals__", "global"), (".__closure__", "nonlocal")):
            if place in places:
                count = places.count(place)
                yield f"{indent}Detected {count} {kind} variables. Checking serializability..."
    for part in search.failing.get(id(failure), ()):
        yield f"{indent}    Serializing {part.name!r} {_shown(part.obj)}..."
        yield from _descent(search, part, indent + "    ")


_ADVICE = (
    "Make such objects where they are used (inside the task, or in an actor's constructor), give "
    "their class __reduce__ or __getstate__, or call mray.util.register_serializer."
)


def _error(what: str, error: BaseException, culprits: Sequence[Culprit]) -> UnpicklableError:
    lines = [f"{what} cannot be serialized: {_reason(error)}"]
    lines += [f"  {path} is of type {kind}: {reason}" for path, kind, reason in culprits]
    return UnpicklableError("\n".join([*lines, _ADVICE]), culprits)


class _SearchOver(Exception):
    """No time or no trials left."""


class _Search:
    """One search: its budget, and what it has seen."""

    def __init__(self, end_at: float | None, clock: Clock, depth: int) -> None:
        self._end_at = end_at
        self._clock = clock
        self._depth = depth
        self._trials = 0
        #: Every failing part met, by id; the reference keeps the id from being used again.
        self._seen: dict[int, Any] = {}
        #: The whole, when it fails.
        self.root: FailureTuple | None = None
        #: The failing parts of a failing part, by its id; each in the one place where it was met.
        self.failing: dict[int, list[FailureTuple]] = {}

    def run(self, obj: Any, name: str) -> list[FailureTuple]:
        """Breadth first, so the shortest path to a part is the one reported."""
        try:
            reason = self._trial(obj)
        except _SearchOver:
            return []
        if reason is None:
            return []
        self.root = root = FailureTuple(obj, name, None, name, reason)
        self._seen[id(obj)] = obj
        found: list[FailureTuple] = []
        queue = deque([(root, 0)])
        try:
            while queue and len(found) < _CULPRITS_MAX:
                failure, depth = queue[0]
                inner = self._failing_parts(failure) if depth < self._depth else None
                queue.popleft()
                if inner is None:
                    found.append(failure)
                else:
                    self.failing[id(failure)] = inner
                    queue.extend((part, depth + 1) for part in inner)
        except _SearchOver:
            found += (failure for failure, _ in islice(queue, _CULPRITS_MAX - len(found)))
        return found

    def _failing_parts(self, whole: FailureTuple) -> list[FailureTuple] | None:
        """Failing parts not met before; None when no part fails, so that ``whole`` is at fault."""
        failing: list[FailureTuple] = []
        any_failing = False
        for batch in _batches(_careful_parts(whole.obj)):
            self._check_budget()
            batch = [part for part in batch if type(part[1]) not in _SOUND]
            if not batch or self._trial(tuple(part for _, part in batch)) is None:
                continue
            for suffix, part in batch:
                reason = self._trial(part)
                if reason is None:
                    continue
                any_failing = True
                if id(part) not in self._seen:
                    self._seen[id(part)] = part
                    path = whole.path + suffix
                    failing.append(FailureTuple(part, _own_name(suffix), whole.obj, path, reason))
        return failing if any_failing else None

    def _trial(self, value: Any) -> str | None:
        """Why ``value`` cannot be pickled, None if it can."""
        self._trials += 1
        outer = collector.refs
        collector.refs = []  # references met belong to nobody
        try:
            new_cloud_pickler(self, _drop_buffer).dump(value)
        except _SearchOver:
            raise
        except Exception as error:
            return _reason(error)
        finally:
            collector.refs = outer
        return None

    def write(self, data: bytes, /) -> None:
        """Take the next 64 KiB or so of a trial's pickle, and drop it."""
        self._check_budget()

    def _check_budget(self) -> None:
        if self._trials > _TRIALS_MAX or (
            self._end_at is not None and self._clock() > self._end_at
        ):
            raise _SearchOver


def _careful_parts(value: Any) -> Iterator[Part]:
    """The parts, up to where the value's own hooks fail."""
    try:
        yield from parts(value)
    except Exception:  # the hook's error is what the trial of the whole has reported already
        return


def _batches(items: Iterator[Part]) -> Iterator[list[Part]]:
    while batch := list(islice(items, _BATCH)):
        yield batch


def _drop_buffer(buffer: object) -> None:
    """Buffers always can be sent; returning nothing keeps them out of the pickle."""


def _reason(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # user code: __str__
        text = ""
    text = text.strip() or type(error).__name__
    if not isinstance(error, TypeError) and type(error).__name__ not in text:
        text = f"{type(error).__name__}: {text}"
    return text if len(text) <= _REASON_MAX_CHARS else text[:_REASON_MAX_CHARS] + "..."


def _type_name(value: Any) -> str:
    cls = type(value)
    prefix = "" if cls.__module__ == "builtins" else f"{cls.__module__}."
    return prefix + cls.__qualname__


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # user code: __repr__
        text = ""
    return text if 0 < len(text) <= 200 else f"<{_type_name(value)}>"


def _own_name(suffix: str) -> str:
    """The last name of a path: ``lock`` of ``.__globals__['lock']``, ``x`` of ``.x``."""
    if suffix.endswith("']"):
        return suffix[suffix.rindex("['") + 2 : -2]
    return suffix.removeprefix(".")
