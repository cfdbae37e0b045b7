"""Prints what commands found: tables for people, JSON for programs.

Tables are plain aligned text where standard output is no terminal, never cut and never coloured,
and rich tables that fit the width of a terminal where it is one. rich is imported only for those.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from mray.resources import UNIT
from mray.units import format_bytes, format_duration

#: Hex digits of an id in a table; JSON has all of them.
ID_DIGITS: Final = 12
_GAP: Final = "  "
#: Resources that count bytes.
BYTE_RESOURCES: Final = ("memory", "object_store_memory")


def print_json(value: Any) -> None:
    """``value`` as indented JSON. Any: whatever msgspec can encode."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_yaml(value: Any) -> None:
    """``value`` as YAML, in block style; scalars as in JSON, which is YAML too. Any: JSON."""
    print("\n".join(_yaml_lines(value)) or "[]")


def _yaml_lines(value: Any) -> list[str]:
    lines: list[str] = []
    if isinstance(value, list):
        for item in value:
            first, *rest = _yaml_lines(item)
            lines += [f"- {first}", *(f"  {line}" for line in rest)]
        return lines or ["[]"]
    if isinstance(value, dict):
        for key, item in value.items():
            inner = _yaml_lines(item)
            if isinstance(item, (list, dict)) and item:
                lines += [f"{key}:", *(f"  {line}" for line in inner)]
            else:
                lines.append(f"{key}: {inner[0]}")
        return lines or ["{}"]
    return [msgspec.json.encode(value).decode()]


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()
) -> None:
    """A table with a header. ``right`` names the columns of numbers. The last column is cut, with
    a mark, where a terminal is too narrow for all."""
    if sys.stdout.isatty():
        _print_rich(columns, rows, right)
    else:
        print("\n".join(plain_table(columns, rows, right=right)))


def plain_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()
) -> list[str]:
    """The lines of a table, without blanks at their ends."""
    cells = [[name.upper() for name in columns], *([_one_line(c) for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    aligned = (
        (
            cell.rjust(width) if name in right else cell.ljust(width)
            for cell, width, name in zip(row, widths, columns, strict=True)
        )
        for row in cells
    )
    return [_GAP.join(row).rstrip() for row in aligned]


def _print_rich(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, len(_GAP), 0, 0), header_style="bold")
    for number, name in enumerate(columns, start=1):
        widest = max([len(name), *(len(row[number - 1]) for row in rows)])
        table.add_column(
            name.upper(),
            justify="right" if name in right else "left",
            no_wrap=True,
            overflow="ellipsis",
            # Only the last column may shrink: ids and numbers are of no use when cut.
            min_width=None if number == len(columns) else widest,
        )
    for row in rows:
        table.add_row(*(Text(_one_line(cell)) for cell in row))
    Console(width=shutil.get_terminal_size().columns, highlight=False).print(table)


def _one_line(text: str) -> str:
    """``text`` with everything that would move the cursor shown instead."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def short(id: bytes) -> str:
    """An id in a table; "-" for none."""
    return id.hex()[:ID_DIGITS] or "-"


def amount(name: str, fixed: int) -> str:
    """An amount of a resource as people read it: "4", "0.5", "1.2 GiB"."""
    if name in BYTE_RESOURCES:
        return format_bytes(fixed // UNIT)
    return f"{fixed / UNIT:g}"


def amounts(resources: dict[str, int]) -> str:
    """All amounts in one line: "4 CPU, 1.2 GiB memory"; "-" for none."""
    return ", ".join(f"{amount(n, f)} {n}" for n, f in sorted(resources.items()) if f) or "-"


def moment(unix_s: float) -> str:
    """A moment in local time; "-" for none."""
    if not unix_s:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_s))


def span(start_unix_s: float, end_unix_s: float) -> str:
    """How long something took, or takes since; "-" where it has not begun."""
    if not start_unix_s:
        return "-"
    return format_duration(max(0.0, (end_unix_s or time.time()) - start_unix_s))


def note(text: str) -> None:
    """A line beside the output: on standard error, so that pipes and JSON stay clean."""
    print(f"mray: {text}", file=sys.stderr, flush=True)
