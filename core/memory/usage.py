"""How much memory this node has and uses: the one reading that every surface shows and acts on.

The limit is the tightest of the machine's and of every cgroup from ours up. Used is the usage of
the group that has this limit, without its file cache, active and inactive: the kernel takes that
back before it kills. Without a tighter group it is MemTotal - MemAvailable. Shared memory
is no file cache and counts. Per-process figures are trees.py's.

Odd values never raise: what cannot be read is left out and named in ``source``.
"""

from __future__ import annotations

import os
from typing import Final

import msgspec

from mray.memory.groups import Group, KeptFile, groups_of

#: Reads after which the groups are looked up again: a process may be moved to another one.
_RESOLVE_EVERY: Final = 64
#: Limits from here on are how cgroup v1 writes "none" (the largest page-aligned 63-bit number).
_NO_LIMIT: Final = 1 << 60


class MemoryReading(msgspec.Struct, frozen=True):
    """Memory at one moment, in bytes."""

    used_bytes: int
    limit_bytes: int
    #: Where the limit stands: "cgroup v2 <file>" or "/proc/meminfo", and what was left out and why.
    source: str
    #: Of the machine, whatever the limit is.
    total_bytes: int
    available_bytes: int
    #: File cache that used_bytes leaves out.
    cache_bytes: int
    #: Of the group that limits, else of the machine; not part of used_bytes.
    swap_used_bytes: int = 0

    @property
    def free_bytes(self) -> int:
        """What can still be taken: under the limit, and of the machine."""
        return max(0, min(self.available_bytes, self.limit_bytes - self.used_bytes))


class _Files(msgspec.Struct, frozen=True):
    """The files of one group, kept open."""

    group: Group
    limit: KeptFile
    usage: KeptFile
    stat: KeptFile
    swap: KeptFile | None


class MemoryReader:
    """Reads again and again: finds the groups once, reads their limits each time.

    For polling; not to be shared by threads. ``proc`` and ``cgroup`` are where those are mounted.
    """

    def __init__(self, *, proc: str = "/proc", cgroup: str = "/sys/fs/cgroup") -> None:
        self._proc = proc
        self._cgroup = cgroup
        self._reads = 0
        self._groups: list[_Files] = []
        self._meminfo = KeptFile(f"{proc}/meminfo")
        self._resolve()

    def read(self) -> MemoryReading:
        """The memory now."""
        if self._reads >= _RESOLVE_EVERY:
            self._resolve()
        self._reads += 1
        host = _read_host(self._meminfo)
        notes: list[str] = []
        limits = self._limits(host.total_bytes, notes)
        if limits is None:
            self._resolve()
            notes.clear()
            limits = self._limits(host.total_bytes, notes) or []
        for limit, files in limits:
            reading = _read_group(limit, files, host, notes)
            if reading is not None:
                return _with_notes(reading, notes)
        return _with_notes(host, notes)

    def _limits(self, total_bytes: int, notes: list[str]) -> list[tuple[int, _Files]] | None:
        """Our groups that allow less than the machine has, the tightest first; None: one is gone.

        Of equal limits the outermost is first: it has at least the usage of those inside.
        """
        limits = []
        for files in reversed(self._groups):
            was_open = files.limit.is_open
            data = files.limit.read()
            lost = data is None and was_open
            if lost or (not data and not os.path.exists(files.limit.path)):
                return None
            limit = _limit_of(files, data, notes)
            if limit is not None and limit < total_bytes:
                limits.append((limit, files))
        limits.sort(key=lambda pair: pair[0])
        return limits

    def _resolve(self) -> None:
        self._reads = 0
        self._groups = [
            files for group in groups_of("memory", proc=self._proc, cgroup=self._cgroup)
            if os.path.exists((files := _files_of(group)).limit.path)
        ]  # fmt: skip


def read_memory(*, proc: str = "/proc", cgroup: str = "/sys/fs/cgroup") -> MemoryReading:
    """The memory now, looked up from scratch. For polling keep a MemoryReader."""
    return MemoryReader(proc=proc, cgroup=cgroup).read()


# -- groups


