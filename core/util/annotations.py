"""``ray.util.annotations``: marks that libraries put on their own functions and classes.

The marks change nothing but for ``Deprecated(warning=True)``, which warns at each use.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

AnyT = TypeVar("AnyT")


class RayDeprecationWarning(DeprecationWarning):
    """Something marked as ``Deprecated`` is used."""


def PublicAPI(*args: Any, **kwargs: Any) -> Any:
    """A mark: ``@PublicAPI`` or ``@PublicAPI(stability=..., api_group=...)``.

    Raises ValueError for a stability that is none of stable, beta and alpha.
    """
    if kwargs.get("stability", "stable") not in ("stable", "beta", "alpha"):
        raise ValueError(f"stability={kwargs['stability']!r} is none of stable, beta and alpha")
    return _marked(args)


def DeveloperAPI(*args: Any, **kwargs: Any) -> Any:
    """A mark: ``@DeveloperAPI`` or ``@DeveloperAPI()``."""
    return _marked(args)


def Deprecated(*args: Any, message: str = "", warning: bool = False) -> Any:
    """A mark: ``@Deprecated`` or ``@Deprecated(message=..., warning=True)``, which has each use
    of the function, or each new object of the class, warn."""
    if args:
        return args[0]

    def mark(it: Any) -> Any:
        if not warning:
            return it
        text = f"{it.__qualname__} is deprecated. {message}".strip()
        if isinstance(it, type):
            it.__init__ = _warning(it.__init__, text)  # type: ignore[misc]
            return it
        return _warning(it, text)

    return mark


def _marked(args: tuple[Any, ...]) -> Any:
    def keep(it: AnyT) -> AnyT:
        return it

    return args[0] if args else keep


def _warning(call: Callable[..., Any], text: str) -> Callable[..., Any]:
    @wraps(call)
    def warn(*args: Any, **kwargs: Any) -> Any:
        warnings.warn(text, RayDeprecationWarning, stacklevel=2)
        return call(*args, **kwargs)

    return warn


__all__ = ["Deprecated", "DeveloperAPI", "PublicAPI", "RayDeprecationWarning"]
