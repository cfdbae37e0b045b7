"""``ray.experimental.set_resource``, which Ray refuses too."""

from __future__ import annotations

from typing import NoReturn


def set_resource(resource_name: str, capacity: float, node_id: str | None = None) -> NoReturn:
    """Raise DeprecationWarning: what a node offers is said when it starts."""
    raise DeprecationWarning(
        f"set_resource({resource_name!r}): what a node offers is said when it starts, by "
        "`mray start --resources` or init(resources=...); placement groups reserve parts of it"
    )


__all__ = ["set_resource"]
