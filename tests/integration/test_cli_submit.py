"""Jobs submitted, watched and stopped by the command line, on one real cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

_MRAY = [sys.executable, "-m", "mray.cli"]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def environment(folder: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MRAY_"))}
    return {**kept, "HOME": str(folder), "MRAY_TMPDIR": str(folder)}


@pytest.fixture(scope="module")
def mray(folder: Path, environment: dict[str, str]) -> Iterator[Run]:
    """Run `mray` in a folder where a cluster of two CPUs is up."""

    def run(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            [*_MRAY, *words],
            **{"env": environment, "cwd": folder, "capture_output": True, "text": True,
               "timeout": 60, **options},
        )  # fmt: skip

    started = run("start", "--head", "--port", "0", "--num-cpus", "2")
    assert started.returncode == 0, started.stderr
    yield run
    assert run("stop").returncode == 0


@pytest.fixture
def script(folder: Path) -> Callable[[str], str]:
    """Write a script; returns its name."""

    def write(text: str) -> str:
        (folder / "job.py").write_text(textwrap.dedent(text))
        return "job.py"

    return write


@pytest.mark.parametrize("_", range(3))
def test_every_line_arrives_before_a_sudden_end(
    mray: Run, script: Callable[[str], str], _: int
) -> None:
    name = script(
        """
        import os
        for number in range(10_000):
            print("line", number)
        os._exit(3)
        """
    )
    ended = mray("submit", name)
    assert ended.returncode == 3
    assert ended.stdout == "".join(f"line {number}\n" for number in range(10_000))
    assert ended.stderr.splitlines()[-1].split(" after ")[0].endswith("failed with exit code 3")


def test_a_script_that_fails_shows_its_traceback_and_exit_code(
    mray: Run, script: Callable[[str], str]
) -> None:
    ended = mray("submit", script("def f():\n    raise ValueError('no')\nf()\n"))
    assert ended.returncode == 1
    assert ended.stdout.startswith("Traceback (most recent call last):\n")
    assert ended.stdout.endswith("ValueError: no\n")
    assert "launch.py" not in ended.stdout


def test_a_killed_driver_is_128_plus_the_signal(mray: Run, script: Callable[[str], str]) -> None:
    ended = mray("submit", script("import os; os.kill(os.getpid(), 9)\n"))
    assert ended.returncode == 137
    assert "signal 9" in ended.stderr or "SIGKILL" in ended.stderr


def test_arguments_environment_and_directory_reach_the_driver(
    mray: Run, script: Callable[[str], str], folder: Path
) -> None:
    name = script(
        """
        import os, sys
        print(sys.argv, os.environ["COLOUR"], os.getcwd(), __name__, "PATH" in os.environ)
        """
    )
    (folder / "elsewhere").mkdir(exist_ok=True)
    env = '{"env_vars": {"COLOUR": "red"}}'
    ended = mray("submit", "--runtime-env-json", env, "--working-dir", "elsewhere", name, "-x", "1")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    path = str(folder / "job.py")
    words = ended.stdout.removeprefix(f"{[path, '-x', '1']} red ").split()
    assert words[1:] == ["__main__", "True"]
    assert "/runtime_resources/" in words[0]


def test_environment_and_directory_reach_the_workers(
    mray: Run, script: Callable[[str], str], folder: Path
) -> None:
    name = script(
        """
        import os
        import mray
        @mray.remote
        def look():
            import neighbour
            return os.environ["COLOUR"], os.getcwd(), neighbour.VALUE
        print(*mray.get(look.remote()))
        """
    )
    (folder / "workplace").mkdir(exist_ok=True)
    (folder / "workplace" / "neighbour.py").write_text("VALUE = 7\n")
    env = '{"env_vars": {"COLOUR": "red"}}'
    ended = mray("submit", "--runtime-env-json", env, "--working-dir", "workplace", name)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    colour, place, value = ended.stdout.splitlines()[-1].split()
    assert (colour, value) == ("red", "7")
    assert "/runtime_resources/" in place


def test_a_job_runs_in_a_copy_of_its_zip_with_its_own_packages(mray: Run, folder: Path) -> None:
    main = """
        import sys
        import only_here
        import mray
        @mray.remote
        def look():
            import only_here
            return only_here.VALUE, sys.prefix
        print(only_here.VALUE, open("data.txt").read(), mray.get(look.remote()) == (5, sys.prefix))
        """
    info = "only_here-1.0.dist-info"
    with zipfile.ZipFile(folder / "only_here-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("only_here.py", "VALUE = 5\n")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: only_here\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    with zipfile.ZipFile(folder / "job.zip", "w") as archive:
        archive.writestr("main.py", textwrap.dedent(main))
        archive.writestr("data.txt", "zipped")
    pip = ["--no-index", "--find-links", str(folder), "--no-cache-dir"]
    env = {"pip": {"packages": ["only_here"], "pip_install_options": pip}, "working_dir": "job.zip"}
    (folder / "env.json").write_text(json.dumps(env))
    ended = mray("submit", "--runtime-env", "env.json", "main.py")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1] == "5 zipped True"


def test_a_job_whose_environment_cannot_be_made_fails_with_the_reason(
    mray: Run, script: Callable[[str], str]
) -> None:
    env = '{"pip": ["/nowhere/missing-1.0-py3-none-any.whl"]}'
    ended = mray("submit", "--runtime-env-json", env, script("print('ran')\n"))
    assert ended.returncode != 0
    assert "missing-1.0" in ended.stdout + ended.stderr
    assert "ran" not in ended.stdout.splitlines()


def test_a_job_that_waits_for_its_environment_can_be_stopped(
    mray: Run, script: Callable[[str], str], folder: Path
) -> None:
    os.mkfifo(folder / "never.txt")
    env = json.dumps({"pip": [f"-r {folder}/never.txt"]})
    words = ["--no-wait", "--submission-id", "waits", "--runtime-env-json", env]
    assert mray("submit", *words, script("print('ran')\n")).returncode == 0
    assert mray("job", "status", "waits").stdout.split()[-1:] != ["RUNNING"]
    assert mray("job", "stop", "waits").returncode == 0
    assert "STOPPED" in mray("job", "list", "--json").stdout


def test_a_command_runs_as_it_is(mray: Run) -> None:
    ended = mray("submit", "--", "sh", "-c", "echo out; echo err >&2; exit 5")
    assert (ended.returncode, ended.stdout) == (5, "out\nerr\n")


def test_a_command_that_does_not_exist_is_told(mray: Run) -> None:
    ended = mray("submit", "--", "no-such-command-anywhere")
    assert ended.returncode not in (0, 130)
    assert "no-such-command-anywhere" in ended.stdout + ended.stderr


def test_a_job_uses_the_cluster_under_either_name(mray: Run, script: Callable[[str], str]) -> None:
    name = script(
        """
        import ray
        @ray.remote
        def square(x):
            return x * x
        ray.init()
        print(sum(ray.get([square.remote(n) for n in range(10)])))
        """
    )
    ended = mray("submit", name)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1] == "285"


def test_a_job_is_listed_read_and_stopped(mray: Run, script: Callable[[str], str]) -> None:
    name = script("print('up', flush=True)\nimport time\ntime.sleep(600)\n")
    submitted = mray("submit", "--no-wait", "--submission-id", "sleeper", name)
    assert (submitted.returncode, submitted.stdout, submitted.stderr) == (0, "sleeper\n", "")
    watcher = subprocess.Popen(
        [*_MRAY, "job", "logs", "-f", "sleeper"],
        env={**os.environ, **_isolated(mray)}, text=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert watcher.stdout is not None
    with watcher:
        assert watcher.stdout.readline() == "up\n"
        facts = json.loads(mray("job", "status", "slee", "--json").stdout)
        assert (facts["status"], facts["exit_code"]) == ("RUNNING", None)
        assert "sleeper" in mray("job", "list").stdout
        assert mray("logs", "job", "sleeper").stdout == "up\n"
        again = mray("submit", "--submission-id", "sleeper", name)
        assert (again.returncode, again.stdout) == (1, "")
        stopped = mray("job", "stop", "sleeper")
        assert (stopped.returncode, stopped.stderr) == (0, "")
        assert stopped.stdout.startswith("job sleeper was stopped")
        assert watcher.wait(10) == 0
    assert mray("job", "stop", "sleeper").stdout.startswith("nothing to stop")
    assert json.loads(mray("job", "status", "sleeper", "--json").stdout)["status"] == "STOPPED"


def _isolated(mray: Run) -> dict[str, str]:
    """The variables by which `mray` finds this module's cluster."""
    found = mray("status", "--json")
    return {"MRAY_ADDRESS": json.loads(found.stdout)["session_dir"]}


