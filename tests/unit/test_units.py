"""mray.units: what people write, and back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mray.units import (
    GIB,
    KIB,
    MIB,
    TIB,
    DurationUnit,
    format_bytes,
    format_count,
    format_duration,
    parse_bytes,
    parse_duration,
)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("1024", 1024),
        ("1024B", 1024),
        ("1b", 1),
        ("100 KiB", 100 * KIB),
        ("100Ki", 100 * KIB),
        ("100k", 100 * KIB),
        ("100kB", 100_000),
        ("2GiB", 2 * GIB),
        ("2gib", 2 * GIB),
        ("2G", 2 * GIB),
        ("2GB", 2 * 10**9),
        ("1.5 GiB", 3 * GIB // 2),
        ("0.1MB", 100_000),
        ("3TiB", 3 * TIB),
        ("  64MiB  ", 64 * MIB),
        (str(2**63 - 1), 2**63 - 1),
    ],
)
def test_sizes_are_read_with_binary_and_decimal_units(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not a size such as"),
        ("GiB", "is not a size such as"),
        ("-1", "is not a size such as"),
        ("1e3", "is not a size such as"),
        ("1_000", "is not a size such as"),
        ("٣GiB", "is not a size such as"),
        ("inf", "is not a size such as"),
        ("2 GiB # two", "is not a size such as"),
        ("2XB", "unknown unit 'XB'"),
        ("1.5B", "whole number of bytes"),
        ("0.3KiB", "whole number of bytes"),
        ("8388608TiB", "more than 9223372036854775807 bytes"),
        ("9" * 5000, "more than"),
    ],
)
def test_what_is_no_size_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (100 * KIB, "100 KiB"),
        (1536 * MIB, "1.5 GiB"),
        (MIB - 1, "1 MiB"),
        (GIB - 1, "1 GiB"),
        (2**63 - 1, "8388608 TiB"),
        (-3 * MIB, "-3 MiB"),
    ],
)
def test_sizes_are_printed_with_one_decimal_in_the_largest_unit(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (-1, "-1"),
        (1000, "1kB"),
        (1024, "1KiB"),
        (64 * MIB, "64MiB"),
        (200 * 10**9, "200GB"),
        (1_000_001, "1000001"),
    ],
)
def test_exact_sizes_use_the_unit_with_the_smallest_number(count: int, text: str) -> None:
    assert format_bytes(count, exact=True) == text


@given(st.integers(0, 2**63 - 1))
def test_exact_sizes_are_read_back_unchanged(count: int) -> None:
    assert parse_bytes(format_bytes(count, exact=True)) == count


@given(st.integers(0, 2**53))
def test_rounded_sizes_are_read_back_to_within_their_last_digit(count: int) -> None:
    text = format_bytes(count)
    number, unit = text.split()
    # Half of the last digit shown, plus what one float division may lose.
    half_a_digit = parse_bytes(f"1{unit}") * 0.05 * (1 + 1e-9)
    assert abs(float(number) * parse_bytes(f"1{unit}") - count) <= half_a_digit
    assert float(number) < KIB or unit == "TiB"


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("250", "ms", 250),
        ("250ms", "ms", 250),
        ("250ms", "s", 0.25),
        ("10s", "ms", 10_000),
        ("10 sec", "s", 10),
        ("1.5s", "ms", 1500),
        ("0.29s", "ms", 290),
        ("1.001s", "ms", 1001),
        ("5m", "s", 300),
        ("5min", "s", 300),
        ("2H", "s", 7200),
        ("7d", "s", 604_800),
        ("30us", "ms", 0.03),
        ("30µs", "us", 30),
        ("5", "s", 5),
    ],
)
def test_durations_are_read_into_the_asked_unit(
    text: str, unit: DurationUnit, value: float
) -> None:
    assert parse_duration(text, unit) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not a duration such as"),
        ("-1s", "is not a duration such as"),
        ("s", "is not a duration such as"),
        ("nan", "is not a duration such as"),
        ("250 # ms", "is not a duration such as"),
        ("1h5m", "is not a duration such as"),
        ("3 weeks", "unknown unit 'weeks'"),
    ],
)
def test_what_is_no_duration_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.00003, "30 us"),
        (0.00099996, "1 ms"),
        (0.25, "250 ms"),
        (0.99996, "1 s"),
        (1.5, "1.5 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (123, "2 min 3 s"),
        (3599.6, "1 h"),
        (3900, "1 h 5 min"),
        (86_399, "1 d"),
        (604_800, "7 d"),
        (93_600, "1 d 2 h"),
        (-1.5, "-1.5 s"),
        (math.inf, "inf s"),
    ],
)
def test_durations_are_printed_in_at_most_two_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.floats(1e-6, 1e8))
def test_printed_durations_are_read_back_to_within_their_last_digit(seconds: float) -> None:
    words = format_duration(seconds).split()
    pairs = [number + unit for number, unit in zip(words[::2], words[1::2], strict=True)]
    read = sum(parse_duration(pair) for pair in pairs)
    digits = ((0.001, 5e-8), (1, 5e-5), (60, 0.05), (3600, 0.5), (86_400, 30), (math.inf, 1800))
    half_a_digit = next(half for limit, half in digits if seconds < limit * (1 - 1e-3))
    assert abs(read - seconds) <= half_a_digit * (1 + 1e-6)


@given(st.integers(0, 10**9), st.sampled_from(["us", "ms", "s", "min", "h", "d"]))
def test_whole_durations_are_read_exactly_in_their_own_unit(
    number: int, unit: DurationUnit
) -> None:
    assert parse_duration(f"{number}{unit}", unit) == number


def test_counts_have_thousands_apart_and_agree_with_their_noun() -> None:
    assert format_count(2_272_420) == "2,272,420"
    assert format_count(1, "task") == "1 task"
    assert format_count(0, "task") == "0 tasks"
    assert format_count(1200, "entry", "entries") == "1,200 entries"
