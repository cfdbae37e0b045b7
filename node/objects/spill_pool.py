"""The threads that move bytes between a store and its disks.

Owns a few threads, made when first needed, and what they do: copy, check sums, try again. Decides
nothing: the machine's effects come in, its events go back through ``call_soon``, which has the loop
run them. No thread touches a machine.

Bytes pass through a buffer of a MiB by pread and pwrite on the arena's descriptor. So the daemon
maps nothing, a page that the system does not have is an error and not SIGBUS, and a range that was
freed meanwhile is read as garbage that nobody will look at.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from queue import PriorityQueue
from typing import Protocol

import msgspec

from mray.node.objects.disks import NoRoom, Storage
from mray.node.objects.effects import DeleteSpill, PunchSpill, ReadSpill, WriteSpill
from mray.node.objects.files import DiskFailure
from mray.units import MIB

log = logging.getLogger(__name__)

_BUFFER_BYTES = MIB
#: How often a read is tried that fails for no clear reason, and the first pause between; each is
#: twice as long as the last.
_READ_ATTEMPTS = 5
_READ_PAUSE_S = 0.1
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
#: How long the end of the store waits for what a thread does.
_JOIN_S = 1.0


class ReadPart(msgspec.Struct, frozen=True):
    """Fill ``buffer`` from ``begin`` on with a part of a file, for another node. Then ``done`` is
    called in the loop with "" or with what went wrong."""

    disk: int
    file: int
    at: int
    buffer: bytearray
    begin: int
    done: Callable[[str], None]


Job = ReadSpill | WriteSpill | DeleteSpill | PunchSpill | ReadPart
#: Reads first: somebody waits for them.
_PRIORITY: dict[type[Job], int] = {
    ReadSpill: 0, ReadPart: 0, WriteSpill: 1, DeleteSpill: 2, PunchSpill: 2,
}  # fmt: skip


class Memory(Protocol):
    """The bytes of a store, by address."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Copy from the store."""

    def write_from(self, offset: int, buffer: memoryview) -> None:
        """Copy into the store. OSError where the system has no pages."""


class Listener(Protocol):
    """Who is told of results, in the loop's thread: the store's server."""

    def spill_written(self, file: int, crcs: Sequence[int], took_s: float) -> None:
        """A file is complete."""

    def spill_failed(self, file: int, failure: DiskFailure) -> None:
        """A file could not be written."""

    def spill_read(self, number: int, took_s: float) -> None:
        """A range has its bytes."""

    def spill_read_failed(self, number: int, reason: str) -> None:
        """A range's bytes are not to be had."""

    def spill_read_no_space(self, number: int) -> None:
        """There were no pages for a range."""


