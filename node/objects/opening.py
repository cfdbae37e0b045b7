"""Making a node's store from its settings: arena, disks, pool and server."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable

from mray.config.sections import Config
from mray.node.objects.arena import Arena
from mray.node.objects.directory import ArenaError
from mray.node.objects.disks import LocalDisk
from mray.node.objects.mounts import IN_MEMORY, file_system_of
from mray.node.objects.overflow import Overflow
from mray.node.objects.places import spill_places
from mray.node.objects.remote import RemoteDisk
from mray.node.objects.server import Send, StoreServer
from mray.node.objects.spill_pool import SpillPool, StoreMemory
from mray.node.objects.spilling import SpillRules

log = logging.getLogger(__name__)

#: No bound on the size of a file.
_UNBOUNDED = 2**63 - 1


def open_server(
    arena: Arena,
    config: Config,
    *,
    session: str,
    session_dir: str,
    node: str,
    send: Send,
    call_soon: Callable[[Callable[[], None]], None],
) -> tuple[StoreServer, str]:
    """The server of ``arena``'s store, and the path of its overflow file ("" without one).

    Without a local directory there is no overflow file. Raises ValueError for settings that cannot
    be read, ArenaError for a directory that cannot be used.
    """
    settings = config.spilling
    places = spill_places(config, f"{session_dir}/spill")
    _refuse_arenas(places, os.path.dirname(os.path.dirname(arena.path)))
    disks = open_disks(places, session, node, settings.local_fs_capacity_threshold)
    local = next((disk for disk in disks if isinstance(disk, LocalDisk)), None)
    overflow = None
    try:
        if local is not None:
            overflow = Overflow(local, arena.capacity_bytes)
    except ArenaError as error:
        log.warning("objects that do not fit into memory will be refused: %s", error)
    overflow_path = overflow.path if overflow is not None else ""
    pool = None
    if disks:
        memory = StoreMemory(arena.path, arena.virtual_bytes, overflow_path)
        pool = SpillPool(disks, memory, settings.max_io_workers, call_soon)
    file_bytes_max = settings.max_spilling_file_size_bytes
    rules = SpillRules(
        disks=tuple(disk.path for disk in disks),
        threshold=settings.object_spilling_threshold,
        batch_bytes=settings.min_spilling_size,
        file_bytes_max=_UNBOUNDED if file_bytes_max < 0 else file_bytes_max,
        fused_max=settings.max_fused_object_count,
        bytes_max=settings.spill_max_bytes or None,
        workers=settings.max_io_workers,
    )
    server = StoreServer(
        arena,
        send,
        warm_bytes=min(config.object_store.object_store_warm_bytes, arena.capacity_bytes),
        full_grace_s=settings.oom_grace_period_s,
        spill=rules,
        pool=pool,
        overflow=overflow,
    )
    return server, overflow_path


def _refuse_arenas(places: Iterable[str], base: str) -> None:
    """ArenaError where objects were to be spilled to where the stores themselves are."""
    for place in places:
        if "://" not in place and os.path.realpath(place) == os.path.realpath(base):
            raise ArenaError(
                f"objects cannot be spilled to {place}: the object store itself lies there, in "
                "memory, so that would make no room. Set object_spilling_directory to a directory "
                "on a disk, or leave it out for the session's"
            )


def _warn_of_memory(base: str) -> None:
    kind = file_system_of(base)
    if kind in IN_MEMORY:
        log.warning(
            "objects are spilled to %s, which is a %s: its files are memory too, so spilling "
            "makes room in the object store and frees no memory; set object_spilling_directory to "
            "a directory on a disk", base, kind,
        )  # fmt: skip


def open_disks(
    places: Iterable[str], session: str, node: str, threshold: float
) -> list[LocalDisk | RemoteDisk]:
    """Open directories and URLs (file:// is a directory). ArenaError where one cannot be."""
    disks: list[LocalDisk | RemoteDisk] = []
    try:
        for place in places:
            local = place.removeprefix("file://")
            if "://" in local:
                disks.append(RemoteDisk(place, session, node))
            else:
                disks.append(LocalDisk(local, session, node, threshold))
                _warn_of_memory(local)
    except BaseException:
        for disk in disks:
            disk.close()
        raise
    return disks
