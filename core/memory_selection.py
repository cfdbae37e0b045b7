"""Choosing and ordering objects of a memory report: sort, filter, leaks, groups.

Pure functions over memory_report.MemoryObject. The words a user may type are here; how they are
typed is the command line's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from mray.memory_report import MemoryObject
from mray.ownership import kinds as k

SORTS: Final = ("size", "age", "count", "pid", "kind")
GROUPS: Final = ("callsite", "owner", "node", "kind")
FILTERS: Final = (
    "object_id", "owner_id", "owner_pid", "pid", "type", "node_id", "kind", "state", "name",
    "title", "call_site", "job_id",
)  # fmt: skip
#: In these the first characters, or any part, are enough.
_BY_PREFIX: Final = ("object_id", "owner_id", "node_id", "job_id")
_BY_PART: Final = ("call_site", "name", "title")


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Objects that have something in common."""

    key: str
    objects: tuple[MemoryObject, ...]

    @property
    def size_bytes(self) -> int:
        """The sum of the sizes that are known."""
        return total_size(self.objects)


def total_size(objects: Iterable[MemoryObject]) -> int:
    """The sum of the sizes that are known."""
    return sum(found.size_bytes or 0 for found in objects)


def ordered(objects: Iterable[MemoryObject], by: str) -> list[MemoryObject]:
    """Sorted: the biggest, oldest or most held first; pids and kinds ascending. Ids break ties.

    Raises ValueError for anything not in SORTS.
    """
    keys: dict[str, Callable[[MemoryObject], Any]] = {
        "size": lambda found: -(found.size_bytes if found.size_bytes is not None else -1),
        "age": lambda found: -(found.age_s or 0.0),
        "count": lambda found: -found.count,
        "pid": lambda found: found.owner.pid if found.owner is not None else 0,
        "kind": lambda found: found.kind,
    }
    if by not in keys:
        raise ValueError(f"cannot sort by {by!r}: one of {', '.join(SORTS)}")
    return sorted(objects, key=lambda found: (keys[by](found), found.object_id))


def chosen(
    objects: Iterable[MemoryObject], wanted: Sequence[tuple[str, str, str]]
) -> list[MemoryObject]:
    """The objects that pass all filters: (key, "=" or "!=", value).

    A key that processes have (pid, kind, ...) is passed when any holder passes. Case does not
    matter; ids pass by prefix, names and call sites by a part. Raises ValueError for unknown keys.
    """
    for key, _, _ in wanted:
        if key not in FILTERS:
            raise ValueError(f"cannot filter by {key!r}: one of {', '.join(FILTERS)}")
    return [
        found
        for found in objects
        if all(_passes(found, key, value.lower()) == (sign == "=") for key, sign, value in wanted)
    ]


def _passes(found: MemoryObject, key: str, value: str) -> bool:
    processes = [reference.process for reference in found.references]
    values: dict[str, Callable[[], Iterable[object]]] = {
        "object_id": lambda: [found.object_id],
        "owner_id": lambda: [found.owner_id],
        "owner_pid": lambda: [found.owner.pid] if found.owner is not None else [],
        "pid": lambda: [process.pid for process in processes],
        "type": lambda: [process.type for process in processes],
        "node_id": lambda: [*found.stored_on, *(process.node_id for process in processes)],
        "kind": lambda: found.kinds,
        "state": lambda: [found.state],
        "name": lambda: [found.name],
        "title": lambda: [process.title for process in processes],
        "call_site": lambda: [found.call_site],
        "job_id": lambda: [found.object_id[40:48]],
    }
    texts = [str(there).lower() for there in values[key]()]
    if key in _BY_PREFIX:
        return any(text.startswith(value) for text in texts)
    if key in _BY_PART:
        return any(value in text if value else not text for text in texts)
    return value in texts


def leaks(objects: Iterable[MemoryObject], older_than_s: float | None = None) -> list[MemoryObject]:
    """Objects that no live Python reference keeps anywhere; with an age also those older than that
    which nobody reads in place and no pending task needs."""
    return [
        found
        for found in objects
        if found.is_leak
        or (
            older_than_s is not None
            and found.state != "pending"
            and (found.age_s or 0.0) >= older_than_s
            and not {k.PINNED_IN_MEMORY, k.USED_BY_PENDING_TASK, k.ACTOR_HANDLE} & set(found.kinds)
        )
    ]


def grouped(objects: Iterable[MemoryObject], by: str) -> list[Group]:
    """The objects by call site, owner, node or kind; most bytes first.

    Raises ValueError for anything not in GROUPS.
    """
    keys: dict[str, Callable[[MemoryObject], str]] = {
        "callsite": lambda found: found.call_site or "(not recorded)",
        "owner": lambda found: found.owner.who if found.owner is not None else "(not listed)",
        "node": lambda found: found.owner.node_id if found.owner is not None else "(not listed)",
        "kind": lambda found: found.kind,
    }
    if by not in keys:
        raise ValueError(f"cannot group by {by!r}: one of {', '.join(GROUPS)}")
    members: dict[str, list[MemoryObject]] = {}
    for found in objects:
        members.setdefault(keys[by](found), []).append(found)
    groups = [Group(key=key, objects=tuple(found)) for key, found in members.items()]
    return sorted(groups, key=lambda group: (-group.size_bytes, -len(group.objects), group.key))
