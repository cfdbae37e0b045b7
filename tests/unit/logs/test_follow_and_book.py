"""Reading logs through their rotations: following one, and asking for any place in one."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from mray.node.logs.files import LogBook, offset_of_last_lines, read
from mray.node.logs.follow import Follower

BACKUPS = 3


class Writer:
    """Writes and rotates as workers do."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = self.open()
        self.total = b""

    def open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, data: bytes) -> None:
        os.write(self.fd, data)
        self.total += data

    def rotate(self) -> None:
        for number in range(BACKUPS, 0, -1):
            older = f"{self.path}.{number - 1}" if number > 1 else str(self.path)
            if os.path.exists(older):
                os.replace(older, f"{self.path}.{number}")
        os.close(self.fd)
        self.fd = self.open()


def read_all(follower: Follower) -> bytes:
    data = b""
    while chunk := follower.read(7):
        data += chunk
    return data


def test_a_follower_reads_the_old_part_to_its_end_before_the_new_one(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "x.out")
    follower = Follower(str(writer.path), BACKUPS)
    writer.write(b"one ")
    assert read_all(follower) == b"one "
    writer.write(b"two ")
    writer.rotate()
    writer.write(b"three ")
    writer.rotate()
    writer.write(b"four")
    assert follower.unread_bytes() == len(b"two three four")
    assert read_all(follower) == b"two three four"
    assert follower.position == len(writer.total)
    follower.close()


def test_an_open_part_is_read_although_it_was_deleted(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "x.out")
    follower = Follower(str(writer.path), BACKUPS)
    writer.write(b"a")
    assert read_all(follower) == b"a"
    writer.write(b"b")
    for _ in range(BACKUPS + 2):
        writer.rotate()
    writer.write(b"c")
    assert read_all(follower) == b"bc"
    follower.close()


def test_a_log_that_is_not_there_yet_has_nothing(tmp_path: Path) -> None:
    follower = Follower(str(tmp_path / "x.out"), BACKUPS)
    assert follower.read(10) == b""
    assert follower.unread_bytes() == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["write", "rotate", "read"]), max_size=40))
def test_a_follower_that_keeps_up_reads_every_byte_once(
    tmp_path_factory: object, steps: list[str]
) -> None:
    folder = Path(tmp_path_factory.mktemp("log"))  # type: ignore[attr-defined]
    writer = Writer(folder / "x.out")
    follower = Follower(str(writer.path), BACKUPS)
    data = b""
    rotations = 0
    for number, step in enumerate(steps):
        if step == "write":
            writer.write(b"<%d>" % number)
        elif step == "rotate" and rotations < BACKUPS:
            writer.rotate()
            rotations += 1
        elif step == "read":
            data += read_all(follower)
            rotations = 0
    assert data + read_all(follower) == writer.total
    follower.close()


def test_a_book_counts_offsets_since_the_log_began(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "x.out")
    book = LogBook(str(tmp_path), BACKUPS)
    for number in range(8):
        writer.write(b"part %d\n" % number)
        parts = book.parts("x.out")
        assert parts[-1].end == len(writer.total)
        kept = writer.total[parts[0].base :]
        assert read(parts, parts[0].base, 10_000) == kept
        writer.rotate()
    assert book.parts("x.out")[0].base == 5 * 7
    assert book.parts("y.out") == []


def test_a_reused_inode_number_is_a_new_part(tmp_path: Path) -> None:
    log = tmp_path / "x.out"
    book = LogBook(str(tmp_path), 0)
    log.write_text("twelve bytes")
    assert book.parts("x.out")[0].base == 0
    log.unlink()
    log.write_text("new")
    (part,) = book.parts("x.out")
    assert (part.base, part.end) == (12, 15)


def test_last_lines_are_found_across_parts(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "x.out")
    book = LogBook(str(tmp_path), BACKUPS)
    writer.write(b"a\nb\n")
    writer.rotate()
    writer.write(b"c\nd")
    parts = book.parts("x.out")
    for count, expected in ((1, b"d"), (2, b"c\nd"), (3, b"b\nc\nd"), (4, b"a\nb\nc\nd")):
        assert read(parts, offset_of_last_lines(parts, count), 100) == expected
    assert offset_of_last_lines(parts, 100) == 0
    writer.write(b"\n")
    parts = book.parts("x.out")
    assert read(parts, offset_of_last_lines(parts, 1), 100) == b"d\n"
    assert offset_of_last_lines([], 3) == 0


def test_links_are_no_logs(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("no")
    (tmp_path / "x.out").symlink_to(tmp_path / "secret")
    assert LogBook(str(tmp_path), BACKUPS).parts("x.out") == []
