"""The directories and URLs that the settings name for spilling.

Owns reading object_spilling_directory and object_spilling_config, in mray's forms and Ray's. Opens
nothing: disks.py does.
"""

from __future__ import annotations

import json
import os
from typing import Any

from mray.config.sections import Config


def spill_places(config: Config, default: str) -> tuple[str, ...]:
    """Where objects are spilled, ``default`` where nothing is set; empty when spilling is off.

    Raises ValueError for what cannot be read.
    """
    spilling = config.spilling
    if not spilling.automatic_object_spilling_enabled:
        return ()
    if spilling.object_spilling_config:
        places = _from_ray(spilling.object_spilling_config)
    else:
        places = _from_list(spilling.object_spilling_directory)
    return tuple(_absolute(place) for place in places) or (default,)


def _from_list(text: str) -> list[str]:
    """A directory, several separated by commas, or a JSON list."""
    text = text.strip()
    if not text.startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        places = json.loads(text)
    except ValueError as error:
        raise ValueError(f"object_spilling_directory {text!r} is no JSON list: {error}") from error
    return _strings(places, "object_spilling_directory")


def _from_ray(text: str) -> list[str]:
    """Ray's object_spilling_config."""
    try:
        given: Any = json.loads(text)
    except ValueError as error:
        raise ValueError(f"object_spilling_config {text!r} is no JSON: {error}") from error
    kind = given.get("type") if isinstance(given, dict) else None
    key = {"filesystem": "directory_path", "smart_open": "uri"}.get(str(kind))
    if key is None:
        raise ValueError(
            f"object_spilling_config {text!r} has no type that is known: filesystem with "
            "params.directory_path, or smart_open with params.uri"
        )
    params = given.get("params")
    value = params.get(key) if isinstance(params, dict) else None
    return _strings([value] if isinstance(value, str) else value, f"params.{key}")


def _strings(value: Any, what: str) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{what} must be a path or a list of paths, not {value!r}")
    return value


def _absolute(place: str) -> str:
    if "://" in place:
        return place
    path = os.path.expanduser(place)
    if not os.path.isabs(path):
        raise ValueError(f"object_spilling_directory must be an absolute path, not {place!r}")
    return path
