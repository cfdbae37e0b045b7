"""The programs of Ray's documents on objects, in words of our own, unchanged under `mray run`.

They say `import ray` and check what they can by themselves; here is what they print, where, and how
they end.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

PROGRAMS = Path(__file__).resolve().parent / "reference_programs"

#: Programs that end well, and their last line.
SAYS = {
    "arguments.py": "arguments as expected",
    "captured.py": "captured objects stay",
    "getting.py": "so did the get of a list",
    "helped.py": "helped",
    "nested.py": "the inner object lives with the outer one",
    "putting.py": "objects stay as they were stored",
    "registered.py": "registered and taken back",
    "writing_to_copies.py": "copies are written to",
}
#: Programs with a test of their own.
OTHERS = {"inspected.py", "out_of_band.py", "reduced.py", "writing_crashes.py"}


def _run(name: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MRAY_"))}
    return subprocess.run(
        [sys.executable, "-m", "mray.cli", "run", str(PROGRAMS / name)],
        env={**kept, "MRAY_TMPDIR": os.environ["MRAY_TMPDIR"], **env},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_program_is_tested() -> None:
    assert {path.name for path in PROGRAMS.glob("*.py")} == set(SAYS) | OTHERS


@pytest.mark.parametrize("name", sorted(SAYS))
def test_a_program_runs_to_its_end(name: str, tmp_path: Path) -> None:
    done = _run(name, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert SAYS[name] in done.stdout
    assert "Traceback" not in done.stderr


def test_what_remote_functions_print_is_seen(tmp_path: Path) -> None:
    done = _run("arguments.py", tmp_path)
    # In front of each line is who printed it; it comes on either stream, as with Ray.
    printed = re.sub(r"\x1b\[\d+m", "", done.stdout + done.stderr)
    for line in (
        r"\(show pid=\d+.*\) direct: 1 2 3",
        r"\(show_and_get pid=\d+.*\) types: ObjectRef ObjectRef ObjectRef",
        r"\(show_and_get pid=\d+.*\) values: \[1, 2, 3\]",
    ):
        assert re.search(f"^{line}", printed, re.MULTILINE), printed


def test_writing_to_an_array_of_the_store_ends_the_program(tmp_path: Path) -> None:
    done = _run("writing_crashes.py", tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "about to write" in done.stdout
    assert "not reached" not in done.stdout
    assert "ValueError: assignment destination is read-only" in done.stderr
    assert "array[0] = 0" in done.stderr, "the line of the remote function is shown"


@pytest.mark.parametrize("env", [{}, {"RAY_PICKLE_VERBOSE_DEBUG": "2"}], ids=["C", "Python"])
def test_a_connection_is_made_again(tmp_path: Path, env: dict[str, str]) -> None:
    done = _run("reduced.py", tmp_path, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^<sqlite3.Connection object at 0x[0-9a-f]+>$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("name", ["helped.py", "nested.py", "registered.py"])
def test_programs_run_with_the_pickler_that_can_be_debugged(name: str, tmp_path: Path) -> None:
    done = _run(name, tmp_path, RAY_PICKLE_VERBOSE_DEBUG="2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert SAYS[name] in done.stdout


def test_what_cannot_be_pickled_is_shown(tmp_path: Path) -> None:
    done = _run("inspected.py", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Checking Serializability of <function uses_lock at 0x" in done.stdout
    assert "cannot pickle '_thread.lock' object" in done.stdout
    assert re.search(r"lock.*<unlocked _thread.lock object at 0x[0-9a-f]+>", done.stdout)


def test_references_pickled_out_of_band(tmp_path: Path) -> None:
    done = _run("out_of_band.py", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith("(")]
    assert "vanished, known after no time" in lines
    assert "pinned and listed" in lines, done.stdout
    refused = [line for line in lines if line.startswith("refused: ")]
    assert len(refused) == 1, done.stdout
    assert "OufOfBandObjectRefSerializationException" in refused[0]
    assert refused[0].endswith("True")
