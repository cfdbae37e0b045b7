"""Doors that are closed when their test ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mray.ids import new_process_id
from mray.rpc.door import Door, Keys
from mray.wire.messages import Address

from .doors import NODE, Listen, MakeDoor


@pytest.fixture
def make_door() -> Iterator[MakeDoor]:
    made: list[Door] = []

    def make(keys: Keys | None = None) -> Door:
        made.append(Door(new_process_id(), keys))
        return made[-1]

    yield make
    for door in made:
        door.close()


@pytest.fixture
def ipc(tmp_path: Path) -> Listen:
    """Have a door listen on a unix socket; its address."""

    def listen(door: Door) -> Address:
        path = str(tmp_path / door.process_id[1:5].hex())
        door.listen_ipc(path)
        return Address(door.process_id, NODE, path)

    return listen
