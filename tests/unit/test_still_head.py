"""A head that stands still is known by its state, and only such a one is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mray.process import alive, start_time_of
from mray.session import Session, create_session
from mray.still_head import end_still, is_still, still_head

from ..waiting import eventually


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    session = create_session(str(tmp_path))
    yield session
    session.release()


@pytest.fixture
def head(session: Session) -> Iterator[subprocess.Popen[bytes]]:
    """A process that the session has as its head."""
    text = "import sys; print(flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    session.record_process("head", process.pid, "aa")
    yield process
    process.kill()
    process.wait()
    assert process.stdin is not None
    process.stdin.close()
    process.stdout.close()


def stop(head: subprocess.Popen[bytes], session: Session) -> None:
    os.kill(head.pid, signal.SIGSTOP)
    eventually(lambda: still_head(session) is not None)


def test_a_head_that_runs_is_left_alone(session: Session, head: subprocess.Popen[bytes]) -> None:
    assert still_head(session) is None
    record = session.processes()[0]
    assert not end_still(record, watch_s=0.0)
    assert record.alive


def test_a_stopped_head_is_found_and_ended(session: Session, head: subprocess.Popen[bytes]) -> None:
    stop(head, session)
    record = still_head(session)
    assert record is not None
    assert record.pid == head.pid
    assert end_still(record, watch_s=0.01)
    assert head.wait() == -signal.SIGKILL
    assert still_head(session) is None


def test_a_head_that_has_ended_is_out_of_the_way(
    session: Session, head: subprocess.Popen[bytes]
) -> None:
    stop(head, session)
    record = still_head(session)
    assert record is not None
    head.kill()
    head.wait()
    assert end_still(record)


def test_another_process_with_the_same_number_is_no_head(
    session: Session, head: subprocess.Popen[bytes]
) -> None:
    stop(head, session)
    pid = head.pid
    other = session.record_process("head", pid, "aa", start_time=start_time_of(pid) - 1)
    assert not is_still(other)
    assert end_still(other)
    assert alive(pid, start_time_of(pid))