class SpillPool:
    """See the module. ``workers`` threads at most."""

    def __init__(
        self,
        disks: Sequence[Storage],
        memory: Memory,
        workers: int,
        call_soon: Callable[[Callable[[], None]], None],
        read_pause_s: float = _READ_PAUSE_S,
    ) -> None:
        self.disks = disks
        self._read_pause_s = read_pause_s
        self.listener: Listener | None = None
        self._memory = memory
        self._workers = workers
        self._call_soon = call_soon
        self._jobs: PriorityQueue[tuple[int, int, Job | None]] = PriorityQueue()
        self._count = 0
        self._threads: list[threading.Thread] = []
        self._closed = False
        self._complained = False

    def submit(self, job: Job) -> None:
        """Have a thread do it."""
        self._count += 1
        self._jobs.put((_PRIORITY[type(job)], self._count, job))
        if len(self._threads) < min(self._workers, self._count):
            thread = threading.Thread(
                target=self._work, name=f"mray-spill-{len(self._threads) + 1}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """End the threads, and remove what was spilled. Waits for a slow disk a second at most."""
        self._closed = True
        for _ in self._threads:
            self._jobs.put((-1, 0, None))
        until = time.monotonic() + _JOIN_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        for disk in self.disks:
            try:
                disk.close()
            except Exception as error:
                log.warning("what was spilled to %s is left there: %s", disk.path, error)

    # ------------------------------------------------------------------------------ in a thread

    def _work(self) -> None:
        buffer = memoryview(bytearray(_BUFFER_BYTES))
        while (job := self._jobs.get()[2]) is not None and not self._closed:
            result = self.perform(job, buffer)
            if result is not None:
                self._call_soon(result)

    def perform(self, job: Job, buffer: memoryview) -> Callable[[], None] | None:
        """Do one job; returns what the loop is to be told. Public for tests without threads."""
        match job:
            case WriteSpill():
                return self._write(job, buffer)
            case ReadSpill():
                return self._read(job, buffer)
            case ReadPart():
                return self._read_part(job)
            case DeleteSpill(disk, file):
                self._try(disk, lambda: self.disks[disk].delete(file))
            case PunchSpill(disk, file, at, size):
                self._try(disk, lambda: self.disks[disk].punch(file, at, size))
        return None

    def _try(self, disk: int, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            if not self._complained:
                self._complained = True
                log.warning("files on %s are not removed: %s", self.disks[disk].path, error)

    def _write(self, job: WriteSpill, buffer: memoryview) -> Callable[[], None]:
        crcs: list[int] = []

        def pieces() -> Iterator[tuple[int, memoryview]]:
            for offset, size, at in job.parts:
                crc = 0
                for done in range(0, size, len(buffer)):
                    piece = buffer[: min(len(buffer), size - done)]
                    self._memory.read_into(offset + done, piece)
                    crc = zlib.crc32(piece, crc)
                    yield at + done, piece
                crcs.append(crc)

        listener = self._heard()
        disk = self.disks[job.disk]
        last = job.parts[-1]
        began = time.monotonic()
        try:
            disk.write(job.file, last[1] + last[2], pieces())
        except NoRoom as error:
            failure = DiskFailure(True, str(error))
        except OSError as error:
            full = error.errno in _NO_ROOM
            failure = DiskFailure(full, f"{disk.path}: {error.strerror or error}")
        except Exception as error:
            # fsspec's plug-ins raise what they like; the object stays in memory whatever it was.
            failure = DiskFailure(False, f"{disk.path}: {type(error).__name__}: {error}")
        else:
            took_s = time.monotonic() - began
            return lambda: listener.spill_written(job.file, crcs, took_s)
        return lambda: listener.spill_failed(job.file, failure)

    def _read(self, job: ReadSpill, buffer: memoryview) -> Callable[[], None]:
        listener = self._heard()
        where = f"{self.disks[job.disk].path}, file {job.file}, offset {job.at}"
        began = time.monotonic()
        for attempt in range(1, _READ_ATTEMPTS + 1):
            try:
                crc = self._read_once(job, buffer)
            except _NoPages:
                return lambda: listener.spill_read_no_space(job.number)
            except FileNotFoundError:
                reason = f"its spill file is gone ({where})"
                break
            except EOFError as error:
                reason = f"its spill file was cut short ({where}: {error})"
                break
            except Exception as error:
                reason = f"its spill file cannot be read ({where}): {type(error).__name__}: {error}"
                if attempt < _READ_ATTEMPTS:
                    time.sleep(self._read_pause_s * 2 ** (attempt - 1))
            else:
                if crc == job.crc:
                    took_s = time.monotonic() - began
                    return lambda: listener.spill_read(job.number, took_s)
                reason = (
                    f"its bytes on disk are damaged ({where}, {job.size} bytes: checksum "
                    f"{crc:08x}, not {job.crc:08x} as written)"
                )
                break
        return lambda: listener.spill_read_failed(job.number, reason)

    def _read_part(self, job: ReadPart) -> Callable[[], None]:
        wrong = ""
        try:
            self.disks[job.disk].read(job.file, job.at, memoryview(job.buffer)[job.begin :])
        except Exception as error:
            # The puller asks another node; its own checksum tells what is damaged.
            where = f"{self.disks[job.disk].path}, file {job.file}, offset {job.at}"
            wrong = f"its spill file cannot be read ({where}): {type(error).__name__}: {error}"
        return lambda: job.done(wrong)

    def _read_once(self, job: ReadSpill, buffer: memoryview) -> int:
        crc = 0
        for done in range(0, job.size, len(buffer)):
            piece = buffer[: min(len(buffer), job.size - done)]
            self.disks[job.disk].read(job.file, job.at + done, piece)
            crc = zlib.crc32(piece, crc)
            try:
                self._memory.write_from(job.offset + done, piece)
            except OSError as error:
                if error.errno in _NO_ROOM:
                    raise _NoPages from error
                raise
        return crc

    def _heard(self) -> Listener:
        if self.listener is None:
            raise RuntimeError("nobody listens to the spill pool")
        return self.listener


class _NoPages(Exception):
    """The system has no pages for a range of the store."""


class StoreMemory:
    """The arena and, from ``base`` on, the overflow file, by descriptor."""

    def __init__(self, arena_path: str, base: int, overflow_path: str = "") -> None:
        self._base = base
        self._fds = [os.open(arena_path, os.O_RDWR | os.O_CLOEXEC)]
        if overflow_path:
            self._fds.append(os.open(overflow_path, os.O_RDWR | os.O_CLOEXEC))

    def place(self, offset: int) -> tuple[int, int]:
        """The descriptor that an address belongs to, and the offset in its file."""
        if offset < self._base:
            return self._fds[0], offset
        return self._fds[1], offset - self._base

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """See Memory."""
        fd, at = self.place(offset)
        done = 0
        while done < len(buffer):
            done += os.preadv(fd, [buffer[done:]], at + done)

    def write_from(self, offset: int, buffer: memoryview) -> None:
        """See Memory."""
        fd, at = self.place(offset)
        done = 0
        while done < len(buffer):
            done += os.pwrite(fd, buffer[done:], at + done)

    def close(self) -> None:
        """Let go of the files."""
        for fd in self._fds:
            os.close(fd)
        self._fds = []
