"""Runtime environments on the wire: msgpack of a checked dict, the same bytes for equal ones.

Equal bytes mean workers may be shared, so the dict is sorted. Merging with the job's environment is
the node daemon's work when it starts a worker.
"""

from __future__ import annotations

import os
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
        if key == "working_dir":
            value = os.path.abspath(value)
        plain[key] = dict(sorted(value.items())) if isinstance(value, Mapping) else value
    return msgspec.msgpack.encode(plain)
