"""What this machine has to offer: CPUs, memory, GPUs, and how much of it the object store takes.

Covers: CPU quotas of cgroups v1 and v2 on the way from this process's group to the root, CPU
affinity, memory as mray.memory reads it, and the defaults that follow. Does not watch: the memory
monitor reads again and again by itself. ``proc`` and ``cgroup`` are parameters so that tests can
lay out any machine.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from mray.config import OBJECT_STORE_MEMORY_MIN_BYTES, Config
from mray.memory.groups import groups_of, read_file
from mray.memory.usage import read_memory
from mray.resources import Resources, to_fixed
from mray.units import MIB, format_bytes, format_count

#: The share of a free /dev/shm that a store may take: others use it too.
_SHM_SHARE: Final = 0.95
#: The smallest store that a node takes for itself where nobody names a size.
_DEFAULT_MIN_BYTES: Final = 16 * MIB


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What was found. Bytes, whole CPUs."""

    cpu_count: int
    memory_total_bytes: int
    #: Free now, page cache counted as free.
    memory_available_bytes: int
    shm_free_bytes: int
    gpu_count: int
    #: Where memory_total_bytes stands.
    memory_source: str = "/proc/meminfo"
    #: CUDA_VISIBLE_DEVICES, None where it is not set.
    gpus_visible: str | None = None


def look(
    environ: Mapping[str, str],
    *,
    proc: str = "/proc",
    cgroup: str = "/sys/fs/cgroup",
    shm: str = "/dev/shm",
    affinity: int | None = None,
) -> Machine:
    """Look at the machine. ``affinity`` None asks the kernel which CPUs this process may use."""
    memory = read_memory(proc=proc, cgroup=cgroup)
    space = os.statvfs(shm)
    if affinity is None:
        affinity = len(os.sched_getaffinity(0))
    return Machine(
        cpu_count=max(1, min([affinity, *_quotas(proc, cgroup)])),
        memory_total_bytes=memory.limit_bytes,
        memory_available_bytes=memory.free_bytes,
        shm_free_bytes=space.f_bavail * space.f_frsize,
        gpu_count=_gpu_count(environ),
        memory_source=memory.source,
        gpus_visible=environ.get("CUDA_VISIBLE_DEVICES"),
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
    # What the machine has to offer may be less than what may be asked for: a container with the
    # usual 64 MiB of /dev/shm has a small store, and the rest goes to disk.
    least = OBJECT_STORE_MEMORY_MIN_BYTES if named is not None else _DEFAULT_MIN_BYTES
    if capacity < least:
        raise ValueError(
            f"the object store would have {format_bytes(capacity)}, at least "
            f"{format_bytes(least)} are needed: set object_store_memory, "
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
    """The node's resources in fixed point: what the user named, and what was found for the rest.

    ValueError for more GPUs than CUDA_VISIBLE_DEVICES names, where it is set.
    """
    if machine.gpus_visible is not None and asked.get("GPU", 0) > machine.gpu_count:
        raise ValueError(
            f"num_gpus={asked['GPU']:g}, but CUDA_VISIBLE_DEVICES={machine.gpus_visible!r} names "
            f"{format_count(machine.gpu_count, 'GPU')}: ask for no more, or unset it where the "
            "node is started"
        )
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


# -- CPUs


def _quotas(proc: str, cgroup: str) -> Iterator[int]:
    """CPUs that the groups above us allow, a part of one counted as one."""
    for group in groups_of("cpu", proc=proc, cgroup=cgroup):
        if group.version == 2:
            quota = _words(f"{group.path}/cpu.max")
        else:
            quota = [
                *_words(f"{group.path}/cpu.cfs_quota_us"),
                *_words(f"{group.path}/cpu.cfs_period_us"),
            ]
        if len(quota) == 2 and min(quota) > 0:
            yield math.ceil(quota[0] / quota[1])


def _gpu_count(environ: Mapping[str, str]) -> int:
    """As many as CUDA_VISIBLE_DEVICES names; hardware is not probed."""
    named = [name.strip() for name in environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    count = 0
    for name in named:
        if not name or name == "-1" or name.lower() in ("none", "nodevfiles"):
            break  # As CUDA does: whatever stands behind an invalid device is not seen.
        count += 1
    return count


def _words(path: str) -> list[int]:
    """The whole numbers in a file; empty where it cannot be read or says anything else."""
    words = (read_file(path) or b"").split()
    if not all(word.removeprefix(b"-").isdigit() for word in words):
        return []
    return [int(word) for word in words]
