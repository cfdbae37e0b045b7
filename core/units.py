"""Sizes, durations and counts, between what people write and the numbers the program uses.

Covers: parsing "2GiB" and "250ms", and printing sizes, durations and counts for people. Does not
know which unit a configuration key has: mray.config tells it. Arithmetic is exact (Decimal), so
"0.29s" is 290 ms and never 289.99.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Final, Literal

DurationUnit = Literal["ns", "us", "ms", "s", "min", "h", "d"]

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30
TIB: Final = 1 << 40

#: A lone letter is a binary unit, as in `ulimit`, Java and `docker --memory`.
_BYTE_UNITS: Final[dict[str, int]] = {
    "": 1, "b": 1,
    "k": KIB, "ki": KIB, "kib": KIB, "kb": 10**3,
    "m": MIB, "mi": MIB, "mib": MIB, "mb": 10**6,
    "g": GIB, "gi": GIB, "gib": GIB, "gb": 10**9,
    "t": TIB, "ti": TIB, "tib": TIB, "tb": 10**12,
}  # fmt: skip
#: Units to print a size in without loss.
_EXACT_UNITS: Final = (
    ("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB),
    ("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3),
)  # fmt: skip
_BYTES_MAX: Final = 2**63 - 1

_NANOSECONDS: Final[dict[str, int]] = {
    "ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "sec": 10**9,
    "m": 60 * 10**9, "min": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9,
}  # fmt: skip

#: Large unit, small unit, seconds in the small one, small ones in the large one, and how many
#: small ones are too many for this pair.
_LONG_UNITS: Final = (
    ("min", "s", 1, 60, 3600), ("h", "min", 60, 60, 1440), ("d", "h", 3600, 24, math.inf),
)  # fmt: skip

#: ASCII digits only: int() and Decimal() would also take other scripts, "1_000" and "NaN".
_NUMBER_AND_UNIT: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Zµ]*)")


def parse_bytes(text: str) -> int:
    """The bytes in ``text``: "2GiB", "1.5 GiB", "100kB", "1024". Upper and lower case are alike.

    KiB, Ki and K are 1024 bytes, KB is 1000 bytes, and so on up to T.
    Raises ValueError where it is no size, is negative, no whole number of bytes, or above 2**63-1.
    """
    number, unit = _split(text, 'a size such as "512MiB", "2GiB" or 1048576')
    if unit.lower() not in _BYTE_UNITS:
        raise ValueError(f"{text!r} has the unknown unit {unit!r}: use B, KiB, MiB, GiB or TiB")
    count = number * _BYTE_UNITS[unit.lower()]
    if count > _BYTES_MAX:
        raise ValueError(f"{text!r} is more than {_BYTES_MAX} bytes")
    if count != int(count):
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return int(count)


def format_bytes(count: int, *, exact: bool = False) -> str:
    """``count`` bytes for people: "1.5 GiB", "100 KiB", "17 B"; one decimal at most.

    With ``exact`` nothing is rounded and there is no space ("64MiB", "200GB", "1000001"), so that
    parse_bytes gives ``count`` back; the unit is the one that needs the smallest number.
    """
    if exact:
        fitting = [(count // size, unit) for unit, size in _EXACT_UNITS if not count % size]
        return "{}{}".format(*min(fitting)) if count > 0 and fitting else str(count)
    value, unit = float(abs(count)), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if round(value, 1) < KIB:
            break
        value, unit = value / KIB, larger
    return f"{'-' if count < 0 else ''}{_one_decimal(value)} {unit}"


def parse_duration(text: str, unit: DurationUnit = "s") -> float:
    """The duration in ``text``, counted in ``unit``: "250ms", "10s", "1.5 h", "7d".

    A bare number is already in ``unit``. Raises ValueError where it is no duration or negative.
    """
    number, written = _split(text, 'a duration such as "250ms", "10s" or "5min"')
    written = written.lower() or unit
    if written not in _NANOSECONDS:
        raise ValueError(f"{text!r} has the unknown unit {written!r}: use us, ms, s, min, h or d")
    return float(number * _NANOSECONDS[written] / _NANOSECONDS[unit])


def format_duration(seconds: float) -> str:
    """``seconds`` for people: "250 ms", "1.5 s", "2 min 3 s", "1 h 5 min", "7 d"."""
    if not math.isfinite(seconds):
        return f"{seconds} s"
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    if seconds == 0:
        return "0 s"
    for unit, size in (("us", 1e-6), ("ms", 1e-3), ("s", 1.0)):
        value = seconds / size
        if round(value, 1) < (60 if unit == "s" else 1000):
            return f"{sign}{_one_decimal(value)} {unit}"
    # From a minute on: the two largest units, rounded before they are split, so never "60 s".
    large, small, size, ratio, _ = next(
        row for row in _LONG_UNITS if round(seconds / row[2]) < row[4]
    )
    whole, rest = divmod(round(seconds / size), ratio)
    return f"{sign}{whole} {large}" + (f" {rest} {small}" if rest else "")


def format_count(count: int, noun: str = "", plural: str = "") -> str:
    """``count`` with thousands apart, and its noun: "2,272,420", "1 task", "3 tasks".

    ``plural`` defaults to ``noun`` + "s".
    """
    if not noun:
        return f"{count:,}"
    return f"{count:,} {noun if abs(count) == 1 else plural or noun + 's'}"


def _split(text: str, expected: str) -> tuple[Decimal, str]:
    """The number and the unit in ``text``; ValueError says what was expected instead."""
    found = _NUMBER_AND_UNIT.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not {expected}")
    return Decimal(found[1]), found[2]


def _one_decimal(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
