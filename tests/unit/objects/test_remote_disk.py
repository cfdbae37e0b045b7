"""Spilling to URLs: fsspec's own local file system stands for a remote one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mray.node.objects import remote
from mray.node.objects.directory import ArenaError
from mray.node.objects.remote import OWNER_NAME, RemoteDisk
from mray.process import start_time_of

fsspec = pytest.importorskip("fsspec")


def url(folder: Path) -> str:
    return f"local://{folder}"


def pieces(*parts: tuple[int, bytes]) -> list[tuple[int, memoryview]]:
    return [(at, memoryview(data)) for at, data in parts]


def read(disk: RemoteDisk, number: int, at: int, size: int) -> bytes:
    buffer = memoryview(bytearray(size))
    disk.read(number, at, buffer)
    return bytes(buffer)


def test_what_is_written_is_read_back_and_gone_at_the_end(tmp_path: Path) -> None:
    disk = RemoteDisk(url(tmp_path), "s1", "aabbccdd")
    disk.write(1, 4100, pieces((0, b"abc"), (4096, b"defg")))
    assert (read(disk, 1, 0, 3), read(disk, 1, 4097, 3)) == (b"abc", b"efg")
    disk.punch(1, 0, 3)
    disk.delete(1)
    disk.delete(1)
    with pytest.raises(FileNotFoundError):
        read(disk, 1, 0, 3)
    disk.close()
    disk.close()
    assert os.listdir(tmp_path) == []


def test_a_file_that_is_too_short_is_no_answer(tmp_path: Path) -> None:
    disk = RemoteDisk(url(tmp_path), "s1", "aabbccdd")
    disk.write(1, 4, pieces((0, b"abcd")))
    with pytest.raises(EOFError, match="ends at 4"):
        read(disk, 1, 2, 10)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    disk = RemoteDisk(url(tmp_path), "s1", "aabbccdd")

    def broken() -> Any:
        yield 0, memoryview(b"abcd")
        raise OSError(5, "it broke")

    with pytest.raises(OSError, match="it broke"):
        disk.write(1, 8, broken())
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [OWNER_NAME]


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("memory://x", "is in the memory|are in the memory"),
        ("https://example.org/x", "cannot be written to"),
        ("nosuch://x", "nosuch"),
    ],
)
def test_what_cannot_work_is_refused_at_the_start(place: str, text: str) -> None:
    with pytest.raises(ArenaError, match=text):
        RemoteDisk(place, "s1", "aabbccdd")


def test_without_fsspec_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ArenaError, match=r"mray\[spill\]"):
        RemoteDisk("s3://bucket/x", "s1", "aabbccdd")


def test_the_next_start_removes_what_a_dead_node_left_and_nothing_else(tmp_path: Path) -> None:
    mine = RemoteDisk(url(tmp_path), "alive", "aabbccdd")
    mine.write(1, 4, pieces((0, b"abcd")))
    code = (
        "import os, sys; from mray.node.objects.remote import RemoteDisk\n"
        "disk = RemoteDisk(sys.argv[1], 'killed', 'aabbccdd')\n"
        "disk.write(1, 4, [(0, memoryview(b'abcd'))]); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, url(tmp_path)], check=True, timeout=60)
    user = os.getuid()
    for name in (f"mray-{user}-nobodys-1", f"mray-{user + 1}-another-1", "data"):
        (tmp_path / name).mkdir()
    assert len(os.listdir(tmp_path)) == 5
    RemoteDisk(url(tmp_path), "next", "aabbccdd").close()
    left = {f"mray-{user}-alive-aabbccdd", f"mray-{user}-nobodys-1", f"mray-{user + 1}-another-1"}
    assert set(os.listdir(tmp_path)) == left | {"data"}
    assert read(mine, 1, 0, 4) == b"abcd"


@pytest.mark.parametrize(
    ("changed", "dead"),
    [
        ({}, False),
        ({"pid": 2**22 + 1}, True),
        ({"start_time": 1}, True),
        ({"boot": "another start of the machine", "pid": 2**22 + 1}, False),
        ({"namespace": "pid:[1]", "pid": 2**22 + 1}, False),
    ],
)
def test_an_owner_is_dead_only_where_that_is_known(changed: dict[str, Any], dead: bool) -> None:
    owner = json.loads(json.dumps(remote._myself() | changed))
    assert remote._is_dead(owner) is dead
    assert owner["start_time"] in (1, start_time_of(os.getpid()))


@pytest.mark.parametrize("junk", [None, [], "x", {}, {"pid": 1}])
def test_an_owner_file_of_another_kind_says_nothing(junk: object) -> None:
    assert not remote._is_dead(junk)
