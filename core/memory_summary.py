"""A memory report as the text of memory_summary(): one line a reference, by node or by call site.

Covers the words that programs written for Ray look for in that text: kinds of reference, whole
object ids, statuses, "Driver" and "Worker", the totals of the stores. `mray memory` has another
text (memory_text.py), made to be read.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Final

from mray.memory_report import Memory, MemoryObject, Reference
from mray.memory_text import UNITS
from mray.ownership import kinds as k
from mray.units import MIB

GROUPS: Final = ("NODE_ADDRESS", "STACK_TRACE")
SORTS: Final = ("OBJECT_SIZE", "PID", "REFERENCE_TYPE")
#: A call site longer than this goes on in the next line where lines are wrapped.
_SITE_WIDTH: Final = 44
_HEADER: Final = (
    "IP Address", "PID", "Type", "Call Site", "Status", "Size", "Reference Type", "Object Ref"
)  # fmt: skip
_SUMS: Final = (
    ("Mem Used by Objects", ""),
    ("Local References", k.LOCAL_REFERENCE),
    ("Pinned", k.PINNED_IN_MEMORY),
    ("Used by task", k.USED_BY_PENDING_TASK),
    ("Captured in Objects", k.CAPTURED_IN_OBJECT),
    ("Actor Handles", k.ACTOR_HANDLE),
    ("Out of band", k.OUT_OF_BAND),
    ("Closures", k.CLOSURE),
    ("Lineage", k.LINEAGE),
)

Row = tuple[MemoryObject, Reference]


def summary(
    memory: Memory,
    *,
    made_at: str,
    group_by: str = "NODE_ADDRESS",
    sort_by: str = "OBJECT_SIZE",
    units: str = "B",
    line_wrap: bool = True,
    stats_only: bool = False,
    num_entries: int | None = None,
) -> str:
    """The text. ``made_at``: the time it is headed with. ``units``: B, KB, MB or GB (1 KB is 1024
    bytes). ``num_entries``: so many references of each group at most.

    Raises ValueError for a ``group_by``, ``sort_by`` or ``units`` that there is not.
    """
    for name, value, known in (
        ("group_by", group_by, GROUPS), ("sort_by", sort_by, SORTS), ("units", units, tuple(UNITS)),
    ):  # fmt: skip
        if value not in known:
            raise ValueError(f"{name}={value!r} is none of {', '.join(known)}")
    lines: list[str] = []
    if not stats_only:
        lines += [
            f"======== Object references at {made_at} ========",
            f"grouped by {group_by}, sorted by {sort_by}, sizes in {units}",
        ]
        for title, rows in _groups(memory, group_by):
            lines += ["", f"--- {title} ---", *_sums(rows, units), ""]
            rows = sorted(rows, key=_SORT_KEYS[sort_by])
            lines += _table(rows[:num_entries], units, line_wrap)
            if num_entries is not None and len(rows) > num_entries:
                lines.append(f"and {len(rows) - num_entries} more")
        lines.append("")
    return "\n".join([*lines, *_stores(memory), *_unseen(memory)]) + "\n"


def _groups(memory: Memory, group_by: str) -> list[tuple[str, list[Row]]]:
    groups: dict[str, list[Row]] = {}
    for found in memory.objects:
        for reference in found.references:
            if group_by == "NODE_ADDRESS":
                key = f"node address: {reference.process.ip}"
            else:
                key = f"call site: {_site(found, reference)}"
            groups.setdefault(key, []).append((found, reference))
    return list(groups.items())


_SORT_KEYS: Final[dict[str, Callable[[Row], tuple[object, ...]]]] = {
    "OBJECT_SIZE": lambda row: (-(row[0].size_bytes or 0), row[0].object_id),
    "PID": lambda row: (row[1].process.pid, row[0].object_id),
    "REFERENCE_TYPE": lambda row: (row[1].kind, row[0].object_id),
}


def _sums(rows: Sequence[Row], units: str) -> list[str]:
    distinct = {found.object_id: found.size_bytes or 0 for found, _ in rows}
    cells = [_size(sum(distinct.values()), units)]
    cells += [str(sum(reference.kind == kind for _, reference in rows)) for _, kind in _SUMS[1:]]
    names = [name for name, _ in _SUMS]
    widths = [max(len(name), len(cell)) for name, cell in zip(names, cells, strict=True)]
    return [
        "  ".join(text.ljust(size) for text, size in zip(line, widths, strict=True)).rstrip()
        for line in (names, cells)
    ]


def _table(rows: Sequence[Row], units: str, line_wrap: bool) -> list[str]:
    cells = [
        (
            reference.process.ip,
            str(reference.process.pid),
            reference.process.type,
            _site(found, reference),
            _status(found, reference),
            _size(found.size_bytes, units),
            reference.kind,
            found.object_id,
        )
        for found, reference in rows
    ]
    site_width = max([len(row[3]) for row in cells], default=0)
    if line_wrap:
        site_width = min(site_width, _SITE_WIDTH)
    widths = [max(len(row[i]) for row in [_HEADER, *cells]) for i in range(len(_HEADER))]
    widths[3] = max(len(_HEADER[3]), site_width)
    lines = []
    for row in [_HEADER, *cells]:
        fits = len(row[3]) <= widths[3]
        site, *more = [row[3]] if fits else textwrap.wrap(row[3], widths[3])
        parts = (*row[:3], site, *row[4:])
        lines.append("  ".join(c.ljust(w) for c, w in zip(parts, widths, strict=True)).rstrip())
        indent = " " * (sum(widths[:3]) + 6)
        lines += [indent + rest for rest in more]
    return lines


def _site(found: MemoryObject, reference: Reference) -> str:
    """How the process came by the reference, and where."""
    if not reference.is_owner:
        return "(deserialized)"
    if k.ACTOR_HANDLE in reference.kinds:
        how = "(actor creation)"
    elif found.name == "put":
        how = "(put object)"
    elif found.name.startswith("arguments of "):
        how = "(task arguments)"
    else:
        how = f"(task call) {found.name}"
    return f"{how} | {reference.call_site}" if reference.call_site else how


def _status(found: MemoryObject, reference: Reference) -> str:
    """Where the task that makes the object is, in Ray's words; "-" where there is none."""
    if not reference.is_owner or found.name == "put" or k.ACTOR_HANDLE in reference.kinds:
        return "-"
    if reference.state == "error":
        return "FAILED"
    if reference.state != "pending":
        return "FINISHED"
    if reference.reason.startswith("waits for"):
        return "WAITING_FOR_DEPENDENCIES"
    if reference.reason.startswith(("runs", "sent", "is queued behind")):
        return "SUBMITTED_TO_WORKER"
    return "SCHEDULED"


