"""The process that makes one part of an environment."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import pytest

from mray.node.environments.parts import RESULT_FD, Order


def build(order: Order) -> tuple[int, str, bytes]:
    """Exit code, log and what was written as the size."""
    result = os.memfd_create("result")

    def hand_over() -> None:
        os.dup2(result, RESULT_FD)

    done = subprocess.run(
        [sys.executable, "-P", "-m", "mray.node.environments.builder"],
        input=msgspec.msgpack.encode(order), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        pass_fds=[RESULT_FD] if result == RESULT_FD else [], close_fds=False,
        preexec_fn=hand_over, check=False,
    )  # fmt: skip
    size = os.pread(result, 64, 0)
    os.close(result)
    return done.returncode, done.stdout.decode(), size


@pytest.fixture
def package(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr("a.txt", "12345")
    return tmp_path / "p.zip"


def test_a_package_is_unpacked_and_its_zip_removed(tmp_path: Path, package: Path) -> None:
    target = tmp_path / "target"
    assert build(Order("package", str(target), str(package))) == (0, "", b"5")
    assert (target / "a.txt").read_text() == "12345"
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    assert not package.exists()


def test_what_fails_leaves_a_log_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "p.zip").write_text("no zip")
    code, log, size = build(Order("package", str(tmp_path / "target"), str(tmp_path / "p.zip")))
    assert (code, size) == (1, b"")
    assert "no zip file" in log
    assert os.listdir(tmp_path) == []


def test_a_hook_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "fetched").write_bytes(b"hook")
    order = Order("hook", str(tmp_path / "hook"), str(tmp_path / "fetched"))
    assert build(order) == (0, "", b"4")
    assert (tmp_path / "hook").read_bytes() == b"hook"


def test_a_directory_is_removed(tmp_path: Path) -> None:
    (tmp_path / "trash" / "deep").mkdir(parents=True)
    assert build(Order("remove", str(tmp_path / "trash")))[0] == 0
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("/nowhere/python", "cannot be run"),
        ("false", "cannot import mray"),
        ("echo 'mray probe 2 7 0.0'", "must be the same"),
    ],
)
def test_an_interpreter_that_cannot_be_a_worker_is_told_apart(
    tmp_path: Path, command: str, words: str
) -> None:
    code, log, _ = build(Order("python", str(tmp_path / "x"), detail=command))
    assert code == 1
    assert words in log


def test_an_interpreter_with_options_can_be_one(tmp_path: Path) -> None:
    order = Order("python", str(tmp_path / "x"), detail=f"{sys.executable} -B")
    assert build(order) == (0, "", b"0")
