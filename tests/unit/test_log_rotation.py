"""A full log gives its place to a new file, or keeps it: nothing is lost in between."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mray.log_rotation import begin_log_file
from mray.node.daemon_log import RotatingOutput
from mray.node.jobs.output import OutputCopier
from mray.runtime.output import OutputFiles

#: Rotates the log at a path once.
Rotate = Callable[[str, int], None]


def _of_a_worker(path: str, backup_count: int) -> None:
    files, fd = OutputFiles("", "", 1, backup_count), os.open("/dev/null", os.O_WRONLY)
    files._before[fd] = 0
    files._rotate(fd, path)


def _of_a_daemon(path: str, backup_count: int) -> None:
    RotatingOutput(path, 1, backup_count, os.open("/dev/null", os.O_WRONLY))._rotate()


def _of_a_job(path: str, backup_count: int) -> None:
    was_there = os.path.exists(path)
    copier = OutputCopier(os.open("/dev/null", os.O_RDONLY), path, 1, backup_count, lambda: None)
    if not was_there:
        os.unlink(path)
    copier._rotate()


every_log = pytest.mark.parametrize(
    "rotate", [_of_a_worker, _of_a_daemon, _of_a_job], ids=["worker", "daemon", "job"]
)


def _contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    for name in ("log", "log.1", "log.2"):
        (tmp_path / name).write_text(f"was {name}")
    return tmp_path / "log"


def test_the_older_files_move_on_and_the_oldest_goes(log: Path) -> None:
    fresh = begin_log_file(str(log), 2)
    os.write(fresh, b"new")
    os.close(fresh)
    assert _contents(log.parent) == {"log": "new", "log.1": "was log", "log.2": "was log.1"}


@every_log
@pytest.mark.parametrize("backup_count", [0, 2])
@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENOSPC])
def test_nothing_is_moved_where_no_file_can_be_made(
    log: Path, rotate: Rotate, backup_count: int, error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, plain = _contents(log.parent), os.open

    def none_left(path: str, *args: Any) -> int:
        if os.path.exists(path):
            return plain(path, *args)
        raise OSError(error, os.strerror(error), path)

    monkeypatch.setattr(os, "open", none_left)
    for _ in range(3):
        rotate(str(log), backup_count)
    with pytest.raises(OSError, match=os.strerror(error)):
        begin_log_file(str(log), backup_count)
    assert _contents(log.parent) == before


@every_log
@pytest.mark.parametrize("backup_count", [0, 2])
def test_a_log_that_somebody_has_deleted_is_begun_anew(
    tmp_path: Path, rotate: Rotate, backup_count: int
) -> None:
    rotate(str(tmp_path / "log"), backup_count)
    assert "log" in _contents(tmp_path)
