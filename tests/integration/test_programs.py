"""The programs of scripts/examples/programs, each said to have ended well by scripts/programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPTS / "programs.py"), *arguments],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.timeout(300)
def test_all_programs_run_as_jobs_of_one_cluster() -> None:
    done = _run("--json")
    outcomes = json.loads(done.stdout)
    failed = [f"--- {o['name']}: {o['says']}\n{o['output']}" for o in outcomes if o["output"]]
    assert not failed, "\n".join(failed)
    assert done.returncode == 0, done.stderr
    assert len(outcomes) >= 30
    skipped = {o["name"] for o in outcomes if o["state"] == "skipped"}
    assert skipped <= {"dask_on_ray", "progress_bars"}, "all that needs no extra runs"


def test_programs_run_with_a_cluster_each() -> None:
    done = _run("--apart", "map_reduce", "lazy_dag")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 programs in" in done.stdout
    assert "2 ok, 0 failed, 0 skipped" in done.stdout


def test_a_program_that_is_not_there_is_named() -> None:
    done = _run("no_such_program")
    assert done.returncode == 2
    assert "no such program: no_such_program; there are actor_pools" in done.stderr
