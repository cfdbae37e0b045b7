"""``mray.experimental``: what Ray calls experimental and programs use nevertheless.

Modules load when they are imported or a name of theirs is used; none loads with ``import mray``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

from mray.absent import refuse_attribute

_MODULES: Final = frozenset(("dynamic_resources", "internal_kv", "locations", "tqdm_ray"))
#: Public name -> the module that has it.
_NAMES: Final = {
    "get_local_object_locations": "locations",
    "get_object_locations": "locations",
    "set_resource": "dynamic_resources",
}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"mray.experimental.{name}")
    if name in _NAMES:
        value: object = getattr(import_module(f"mray.experimental.{_NAMES[name]}"), name)
        return value
    refuse_attribute("experimental", name)


__all__ = [*_NAMES, "internal_kv", "tqdm_ray"]
