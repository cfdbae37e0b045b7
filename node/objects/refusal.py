"""The texts of a refused create. Owns words only: the facts come from the store machine."""

from __future__ import annotations

from mray.node.objects.effects import Full, Holder, OwnerGone
from mray.units import format_bytes, format_count, format_duration

_ADVICE = "Drop references that are no longer needed, or start with more object_store_memory"


def refusal(why: Full | OwnerGone, path: str) -> tuple[str, str]:
    """Name of the exception and text for a refused create; ``path`` is the arena's."""
    if isinstance(why, OwnerGone):
        return "OwnerDiedError", (
            f"object {why.object_id.hex()} is not stored: its owner, process "
            f"{why.owner_id.hex()[:8]}, has ended, so nobody would ever free it"
        )
    return "ObjectStoreFullError", _full(why, path)


def _full(why: Full, path: str) -> str:
    wanted = f"object {why.object_id.hex()} ({format_bytes(why.requested_bytes)})"
    capacity = format_bytes(why.capacity_bytes)
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
    return f"{text}\n{_ADVICE}"


def _line(holder: Holder) -> str:
    if holder.pin_count:
        reason = f"read through {format_count(holder.pin_count, 'pin')}"
        reason += " after its owner freed it" if holder.state == "leaving" else ""
    elif holder.state in ("created", "unwanted"):
        reason = "still being written"
    else:
        reason = "referenced by its owner"
    return (
        f"{holder.object_id.hex()} {format_bytes(holder.size_bytes)}, {reason} "
        f"(owner {holder.owner_id.hex()[:8]})"
    )