def _size(count: int | None, units: str) -> str:
    if count is None:
        return "?"
    if units == "B":
        return f"{count} B"
    text = f"{count / UNITS[units]:.6f}".rstrip("0").rstrip(".")
    return f"{text} {units}"


def _stores(memory: Memory) -> list[str]:
    told = [node.report.store for node in memory.nodes if node.report is not None]
    used = sum(stats.used_bytes for stats in told)
    capacity = sum(stats.capacity_bytes for stats in told)
    count = sum(stats.object_count for stats in told)
    share = round(100 * used / capacity, 2) if capacity else 0.0
    lines = [
        "--- Object stores of all nodes ---",
        f"Plasma memory usage {used // MIB} MiB, {count} objects, {share}% full",
    ]
    for word, thing, moved in (
        ("Spilled", "write", [(s.spilled_bytes_total, s.spilled_objects_total, s.spill_s)
                              for s in told]),
        ("Restored", "read", [(s.restored_bytes_total, s.restored_objects_total, s.restore_s)
                              for s in told]),
    ):  # fmt: skip
        size, objects, seconds = (sum(part) for part in zip((0, 0, 0.0), *moved, strict=True))
        if objects:
            rate = f", avg {thing} throughput {int(size / seconds) // MIB} MiB/s" if seconds else ""
            lines.append(f"{word} {int(size) // MIB} MiB, {int(objects)} objects{rate}")
    return lines


def _unseen(memory: Memory) -> list[str]:
    """What the text leaves out, and why."""
    lines = [
        f"Not shown: {process.who} on {process.ip} did not answer in time"
        for process in memory.silent
    ]
    lines += [
        f"Not shown: node {node.ip} ({node.node_id[:12]}) could not be asked: {node.error}"
        for node in memory.unreachable
    ]
    if memory.unlisted_count:
        lines.append(f"Not shown: {memory.unlisted_count} more objects, smaller than those listed")
    return lines
