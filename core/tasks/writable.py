"""Which arguments of a call its function may write to: the option ``writable_args``; and how what
only the worker reads of options travels to it.

Owns the option's meaning: names against a signature. The memory is made by runtime/inputs.py, from
copy-on-write pages of the store. Concurrency groups are served by runtime/lanes.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from inspect import _ParameterKind as Kind
from typing import Any

import msgspec

#: (name, kind, has a default), as Signature.parameters() gives them.
Parameter = tuple[str, int, bool]


class WritableArgs(msgspec.Struct, array_like=True, frozen=True):
    """The chosen arguments: by position, and by name for those given by keyword."""

    positions: list[int] = []
    #: All positions from this one on; -1 for none.
    positions_from: int = -1
    names: list[str] = []
    #: Of keyword arguments, those not in ``names`` or, if set, those in ``but_names`` are left out.
    all_names: bool = False
    but_names: list[str] = []

    def has(self, place: int | str) -> bool:
        """Whether the argument at a position, or of a keyword, is chosen."""
        if isinstance(place, int):
            return place in self.positions or 0 <= self.positions_from <= place
        return place in self.names or (self.all_names and place not in self.but_names)


class TemplateOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What TaskTemplate.options and ActorSpec.options hold, as a MessagePack map."""

    writable_args: WritableArgs | None = None
    #: Of a call: the group that it runs in, "" for the default.
    concurrency_group: str = ""
    #: Of an actor: names and limits; and how many items of all its generators may be untaken.
    concurrency_groups: dict[str, int] = {}
    items_max: int = 0

    def encode(self) -> bytes:
        """The map, b"" when nothing is set."""
        return b"" if self == TemplateOptions() else msgspec.msgpack.encode(self)

    @staticmethod
    def decode(data: bytes) -> TemplateOptions:
        """The reverse of ``encode``."""
        return msgspec.msgpack.decode(data, type=TemplateOptions) if data else TemplateOptions()


def choose(
    wanted: bool | Iterable[str] | None, parameters: Sequence[Parameter], what: str
) -> WritableArgs | None:
    """The choice that an option's value makes among the parameters of ``what``; None for none.

    Raises ValueError for a name that is no parameter and that no ``**kwargs`` could take.
    """
    if not wanted:
        return None
    if wanted is True:
        return WritableArgs(positions_from=0, all_names=True)
    positions: list[int] = []
    positions_from = -1
    names: list[str] = []
    all_names = False
    places = {name: (index, kind) for index, (name, kind, _) in enumerate(parameters)}
    takes_any = any(kind == Kind.VAR_KEYWORD for _, kind, _ in parameters)
    for name in wanted:
        if name not in places:
            if not takes_any:
                raise ValueError(
                    f"writable_args: {what} has no parameter {name!r}; it has {list(places)}"
                )
            names.append(name)
            continue
        index, kind = places[name]
        if kind == Kind.VAR_POSITIONAL:
            positions_from = index
        elif kind == Kind.VAR_KEYWORD:
            all_names = True
        else:
            names.append(name)
            if kind != Kind.KEYWORD_ONLY:
                positions.append(index)
    others = [name for name, kind, _ in parameters if name not in names and kind != 4]
    return WritableArgs(positions, positions_from, names, all_names, others if all_names else [])


def options_of(options: Any, parameters: Sequence[Parameter], what: str) -> bytes:
    """The bytes for the wire of what options of a function, class or method say for the worker."""
    return TemplateOptions(
        choose(options.get("writable_args"), parameters, what),
        options.get("concurrency_group") or "",
        dict(options.get("concurrency_groups") or {}),
        max(0, options.get("_actor_generator_backpressure_num_objects") or 0),
    ).encode()


def changed(data: bytes, options: Any, parameters: Sequence[Parameter], what: str) -> bytes:
    """Such bytes of a method with what ``options`` of one call say otherwise."""
    present = TemplateOptions.decode(data)
    if "writable_args" in options:
        chosen = choose(options["writable_args"], parameters, what)
        present = msgspec.structs.replace(present, writable_args=chosen)
    if options.get("concurrency_group") is not None:
        present = msgspec.structs.replace(present, concurrency_group=options["concurrency_group"])
    return present.encode()
