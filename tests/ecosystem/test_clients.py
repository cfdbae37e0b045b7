"""Programs of others that drive Ray Core, unmodified, with mray in place of Ray.

Each program compares what a library computes on a cluster with what plain Python computes, and says
so. scripts/ecosystem has an environment with all of them; elsewhere those without their library are
skipped.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.integration,
    pytest.mark.ecosystem,
    pytest.mark.slow,
    pytest.mark.timeout(250),
]

PROGRAMS = Path(__file__).resolve().parent / "programs"

#: Program -> the modules it needs, and how its last line begins.
CLIENTS = {
    "daft_frames.py": (("daft",), "daft "),
    "dask_collections.py": (("dask.dataframe", "dask.array", "pandas", "pyarrow"), "dask "),
    "hamilton_graph.py": (("hamilton",), "hamilton "),
    "joblib_search.py": (("sklearn", "joblib"), "scikit-learn "),
    "modin_frames.py": (("modin",), "modin "),
}
#: Modules that programs import.
PARTS = {"hamilton_steps.py"}


def test_every_program_is_tested() -> None:
    assert {path.name for path in PROGRAMS.glob("*.py")} == set(CLIENTS) | PARTS


@pytest.mark.parametrize("name", sorted(CLIENTS))
def test_a_client_computes_what_plain_python_does(name: str, tmp_path: Path) -> None:
    modules, says = CLIENTS[name]
    for module in modules:
        if not _installed(module):
            pytest.skip(f"{module} is not installed: run scripts/ecosystem")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MRAY_"))}
    done = subprocess.run(
        [sys.executable, "-m", "mray.cli", "run", "--as-ray", str(PROGRAMS / name)],
        env={
            **kept,
            "MRAY_TMPDIR": os.environ["MRAY_TMPDIR"],
            # Nobody is told that the tests ran.
            "HAMILTON_TELEMETRY_ENABLED": "false",
            "DO_NOT_TRACK": "true",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith(says), done.stdout + done.stderr


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
