"""Custom serializers for classes that cannot be changed. Public face of serialization.custom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mray.serialization import custom


def register_serializer(
    cls: type, *, serializer: Callable[[Any], Any], deserializer: Callable[[Any], Any]
) -> None:
    """Serialize instances of ``cls`` by ``serializer``, in this process, from now on.

    ``serializer(instance)`` returns something that can be pickled, and ``deserializer`` makes an
    instance of that again; it travels with the value, so only processes that send instances need
    the registration. It holds for the class itself, not for its subclasses, also deep inside other
    values. A new registration replaces the old one at once. Needs no running cluster.

    Raises TypeError when ``cls`` is no class or one of the functions cannot be called.
    """
    if not isinstance(cls, type):
        raise TypeError(f"register_serializer needs a class, got {cls!r}")
    for name, function in (("serializer", serializer), ("deserializer", deserializer)):
        if not callable(function):
            raise TypeError(
                f"the {name} for {cls.__qualname__} must be a function, got {function!r}"
            )
    custom.set_reducer(cls, serializer, deserializer)


def deregister_serializer(cls: type) -> None:
    """Undo ``register_serializer`` for ``cls`` in this process; a no-op if there is nothing."""
    custom.drop_reducer(cls)