def _files_of(group: Group) -> _Files:
    if group.version == 2:
        names = ("memory.max", "memory.current", "memory.stat")
    else:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
    limit, usage, stat = (KeptFile(f"{group.path}/{name}") for name in names)
    swap = KeptFile(f"{group.path}/memory.swap.current") if group.version == 2 else None
    return _Files(group, limit, usage, stat, swap)


def _limit_of(files: _Files, data: bytes | None, notes: list[str]) -> int | None:
    """The limit that the group's file says; None for none."""
    if data is None:
        notes.append(f"{files.limit.path} cannot be read")
        return None
    text = data.strip()
    if text == b"max":
        return None
    if not text.isdigit() or int(text) == 0:
        notes.append(f"{files.limit.path} says {text[:40]!r}")
        return None
    limit = int(text)
    if files.group.partial and files.group.version == 1:
        # Version 1 tells the tightest limit above as well, also of groups that are out of sight.
        above = _field(files.stat.read() or b"", b"hierarchical_memory_limit")
        if above:
            limit = min(limit, above)
    return limit if limit < _NO_LIMIT else None


def _read_group(
    limit: int, files: _Files, host: MemoryReading, notes: list[str]
) -> MemoryReading | None:
    usage = (files.usage.read() or b"").strip()
    if not usage.isdigit():
        notes.append(f"{files.usage.path} says {usage[:40]!r}")
        return None
    stat = files.stat.read() or b""
    one = files.group.version == 1
    inactive = _field(stat, b"total_inactive_file" if one else b"inactive_file")
    active = _field(stat, b"total_active_file" if one else b"active_file")
    if inactive is None or active is None:
        notes.append(f"{files.stat.path} does not tell all file cache")
    cache = (inactive or 0) + (active or 0)
    if one:
        swap = _field(stat, b"total_swap") or 0
    else:
        told = ((files.swap.read() if files.swap else None) or b"").strip()
        swap = int(told) if told.isdigit() else 0
    return MemoryReading(
        used_bytes=max(0, int(usage) - cache),
        limit_bytes=limit,
        source=f"cgroup v{files.group.version} {files.limit.path}",
        total_bytes=host.total_bytes,
        available_bytes=host.available_bytes,
        cache_bytes=cache,
        swap_used_bytes=swap,
    )


def _field(text: bytes, name: bytes) -> int | None:
    """The number behind a name that begins a line; None where there is none."""
    mark = name + b" "
    start = 0 if text.startswith(mark) else text.find(b"\n" + mark) + 1
    if not start and not text.startswith(mark):
        return None
    start += len(mark)
    end = text.find(b"\n", start)
    word = text[start : end if end >= 0 else None].strip()
    return int(word) if word.isdigit() else None


def _with_notes(reading: MemoryReading, notes: list[str]) -> MemoryReading:
    if not notes:
        return reading
    return msgspec.structs.replace(reading, source=f"{reading.source} ({'; '.join(notes)})")


# -- the machine


def _read_host(meminfo: KeptFile) -> MemoryReading:
    path, text = meminfo.path, meminfo.read() or b""
    total = _kib(text, b"MemTotal:")
    if not total:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return MemoryReading(
            total - available, total, f"sysconf ({path} does not tell MemTotal)",
            total, available, 0,
        )  # fmt: skip
    free = _kib(text, b"MemFree:") or 0
    cache = (_kib(text, b"Buffers:") or 0) + (_kib(text, b"Cached:") or 0)
    cache = max(0, cache - (_kib(text, b"Shmem:") or 0))
    available_told = _kib(text, b"MemAvailable:")
    source = path
    if available_told is None:
        source = f"{path} (without MemAvailable: free memory and file cache)"
        available_told = free + cache
    available = min(total, available_told)
    swap = (_kib(text, b"SwapTotal:") or 0) - (_kib(text, b"SwapFree:") or 0)
    return MemoryReading(
        total - available, total, source, total, available, cache, max(0, swap)
    )  # fmt: skip


def _kib(text: bytes, name: bytes) -> int | None:
    """A figure of meminfo in bytes."""
    start = text.find(b"\n" + name) + 1
    if not start and not text.startswith(name):
        return None
    words = text[start : text.find(b"\n", start)].split()
    return int(words[1]) * 1024 if len(words) > 1 and words[1].isdigit() else None