def test_ctrl_c_leaves_the_job_running(
    mray: Run, script: Callable[[str], str], environment: dict[str, str], folder: Path
) -> None:
    name = script("print('up', flush=True)\nimport time\ntime.sleep(600)\n")
    watcher = subprocess.Popen(
        [*_MRAY, "submit", "--submission-id", "left", name],
        env=environment, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "up\n"
        watcher.send_signal(signal.SIGINT)
        _, err = watcher.communicate(timeout=10)
    assert watcher.returncode == 130
    assert "job left goes on" in err
    assert json.loads(mray("job", "status", "left", "--json").stdout)["status"] == "RUNNING"
    assert mray("job", "stop", "left").returncode == 0


def test_ctrl_c_stops_the_job_where_asked_for(
    mray: Run, script: Callable[[str], str], environment: dict[str, str], folder: Path
) -> None:
    name = script("print('up', flush=True)\nimport time\ntime.sleep(600)\n")
    watcher = subprocess.Popen(
        [*_MRAY, "submit", "--stop-on-interrupt", "--submission-id", "taken", name],
        env=environment, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "up\n"
        watcher.send_signal(signal.SIGINT)
        watcher.communicate(timeout=10)
    assert watcher.returncode == 130
    assert mray("job", "stop", "taken").returncode == 0
    assert json.loads(mray("job", "status", "taken", "--json").stdout)["status"] == "STOPPED"


def test_logs_of_daemons_and_workers(mray: Run, script: Callable[[str], str]) -> None:
    name = script(
        """
        import os, sys
        import mray
        @mray.remote
        class Speaker:
            def speak(self):
                print("from the actor", flush=True)
                print("an error", file=sys.stderr, flush=True)
                return os.getpid()
        speaker = Speaker.remote()
        print(mray.get(speaker.speak.remote()))
        """
    )
    ended = mray("submit", name)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (pid,) = [line for line in ended.stdout.splitlines() if line.isdecimal()]
    assert mray("logs", "worker", pid).stdout == "from the actor\n"
    assert mray("logs", "worker", pid, "--err").stdout == "an error\n"
    raylet = mray("logs", "raylet")
    assert raylet.returncode == 0
    assert raylet.stdout
    assert mray("logs", "raylet.out", "-ip", "127.0.0.1").stdout.startswith(raylet.stdout)
    assert mray("logs", "gcs").returncode == 0
    listed = {entry["name"] for entry in json.loads(mray("logs", "--json").stdout)}
    assert {"raylet.out", "gcs_server.out"} <= listed
    assert "node 127.0.0.1" in mray("logs").stdout


def test_run_needs_no_cluster_and_ends_with_the_scripts_code(
    mray: Run, script: Callable[[str], str]
) -> None:
    name = script(
        """
        import sys
        import mray
        @mray.remote
        def f():
            return 41 + 1
        print(mray.get(f.remote()), mray.cluster_resources()["CPU"], sys.argv[1:])
        sys.exit(6)
        """
    )
    before = mray("status", "--json").stdout
    ended = mray("run", "--num-cpus", "3", name, "--num-cpus", "x")
    assert ended.returncode == 6, ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1] == "42 3.0 ['--num-cpus', 'x']"
    assert len(json.loads(before)["nodes"]) == 1
