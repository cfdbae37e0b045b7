"""Spill files: which there are, what is alive in each, and which disks may take more.

Owns slots, files, bytes and the state of each directory as far as results of writes tell. Does no
IO and does not choose objects: spilling.py does.

Objects of a MiB or more have a file each. Smaller ones share one, at multiples of 4 KiB, and the
range of each that goes is punched out of it: a file never takes more room than what lives in it.
Where holes cannot be punched (remote storage), a shared file stays until its last object goes; its
size has a bound.
"""

from __future__ import annotations

import msgspec

from mray.machine import InvariantError
from mray.node.objects.effects import DeleteSpill, Effect, PunchSpill, Tell

#: What slots of a shared file are multiples of: the block of common file systems.
SLOT_ALIGNMENT = 4096


class Slot(msgspec.Struct, frozen=True):
    """Where an object is on disk."""

    disk: int
    file: int
    at: int
    size: int
    crc: int


class DiskFailure(msgspec.Struct, frozen=True):
    """Why a write failed. ``full``: there is no room, by the threshold, the limit or the system."""

    full: bool
    text: str


class Disk:
    """One directory, or URL, that takes spilled objects."""

    __slots__ = ("failure", "path", "retry_at")

    def __init__(self, path: str) -> None:
        self.path = path
        #: Why the last write failed; None while the disk takes what it is given.
        self.failure: DiskFailure | None = None
        #: When it may be tried again after a failure.
        self.retry_at = 0.0


class Files:
    """All spill files of a node. ``bytes_max``: what they may take together, None for no limit."""

    __slots__ = (
        "_bytes_max", "_live", "_next_disk", "_numbers", "bytes", "disks", "objects", "reserved",
    )  # fmt: skip

    def __init__(self, paths: tuple[str, ...], bytes_max: int | None = None) -> None:
        self.disks = [Disk(path) for path in paths]
        self._bytes_max = bytes_max
        self._next_disk = 0
        self._numbers = 0
        #: Living slots of each file. No empty ones.
        self._live: dict[tuple[int, int], int] = {}
        #: What living slots take, and how many there are.
        self.bytes = 0
        self.objects = 0
        #: Bytes of writes under way.
        self.reserved = 0

    def __len__(self) -> int:
        return len(self._live)

    def fits(self, size: int) -> bool:
        """Whether the limit leaves room for ``size`` bytes more."""
        return self._bytes_max is None or self.bytes + self.reserved + size <= self._bytes_max

    def choose(self, now: float) -> int | None:
        """The disk whose turn it is; None while every one fails and may not be tried yet."""
        for step in range(len(self.disks)):
            number = (self._next_disk + step) % len(self.disks)
            disk = self.disks[number]
            if disk.failure is None or disk.retry_at <= now:
                self._next_disk = number + 1
                return number
        return None

    def retry_at(self) -> float | None:
        """When a failing disk may be tried again."""
        return min((d.retry_at for d in self.disks if d.failure is not None), default=None)

    def new_file(self) -> int:
        """A number that no file has had."""
        self._numbers += 1
        return self._numbers

    def add(self, slot: Slot) -> None:
        """An object has been written."""
        key = (slot.disk, slot.file)
        self._live[key] = self._live.get(key, 0) + 1
        self.bytes += slot.size
        self.objects += 1

    def release(self, slot: Slot) -> Effect:
        """An object needs its slot no more."""
        key = (slot.disk, slot.file)
        left = self._live.pop(key) - 1
        self.bytes -= slot.size
        self.objects -= 1
        if not left:
            return DeleteSpill(slot.disk, slot.file)
        self._live[key] = left
        return PunchSpill(slot.disk, slot.file, slot.at, slot.size)

    def failed(self, number: int, failure: DiskFailure, retry_at: float) -> list[Effect]:
        """A write failed; told once until it works again or fails in another way."""
        disk = self.disks[number]
        before, disk.failure, disk.retry_at = disk.failure, failure, retry_at
        if before is not None and before.full == failure.full:
            return []
        return [Tell(True, f"objects are not spilled to {disk.path}: {failure.text}")]

    def worked(self, number: int, now: float) -> list[Effect]:
        """A write went well. One that was under way when another failed says nothing of the disk's
        state since: a disk at its limit would be told of as full and not full in turns."""
        disk = self.disks[number]
        if disk.failure is None or now < disk.retry_at:
            return []
        disk.failure = None
        return [Tell(False, f"objects are spilled to {disk.path} again")]

    def full(self) -> tuple[str, ...]:
        """Why no disk takes more, one line each; empty unless all fail and one for want of room."""
        failures = [disk.failure for disk in self.disks]
        if not any(failure is not None and failure.full for failure in failures):
            return ()
        if not all(failures):
            return ()
        return tuple(failure.text for failure in failures if failure is not None)

    def troubles(self) -> tuple[str, ...]:
        """What is wrong with disks that fail."""
        return tuple(
            f"{disk.path}: {disk.failure.text}" for disk in self.disks if disk.failure is not None
        )

    def check(self, slots: list[Slot]) -> None:
        """Raise InvariantError unless exactly ``slots`` live."""
        live: dict[tuple[int, int], int] = {}
        for slot in slots:
            live[slot.disk, slot.file] = live.get((slot.disk, slot.file), 0) + 1
        if live != self._live:
            raise InvariantError(f"spill files are noted as {self._live} and hold {live}")
        if (sum(slot.size for slot in slots), len(slots)) != (self.bytes, self.objects):
            raise InvariantError("bytes on disk are counted wrong")
