"""Custom serializers for classes that cannot be changed. Public face of serialization.custom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from mray import current
from mray.runtime import serializers
from mray.serialization import custom

Scope = Literal["local", "job"]


def register_serializer(
    cls: type,
    *,
    serializer: Callable[[Any], Any],
    deserializer: Callable[[Any], Any],
    scope: Scope = "local",
) -> None:
    """Serialize instances of ``cls`` by ``serializer``, from now on.

    ``serializer(instance)`` returns something that can be pickled, and ``deserializer`` makes an
    instance of that again; it travels with the value, so only processes that send instances need
    the registration. It holds for the class itself, not for its subclasses, also deep inside other
    values. A new registration replaces the old one at once; the same once more changes nothing.

    ``scope="local"`` registers in this process only, as Ray does. ``scope="job"`` reaches every
    process of the job: workers to come, and running ones before they begin a task that is submitted
    after this call. Before ``init()`` it is kept for each job that this process starts; otherwise
    it ends with the job. An entry of scope local wins over the job's.

    Raises TypeError when ``cls`` is no class, one of the functions cannot be called, or (for a job)
    cannot be serialized itself; ValueError for another scope.
    """
    _check_scope(scope)
    if not isinstance(cls, type):
        raise TypeError(f"register_serializer needs a class, got {cls!r}")
    for name, function in (("serializer", serializer), ("deserializer", deserializer)):
        if not callable(function):
            raise TypeError(
                f"the {name} for {cls.__qualname__} must be a function, got {function!r}"
            )
    registration = custom.Registration(serializer, deserializer)
    if scope == "local":
        custom.set_local(cls, registration)
        return
    serializers.change(current.runtime, cls, registration)
    custom.drop_local(cls)  # what was registered last holds


def deregister_serializer(cls: type, *, scope: Scope = "local") -> None:
    """Undo ``register_serializer`` of the same scope for ``cls``; a no-op if there is nothing."""
    _check_scope(scope)
    if scope == "local":
        custom.drop_local(cls)
        return
    serializers.change(current.runtime, cls, None)


def _check_scope(scope: str) -> None:
    if scope not in ("local", "job"):
        raise ValueError(f"scope must be 'local' or 'job', not {scope!r}")
