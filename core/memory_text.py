"""A memory report as text for people: totals, the top objects and the top call sites.

Covers: lines that fit a width, sizes and ages in few characters, the shortest ids that still tell
the objects apart. Chooses and orders nothing (memory_selection.py) and prints nothing.
"""

from __future__ import annotations

import itertools
import os.path
import textwrap
from collections.abc import Sequence
from typing import Final

from mray.memory_report import Memory, MemoryObject
from mray.memory_selection import grouped, total_size
from mray.units import GIB, KIB, MIB, format_bytes, format_count

#: Without -n the whole text has at most so many lines.
LINES_MAX: Final = 20
_OBJECTS: Final = 8
_SITES_MIN: Final = 3
_ID_DIGITS_MIN: Final = 8
#: Returns of one task differ in their last digits only: they share a prefix in tables.
_ID_DIGITS_MAX: Final = 20
_SITE_WIDTH: Final = 30
_SITE_WIDTH_MIN: Final = 12
#: From this width on there is room for a sentence.
_WIDE: Final = 100
_GAP: Final = "  "
UNITS: Final = {"B": 1, "KB": KIB, "MB": MIB, "GB": GIB}
_UNIT_NAMES: Final = {"B": "B", "KB": "KiB", "MB": "MiB", "GB": "GiB"}


def size_text(count: int | None, units: str = "auto") -> str:
    """Bytes in a unit (1 KB is 1024 here, as in Ray), "?" where they are not known."""
    if count is None or count < 0:
        return "?"
    if units == "auto":
        return format_bytes(count)
    value = count / UNITS[units]
    return f"{count if units == 'B' else round(value, 3):,} {_UNIT_NAMES[units]}"


def age_text(seconds: float | None) -> str:
    """One number and one unit: "0.3 s", "12 s", "5 min", "3 h", "2 d"; "-" where not known."""
    if seconds is None:
        return "-"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for unit, size, limit in (("s", 1, 60), ("min", 60, 60), ("h", 3600, 24)):
        if round(seconds / size) < limit:
            return f"{round(seconds / size)} {unit}"
    return f"{round(seconds / 86400)} d"


def short_ids(objects: Sequence[MemoryObject]) -> dict[str, str]:
    """For each object the first digits of its id, one length for all: enough to tell them apart."""
    ids = sorted(found.object_id for found in objects)
    digits = _ID_DIGITS_MIN
    for one, other in itertools.pairwise(ids):
        alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
        digits = max(digits, sum(1 for _ in alike) + 1)
    digits = min(digits + digits % 2, _ID_DIGITS_MAX)
    return {object_id: object_id[:digits] for object_id in ids}


def overview(
    memory: Memory,
    objects: Sequence[MemoryObject],
    *,
    width: int,
    units: str = "auto",
    entries: int | None = None,
    heading: str = "",
    group_by: str = "",
    stats_only: bool = False,
) -> list[str]:
    """The report, at most LINES_MAX lines unless ``entries`` says how many objects to show.

    ``objects`` are those to show, in order. ``group_by`` lists groups in place of objects.
    """
    lines = _totals(memory, width, units)
    if stats_only:
        return lines
    if heading:
        lines += ["", heading]
    if not objects:
        return [*lines, "", "no objects to show"]
    if group_by:
        groups = [
            (group.key, len(group.objects), group.size_bytes)
            for group in grouped(objects, group_by)
        ]
        count = entries if entries is not None else LINES_MAX - len(lines) - 3
        return [*lines, "", *_groups(groups, max(1, count), width, units, group_by)]
    sites = [
        (group.key, len(group.objects), group.size_bytes)
        for group in grouped(objects, "callsite")
        if group.objects[0].call_site
    ]
    if memory.unlisted_count and len(objects) == len(memory.objects):
        sites = list(memory.sites)
    room = LINES_MAX - len(lines) - 3  # A blank line, a header, how many more there are.
    if sites:
        room -= 2 + min(len(sites), _SITES_MIN)
    shown = entries if entries is not None else max(1, min(_OBJECTS, room))
    lines += ["", *_objects(objects, shown, width, units)]
    left = len(sites) if entries is not None else max(0, LINES_MAX - len(lines) - 2)
    if sites and left:
        lines += ["", *_groups(sites, left, width, units, "callsite", say_more=False)]
    return lines


def details(found: MemoryObject, units: str = "auto") -> list[str]:
    """All that is known of one object."""
    owner = found.owner.who if found.owner is not None else found.owner_id[:12] or "not known"
    state = f"{found.state}: {found.reason}" if found.reason else found.state
    lines = [
        f"Object {found.object_id}",
        f"  size       {size_text(found.size_bytes, units)}",
        f"  state      {state}",
        f"  age        {age_text(found.age_s)}",
        f"  made by    {found.name or '?'}{f' at {found.call_site}' if found.call_site else ''}",
        f"  owner      {owner}",
        f"  why alive  {found.why}",
    ]
    if found.stored_on:
        nodes = ", ".join(node_id[:12] for node_id in found.stored_on)
        lines.insert(3, f"  stored on  {nodes}")
    for reference in found.references:
        process = reference.process
        counts = ", ".join(f"{kind} {count}" for kind, count in reference.kinds.items())
        title = f" ({process.title})" if process.title and not process.actor_id else ""
        lines.append(f"  held by    {process.who}{title} on {process.ip}: {counts or 'nothing'}")
    return lines


