"""What this machine has to offer: CPUs, memory, GPUs, and how much of it the object store takes.

Covers: the tightest limit of cgroups v1 and v2 on the way from this process's group to the root,
CPU affinity, and the defaults that follow. Does not watch: the memory monitor reads again and again
by itself. ``proc`` and ``cgroup`` are parameters so that tests can lay out any machine.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from mray.config import OBJECT_STORE_MEMORY_MIN_BYTES, Config
from mray.resources import Resources, to_fixed
from mray.units import MIB, format_bytes

#: Limits above this are how cgroup v1 writes "none" (the largest page-aligned 63-bit number).
_NO_LIMIT: Final = 1 << 60
#: The share of a free /dev/shm that a store may take: others use it too.
_SHM_SHARE: Final = 0.95


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What was found. Bytes, whole CPUs."""

    cpu_count: int
    memory_total_bytes: int
    #: Free now, page cache counted as free.
    memory_available_bytes: int
    shm_free_bytes: int
    gpu_count: int
    #: The file that memory_total_bytes was read from.
    memory_source: str = "/proc/meminfo"


def look(
    environ: Mapping[str, str],
    *,
    proc: str = "/proc",
    cgroup: str = "/sys/fs/cgroup",
    shm: str = "/dev/shm",
    affinity: int | None = None,
) -> Machine:
    """Look at the machine. ``affinity`` None asks the kernel which CPUs this process may use."""
    total, available, source = _memory(proc, cgroup)
    space = os.statvfs(shm)
    if affinity is None:
        affinity = len(os.sched_getaffinity(0))
    return Machine(
        cpu_count=max(1, min([affinity, *_quotas(proc, cgroup)])),
        memory_total_bytes=total,
        memory_available_bytes=available,
        shm_free_bytes=space.f_bavail * space.f_frsize,
        gpu_count=_gpu_count(environ),
        memory_source=source,
    )


def store_capacity(machine: Machine, config: Config, asked: float | None) -> int:
    """The bytes of the object store: ``asked`` or configured, else a share of free memory.

    ValueError where that is below the least a store can be or more than /dev/shm has free.
    """
    store = config.object_store
    named = int(asked) if asked is not None else store.object_store_memory
    room = int(machine.shm_free_bytes * _SHM_SHARE)
    if named is None:
        capacity = int(machine.memory_available_bytes * store.object_store_memory_proportion)
        capacity = min(capacity, store.object_store_max_memory_bytes, room)
    else:
        capacity = named
        if capacity > machine.shm_free_bytes:
            raise ValueError(
                f"object_store_memory is {format_bytes(capacity)}, but /dev/shm has only "
                f"{format_bytes(machine.shm_free_bytes)} free: ask for less, or enlarge it "
                "(docker run --shm-size, or mount -o remount,size=)"
            )
    if capacity < OBJECT_STORE_MEMORY_MIN_BYTES:
        raise ValueError(
            f"the object store would have {format_bytes(capacity)}, at least "
            f"{format_bytes(OBJECT_STORE_MEMORY_MIN_BYTES)} are needed: set object_store_memory, "
            f"or free memory ({format_bytes(machine.memory_available_bytes)} are free, "
            f"{format_bytes(machine.shm_free_bytes)} of them in /dev/shm)"
        )
    return capacity


def node_resources(
    machine: Machine,
    asked: Mapping[str, float],
    *,
    store_bytes: int,
    ip: str,
    is_head: bool,
) -> Resources:
    """The node's resources in fixed point: what the user named, and what was found for the rest."""
    amounts: dict[str, float] = {
        "CPU": machine.cpu_count,
        "GPU": machine.gpu_count,
        # In whole MiB, so that the figure people see does not end in noise.
        "memory": max(0, machine.memory_available_bytes - store_bytes) // MIB * MIB,
    }
    amounts |= asked
    amounts["object_store_memory"] = store_bytes
    amounts[f"node:{ip}"] = 1.0
    if is_head:
        amounts["node:__internal_head__"] = 1.0
    return to_fixed(amounts)


# -- memory


def _memory(proc: str, cgroup: str) -> tuple[int, int, str]:
    """(limit, free, file): the least of the machine's and of every group above us, in bytes."""
    info = {}
    with open(f"{proc}/meminfo", encoding="ascii") as file:
        for line in file:
            name, _, rest = line.partition(":")
            info[name] = int(rest.split()[0]) * 1024
    total = info["MemTotal"]
    available = info["MemAvailable"]
    source = f"{proc}/meminfo"
    for group, version in _groups(proc, cgroup, "memory"):
        limit_name, used_name, cache_name = (
            ("memory.max", "memory.current", "inactive_file")
            if version == 2
            else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        )
        limit = _number(f"{group}/{limit_name}")
        if limit is None or limit >= _NO_LIMIT:
            continue
        used = (_number(f"{group}/{used_name}") or 0) - _field(f"{group}/memory.stat", cache_name)
        if limit < total:
            total, source = limit, f"{group}/{limit_name}"
        available = min(available, max(0, limit - max(0, used)))
    return total, available, source


# -- CPUs


def _quotas(proc: str, cgroup: str) -> Iterator[int]:
    """CPUs that the groups above us allow, a part of one counted as one."""
    for group, version in _groups(proc, cgroup, "cpu"):
        if version == 2:
            words = (_read(f"{group}/cpu.max") or "max").split()
            if len(words) == 2 and words[0] != "max":
                yield math.ceil(int(words[0]) / int(words[1]))
        else:
            quota = _number(f"{group}/cpu.cfs_quota_us")
            period = _number(f"{group}/cpu.cfs_period_us")
            if quota is not None and period and quota > 0:
                yield math.ceil(quota / period)


def _gpu_count(environ: Mapping[str, str]) -> int:
    """As many as CUDA_VISIBLE_DEVICES names; hardware is not probed."""
    named = [name.strip() for name in environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    count = 0
    for name in named:
        if not name or name == "-1" or name.lower() in ("none", "nodevfiles"):
            break  # As CUDA does: whatever stands behind an invalid device is not seen.
        count += 1
    return count


# -- cgroups


def _groups(proc: str, cgroup: str, controller: str) -> Iterator[tuple[str, int]]:
    """Directories of our groups and of all above them that exist, with the cgroup version.

    In a container the path that /proc/self/cgroup tells is often not there: then those above are.
    """
    for line in (_read(f"{proc}/self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            roots = [(cgroup, 2), (f"{cgroup}/unified", 2)]
        elif controller in controllers.split(","):
            roots = [(f"{cgroup}/{controllers}", 1), (f"{cgroup}/{controller}", 1)]
        else:
            continue
        for root, version in roots:
            if not os.path.isdir(root):
                continue
            parts = [part for part in path.split("/") if part and part != ".."]
            for length in range(len(parts), -1, -1):
                group = "/".join([root, *parts[:length]])
                if os.path.isdir(group):
                    yield group, version
            if version == 1:
                break  # The two names of a v1 root are links to the same.


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None  # Not this version, not this controller, or not readable for us: no limit.


def _number(path: str) -> int | None:
    text = (_read(path) or "").strip()
    return int(text) if text.lstrip("-").isdigit() else None


def _field(path: str, name: str) -> int:
    for line in (_read(path) or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.strip().isdigit():
            return int(value)
    return 0
