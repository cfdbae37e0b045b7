"""Where a task is to run, as its template's makers say it. A value; mray.scheduling makes it."""

from __future__ import annotations

from typing import Final, NamedTuple

from mray.placement import within
from mray.resources import Resources


class Placing(NamedTuple):
    """``group`` b"" for none, ``bundle`` its number (-1: any), ``captures``: what the task submits
    runs in it too. ``where`` is mray.placement.Where as msgpack, b"" for anywhere."""

    group: bytes = b""
    bundle: int = -1
    captures: bool = False
    where: bytes = b""

    def needs(self, resources: Resources) -> Resources:
        """What it asks of the node for these resources."""
        return within(resources, self.group, self.bundle) if self.group else resources


ANYWHERE: Final = Placing()
