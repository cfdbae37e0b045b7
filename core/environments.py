"""Runtime environments on the wire: msgpack of a checked dict, the same bytes for equal ones.

Equal bytes mean workers may be shared, so the dict is sorted. Environments are inherited: a
task's is laid over its parent's, a driver's over that of the submission it belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


def pack_environment(environment: Mapping[str, Any] | None) -> bytes:
    """The bytes of an environment; b"" for none."""
    if not environment:
        return b""
    plain: dict[str, Any] = {}
    for key in sorted(environment):
        value = environment[key]
        plain[key] = dict(sorted(value.items())) if isinstance(value, Mapping) else value
    return msgspec.msgpack.encode(plain)


def merge_environments(outer: bytes, inner: bytes) -> bytes:
    """``inner`` laid over ``outer``: env_vars one by one, everything else as a whole."""
    if not inner or not outer:
        return inner or outer
    merged: dict[str, Any] = msgspec.msgpack.decode(outer)
    for key, value in msgspec.msgpack.decode(inner).items():
        merged[key] = {**merged.get(key, {}), **value} if key == "env_vars" else value
    return pack_environment(merged)
