"""What a value is made of when it is pickled: its parts, and how a person would write each.

Owns the taking apart of values; judges none of them (inspection.py does). Parts are those that a
pickler would visit, so ``__getstate__`` and ``__reduce_ex__`` are called as pickling would, and
nothing else of the user's runs. Values that a pickler takes as a whole have no parts.
"""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Iterator
from typing import Any

from mray.serialization import custom
from mray.serialization.dumper import PROTOCOL, ValuePickler

#: A part: what to append to the path of the whole, and the part itself.
Part = tuple[str, Any]

_GLOBAL_OPS = frozenset({"LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL"})
_object_getstate = getattr(object, "__getstate__", None)  # there from Python 3.11 on
_CLASS_PLUMBING = frozenset(
    {"__dict__", "__weakref__", "__module__", "__doc__", "__qualname__", "__slots__", "_abc_impl"}
)


def parts(value: Any) -> Iterator[Part]:
    """The parts of ``value``, lazily. Raises whatever the value's own pickling hooks raise."""
    cls = type(value)
    if cls in custom.reducers:
        yield ".serializer()", custom.reducers[cls](value)[1][0]
    elif cls is dict:
        yield from _items(value)
    elif cls in (list, tuple):
        yield from ((f"[{i}]", item) for i, item in enumerate(value))
    elif cls in (set, frozenset):
        yield from ((f"{{{_short(item)}}}", item) for item in value)
    elif isinstance(value, types.FunctionType):
        yield from _function_parts(value)
    elif isinstance(value, type):
        yield from _class_parts(value)
    elif isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
        yield ".__func__", value.__func__
    elif isinstance(value, functools.partial):
        yield ".func", value.func
        yield from ((f".args[{i}]", arg) for i, arg in enumerate(value.args))
        yield from ((f".keywords[{k!r}]", arg) for k, arg in value.keywords.items())
    elif isinstance(value, (staticmethod, classmethod)):
        yield ".__func__", value.__func__
    elif isinstance(value, property):
        for name in ("fget", "fset", "fdel"):
            yield f".{name}", getattr(value, name)
    elif isinstance(value, types.ModuleType):
        yield from ((f".{name}", part) for name, part in vars(value).items())
    elif isinstance(value, types.CellType):
        yield ".cell_contents", value.cell_contents
    else:
        yield from _instance_parts(value)


def _function_parts(function: types.FunctionType) -> Iterator[Part]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f".__closure__[{name!r}]", cell.cell_contents
        except ValueError:
            continue  # not yet assigned
    for name in _global_names(function.__code__):
        if name in function.__globals__:
            yield f".__globals__[{name!r}]", function.__globals__[name]
    for i, default in enumerate(function.__defaults__ or ()):
        yield f".__defaults__[{i}]", default
    for name, default in (function.__kwdefaults__ or {}).items():
        yield f".__kwdefaults__[{name!r}]", default
    for name, part in function.__dict__.items():
        yield f".{name}", part
    for name, part in function.__annotations__.items():
        yield f".__annotations__[{name!r}]", part


def _global_names(code: types.CodeType) -> dict[str, None]:
    """Names that code and the code inside it look up globally, in order."""
    names = {
        str(instruction.argval): None
        for instruction in dis.get_instructions(code)
        if instruction.opname in _GLOBAL_OPS
    }
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(_global_names(constant))
    return names


def _class_parts(cls: type) -> Iterator[Part]:
    yield from ((f".__bases__[{i}]", base) for i, base in enumerate(cls.__bases__))
    for name, part in vars(cls).items():
        if name not in _CLASS_PLUMBING and not isinstance(
            part, (types.MemberDescriptorType, types.GetSetDescriptorType)
        ):
            yield f".{name}", part


def _instance_parts(value: Any) -> Iterator[Part]:
    cls = type(value)
    reducer = ValuePickler.dispatch_table.get(cls)
    reduced: Any = reducer(value) if reducer is not None else value.__reduce_ex__(PROTOCOL)
    if isinstance(reduced, str):
        return
    # The protocol's tuple: function, args, and optionally state, list items, dict items, setter.
    function, args, state, items, pairs = (*reduced, None, None, None)[:5]
    if getattr(function, "__name__", "") == "__newobj__":
        yield ".__class__", args[0]
        yield from ((f".__getnewargs__()[{i}]", arg) for i, arg in enumerate(args[1:]))
    elif function is cls and isinstance(value, BaseException) and args == value.args:
        yield ".__class__", cls
        yield from ((f".args[{i}]", arg) for i, arg in enumerate(args))
    else:
        yield ".__reduce__()[0]", function
        yield from ((f".__reduce__()[1][{i}]", arg) for i, arg in enumerate(args))
    yield from _state_parts(value, state)
    yield from ((f"[{i}]", item) for i, item in enumerate(items or ()))
    yield from ((f"[{_short(key)}]", part) for key, part in pairs or ())


def _state_parts(value: Any, state: Any) -> Iterator[Part]:
    if state is None:
        return
    own_getstate = getattr(type(value), "__getstate__", None) is not _object_getstate
    whole = ".__getstate__()" if own_getstate else ".__reduce__()[2]"
    slots = None
    if type(state) is tuple and len(state) == 2 and type(state[1]) is dict:
        state, slots = state
    for group in (state, slots):
        if type(group) is dict:
            for name, part in group.items():
                yield f".{name}" if _is_attribute(value, name, part) else f"{whole}[{name!r}]", part
        elif group is not None:
            yield whole, group


def _is_attribute(value: Any, name: Any, part: Any) -> bool:
    """Whether ``value.name`` is ``part``, found without running a property of the user's."""
    if not isinstance(name, str) or not name.isidentifier():
        return False
    if getattr(value, "__dict__", {}).get(name) is part:
        return True
    members = (vars(cls).get(name) for cls in type(value).__mro__)
    return any(isinstance(member, types.MemberDescriptorType) for member in members)


def _items(mapping: dict[Any, Any]) -> Iterator[Part]:
    for key, part in mapping.items():
        yield f"[{_short(key)}]", part
        if not isinstance(key, (str, int)):
            yield f".key({_short(key)})", key


def _short(key: Any) -> str:
    """A key as it would be written, or its type where that would be long."""
    try:
        text = repr(key)
    except Exception:  # user code, and only a label is wanted
        text = ""
    return text if 0 < len(text) <= 60 else f"<{type(key).__name__}>"
