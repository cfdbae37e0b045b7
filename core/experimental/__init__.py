"""``mray.experimental``: what Ray calls experimental and programs use nevertheless.

Modules load when they are imported; none loads with ``import mray``.
"""

from __future__ import annotations

from importlib import import_module

_MODULES = frozenset(("tqdm_ray",))


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"mray.experimental.{name}")
    raise AttributeError(f"module 'mray.experimental' has no attribute {name!r}")


__all__ = ["tqdm_ray"]
