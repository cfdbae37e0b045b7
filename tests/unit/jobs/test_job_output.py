"""A job's output from its pipe into its log."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from mray.node.jobs.output import OutputCopier


def copy(path: Path, data: bytes, max_bytes: int = 1000, backups: int = 3) -> None:
    read, write = os.pipe()
    ended = threading.Event()
    copier = OutputCopier(read, str(path), max_bytes, backups, ended.set)
    copier.start()
    with os.fdopen(write, "wb") as pipe:
        pipe.write(data)
    assert ended.wait(30)
    copier.join()


def test_all_of_it_is_kept_and_files_are_cut_between_lines(tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    data = b"".join(b"line %d\n" % number for number in range(300))
    copy(log, data)
    parts = [tmp_path / name for name in ("job.log.2", "job.log.1", "job.log")]
    assert b"".join(part.read_bytes() for part in parts) == data
    for part in parts:
        assert part.stat().st_size <= 1000
        assert part.read_bytes().endswith(b"\n")
        assert part.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("backups", [0, 2])
def test_the_disk_is_spared_and_the_end_is_kept(tmp_path: Path, backups: int) -> None:
    data = b"".join(b"%06d\n" % number for number in range(10_000))
    copy(tmp_path / "job.log", data, 1000, backups)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["job.log", *(f"job.log.{k}" for k in range(1, backups + 1))]
    assert (tmp_path / "job.log").read_bytes().endswith(b"009999\n")


def test_a_line_longer_than_a_file_is_cut(tmp_path: Path) -> None:
    copy(tmp_path / "job.log", b"x" * 2500)
    sizes = [(tmp_path / name).stat().st_size for name in ("job.log.2", "job.log.1", "job.log")]
    assert sizes == [1000, 1000, 500]


def test_stopping_takes_what_is_there_although_the_pipe_stays_open(tmp_path: Path) -> None:
    read, write = os.pipe()
    ended = threading.Event()
    copier = OutputCopier(read, str(tmp_path / "job.log"), 1000, 3, ended.set)
    os.write(write, b"last words\n")
    copier.start()
    copier.stop()
    assert ended.wait(30)
    copier.join()
    os.close(write)
    assert (tmp_path / "job.log").read_bytes() == b"last words\n"


def test_a_job_goes_on_although_its_disk_is_full() -> None:
    copy(Path("/dev/full"), b"x" * 1_000_000, 10_000_000)
