"""Daemons outlive the process that spawned them, and nobody complains of that at its end."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import subprocess

from mray import daemon_spawn

quiet = subprocess.DEVNULL

process = daemon_spawn._Process(["sleep", "1000"], stdout=quiet, stderr=quiet)
daemon_spawn._dropped.append(process)
print(process.pid)
"""


def test_the_end_of_an_interpreter_says_nothing_of_daemons_that_run_on() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True, timeout=60
    )
    subprocess.run(["kill", done.stdout.strip()], check=True)
    assert (done.returncode, done.stderr) == (0, "")
