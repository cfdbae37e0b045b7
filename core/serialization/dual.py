"""Makes exceptions that are of two classes at once: mray's and the user's.

Owns the making of such classes and the copying of an exception's state. Knows no particular
exception. Users write ``except ValueError`` around a ``get``; whoever looks closer finds mray's
class. No code of the user's class runs: not its metaclass's choice of bases, not ``__new__``,
``__init__`` or ``__init_subclass__``, which may want arguments nobody has here.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import TypeVar, cast

ErrorT = TypeVar("ErrorT", bound=BaseException)

_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement, not by C code
# What belongs to the raising rather than to the error, and what makes an object the one it is.
_NOT_STATE = frozenset(
    {"__cause__", "__context__", "__traceback__", "__suppress_context__"}
    | {"__class__", "__dict__", "__weakref__"}
)


def make_dual(base: type[ErrorT], cause: BaseException) -> ErrorT | None:
    """An instance of both ``base`` and the class of ``cause``, with the cause's args and state.

    ``base`` must define ``__init_subclass__`` that asks for nothing; its ``__init__`` is not run.
    Returns None where no class can be both: a final class, C layouts that do not combine, or an
    exception group holding BaseExceptions, which refuses to be an Exception.
    """
    group = (cause.message, cause.exceptions) if isinstance(cause, BaseExceptionGroup) else ()
    try:
        cls = _dual_class((base, type(cause)))
    except TypeError:
        return None
    for native in cls.__mro__:
        if native.__flags__ & _HEAP_TYPE:
            continue
        try:
            dual = cast("Callable[..., ErrorT]", native.__new__)(cls, *group)
        except TypeError:
            continue  # Python lets only one C class make an instance; or the group refuses
        if isinstance(dual, BaseException):
            _copy_state(cause, dual)
            return dual
    return None


# Bounded, because a class sent by value may come as a new class each time.
@functools.lru_cache(maxsize=512)
def _dual_class(bases: tuple[type, type]) -> type:
    base, cause_class = bases
    name = f"{base.__name__}({cause_class.__name__})"
    # type.__new__ and not a call of the metaclass: that might register a plug-in, or refuse.
    metaclass = functools.reduce(_more_derived, map(type, bases))
    namespace = {"__module__": base.__module__, "__qualname__": name, "__doc__": base.__doc__}
    return type.__new__(metaclass, name, bases, namespace)


def _more_derived(left: type, right: type) -> type:
    return right if issubclass(right, left) else left


def _copy_state(source: BaseException, target: BaseException) -> None:
    """Copy args, C-level members (errno, code, ...), ``__slots__`` and attributes."""
    for cls in type(source).__mro__:
        for name, member in vars(cls).items():
            if name in _NOT_STATE or not isinstance(
                member, (types.MemberDescriptorType, types.GetSetDescriptorType)
            ):
                continue
            try:
                member.__set__(target, member.__get__(source, type(source)))
            except (AttributeError, TypeError):
                continue  # unset in the source, or read-only because __new__ has set it
    target.__dict__.update(source.__dict__)
