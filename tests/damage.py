"""A bad line in front of every tcp port that the processes of a cluster listen on.

``Damage(folder)`` is the test's end: ``environ`` has to be that of the cluster, ``chance`` is how
likely a piece is damaged on any line, ``flips`` how often that has happened. ``put_in_front`` is
called in each process of the cluster, by tests/faults/damage_hook.
"""

from __future__ import annotations

import itertools
import mmap
import os
import struct
from pathlib import Path

from tests.proxy import Proxy, _Pipe

VARIABLE = "PYTEST_DAMAGE"
ROOT = Path(__file__).resolve().parents[1]
_CHANCE = struct.Struct("d")


class Damage:
    """See the module."""

    def __init__(self, folder: Path) -> None:
        self._chance_file = folder / "chance"
        self._flips_file = folder / "flips"
        self._chance_file.write_bytes(_CHANCE.pack(0.0))
        self._flips_file.touch()
        hook = ROOT / "tests" / "faults" / "damage_hook"
        before = os.environ.get("PYTHONPATH")
        self.environ = {
            VARIABLE: str(folder),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(hook), str(ROOT), before))),
        }

    @property
    def chance(self) -> float:
        return float(_CHANCE.unpack(self._chance_file.read_bytes())[0])

    @chance.setter
    def chance(self, value: float) -> None:
        with self._chance_file.open("r+b") as file:
            file.write(_CHANCE.pack(value))

    @property
    def flips(self) -> int:
        return self._flips_file.stat().st_size


class _Line(Proxy):
    """A proxy that does as the test says, and tells it."""

    def __init__(self, folder: str, target: tuple[str, int], seed: int, port: int) -> None:
        super().__init__(target, seed, target[0], port)
        self._flips_fd = os.open(f"{folder}/flips", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        with open(f"{folder}/chance", "rb") as file:
            self._chance = mmap.mmap(file.fileno(), _CHANCE.size, access=mmap.ACCESS_READ)

    def _damaged(self, pipe: _Pipe, piece: bytes) -> bytes:
        (self.flip_chance,) = _CHANCE.unpack_from(self._chance)
        flips = self.flips
        damaged = super()._damaged(pipe, piece)
        if self.flips > flips:
            os.write(self._flips_fd, b"x")
        return damaged


def put_in_front(folder: str) -> None:
    """From now on the doors of this process are reached by way of a bad line."""
    from mray.rpc.door import Door

    listen, numbers = Door.listen_tcp, itertools.count(1)

    def listen_tcp(door: Door, host: str, port: int) -> int:
        target = (host, listen(door, host, 0))
        line = _Line(folder, target, next(numbers), port)
        return line.__enter__().port  # Its thread ends with the process.

    Door.listen_tcp = listen_tcp  # type: ignore[method-assign]
