"""The head's files of packages, in pieces."""

from __future__ import annotations

import stat
from pathlib import Path

from mray.node.head.packages import Packages
from mray.wire.messages import (
    GetPackage,
    Message,
    PackagePiece,
    PackageState,
    PutPackage,
    Refused,
)

NAME, OTHER = "_ray_pkg_0a.zip", "_ray_pkg_0b.zip"


class Head:
    """The packages with what was answered last."""

    def __init__(self, directory: Path, total: int = 1 << 30) -> None:
        self.sent: list[Message] = []
        self.packages = Packages(str(directory / "p"), self.take, total)
        self.directory = directory / "p"

    def take(self, to: bytes, message: Message) -> None:
        self.sent.append(message)

    def put(self, offset: int, data: bytes, total: int = 6, sender: bytes = b"d",
            name: str = NAME) -> Message:  # fmt: skip
        self.packages.put(sender, PutPackage(1, name, total, offset, data))
        return self.sent[-1]

    def get(self, offset: int = 0, name: str = NAME) -> Message:
        self.packages.get(b"n", GetPackage(2, name, offset))
        return self.sent[-1]


def test_a_package_comes_and_goes_in_pieces(tmp_path: Path) -> None:
    head = Head(tmp_path)
    assert head.put(0, b"", 0) == PackageState(1, 0, complete=False)
    assert head.get() == PackagePiece(2, -1, b"")
    assert head.put(0, b"abc") == PackageState(1, 3, complete=False)
    assert head.get() == PackagePiece(2, -1, b"")
    assert head.put(3, b"def") == PackageState(1, 6, complete=True)
    assert head.put(0, b"", 0) == PackageState(1, 6, complete=True)
    assert head.get() == PackagePiece(2, 6, b"abcdef")
    assert head.get(4) == PackagePiece(2, 6, b"ef")
    (file,) = head.directory.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(head.directory.stat().st_mode) == 0o700


def test_a_piece_that_is_sent_again_changes_nothing(tmp_path: Path) -> None:
    head = Head(tmp_path)
    head.put(0, b"abc")
    head.put(0, b"abc")
    assert head.put(3, b"de") == PackageState(1, 5, complete=False)
    assert head.put(3, b"de") == PackageState(1, 5, complete=False)
    assert head.put(5, b"f") == PackageState(1, 6, complete=True)
    assert head.get() == PackagePiece(2, 6, b"abcdef")


def test_two_senders_do_not_mix(tmp_path: Path) -> None:
    head = Head(tmp_path)
    head.put(0, b"abc", sender=b"1")
    head.put(0, b"ab", sender=b"2")
    assert isinstance(head.put(3, b"def", sender=b"2"), Refused)
    assert head.put(3, b"def", sender=b"1") == PackageState(1, 6, complete=True)
    assert head.get() == PackagePiece(2, 6, b"abcdef")


def test_what_is_too_big_or_no_package_is_refused(tmp_path: Path) -> None:
    head = Head(tmp_path)
    for wrong in (
        head.put(0, b"abc", 1 << 40), head.put(0, b"abcdefgh"), head.put(1, b"a"),
        head.put(0, b"a", name="../evil.zip"), head.put(0, b"a", name="session.json"),
    ):  # fmt: skip
        assert isinstance(wrong, Refused)
        assert wrong.kind == "ValueError"


def test_what_a_dead_process_had_begun_is_removed(tmp_path: Path) -> None:
    head = Head(tmp_path)
    head.put(0, b"abc")
    head.packages.process_died(b"other")
    assert list(head.directory.iterdir())
    head.packages.process_died(b"d")
    assert not list(head.directory.iterdir())


def test_beyond_the_total_the_least_used_goes(tmp_path: Path) -> None:
    head = Head(tmp_path, 13)
    for name in (NAME, OTHER):
        head.put(0, b"abcdef", name=name)
    head.get(name=NAME)
    head.put(0, b"abcdef", name="_ray_pkg_0c.zip")
    assert head.get(name=OTHER) == PackagePiece(2, -1, b"")
    assert head.get(name=NAME) == PackagePiece(2, 6, b"abcdef")
    head.packages.close()
    assert not head.directory.exists()
