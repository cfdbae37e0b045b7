"""What a worker prints while its log's disk is full is lost and counted, and never an error."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mray.node.logs.missing import MissingOutput
from mray.runtime import output
from mray.runtime.output import LossyFile, OutputFiles
from mray.wire.messages import LostOutput, OutputLost


class _Disk(io.FileIO):
    """Stands in for the raw file: ``room`` more bytes fit, then ``error``."""

    room = 1 << 30
    error = errno.ENOSPC

    def write(self, data: bytes) -> int:  # type: ignore[override]
        if not _Disk.room:
            raise OSError(_Disk.error, os.strerror(_Disk.error))
        count = super().write(data[: _Disk.room])
        _Disk.room -= count
        return count


class _File(LossyFile, _Disk):
    """A lossy file on a disk that gets full: its ``super().write`` is the disk's."""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[_File, Path]]:
    monkeypatch.setattr(_Disk, "room", 1 << 30)
    monkeypatch.setattr(_Disk, "error", errno.ENOSPC)
    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    yield _File(fd), path
    os.close(fd)


def _stream(file: LossyFile) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedWriter(file), line_buffering=True)


def test_lines_without_room_are_counted_and_the_log_says_where_they_are_missing(
    log: tuple[_File, Path],
) -> None:
    file, path = log
    changes: list[str] = []
    file.on_change = lambda: changes.append(file.trouble)
    out = _stream(file)
    print("first", file=out)
    _Disk.room = 0
    print("second", file=out)
    print("third", file=out)
    assert (file.lost_lines, file.lost_bytes) == (2, 13)
    assert len(changes) == 1
    assert "No space left" in changes[0]
    _Disk.room = 1 << 30
    print("fourth", file=out)
    print("fifth", file=out)
    assert changes[1:] == [""]
    assert path.read_text() == (
        "first\n"
        "[mray] 2 lines (13 bytes) are missing here: there was no room for them\n"
        "fourth\nfifth\n"
    )


def test_a_line_that_was_cut_goes_as_a_whole(log: tuple[_File, Path]) -> None:
    file, path = log
    out = _stream(file)
    _Disk.room = 3
    print("abcdef", file=out)
    _Disk.room = 0
    out.write("begun ")
    out.flush()
    _Disk.room = 1 << 30
    print("and ended", file=out)
    print("whole", file=out)
    assert path.read_text().splitlines() == [
        "abc",
        "[mray] 2 lines (20 bytes) are missing here: there was no room for them",
        "whole",
    ]
    assert (file.lost_lines, file.lost_bytes) == (2, 20)


def test_room_for_a_part_of_the_note_is_no_room(log: tuple[_File, Path]) -> None:
    file, path = log
    out = _stream(file)
    _Disk.room = 0
    print("one", file=out)
    _Disk.room = 5
    print("two", file=out)
    assert file.trouble
    _Disk.room = 1 << 30
    print("three", file=out)
    assert path.read_text().splitlines() == [
        "[mray",
        "[mray] 2 lines (8 bytes) are missing here: there was no room for them",
        "three",
    ]


def test_other_errors_are_the_writers(log: tuple[_File, Path]) -> None:
    file, _ = log
    _Disk.room, _Disk.error = 0, errno.EIO
    with pytest.raises(OSError, match="Input/output"):
        file.write(b"x\n")
    assert file.lost_bytes == 0
    _Disk.room = 10


def test_losses_before_anybody_watched_are_told_at_once(log: tuple[_File, Path]) -> None:
    file, path = log
    _Disk.room = 0
    file.write(b"early\n")
    told: list[tuple[int, int, str]] = []
    files = OutputFiles(str(path), str(path), 1, 1, (file, file))
    files.watch(lambda: told.append(files.lost()))
    assert [(lines, size) for lines, size, _ in told] == [(2, 12)]
    assert "No space left" in told[0][2]


def test_streams_of_a_worker_keep_their_encoding_and_send_whole_lines(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for name in ("stdout", "stderr", "__stdout__", "__stderr__"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="latin-1"))
    output.open_streams()
    assert sys.stdout.encoding == "latin-1"
    assert sys.__stdout__ is sys.stdout
    print("of standard output")
    print("of standard error", file=sys.stderr)
    assert capfd.readouterr() == ("of standard output\n", "of standard error\n")


def test_changes_are_told_once_a_second_at_most_and_the_last_one_in_time(
    log: tuple[_File, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, path = log
    now = [10.0]
    monkeypatch.setattr("mray.runtime.output.time.monotonic", lambda: now[0])
    told: list[bool] = []
    files = OutputFiles(str(path), str(path), 1 << 30, 1, (file,))
    files.watch(lambda: told.append(bool(files.lost()[2])))
    for _ in range(5):
        _Disk.room = 0
        file.write(b"x\n")
        _Disk.room = 1 << 30
        file.write(b"x\n")
    assert told == [True]
    files.rotate()
    assert told == [True]
    now[0] += 5.0
    files.rotate()
    files.rotate()
    assert told == [True, False]


def test_what_is_lost_while_a_disk_stays_full_is_told_in_time(
    log: tuple[_File, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, path = log
    now = [10.0]
    monkeypatch.setattr("mray.runtime.output.time.monotonic", lambda: now[0])
    told: list[int] = []
    files = OutputFiles(str(path), str(path), 1 << 30, 1, (file,))
    files.watch(lambda: told.append(files.lost()[0]))
    _Disk.room = 0
    for _ in range(3):
        file.write(b"x\n")
    now[0] += 5.0
    files.rotate()
    now[0] += 5.0
    files.rotate()
    assert told == [1, 3]


def test_a_node_knows_what_all_its_workers_have_lost_dead_ones_too() -> None:
    missing = MissingOutput(lambda worker, text: None)
    assert missing.lost() == LostOutput()
    missing.heard(b"a", OutputLost(1, 10, "no room"))
    missing.heard(b"a", OutputLost(4, 40, "no room"))
    missing.heard(b"b", OutputLost(2, 20, "none at all"))
    assert missing.lost() == LostOutput(6, 60, "none at all")
    missing.gone(b"a")
    assert missing.lost() == LostOutput(6, 60, "none at all")
    missing.heard(b"b", OutputLost(3, 30, ""))
    assert missing.lost() == LostOutput(7, 70)


def test_with_the_last_worker_that_could_not_write_goes_what_was_in_its_way() -> None:
    missing = MissingOutput(lambda worker, text: None)
    missing.heard(b"a", OutputLost(1, 10, "no room"))
    missing.gone(b"a")
    assert missing.lost() == LostOutput(1, 10)


def test_a_full_disk_is_told_when_it_begins_and_of_each_worker_when_it_writes_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    said: list[bytes] = []
    missing = MissingOutput(lambda worker, text: said.append(worker))
    missing.heard(b"a", OutputLost(1, 10, "no room"))
    missing.heard(b"b", OutputLost(2, 20, "no room"))
    missing.heard(b"a", OutputLost(2, 20, "no room"))
    missing.heard(b"a", OutputLost(5, 50, ""))
    assert said == [b"a", b"b"]
    missing.heard(b"a", OutputLost(6, 60, "no room"))
    missing.heard(b"a", OutputLost(7, 70, ""))
    missing.gone(b"a")
    missing.gone(b"unknown")
    assert [record.getMessage() for record in caplog.records] == [
        "what workers print is lost: no room",
        "what worker 61 prints is kept again: 5 lines (50 bytes) were lost",
        "what workers print is lost: no room",
        "what worker 61 prints is kept again: 2 lines (20 bytes) were lost",
    ]
