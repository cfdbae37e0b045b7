"""Addresses where no cluster is, tokens that are not the cluster's: one clear line, soon."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.failure

Run = Callable[..., "subprocess.CompletedProcess[str]"]
#: "Within 5 seconds" is promised; the rest is for a machine that has other things to do.
_SOON_S = 15.0


@pytest.fixture
def mray(tmp_path: Path) -> Run:
    """Run `mray` as a user without any cluster, but with a token."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MRAY_"))}
    base = {**kept, "HOME": str(tmp_path), "MRAY_TMPDIR": str(tmp_path), "RAY_AUTH_TOKEN": "a" * 64}

    def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "job.py").write_text("print('ran')\n")
        return subprocess.run(
            [sys.executable, "-m", "mray.cli", *words],
            env={**base, **variables}, cwd=tmp_path, capture_output=True, text=True,
            timeout=_SOON_S,
        )  # fmt: skip

    return run


@pytest.fixture
def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def mute_port() -> Iterator[str]:
    """A port of a program that takes connections and says nothing."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        yield f"127.0.0.1:{mute.getsockname()[1]}"


@pytest.fixture
def talking_port() -> Iterator[str]:
    """A port of a program that speaks something else."""
    with socket.socket() as talking:
        talking.bind(("127.0.0.1", 0))
        talking.listen()

        def talk() -> None:
            while True:
                try:
                    connection, _ = talking.accept()
                except OSError:
                    return
                connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n" + bytes(range(256)) * 64)
                connection.close()

        threading.Thread(target=talk, daemon=True).start()
        yield f"127.0.0.1:{talking.getsockname()[1]}"
        talking.shutdown(socket.SHUT_RDWR)


_COMMANDS = [
    ("status",), ("health-check",), ("logs", "raylet"), ("job", "list"), ("list", "actors"),
]  # fmt: skip


@pytest.mark.parametrize("words", _COMMANDS)
def test_a_port_where_nobody_listens_is_refused_at_once(
    mray: Run, closed_port: str, words: tuple[str, ...]
) -> None:
    ended = mray(*words, "--address", closed_port)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        f"mray: no cluster can be reached at {closed_port} (the address given): "
        "connection refused\n"
    )


def test_submit_to_a_port_where_nobody_listens_is_refused_at_once(
    mray: Run, closed_port: str
) -> None:
    ended = mray("submit", "--address", closed_port, "job.py")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "connection refused" in ended.stderr


@pytest.mark.parametrize("port", ["mute_port", "talking_port"])
def test_a_port_of_something_else_is_told_from_a_head(
    mray: Run, request: pytest.FixtureRequest, port: str
) -> None:
    address = request.getfixturevalue(port)
    ended = mray("health-check", "--address", address)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert len(ended.stderr.splitlines()) == 1
    assert f"something listens at {address} but does not answer as an mray head" in ended.stderr


def test_joining_a_port_where_nobody_listens_is_refused_at_once(
    mray: Run, closed_port: str
) -> None:
    ended = mray("start", "--address", closed_port)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert len(ended.stderr.splitlines()) == 1
    assert closed_port in ended.stderr


def test_the_address_of_the_environment_is_named_with_its_variable(
    mray: Run, closed_port: str
) -> None:
    ended = mray("status", RAY_ADDRESS=closed_port)
    assert ended.returncode == 1
    assert f"(RAY_ADDRESS={closed_port})" in ended.stderr


def test_a_host_that_does_not_exist_is_named(mray: Run) -> None:
    ended = mray("status", "--address", "no-such-host.invalid:6379")
    assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1)
    assert "no-such-host.invalid:6379" in ended.stderr


@pytest.mark.parametrize("address", ["here", "host:", "host:0", "host:99999", "ray://host:1"])
def test_what_is_no_address_is_exit_code_2(mray: Run, address: str) -> None:
    ended = mray("status", "--address", address)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
    assert address in ended.stderr


def test_a_token_that_cannot_be_used_is_told(mray: Run, closed_port: str) -> None:
    ended = mray("status", "--address", closed_port, RAY_AUTH_TOKEN="short")
    assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1)
    assert "RAY_AUTH_TOKEN" in ended.stderr
    assert "short" not in ended.stderr.replace("too short", "")


def test_a_script_that_does_not_exist_is_found_out_before_the_cluster_is(mray: Run) -> None:
    ended = mray("submit", "missing.py")
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
    assert "missing.py does not exist" in ended.stderr


def test_wrong_token_for_a_real_head(mray: Run, tmp_path: Path) -> None:
    started = mray("start", "--head", "--port", "0", "--num-cpus", "1")
    assert started.returncode == 0, started.stderr
    try:
        line = next(line for line in started.stdout.splitlines() if "start --address" in line)
        address = line.split()[-1]
        begun = time.monotonic()
        # As somebody else would come: not by the session, but by its port.
        elsewhere = str(tmp_path / "elsewhere")
        ended = mray(
            "status", "--address", address, RAY_AUTH_TOKEN="b" * 64, MRAY_TMPDIR=elsewhere
        )
        assert time.monotonic() - begun < _SOON_S
        assert (ended.returncode, ended.stdout) == (1, "")
        assert "refuses the cluster token" in ended.stderr
        for stale in ("b" * 64, "c" * 32):
            begun = time.monotonic()
            ended = mray("start", "--address", address, RAY_AUTH_TOKEN=stale,
                         MRAY_TMPDIR=elsewhere)  # fmt: skip
            assert time.monotonic() - begun < _SOON_S
            assert (ended.returncode, ended.stdout) == (1, "")
            assert "refuses the cluster token" in ended.stderr
            assert stale not in ended.stderr
    finally:
        assert mray("stop").returncode == 0
