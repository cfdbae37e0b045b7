"""What a worker says in the file that it shares with its node daemon."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import pytest

from mray.progress import (
    FILE_BYTES,
    NO_TASK_YET,
    Begun,
    Progress,
    ProgressFile,
    Title,
    read_progress,
    write_begun,
    write_title,
)

TASK = b"t" * 24


@pytest.fixture
def progress(tmp_path: Path) -> ProgressFile:
    made = ProgressFile(str(tmp_path / "w.seq"))
    made.create()
    return made


@pytest.fixture
def memory(progress: ProgressFile) -> Iterator[mmap.mmap]:
    """The worker's side."""
    with open(progress.path, "r+b") as file, mmap.mmap(file.fileno(), FILE_BYTES) as mapped:
        yield mapped


def test_it_says_that_no_task_was_begun_until_one_was(progress: ProgressFile) -> None:
    assert progress.read() == NO_TASK_YET
    assert read_progress(progress.path) == Progress()
    assert read_progress(progress.path).title == Title("", False)
    Path(progress.path).write_bytes((41).to_bytes(8, "little", signed=True))
    assert read_progress(progress.path) == Progress()
    assert progress.take() == 41
    assert not Path(progress.path).exists()


def test_without_a_file_nothing_was_begun(tmp_path: Path) -> None:
    missing = ProgressFile(str(tmp_path / "none"))
    assert (missing.read(), missing.take()) == (NO_TASK_YET, NO_TASK_YET)
    assert read_progress(missing.path) == Progress()


def test_it_says_what_was_begun_and_what_that_is_called(
    progress: ProgressFile, memory: mmap.mmap
) -> None:
    write_title(memory, 0, Title("a_long_name", True))
    write_title(memory, 0, Title("L.m", False))
    assert read_progress(progress.path) == Progress(None, (Title("L.m", False),), 1)
    write_begun(memory, 0, 7, 2_500_000_000, TASK, 3)
    assert progress.read() == 7
    assert read_progress(progress.path).begun == Begun(2.5, TASK, 3)
    assert read_progress(progress.path).title == Title("L.m", False)


def test_the_last_names_are_kept_in_order(progress: ProgressFile, memory: mmap.mmap) -> None:
    titles = [Title(f"f{number}", True, number, number * 2) for number in range(50)]
    for number, title in enumerate(titles):
        write_title(memory, number, title)
        kept = read_progress(progress.path).titles
        assert kept == tuple(titles[max(0, number - 15) : number + 1])
    write_title(memory, 49, Title("instead"))
    assert read_progress(progress.path).titles == (*titles[34:49], Title("instead"))


def test_a_name_without_end_is_cut_between_two_letters(
    progress: ProgressFile, memory: mmap.mmap
) -> None:
    write_title(memory, 0, Title("x" + "\u00e4" * 5000, True))
    write_title(memory, 1, Title("next"))
    assert [title.name for title in read_progress(progress.path).titles] == [
        "x" + "\u00e4" * 99, "next",
    ]  # fmt: skip


def test_a_name_that_is_no_text_is_shown_as_well_as_can_be(
    progress: ProgressFile, memory: mmap.mmap
) -> None:
    write_title(memory, 0, Title("f\udcff", False))
    assert read_progress(progress.path).title.name == "f?"
