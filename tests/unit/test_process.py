"""Processes are known by pid and start."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mray.process import alive, open_pidfd, read_stat, send_signal, start_time_of

NO_PID = 2**22 + 1


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A child that waits for its standard input to close."""
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    )
    yield process
    assert process.stdin is not None
    process.stdin.close()
    process.wait()


def test_a_process_is_alive_under_its_own_start_only() -> None:
    start = start_time_of(os.getpid())
    assert alive(os.getpid(), start)
    assert not alive(os.getpid(), start + 1)
    assert not alive(NO_PID, start)


def test_the_parent_and_the_start_are_read(child: subprocess.Popen[bytes]) -> None:
    stat = read_stat(child.pid)
    assert stat is not None
    assert stat.parent_pid == os.getpid()
    assert stat.start_time >= start_time_of(os.getpid())


def test_nobody_has_no_start() -> None:
    assert read_stat(NO_PID) is None
    with pytest.raises(ProcessLookupError, match=str(NO_PID)):
        start_time_of(NO_PID)


def test_a_zombie_is_not_alive(child: subprocess.Popen[bytes]) -> None:
    start = start_time_of(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not alive(child.pid, start)
    assert open_pidfd(child.pid, start) is None
    assert not send_signal(child.pid, start, signal.SIGTERM)


def test_a_pidfd_tells_of_the_end(child: subprocess.Popen[bytes]) -> None:
    pidfd = open_pidfd(child.pid, start_time_of(child.pid))
    assert pidfd is not None
    assert send_signal(child.pid, start_time_of(child.pid), signal.SIGKILL)
    assert select.select([pidfd], [], [], 30)[0] == [pidfd]
    os.close(pidfd)
    assert child.wait() == -signal.SIGKILL


def test_a_pid_used_again_is_not_signalled(child: subprocess.Popen[bytes]) -> None:
    assert not send_signal(child.pid, start_time_of(child.pid) - 1, signal.SIGKILL)
    assert child.poll() is None
    assert open_pidfd(child.pid, 1) is None
    assert open_pidfd(NO_PID, 1) is None


def test_a_name_with_parentheses_does_not_confuse() -> None:
    code = (
        "open('/proc/self/comm', 'w').write(') R 1 (x)')\n"
        "from mray.process import read_stat; import os; s = read_stat(os.getpid())\n"
        "assert s.parent_pid == os.getppid(), s"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
