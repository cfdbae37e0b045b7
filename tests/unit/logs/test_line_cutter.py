"""Cutting bytes into lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mray.node.logs.lines import LINE_BYTES_MAX, LineCutter


def test_lines_come_with_the_offset_of_their_first_byte() -> None:
    cutter = LineCutter()
    assert cutter.feed(b"one\ntw") == [(0, "one")]
    assert cutter.feed(b"o\n\nrest") == [(4, "two"), (8, "")]
    assert cutter.flush() == [(9, "rest")]
    assert cutter.flush() == []
    assert cutter.feed(b"next\n") == [(13, "next")]


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert LineCutter().feed(b"a\xffb\r\n") == [(0, "a\ufffdb")]


def test_a_huge_line_takes_bounded_memory_and_says_what_is_missing() -> None:
    cutter = LineCutter()
    for _ in range(50):
        assert cutter.feed(b"x" * 1_000_000) == []
    ((offset, text),) = cutter.feed(b"\n")
    assert offset == 0
    missing = 50_000_000 - LINE_BYTES_MAX
    assert text == "x" * LINE_BYTES_MAX + f" [{missing:,} more bytes of this line left out]"
    assert cutter.feed(b"ok\n") == [(50_000_001, "ok")]


def test_skipped_lines_are_counted_with_the_one_that_was_held() -> None:
    cutter = LineCutter()
    cutter.feed(b"begun ")
    assert cutter.skip(b"and left\ntwo\n") == 2
    assert cutter.feed(b"three\n") == [(19, "three")]


@given(st.lists(st.text(alphabet="ab\r é", max_size=5)), st.lists(st.integers(1, 7), min_size=1))
def test_however_it_arrives_the_lines_are_the_same(lines: list[str], sizes: list[int]) -> None:
    data = "".join(f"{line}\n" for line in lines).encode()
    cutter = LineCutter()
    found: list[str] = []
    at = turn = 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        found += [text for _, text in cutter.feed(data[at : at + size])]
        at += size
        turn += 1
    assert found == [line.rstrip("\r") for line in lines]
    assert not cutter.holds
