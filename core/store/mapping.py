"""One process's mappings of a node's arena and, above its addresses, of the overflow file.

Owns descriptors and mappings: for each file one for all reads, one for all writes, one for each
writable copy; all made when first needed. Does not know objects or pins. An offset beyond the
arena's length belongs to the overflow file, which lies on disk and is opened when one comes.

A mapping lives until the last buffer over it dies, whatever ``close`` says: that is how a value
outlives the runtime it came from. Mappings for reading and writable copies are inherited by forked
children, who may hold arrays over them (a data loader's processes do); the one for writing is not.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mray.units import MIB

if TYPE_CHECKING:
    from numpy import uint8
    from numpy.typing import NDArray

    Bytes = NDArray[uint8]

#: A claim of tmpfs pages is undone and begun again when a signal arrives: small steps get there
#: under a profiler's timer (32 MiB take 8 ms).
_CLAIM_BYTES = 32 * MIB


class _PrivateCopy(mmap.mmap):
    """A writable copy of a part of the arena; ``original`` keeps that part pinned meanwhile."""

    original: Any


class ArenaMap:
    """The arena at ``path`` as this process sees it. Raises OSError where it cannot be opened."""

    def __init__(self, path: str, overflow_path: str = "") -> None:
        self.path = path
        self.overflow_path = overflow_path
        self._overflow: ArenaMap | None = None
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._length = os.fstat(self._fd).st_size
        self._reader: Bytes | None = None
        #: Where the reader's mapping begins.
        self._origin = 0
        self._writer: memoryview | None = None

    def read(self, offset: int, size: int) -> Bytes:
        """The bytes of a range, read-only. The array returned is the base of whatever is made of
        it, and can be referred to weakly."""
        if offset >= self._length:
            return self._beyond().read(offset - self._length, size)
        reader = self._reader
        if reader is None:
            # Imported here: `import mray` shall not cost numpy.
            import numpy

            mapped = self._map(mmap.PROT_READ)
            reader = numpy.frombuffer(mapped, numpy.uint8)
            self._origin = reader.ctypes.data
            self._reader = reader
        return reader[offset : offset + size]

    def write(self, offset: int, size: int) -> memoryview:
        """The bytes of a range, for its writer. Claim it first."""
        if offset >= self._length:
            return self._beyond().write(offset - self._length, size)
        if self._writer is None:
            mapped = self._map(mmap.PROT_READ | mmap.PROT_WRITE)
            mapped.madvise(mmap.MADV_DONTFORK)
            self._writer = memoryview(mapped)
        return self._writer[offset : offset + size]

    def claim(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Have the system set pages aside for (offset, length) ranges. OSError if it has none."""
        for start, length in ranges:
            if start >= self._length:
                self._beyond().claim([(start - self._length, length)])
                continue
            for at in range(start, start + length, _CLAIM_BYTES):
                os.posix_fallocate(self._fd, at, min(_CLAIM_BYTES, start + length - at))

    def private_copy(self, base: Bytes) -> memoryview:
        """A writable copy of what ``base`` (from ``read``) shows, page by page as it is written to.

        Keeps ``base`` alive as long as it lives itself.
        """
        offset = base.ctypes.data - self._origin
        if self._overflow is not None and not 0 <= offset < self._length:
            return self._overflow.private_copy(base)
        skipped = offset % mmap.ALLOCATIONGRANULARITY
        mapped = _PrivateCopy(
            self._fd,
            skipped + max(base.nbytes, 1),
            flags=mmap.MAP_PRIVATE,
            prot=mmap.PROT_READ | mmap.PROT_WRITE,
            offset=offset - skipped,
        )
        mapped.original = base
        return memoryview(mapped)[skipped : skipped + base.nbytes]

    def in_overflow(self, offset: int) -> bool:
        """Whether an offset belongs to the overflow file."""
        return offset >= self._length

    def free_bytes(self, *, overflow: bool = False) -> int:
        """What is free in the arena's file system, or in the overflow file's."""
        if overflow:
            return self._beyond().free_bytes()
        figures = os.fstatvfs(self._fd)
        return figures.f_bavail * figures.f_frsize

    def close(self) -> None:
        """Let go of everything but what is in use."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._reader = self._writer = None
        if self._overflow is not None:
            self._overflow.close()

    def _beyond(self) -> ArenaMap:
        if self._overflow is None:
            self._overflow = ArenaMap(self.overflow_path)
        return self._overflow

    def _map(self, protection: int) -> mmap.mmap:
        try:
            mapped = mmap.mmap(self._fd, self._length, flags=mmap.MAP_SHARED, prot=protection)
        except OSError as error:
            raise OSError(
                error.errno,
                f"cannot map the object store {self.path} ({self._length} bytes of addresses, few "
                f"of them backed by memory): {error.strerror}; is there a limit (ulimit -v)?",
            ) from error
        mapped.madvise(mmap.MADV_DONTDUMP)
        return mapped
