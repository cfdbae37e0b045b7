"""The texts of a refused create. Owns words only: the facts come from the store machine."""

from __future__ import annotations

from mray.node.objects.effects import Full, Holder, OutOfDisk, OwnerGone
from mray.units import format_bytes, format_count, format_duration

_ADVICE = "Drop references that are no longer needed, or start with more object_store_memory"


def refusal(why: Full | OutOfDisk | OwnerGone, path: str) -> tuple[str, str]:
    """Name of the exception and text for a refused create; ``path`` is the arena's."""
    if isinstance(why, OwnerGone):
        return "OwnerDiedError", (
            f"object {why.object_id.hex()} is not stored: its owner, process "
            f"{why.owner_id.hex()[:8]}, has ended, so nobody would ever free it"
        )
    if isinstance(why, OutOfDisk):
        return "OutOfDiskError", _out_of_disk(why, path)
    return "ObjectStoreFullError", _full(why, path)


def _out_of_disk(why: OutOfDisk, path: str) -> str:
    wanted = f"object {why.object_id.hex()} ({format_bytes(why.requested_bytes)})"
    lines = "\n".join(f"  {line}" for line in why.disks)
    if why.spilled:
        # Its file cannot be mapped in its place: readers map the arena and the overflow file only.
        wanted += ", which is on disk and takes room in memory, or as much again on disk, to be "
        wanted += "read"
    return (
        f"there is no room for {wanted}: {format_bytes(why.used_bytes)} of "
        f"{format_bytes(why.capacity_bytes)} of the object store of this node ({path}) are in use, "
        f"{format_bytes(why.spilled_bytes)} are on disk, and after "
        f"{format_duration(why.waited_s)} no disk takes more:\n{lines}\n"
        "Make room there, set another object_spilling_directory, or drop references"
    )


def _full(why: Full, path: str) -> str:
    wanted = f"object {why.object_id.hex()} ({format_bytes(why.requested_bytes)})"
    capacity = format_bytes(why.capacity_bytes)
    if why.spilled:
        wanted += ", which is on disk and was to be read"
    if why.requested_bytes > why.capacity_bytes:
        return (
            f"{wanted} is larger than the whole object store of this node ({capacity}, {path}): "
            "store it in parts, or start with more object_store_memory"
        )
    text = (
        f"the object store of this node ({path}) has no room for {wanted}: "
        f"{format_bytes(why.used_bytes)} of {capacity} are in use by "
        f"{format_count(why.object_count, 'object')}"
    )
    if why.waited_s:
        text += f", and none of it came free in {format_duration(why.waited_s)}"
    if why.holders:
        text += ". The biggest:\n" + "\n".join(f"  {_line(holder)}" for holder in why.holders)
    if why.troubles:
        text += "\nDisks that should make room:\n"
        text += "\n".join(f"  {line}" for line in why.troubles)
    return f"{text}\n{_ADVICE}"


def _line(holder: Holder) -> str:
    if holder.pin_count:
        reason = f"read through {format_count(holder.pin_count, 'pin')}"
        reason += " after its owner freed it" if holder.state == "leaving" else ""
    elif holder.state in ("created", "unwanted"):
        reason = "still being written"
    elif holder.state in ("spilling", "restoring"):
        reason = "on its way to disk" if holder.state == "spilling" else "on its way from disk"
    elif holder.by_place:
        reason = "read in place by its owner"
    else:
        reason = "referenced by its owner"
    return (
        f"{holder.object_id.hex()} {format_bytes(holder.size_bytes)}, {reason} "
        f"(owner {holder.owner_id.hex()[:8]})"
    )
