"""@remote: makes remote functions and actor classes."""

from __future__ import annotations

import inspect
from typing import Any

from mray.actor import ActorClass
from mray.remote_function import RemoteFunction


def remote(*args: Any, **options: Any) -> Any:
    """``@remote`` or ``@remote(num_cpus=2, ...)`` on a function or a class; also ``remote(f)``.

    Raises ValueError or TypeError for unknown or bad options, TypeError for anything that is
    neither function nor class.
    """
    if len(args) == 1 and not options and callable(args[0]):
        return _make(args[0], {})
    if args or not options:
        raise TypeError(
            "@remote takes keyword options or nothing: @remote or @remote(num_cpus=2, ...)"
        )
    return lambda target: _make(target, options)


def _make(target: Any, options: dict[str, Any]) -> Any:
    if inspect.isclass(target):
        return ActorClass(target, options)
    if inspect.isfunction(target) or type(target).__name__ == "cython_function_or_method":
        return RemoteFunction(target, options)
    raise TypeError(f"@remote is for functions and classes, not for {type(target).__name__}")
