"""`mray run`: the process that it turns into."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


@pytest.fixture
def executed(monkeypatch):
    """What is executed in place of the command: (argv, environment)."""
    calls = []
    monkeypatch.setattr(os, "execve", lambda path, argv, env: calls.append((argv, env)))
    return calls


def test_a_script_gets_a_cluster_of_its_own_and_all_its_words(mray, executed, home):
    (home / "s.py").write_text("")
    assert mray("run", "--as-ray", "--num-cpus", "2", "s.py", "--num-cpus", "9", "--").code == 0
    ((argv, environment),) = executed
    launch = ["-m", "mray.launch", "--as-ray", "--init", '{"num_cpus": 2.0}']
    assert argv[-9:] == [*launch, "s.py", "--num-cpus", "9", "--"]
    assert argv[0] == sys.executable
    assert environment["MRAY_ADDRESS"] == "local"


def test_all_that_init_takes_is_handed_on(mray, executed, home):
    (home / "s.py").write_text("")
    mray(
        "run", "--num-gpus", "1", "--resources", '{"license": 2}',
        "--object-store-memory", "100MiB", "s.py",
    )  # fmt: skip
    argv = executed[0][0]
    assert json.loads(argv[argv.index("--init") + 1]) == {
        "num_gpus": 1.0, "resources": {"license": 2}, "object_store_memory": 100 * 2**20,
    }  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [["missing.py"], [], ["--num-cpus", "two", "s.py"], ["--resources", "x", "s.py"], ["--no"]],
)
def test_wrong_usage_executes_nothing(mray, executed, home, words):
    (home / "s.py").write_text("")
    assert mray("run", *words).code == 2
    assert executed == []


def test_the_exit_code_is_the_scripts_own(home):
    (home / "s.py").write_text("import sys; print(sys.argv); sys.exit(9)\n")
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-m", "mray.cli", "run", "s.py", "-x"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout, ended.stderr) == (9, "['s.py', '-x']\n", "")
