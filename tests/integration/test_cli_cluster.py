"""Clusters started, looked at and stopped by the command line, with real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.integration

_MRAY = [sys.executable, "-m", "mray.cli"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def _environment(folder: Path) -> dict[str, str]:
    """The environment of a user who has nothing but ``folder``."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MRAY_"))}
    return {**kept, "HOME": str(folder), "MRAY_TMPDIR": str(folder)}


def _processes_of(folder: Path) -> list[psutil.Process]:
    """What runs with its session under ``folder``."""
    found = []
    for process in psutil.process_iter():
        try:
            place = process.environ().get("MRAY_SESSION_DIR", "")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if place.startswith(str(folder)) and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Run `mray`; afterwards everything is stopped and nothing may be left."""
    environment = _environment(tmp_path)

    def run(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            [*_MRAY, *words],
            **{"env": environment, "cwd": tmp_path, "capture_output": True, "text": True,
               "timeout": 60, **options},
        )  # fmt: skip

    yield run
    run("stop", "--all", "--force")
    assert _processes_of(tmp_path) == []


def _started(run: Run, *words: str) -> str:
    """Start a head at a free port; returns its address."""
    started = run("start", "--head", "--port", "0", "--num-cpus", "1", *words)
    assert started.returncode == 0, started.stderr
    address: str = json.loads(run("status", "--json").stdout)["address"]
    return address


def test_start_status_stop(run: Run, tmp_path: Path) -> None:
    started = run("start", "--head", "--port", "0", "--num-cpus", "2", "--labels", "zone=a")
    assert (started.returncode, started.stderr) == (0, "")
    assert started.stdout.startswith("Local node IP: 127.0.0.1\n")
    facts = json.loads(run("status", "--json").stdout)
    (node,) = facts["nodes"]
    assert (node["state"], node["is_head"], node["labels"]["zone"]) == ("ALIVE", True, "a")
    assert facts["resources"]["CPU"] == {"used": 0.0, "total": 2.0}
    assert facts["address"] in started.stdout
    assert run("status").returncode == 0
    assert run("health-check").returncode == 0
    assert [n["pid"] for n in json.loads(run("list", "nodes", "--json").stdout)] == [node["pid"]]
    store = node["object_store_path"]
    assert os.path.exists(store)
    stopped = run("stop")
    assert (stopped.returncode, stopped.stderr) == (0, "")
    assert stopped.stdout.startswith("stopped 1 head, 1 node")
    assert _processes_of(tmp_path) == []
    assert not os.path.exists(store)
    assert run("stop").stdout.startswith("nothing to stop")
    assert run("health-check").returncode == 1


JOINS = """
import os, sys
import mray
try:
    mray.init(**eval(sys.argv[1]))
except ValueError as error:
    sys.exit(f"refused: {error}")
print(sorted(mray.cluster_resources().items())[0], mray.get_runtime_context().get_session_name())
"""


def test_a_program_joins_what_was_started_unless_it_wants_its_own(
    run: Run, tmp_path: Path
) -> None:
    def program(arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", JOINS, arguments],
            env=_environment(tmp_path), cwd=tmp_path, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip

    _started(run, "--resources", '{"A": 5}')
    session = json.loads(run("status", "--json").stdout)["session_dir"].rpartition("/")[2]
    joined = program("{}")
    assert joined.stdout == f"('A', 5.0) {session}\n"
    assert f"connecting to the cluster that `mray start` began: {session}" in joined.stderr
    refused = program("{'num_cpus': 1}")
    assert refused.returncode == 1
    assert "init('local') starts one of its own" in refused.stderr
    own = program("{'address': 'local', 'num_cpus': 3}")
    assert own.stdout.startswith("('CPU', 3.0) ")
    assert session not in own.stdout


def test_a_second_start_on_the_port_says_what_runs_there(run: Run) -> None:
    address = _started(run)
    again = run("start", "--head", "--port", address.rpartition(":")[2])
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.startswith(f"mray: a cluster of yours already runs at {address}")
    assert "mray stop --session session_" in again.stderr
    assert len(again.stderr.splitlines()) == 1
    assert run("health-check").returncode == 0


def test_a_port_of_a_foreign_program_is_named_and_nothing_is_left(run: Run, tmp_path: Path) -> None:
    with socket.socket() as foreign:
        foreign.bind(("127.0.0.1", 0))
        foreign.listen()
        port = str(foreign.getsockname()[1])
        started = run("start", "--head", "--port", port)
    assert (started.returncode, started.stdout) == (1, "")
    assert len(started.stderr.splitlines()) == 1
    assert port in started.stderr
    assert _processes_of(tmp_path) == []
    assert run("stop").stdout.startswith("nothing to stop")


def test_two_clusters_side_by_side_do_not_see_each_other(run: Run) -> None:
    first = _started(run)
    second = _started(run)
    assert first != second
    both = [json.loads(run("status", "--json", "--address", a).stdout) for a in (first, second)]
    assert both[0]["cluster_id"] != both[1]["cluster_id"]
    assert [len(facts["nodes"]) for facts in both] == [1, 1]
    session = os.path.basename(both[0]["session_dir"])
    assert run("stop", "--session", session).returncode == 0
    assert run("health-check", "--address", second).returncode == 0
    assert run("health-check", "--address", first).returncode == 1


def test_a_second_node_joins_by_address(run: Run) -> None:
    address = _started(run)
    joined = run("start", "--address", address, "--num-cpus", "3")
    assert (joined.returncode, joined.stderr) == (0, "")
    facts = json.loads(run("status", "--json", "--address", address).stdout)
    assert facts["resources"]["CPU"]["total"] == 4.0
    assert run("stop").returncode == 0


@pytest.fixture
def blocking(run: Run, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`mray start --head --block`, up and waiting."""
    process = subprocess.Popen(
        [*_MRAY, "start", "--head", "--port", "0", "--num-cpus", "1", "--block"],
        env=_environment(tmp_path), cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            if "Staying in the foreground" in line:
                break
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_blocking_start_and_its_cluster(
    blocking: subprocess.Popen[str], tmp_path: Path, number: signal.Signals
) -> None:
    blocking.send_signal(number)
    _, err = blocking.communicate(timeout=20)
    assert blocking.returncode == 128 + number
    assert err == f"mray: {number.name}: stopping the session\n"
    assert _processes_of(tmp_path) == []


def test_a_blocking_start_tells_of_a_daemon_that_died(
    blocking: subprocess.Popen[str], run: Run, tmp_path: Path
) -> None:
    pid = json.loads(run("status", "--json").stdout)["nodes"][0]["pid"]
    os.kill(pid, signal.SIGKILL)
    _, err = blocking.communicate(timeout=20)
    assert blocking.returncode == 1
    assert err == f"mray: the node (pid {pid}) was killed by SIGKILL; stopping the rest\n"
    assert _processes_of(tmp_path) == []


def test_a_program_that_runs_locally_looks_at_its_cluster_with_the_command_line(
    run: Run, tmp_path: Path
) -> None:
    program = tmp_path / "look.py"
    program.write_text(
        "import subprocess, sys, mray\n"
        "mray.init(num_cpus=1)\n"
        "subprocess.run([sys.executable, '-m', 'mray.cli', 'status'], check=True)\n"
    )
    done = run("run", str(program))
    assert done.returncode == 0, done.stderr
    assert "ALIVE (head)" in done.stdout
