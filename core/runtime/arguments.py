"""Arguments of a call, on their way out and in.

Owns the layout: the envelope holds ``(args, kwargs)`` or, when top-level references are among
them, ``(args, kwargs, places)``: ``places`` names, for each dependency in order, the position or
keyword where its value goes; the reference itself is left out and travels as an Argument.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from mray.call_sites import capture
from mray.exceptions import ReferenceLostError
from mray.former import refuse_to_lend
from mray.object_ref import ObjectRef, owner_tuple
from mray.ownership.references import Entry
from mray.serialization.inspection import unpicklable_arguments_error
from mray.serialization.pickler import Serialized, pack
from mray.wire.messages import Argument, RefInfo, TaskSpec, TaskTemplate

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime
    from mray.tasks.task import Task


class Packed:
    """Arguments ready to be sent."""

    __slots__ = ("data", "deps", "holds", "in_store")

    def __init__(self, data: bytes, deps: list[Entry], holds: list[Entry]) -> None:
        #: The envelope, or b"" when there are no arguments or they are in the store.
        self.data = data
        self.deps = deps
        #: All entries that must live until the task is over.
        self.holds = holds
        #: The entry of the envelope when it is too big to travel inline.
        self.in_store: Entry | None = None


NOTHING = Packed(b"", [], [])


def pack_arguments(
    runtime: Runtime, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Packed:
    """Serialize the arguments of a call of ``name``.

    Raises TypeError naming the argument and the path in it that cannot be serialized,
    ObjectStoreFullError when big arguments find no room.
    """
    if not args and not kwargs:
        return NOTHING
    deps: list[Entry] = []
    places: list[int | str] = []
    for position, value in enumerate(args):
        if type(value) is ObjectRef:
            if not places:
                args = list(args)
            deps.append(value._entry)
            places.append(position)
            args[position] = None  # type: ignore[index]
    if kwargs:
        for key, value in kwargs.items():
            if type(value) is ObjectRef:
                deps.append(value._entry)
                places.append(key)
        if any(type(place) is str for place in places):
            kwargs = {k: v for k, v in kwargs.items() if type(v) is not ObjectRef}
    payload: tuple[Any, ...] = (tuple(args), dict(kwargs))
    if places:
        mailbox = runtime.mailbox
        for entry in deps:
            if entry.home is not mailbox:
                refuse_to_lend(entry, runtime)
        payload = (*payload, places)
    try:
        packed = pack(payload)
    except ReferenceLostError:
        raise
    except Exception as error:
        raise unpicklable_arguments_error(name, args, kwargs, error) from error
    holds = list(deps)
    if type(packed) is bytes:
        data = packed
        if len(data) <= runtime.objects.inline_max:
            return Packed(data, deps, holds)
    else:
        assert isinstance(packed, Serialized)
        holds += [ref._entry for ref in packed.refs]
        if packed.total_bytes <= runtime.objects.inline_max:
            return Packed(packed.to_bytes(), deps, holds)
    entry = Entry(runtime.ids.put(), None, runtime.mailbox, 0)
    entry.name = f"arguments of {name}"
    entry.born = monotonic()
    if runtime.objects.records_sites:
        entry.call_site = capture(1)
    runtime.objects.store_value(entry, packed)
    runtime.references.entries[entry.object_id] = entry
    result = Packed(b"", deps, [*holds, entry])
    result.in_store = entry
    return result


def spec_of(task: Task) -> TaskSpec:
    """The wire form of a task whose arguments are all there."""
    if not (task.deps or task.attempt) and task.args_entry is None:
        return TaskSpec(task.task_id, task.template.number, task.seq, task.args)
    in_store = task.args_entry
    return TaskSpec(
        task.task_id,
        task.template.number,
        task.seq,
        task.args,
        [argument_of(entry) for entry in task.deps],
        ref_info(in_store) if in_store is not None else None,
        in_store.located if in_store is not None else None,
        task.attempt,
        task.stream.received if task.template.num_returns < 0 else 0,
    )


def unknown_templates(tasks: list[Task], known: set[int]) -> list[TaskTemplate]:
    """The templates of tasks that a worker has not been told; it has, once they are sent."""
    templates = []
    for task in tasks:
        number = task.template.number
        if number not in known:
            known.add(number)
            templates.append(task.template.wire)
    return templates


def argument_of(entry: Entry) -> Argument:
    """A ready dependency on the wire."""
    return Argument(ref_info(entry), entry.data, entry.located)


def ref_info(entry: Entry) -> RefInfo:
    """A reference on the wire."""
    return RefInfo(entry.object_id, owner_tuple(entry))


def place_arguments(unpacked: Any, values: list[Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """The arguments of a call from what their envelope holds and the values of dependencies."""
    if len(unpacked) == 2:
        return unpacked[0], unpacked[1]
    args, kwargs, places = unpacked
    args = list(args)
    for place, value in zip(places, values, strict=True):
        if type(place) is int:
            args[place] = value
        else:
            kwargs[place] = value
    return args, kwargs