def _totals(memory: Memory, width: int, units: str) -> list[str]:
    told = [node.report.store for node in memory.nodes if node.report is not None]
    in_store = sum(stats.object_count for stats in told)
    used = sum(stats.used_bytes for stats in told)
    capacity = sum(stats.capacity_bytes for stats in told)
    on_disk = sum(stats.spilled_bytes + stats.overflow_bytes for stats in told)
    listed = len(memory.objects)
    held = f"{format_count(listed)}, {size_text(total_size(memory.objects), units)}"
    if memory.unlisted_count:
        held += f", and {format_count(memory.unlisted_count)} smaller ones that are not listed"
    percent = 100 * used / capacity if capacity else 0.0
    store = (
        f"{size_text(used, units)} of {size_text(capacity, units)} used ({percent:.0f} %), "
        f"{format_count(in_store, 'object')}; spilled {size_text(on_disk, units)}"
    )
    counts = ", ".join(f"{kind} {count}" for kind, count in memory.kinds.items())
    rows = [("Objects", held), ("Store", store), ("Held by", counts or "nothing")]
    if memory.silent:
        who = ", ".join(process.who for process in memory.silent)
        rows.append(("Silent", f"{who} did not answer in time: what they hold is not shown"))
    rows += [("Trouble", text) for stats in told for text in stats.spill_troubles]
    rows += [
        ("Missing", f"node {node.ip} ({node.node_id[:12]}) could not be asked: {node.error}")
        for node in memory.unreachable
    ]
    lines = []
    for name, text in rows:
        wrapped = textwrap.wrap(text, max(20, width - 9)) or [""]
        lines += [f"{name:<9}{wrapped[0]}", *(f"{'':<9}{more}" for more in wrapped[1:3])]
    return lines


def _objects(objects: Sequence[MemoryObject], count: int, width: int, units: str) -> list[str]:
    ids = short_ids(objects)
    shown = [
        (
            size_text(found.size_bytes, units),
            age_text(found.age_s),
            ids[found.object_id],
            found.call_site,
            f"{found.kind}: {found.why}" if width > _WIDE else _brief(found),
        )
        for found in objects[:count]
    ]
    taken = sum(max(len(row[i]) for row in shown) for i in (0, 1, 2)) + 4 * len(_GAP)
    site_width = width - taken - max(len(row[4]) for row in shown)
    site_width = max(_SITE_WIDTH_MIN, min(_SITE_WIDTH, site_width))
    rows = [(*row[:3], _short_site(row[3], site_width), row[4]) for row in shown]
    lines = _table(("SIZE", "AGE", "OBJECT", "CALL SITE", "WHY ALIVE"), rows, width, right=2)
    if len(objects) > count:
        lines.append(f"and {format_count(len(objects) - count)} more: -n N shows more, --json all")
    return lines


def _brief(found: MemoryObject) -> str:
    """Kind and holder in a few words; how many more hold it."""
    kinds = [(ref, kind) for ref in found.references for kind in ref.kinds if kind != "BORROWED"]
    if not kinds:
        return found.why
    reference, kind = next((pair for pair in kinds if pair[1] == found.kind), kinds[0])
    more = f" +{len(kinds) - 1}" if len(kinds) > 1 else ""
    return f"{kind} {reference.process.pid}{more}"


def _groups(
    groups: Sequence[tuple[str, int, int]],
    count: int,
    width: int,
    units: str,
    by: str,
    say_more: bool = True,
) -> list[str]:
    title = {"callsite": "CALL SITE"}.get(by, by.upper())
    rows = [
        (size_text(size, units), f"{objects:,}", _fit_left(key, width - 24))
        for key, objects, size in groups[:count]
    ]
    lines = _table(("SIZE", "OBJECTS", title), rows, width, right=2)
    if say_more and len(groups) > count:
        lines.append(f"and {format_count(len(groups) - count)} more: -n N shows more, --json all")
    return lines


def _table(
    header: tuple[str, ...], rows: Sequence[tuple[str, ...]], width: int, *, right: int
) -> list[str]:
    """Aligned lines; the first ``right`` columns are numbers, the last is cut to fit."""
    cells = [header, *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header) - 1)]
    lines = []
    for row in cells:
        parts = [
            cell.rjust(size) if number < right else cell.ljust(size)
            for number, (cell, size) in enumerate(zip(row[:-1], widths, strict=True))
        ]
        start = _GAP.join(parts) + _GAP
        lines.append((start + _fit_right(row[-1], max(8, width - len(start)))).rstrip())
    return lines


def _short_site(site: str, size: int) -> str:
    """ "train.py:12 in step" of a site with its whole path."""
    if not site:
        return "-"
    place, _, function = site.partition(" in ")
    text = os.path.basename(place)
    if function and len(text) + len(function) + 4 <= size:
        text += f" in {function}"
    return _fit_left(text, size)


def _fit_left(text: str, size: int) -> str:
    return text if len(text) <= size else ".." + text[len(text) - size + 2 :]


def _fit_right(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 2] + ".."
