"""The packages of runtime environments: files that drivers bring and nodes fetch, in pieces.

Shell of the head. Owns a directory below the session's; the files go with the session. Beyond a
total size those that were used longest ago are dropped: nodes that need them have them unpacked.
Reads nothing of what is in them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Final

from mray.packages import PACKAGE_BYTES_MAX, SCHEME, file_of
from mray.units import format_bytes
from mray.wire.messages import (
    GetPackage,
    Message,
    PackagePiece,
    PackageState,
    PutPackage,
    Refused,
)

#: What one answer carries.
_PIECE_BYTES: Final = 2 * 1024 * 1024
#: What all packages may take on the disk of the session.
TOTAL_BYTES_MAX: Final = 10 * 1024 * 1024 * 1024


class Packages:
    """``send(to, message)`` answers."""

    def __init__(
        self,
        directory: str,
        send: Callable[[bytes, Message], object],
        total_bytes_max: int = TOTAL_BYTES_MAX,
    ) -> None:
        self._directory = directory
        self._send = send
        self._total_bytes_max = total_bytes_max
        #: Whole ones: name -> size, least recently used first.
        self._whole = _found(directory)
        #: (name, sender) -> what has come.
        self._parts: dict[tuple[str, bytes], int] = {}

    def put(self, sender: bytes, message: PutPackage) -> None:
        """Take a piece. Pieces of two senders do not mix; who is first to the end wins."""
        try:
            state = self._take(sender, message)
        except (OSError, ValueError) as error:
            self._drop_part(message.name, sender)
            self._send(sender, Refused(message.rid, type(error).__name__, str(error)))
            return
        self._send(sender, state)

    def _take(self, sender: bytes, message: PutPackage) -> PackageState:
        name = message.name
        file_of(SCHEME + name)
        if name in self._whole:
            self._whole[name] = self._whole.pop(name)
            return PackageState(message.rid, self._whole[name], complete=True)
        if not message.data:
            return PackageState(message.rid, 0, complete=False)
        if message.total_bytes > PACKAGE_BYTES_MAX:
            raise ValueError(
                f"the package has {format_bytes(message.total_bytes)}, "
                f"{format_bytes(PACKAGE_BYTES_MAX)} are allowed"
            )
        key = (name, sender)
        have = self._parts.get(key, 0)
        if message.offset == 0:
            have = 0
        end = message.offset + len(message.data)
        if message.offset > have or end > message.total_bytes:
            raise ValueError(f"a piece of {name} from byte {message.offset} on came out of turn")
        os.makedirs(self._directory, 0o700, exist_ok=True)
        path = self._part_path(name, sender)
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if message.offset == 0 else 0)
        fd = os.open(path, flags, 0o600)
        try:
            os.pwrite(fd, message.data, message.offset)  # Again where it is sent again.
        finally:
            os.close(fd)
        have = max(have, end)
        self._parts[key] = have
        if have < message.total_bytes:
            return PackageState(message.rid, have, complete=False)
        del self._parts[key]
        os.replace(path, self._path(name))
        self._whole[name] = have
        self._make_room(name)
        return PackageState(message.rid, have, complete=True)

    def get(self, sender: bytes, message: GetPackage) -> None:
        """Give a piece."""
        size = self._whole.get(message.name)
        if size is None:
            self._send(sender, PackagePiece(message.rid, -1, b""))
            return
        self._whole[message.name] = self._whole.pop(message.name)
        try:
            with open(self._path(message.name), "rb") as file:
                data = os.pread(file.fileno(), _PIECE_BYTES, max(0, message.offset))
        except OSError as error:
            del self._whole[message.name]
            self._send(sender, Refused(message.rid, "OSError", str(error)))
            return
        self._send(sender, PackagePiece(message.rid, size, data))

    def process_died(self, process_id: bytes) -> None:
        """Nobody will send the rest of what it had begun."""
        for name, sender in list(self._parts):
            if sender == process_id:
                self._drop_part(name, sender)

    def close(self) -> None:
        """Remove all of them."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def _make_room(self, newest: str) -> None:
        while sum(self._whole.values()) > self._total_bytes_max:
            oldest = next(iter(self._whole))
            if oldest == newest:
                return
            del self._whole[oldest]
            os.unlink(self._path(oldest))

    def _drop_part(self, name: str, sender: bytes) -> None:
        if self._parts.pop((name, sender), None) is not None:
            os.unlink(self._part_path(name, sender))

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name}"

    def _part_path(self, name: str, sender: bytes) -> str:
        return f"{self._directory}/{name}.{sender.hex()}.part"


def _found(directory: str) -> dict[str, int]:
    """What a former head of the session has left, the oldest first. Torn parts are removed."""
    whole: list[tuple[float, str, int]] = []
    try:
        entries = list(os.scandir(directory))
    except FileNotFoundError:
        return {}
    for entry in entries:
        if entry.name.endswith(".part"):
            os.unlink(entry.path)
        else:
            stat = entry.stat()
            whole.append((stat.st_mtime, entry.name, stat.st_size))
    return {name: size for _, name, size in sorted(whole)}
