"""The settings of object stores: their size, transfers between them, spilling. See sections.py.

No `from __future__ import annotations` here: registry.py reads the annotations as objects.
"""

from typing import Annotated, Final, TypeAlias

from msgspec import Meta

from mray.config.key import Key
from mray.config.key import Section as _Section
from mray.units import GIB, KIB, MIB

#: The smallest object store that is of use, as in Ray.
OBJECT_STORE_MEMORY_MIN_BYTES: Final = 75 * MIB

_BYTES_MAX: Final = 2**63 - 1
_StoreBytes: TypeAlias = Annotated[int, Meta(ge=OBJECT_STORE_MEMORY_MIN_BYTES, le=_BYTES_MAX)]


# fmt: off


class ObjectStore(_Section, frozen=True):
    """The shared memory that holds objects, one store a node."""

    object_store_memory: Annotated[_StoreBytes | None, Key(
        "Capacity of this node's store; auto takes object_store_memory_proportion.",
        "Turn up to hold more live objects; turn down to leave memory to tasks.",
        scope="node", unit="bytes",
    )] = None
    object_store_memory_proportion: Annotated[float, Meta(gt=0, le=1), Key(
        "The share of the node's memory that an auto-sized store takes.",
        "Turn up to hold more live objects; turn down to leave memory to tasks.",
        scope="node", ray=("RAY_DEFAULT_OBJECT_STORE_MEMORY_PROPORTION",),
    )] = 0.3
    object_store_max_memory_bytes: Annotated[_StoreBytes, Key(
        "The most that an auto-sized store takes, however big the machine.",
        "Turn up on a big machine to use more for objects; turn down to use less.",
        scope="node", unit="bytes", ray=("RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES",),
    )] = 200 * 10**9
    # New pages take 0.9-1.3 GB/s to fill, warm ones 5.2. 1 GiB keeps the 800 MB array that Ray's
    # benchmark puts over and over on warm pages.
    object_store_warm_bytes: Annotated[int, Meta(ge=0, le=_BYTES_MAX), Key(
        "How much freed store memory stays with the store, ready to be used again.",
        "Turn up for faster puts of big objects; turn down for a smaller idle node.",
        scope="node", unit="bytes",
    )] = GIB
    max_direct_call_object_size: Annotated[int, Meta(ge=0, le=64 * MIB), Key(
        "The largest value that lives in its owner and travels inside messages.",
        "Turn up to save store round trips; turn down where owners hold too much.",
        scope="cluster", unit="bytes", ray=("RAY_max_direct_call_object_size",),
    )] = 100 * KIB


class Transfer(_Section, frozen=True):
    """Copies of objects that come from other nodes."""

    # 380-410 MB/s over CURVE with 0.5 and 1 MiB on 2 cores; more costs memory, less costs messages.
    object_manager_default_chunk_size: Annotated[int, Meta(ge=4 * KIB, le=64 * MIB), Key(
        "The pieces that objects are sent in.",
        "Turn up for fewer messages; turn down where links are slow and shared.",
        scope="cluster", unit="bytes", ray=("RAY_object_manager_default_chunk_size",),
    )] = 512 * KIB
    pull_window_bytes: Annotated[int, Meta(ge=4 * KIB, le=_BYTES_MAX), Key(
        "What one node may be asked for at a time and has not sent yet.",
        "Turn up on fast links with long ways; turn down to save daemons' memory.",
        scope="cluster", unit="bytes",
    )] = 4 * MIB
    pull_memory_share: Annotated[float, Meta(gt=0, le=1), Key(
        "The share of a store that objects on their way take; one object may always come.",
        "Turn up for more objects at a time; turn down to keep more of what is here.",
        scope="node",
    )] = 0.5


class Spilling(_Section, frozen=True):
    """Where objects go when the store fills up, and when."""

    object_spilling_directory: Annotated[str, Key(
        "Where objects are spilled: a directory, several (a,b or a JSON list), or a URL for fsspec "
        "(extra mray[spill]); empty for the session's directory. The next start that names the "
        "same place removes what a killed node left, at a URL only on the same machine.",
        "Point it at a big, fast local disk; several directories share the load.",
        scope="node", ray=("RAY_object_spilling_directory",),
    )] = ""
    object_spilling_config: Annotated[str, Key(
        "The same in Ray's JSON form, {\"type\": \"filesystem\", \"params\": {\"directory_path\": "
        "...}} or smart_open with its uri; comes before object_spilling_directory.",
        "Leave it empty unless a cluster of Ray is configured that way.",
        scope="node", ray=("RAY_object_spilling_config",),
    )] = ""
    automatic_object_spilling_enabled: Annotated[bool, Key(
        "Whether objects go to disk when the store fills up.",
        "Turn off where disks must not be written: a full store is an error at once then.",
        scope="node", ray=("RAY_automatic_object_spilling_enabled",),
    )] = True
    object_spilling_threshold: Annotated[float, Meta(ge=0, le=1), Key(
        "The share of the store above which objects are spilled ahead of need.",
        "Turn up to keep more in memory; turn down so that room is there when it is needed.",
        scope="node", ray=("RAY_object_spilling_threshold",),
    )] = 0.8
    min_spilling_size: Annotated[int, Meta(ge=0, le=_BYTES_MAX), Key(
        "What is spilled in one go where there is as much; an eighth of the store at most.",
        "Turn up for bigger files of small objects; turn down to spill less than may be needed.",
        scope="node", unit="bytes", ray=("RAY_min_spilling_size",),
    )] = 100 * MIB
    max_spilling_file_size_bytes: Annotated[int, Meta(ge=-1, le=_BYTES_MAX), Key(
        "The largest file that small objects share; one bigger object has a file of its own; -1 "
        "for no bound.",
        "Turn up for fewer files; turn down where holes cannot be punched into files.",
        scope="node", unit="bytes", ray=("RAY_max_spilling_file_size_bytes",),
    )] = 256 * MIB
    max_fused_object_count: Annotated[int, Meta(ge=1, le=1_000_000), Key(
        "The most objects in one file.",
        "Turn up for fewer files; turn down where holes cannot be punched into files.",
        scope="node", unit="objects", ray=("RAY_max_fused_object_count",),
    )] = 2000
    max_io_workers: Annotated[int, Meta(ge=1, le=256), Key(
        "Threads that read and write spilled objects; one of them only reads.",
        "Turn up for disks that serve many requests at once; turn down to spare the processor.",
        scope="node", unit="threads", ray=("RAY_max_io_workers",),
    )] = 4
    local_fs_capacity_threshold: Annotated[float, Meta(ge=0, le=1), Key(
        "The share of a local disk above which nothing more is spilled to it.",
        "Turn up to use more of the disk; turn down to leave more of it to others.",
        scope="node", ray=("RAY_local_fs_capacity_threshold",),
    )] = 0.95
    spill_max_bytes: Annotated[int, Meta(ge=0, le=_BYTES_MAX), Key(
        "What spilled objects may take on disk together; 0 for no limit but the disk's.",
        "Turn up to hold more than memory can; turn down where disks are shared. Beyond it a put "
        "fails with OutOfDiskError.",
        scope="node", unit="bytes",
    )] = 0
    oom_grace_period_s: Annotated[float, Meta(ge=0, le=86_400), Key(
        "How long a full store may make no room until what waits for it is refused, or made on "
        "disk.",
        "Turn up to wait longer for references to go; turn down to fail sooner.",
        scope="node", unit="s", ray=("RAY_oom_grace_period_s",),
    )] = 2.0
