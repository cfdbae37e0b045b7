"""The example programs, unchanged, on mray. They check their own results."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).resolve().parents[2] / "scripts" / "examples"
MRAY = [sys.executable, "-m", "mray.cli"]

#: What each example prints when all went well.
SAYS = {
    "actor_counter.py": "the counter is gone now",
    "parameter_server.py": "largest error 0.0",
    "pipeline.py": "12 batches through 4 stages",
    "shuffle.py": "shuffled 0.16 GiB in",
    "task_tree.py": "sorted 20,000 numbers",
    "word_count.py": "different ones, in 160 files",
}


def _run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MRAY_"))}
    return subprocess.run(
        [*MRAY, *words],
        env={**kept, "MRAY_TMPDIR": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", sorted(SAYS))
def test_an_example_runs_by_itself(name: str, tmp_path: Path) -> None:
    done = _run("run", "--as-ray", str(EXAMPLES / name), folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert SAYS[name] in done.stdout


def test_examples_run_as_jobs_of_one_cluster(tmp_path: Path) -> None:
    started = _run("start", "--head", "--port", "0", "--num-cpus", "2", folder=tmp_path)
    assert started.returncode == 0, started.stderr
    try:
        for name in sorted(SAYS):
            done = _run("submit", "--as-ray", str(EXAMPLES / name), folder=tmp_path)
            assert done.returncode == 0, done.stdout + done.stderr
            assert SAYS[name] in done.stdout
    finally:
        stopped = _run("stop", folder=tmp_path)
    assert stopped.returncode == 0, stopped.stderr
