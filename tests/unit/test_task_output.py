"""The index of a worker's output, as it is read."""

from __future__ import annotations

import fnmatch

import pytest

from mray.task_output import (
    BEGINNING,
    NOBODY,
    RECORD,
    SIDE_BY_SIDE,
    UNKNOWN,
    Found,
    Span,
    find,
    look_up,
    printed,
)
from mray.wire.messages import LogChunk, LogFile, TaskView

NONE = bytes(24)
A, B = b"a" * 24, b"b" * 24


def view(task: bytes, attempt: int = 0, state: str = "FINISHED", error: str = "") -> TaskView:
    return TaskView(
        task, attempt, "f", "NORMAL_TASK", state, b"", b"", b"", b"", b"", b"", 1, {},
        0, 0, 0, 0, 0, error,
    )  # fmt: skip


def index(*records: tuple[bytes, int, int, int, int, int]) -> bytes:
    return b"".join(RECORD.pack(*record) for record in records)


def where(data: bytes, of: TaskView, err: bool = False) -> Found:
    return find(data, of.task_id, of.attempt, of.state, of.error_type, err)


class Files:
    """A log whose first ``gone`` bytes nobody has any more, and which readers count from there."""

    def __init__(self, index: bytes, out: bytes, parts: tuple[int, ...] = ()) -> None:
        self.contents = {"w.tasks": index, "w.out": out}
        self.newest = parts[-1] if parts else len(out)

    def files(self, pattern: str) -> list[LogFile]:
        names = fnmatch.filter(self.contents, pattern)
        return [LogFile(name, self.newest if name == "w.out" else 1, 0.0) for name in names]

    def read(self, name: str, offset: int, max_bytes: int, wait_s: float) -> LogChunk:
        data = self.contents[name]
        offset = min(offset, len(data))
        part = data[offset : offset + min(max_bytes, 7)]
        return LogChunk(0, part, offset + len(part), True)


THREE = index(
    (A, 0, 0, 5, 0, 0), (NONE, NOBODY, 5, 6, 0, 0), (B, 0, 6, 9, 0, 4), (A, 1, 9, 9, 4, 6)
)


@pytest.mark.parametrize(
    ("of", "out", "err"),
    [
        (view(A), Span(0, 5), Span(0, 0)),
        (view(A, 1), Span(9, 9), Span(4, 6)),
        (view(B), Span(6, 9), Span(0, 4)),
        (view(b"c" * 24), Span(0, 0), Span(0, 0)),
        (view(b"c" * 24, 0, "RUNNING"), Span(9, None), Span(6, None)),
        (view(b"c" * 24, 0, "FAILED", "WORKER_DIED"), Span(9, None), Span(6, None)),
        (view(b"c" * 24, 0, "FAILED", "TASK_EXECUTION_EXCEPTION"), Span(0, 0), Span(0, 0)),
    ],
)
def test_an_attempt_has_the_bytes_of_its_record(of: TaskView, out: Span, err: Span) -> None:
    assert (where(THREE, of), where(THREE, of, err=True)) == (Found(out), Found(err))


def test_a_half_written_record_is_none() -> None:
    assert where(THREE[:-10], view(A, 1, "RUNNING")).span == Span(9, None)


def test_what_is_not_known_is_said() -> None:
    beside = index((A, 0, 0, 5, 0, 0), (NONE, SIDE_BY_SIDE, 5, 6, 0, 0))
    assert where(beside, view(A)) == Found(Span(0, 5))
    assert where(beside, view(B)).span == Span(6, None)
    assert "side by side" in where(beside, view(B)).doubt
    full = index((NONE, UNKNOWN, 0, 5, 0, 0), (A, 0, 5, 7, 0, 0))
    assert where(full, view(A)) == Found(Span(5, 7))
    assert "disk was full" in where(full, view(B)).doubt
    old = index((NONE, BEGINNING, 0, 1, 0, 1), (A, 0, 5, 7, 0, 0))
    assert "newest 100,000" in where(old, view(B)).doubt


def test_just_those_bytes_are_read() -> None:
    out = b"".join(b"line %d\n" % n for n in range(10))
    logs = Files(index((A, 0, 0, 14, 0, 0), (B, 0, 14, 56, 0, 0)), out)

    def text(of: TaskView, tail: int = -1) -> bytes:
        return b"".join(printed(logs, "w.out", of, look_up(logs, "w.out", of), tail=tail))

    assert text(view(A)) == out[:14]
    assert text(view(B)) == out[14:56]
    assert text(view(B), tail=2) == b"line 6\nline 7\n"
    assert text(view(B), tail=0) == text(view(b"c" * 24)) == b""
    assert text(view(b"c" * 24, 0, "RUNNING")) == out[56:]


def test_an_unfinished_last_line_counts_as_one() -> None:
    logs = Files(index((A, 0, 0, 5, 0, 0)), b"a\nb\ncd")
    of = view(A)
    assert b"".join(printed(logs, "w.out", of, Found(Span(0, 5)), tail=2)) == b"b\nc"


def test_what_rotation_dropped_moves_the_rest() -> None:
    """The worker counts from its first byte; of that the first 100 are gone."""
    newest = b"mine\nyours\n"
    logs = Files(
        index((NONE, BEGINNING, 120, 0, 0, 0), (A, 0, 120, 125, 0, 0), (B, 0, 125, 131, 0, 0)),
        b"x" * 20 + newest,
        (20, len(newest)),
    )
    of = view(A)
    assert b"".join(printed(logs, "w.out", of, look_up(logs, "w.out", of))) == b"mine\n"


def test_a_running_attempt_is_followed_to_its_end() -> None:
    logs = Files(index((B, 0, 0, 2, 0, 0)), b"b\none\n")
    of = view(A, 0, "RUNNING")
    pieces = printed(logs, "w.out", of, look_up(logs, "w.out", of), follow=True)
    assert next(pieces) == b"one\n"
    logs.contents["w.out"] += b"two\nof\n"
    logs.contents["w.tasks"] += index((A, 0, 2, 10, 0, 0))
    assert list(pieces) == [b"two\n"]


def test_a_log_without_an_index_is_told_whole() -> None:
    logs = Files(b"", b"ab\n")
    del logs.contents["w.tasks"]
    of = view(A, 0, "RUNNING")
    assert b"".join(printed(logs, "w.out", of, look_up(logs, "w.out", of))) == b"ab\n"
