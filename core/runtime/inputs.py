"""Arguments of a call as its function gets them.

Owns reading them from messages and from the store, who may write to which (tasks/writable.py), and
what to say when a function wrote to one it may not write to. How arguments are laid out is
arguments.py's.

Values of the store are read in place, read-only, by all readers of a node. A writable one is a
private mapping of the same pages: the system copies a page when it is first written to.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mray.exceptions import RayError
from mray.runtime.arguments import place_arguments
from mray.runtime.borrowing import adopting
from mray.serialization.pickler import deserialize, is_error, wants_private_memory
from mray.store.ahead import ReadAhead
from mray.store.lingering import Lingering
from mray.tasks.writable import TemplateOptions, WritableArgs
from mray.wire.messages import Argument, Located, RefInfo

if TYPE_CHECKING:
    from mray.ownership.references import Entry
    from mray.runtime.runtime import Runtime
    from mray.store.client import StoreClient

#: Values looked at in search of read-only arrays, and how deep inside each other.
_SEARCH_MAX = 2000
_DEPTH_MAX = 4

_decode_options = lru_cache(maxsize=1024)(TemplateOptions.decode)


def own_memory(
    store: StoreClient, object_id: bytes, data: bytes | memoryview, writable: bool
) -> bytes | memoryview:
    """``data``, or a copy of it that only this reader writes to, where it is to write.

    ``data`` is the value of ``object_id``: bytes that came by message, or a view of the store.
    """
    if type(data) is bytes:
        return memoryview(bytearray(data)) if writable else data
    if writable or wants_private_memory(data):
        copy = store.get_writable(object_id)
        assert copy is not None, "an object that is being read has gone"
        return copy
    return data


class Inputs:
    """See the module."""

    def __init__(self, runtime: Runtime) -> None:
        self.rt = runtime
        self._lingering = Lingering(runtime.post, runtime.pump.after)

    def read(
        self,
        data: bytes,
        deps: list[Argument],
        in_store: RefInfo | None,
        located: Located | None,
        borrowed: list[Entry],
        options: bytes = b"",
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Arguments from the wire; references among them are noted in ``borrowed``.

        Raises the error that a dependency holds, ObjectLostError for one that the store has not.
        """
        writable = _decode_options(options).writable_args if options else None
        adopting.context = borrowed
        try:
            payload: bytes | memoryview = data
            if in_store is not None:
                payload = self._view(in_store, located)
                if is_error(payload):
                    raise deserialize(payload)
            ahead = self._ahead(deps)
            if writable is not None:
                return self._read_writable(writable, payload, in_store, deps, ahead)
            values = [self._value(dep, ahead, writable=False) for dep in deps]
            if in_store is not None:
                payload = own_memory(self.rt.store, in_store.object_id, payload, writable=False)
            return place_arguments(deserialize(payload), values)
        finally:
            adopting.context = None

    def _read_writable(
        self,
        writable: WritableArgs,
        payload: bytes | memoryview,
        in_store: RefInfo | None,
        deps: list[Argument],
        ahead: ReadAhead | None,
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        object_id = in_store.object_id if in_store is not None else b""
        payload = own_memory(self.rt.store, object_id, payload, writable=True)
        unpacked = deserialize(payload, writable=True)
        # Those given by value lie in one piece of memory: it is private as a whole.
        given: list[tuple[int | str, Any]] = [*enumerate(unpacked[0]), *unpacked[1].items()]
        chosen = [value for place, value in given if writable.has(place)]
        _protect([value for place, value in given if not writable.has(place)], but=chosen)
        places = unpacked[2] if len(unpacked) > 2 else ()
        values = [
            self._value(dep, ahead, writable=writable.has(place))
            for dep, place in zip(deps, places, strict=True)
        ]
        return place_arguments(unpacked, values)

    def _ahead(self, deps: list[Argument]) -> ReadAhead | None:
        """Reads arguments of the store in few questions; None where there are not several."""
        if len(deps) < 2:
            return None
        row = []
        for dep in deps:
            if dep.data is None:
                row.append((dep.ref.object_id, dep.located.size_bytes if dep.located else 0))
                if dep.located is not None:
                    self.rt.fetching.look_there(dep.ref.object_id, dep.ref.owner, dep.located)
        return ReadAhead(self.rt.store, row) if len(row) > 1 else None

    def _value(self, dep: Argument, ahead: ReadAhead | None, *, writable: bool) -> Any:
        payload: bytes | memoryview
        if dep.data is not None:
            payload = dep.data
        else:
            payload = self._view(dep.ref, dep.located, ahead)
            if type(payload) is memoryview:
                self._lingering.keep(dep.ref.object_id, payload)
        payload = own_memory(self.rt.store, dep.ref.object_id, payload, writable)
        value = deserialize(payload, writable=writable)
        if is_error(payload):
            assert isinstance(value, BaseException)
            raise value
        return value

    def _view(
        self, ref: RefInfo, located: Located | None, ahead: ReadAhead | None = None
    ) -> bytes | memoryview:
        object_id = ref.object_id
        if located is not None and ahead is None:
            self.rt.fetching.look_there(object_id, ref.owner, located)
        view = self.rt.store.get(object_id) if ahead is None else ahead.view(object_id)
        if view is None:
            reason = (
                self.rt.store.why_missing(object_id)
                or f"this argument is not in the store of node {self.rt.node.node_id.hex()[:8]}"
            )
            return self.rt.objects.stored.read_again(ref, located, reason)
        return view


def explain_read_only(
    error: BaseException,
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> None:
    """Add a note to an error about writing to read-only memory: which arguments are, what to do.

    Adds none where no argument is read-only: then something else was written to.
    """
    if not isinstance(error, (ValueError, TypeError)) or isinstance(error, RayError):
        return
    if "read-only" not in str(error) and "readonly" not in str(error):
        return
    names = [name for name, value in _named(function, args, kwargs) if any(_read_only_parts(value))]
    if not names:
        return
    shown = " and ".join(map(repr, names))
    subject = f"argument {shown} is" if len(names) == 1 else f"arguments {shown} are"
    first = names[0].split("[")[0]
    error.add_note(
        f"{subject} read in place from the object store, which all readers share and none may "
        f"change. Work on a copy (for an array: {first} = {first}.copy()), or ask for a private "
        f"one with the option writable_args=({', '.join(map(repr, names))},): it costs memory "
        "only for the pages that are written to."
    )


def _named(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """The arguments with the names of their parameters."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "args")
    plain = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    for index, value in enumerate(args):
        if index < len(plain):
            yield plain[index], value
        else:
            yield f"{rest}[{index - len(plain)}]", value
    yield from kwargs.items()


def _protect(values: list[Any], but: list[Any]) -> None:
    """Make arrays inside ``values`` that were read from private memory read-only all the same,
    unless they are inside ``but`` too."""
    kept = {id(part) for part in _parts(but)}
    for array in _parts(values):
        if _is_array(array) and not array.flags.owndata and id(array) not in kept:
            array.flags.writeable = False


def _read_only_parts(value: Any) -> Iterator[bool]:
    for part in _parts(value):
        if isinstance(part, memoryview):
            yield part.readonly
        elif _is_array(part):
            yield not part.flags.writeable


def _is_array(value: Any) -> bool:
    return hasattr(value, "flags") and hasattr(value.flags, "owndata")


def _parts(value: Any) -> Iterator[Any]:
    """A value and what is inside its containers, frames and attributes, within bounds."""
    todo = [(value, 0)]
    seen: set[int] = set()
    while todo and len(seen) < _SEARCH_MAX:
        part, depth = todo.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        if depth == _DEPTH_MAX or isinstance(part, (str, bytes, int, float, type)):
            continue
        inner: Sequence[Any] = ()
        if isinstance(part, Mapping):
            inner = list(part.values())
        elif isinstance(part, (list, tuple, set, frozenset)):
            inner = list(part)
        elif hasattr(getattr(part, "_mgr", None), "arrays"):  # a frame or a column of pandas
            inner = part._mgr.arrays
        elif isinstance(getattr(part, "__dict__", None), dict):
            inner = list(vars(part).values())
        todo.extend((each, depth + 1) for each in list(inner)[:_SEARCH_MAX])
