"""Names that programs written for Ray import from ``ray._private``; nothing else lives here."""

from __future__ import annotations

from importlib import import_module

_MODULES = frozenset(("internal_api", "services", "state", "utils", "worker"))


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"mray._private.{name}")
    raise AttributeError(f"module 'mray._private' has no attribute {name!r}")


__all__ = ["internal_api", "services", "state", "utils", "worker"]
