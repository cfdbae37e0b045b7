"""Which call printed what, as a worker notes it. The streams are those of a child process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mray.task_output import BEGINNING, NOBODY, RECORD, SIDE_BY_SIDE

BEGIN = """
import os, sys
from mray.runtime.output import OutputFiles
from mray.runtime.printed import Printed
os.chdir(sys.argv[1])
for fd, name in ((1, "w.out"), (2, "w.err")):
    os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), fd)
output = OutputFiles("w.out", "w.err", 20, 2)
printed = Printed(output, "w.tasks", records_max=4)
printed.skip()
def call(name, text, failed=False, attempt=0):
    os.write(1, text)
    printed.ended(name * 24, attempt, failed)
"""


def run(folder: Path, code: str) -> list[tuple[bytes, int, int, int]]:
    """What the index says of standard output."""
    subprocess.run([sys.executable, "-c", BEGIN + code, str(folder)], check=True, timeout=30)
    data = b"".join(
        path.read_bytes() for path in (folder / "w.tasks.1", folder / "w.tasks") if path.exists()
    )
    return [(r[0][:1], r[1], r[2], r[3]) for r in RECORD.iter_unpack(data)]


def test_who_printed_or_failed_has_a_record(tmp_path: Path) -> None:
    code = """
call(b"a", b"one")
call(b"b", b"")
call(b"c", b"", failed=True, attempt=2)
os.system("echo from a child")
call(b"d", b"")
"""
    assert run(tmp_path, code) == [(b"a", 0, 0, 3), (b"c", 2, 3, 3), (b"d", 0, 3, 16)]


def test_what_comes_between_calls_is_nobodys(tmp_path: Path) -> None:
    code = """
call(b"a", b"one")
os.write(1, b"late")
printed.skip()
call(b"b", b"two")
printed.give_up()
"""
    assert run(tmp_path, code) == [
        (b"a", 0, 0, 3), (b"\0", NOBODY, 3, 7), (b"b", 0, 7, 10), (b"\0", SIDE_BY_SIDE, 10, 10)
    ]  # fmt: skip


def test_offsets_go_on_over_rotation(tmp_path: Path) -> None:
    code = """
call(b"a", b"x" * 25)
output.rotate()
call(b"b", b"")
call(b"c", b"y" * 5)
"""
    assert run(tmp_path, code) == [(b"a", 0, 0, 25), (b"\0", BEGINNING, 25, 0), (b"c", 0, 25, 30)]


def test_two_files_of_records_are_kept(tmp_path: Path) -> None:
    code = "for n in range(10): call(b'%d' % n, b'z')"
    assert run(tmp_path, code) == [
        (b"4", 0, 4, 5), (b"5", 0, 5, 6), (b"6", 0, 6, 7), (b"7", 0, 7, 8),
        (b"\0", BEGINNING, 0, 1), (b"8", 0, 8, 9), (b"9", 0, 9, 10),
    ]  # fmt: skip
