"""A daemon's log: its lines, its rotation, and a full disk."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mray.node.daemon_log import RotatingOutput


class Output:
    """A rotating log on a descriptor of its own."""

    def __init__(self, path: Path, max_bytes: int, backup_count: int) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        handler = RotatingOutput(str(path), max_bytes, backup_count, self.descriptor)
        self.log = logging.Logger("test")
        self.log.addHandler(handler)

    def files(self) -> dict[str, int]:
        """Name -> lines in it."""
        names = sorted(os.listdir(self.path.parent))
        return {n: len((self.path.parent / n).read_text().splitlines()) for n in names}


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Output]:
    made = Output(tmp_path / "raylet.out", max_bytes=200, backup_count=2)
    yield made
    os.close(made.descriptor)


def test_a_line_has_time_level_and_pid(output: Output) -> None:
    output.log.warning("careful with %s", "this")
    line = output.path.read_text()
    assert re.fullmatch(
        rf"\[\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d,\d{{3}} W {os.getpid()}\] careful with this\n", line
    )


def test_a_traceback_follows_its_line(output: Output) -> None:
    try:
        raise ValueError("inner")
    except ValueError:
        output.log.exception("outer")
    lines = output.path.read_text().splitlines()
    assert lines[0].endswith("] outer")
    assert lines[1].startswith("Traceback")
    assert lines[-1] == "ValueError: inner"


def test_a_full_file_is_rotated_and_the_oldest_is_dropped(output: Output) -> None:
    for number in range(12):
        output.log.info("line %02d %s", number, "x" * 40)
    # 91 bytes a line, so two a file.
    assert output.files() == {"raylet.out": 2, "raylet.out.1": 2, "raylet.out.2": 2}
    assert "line 11" in output.path.read_text()
    assert "line 06" in (output.path.parent / "raylet.out.2").read_text()


def test_the_descriptor_itself_follows_the_rotation(output: Output) -> None:
    for number in range(3):
        output.log.info("line %02d %s", number, "x" * 40)
    os.write(output.descriptor, b"printed\n")
    assert output.path.read_text().endswith("printed\n")


def test_without_backups_a_full_file_starts_over(tmp_path: Path) -> None:
    output = Output(tmp_path / "gcs_server.out", max_bytes=100, backup_count=0)
    for number in range(3):
        output.log.info("line %02d %s", number, "x" * 40)
    os.close(output.descriptor)
    assert output.files() == {"gcs_server.out": 1}
    assert "line 02" in output.path.read_text()


def test_a_full_file_goes_on_where_no_other_can_be_made(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*args: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as broken:
        broken.setattr(os, "open", none_left)
        for number in range(6):
            output.log.info("line %02d %s", number, "x" * 40)
    assert output.files() == {"raylet.out": 6}


def test_a_full_disk_drops_lines_and_counts_them(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", full)
        output.log.info("lost")
        output.log.info("lost too")
    output.log.info("back")
    lines = output.path.read_text().splitlines()
    assert lines[0] == "(2 lines dropped: disk full)"
    assert lines[1].endswith("] back")
    assert len(lines) == 2
