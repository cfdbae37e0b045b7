"""A head looks at its port before it takes the storage: what cannot start ends no cluster."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from mray.daemon_params import DaemonParams, NodeOptions
from mray.node.head.port import holder_of, is_free, objection
from mray.process import read_stat
from mray.session import Session, SessionInfo, create_session
from mray.storage_place import StoragePlace
from mray.wire.messages import Address

from ...waiting import eventually

_LISTENER = """
import socket, sys
with socket.socket() as one:
    one.bind(("127.0.0.1", 0))
    one.listen()
    print(one.getsockname()[1], flush=True)
    sys.stdin.read()
"""


class Taken(NamedTuple):
    port: int
    pid: int
    session: Session


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    session = create_session(str(tmp_path))
    yield session
    session.release()


@pytest.fixture
def taken(session: Session) -> Iterator[Taken]:
    """A process in the session's environment that listens on a port."""
    process = subprocess.Popen(
        [sys.executable, "-c", _LISTENER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "MRAY_SESSION_DIR": session.path},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    yield Taken(int(process.stdout.readline()), process.pid, session)
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def wants(port: int, storage: StoragePlace = StoragePlace(kind="memory")) -> DaemonParams:  # noqa: B008
    head = Address(b"h" * 28, b"n" * 28)
    return DaemonParams(
        process_id=head.process_id, cluster_id="c", session_dir="/nowhere", is_head=True, head=head,
        head_pid=0, head_start_time=0, ipc="", config=b"", token="t", tcp_host="127.0.0.1",
        tcp_port=port, node=NodeOptions(), owner_pid=0, owner_start_time=0, ready_fd=-1,
        storage=storage,
    )  # fmt: skip


def shared(session: Session) -> StoragePlace:
    return StoragePlace(kind="file", path=f"{session.path}/kept", named=True)


def is_head_of(taken: Taken, storage: StoragePlace) -> None:
    taken.session.record_process("head", taken.pid, "aa")
    info = SessionInfo(
        cluster_id="c", role="head", head_id="aa", head_ipc="", head_tcp=f"127.0.0.1:{taken.port}",
        nodes=[], started_by="cli", created_unix_s=0.0, storage=storage,
    )  # fmt: skip
    taken.session.write_info(info)


def test_a_free_port_is_no_objection() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert is_free("127.0.0.1", port)
    assert objection(wants(port)) == ""
    assert objection(wants(0)) == ""


def test_a_program_that_has_the_port_is_named(taken: Taken) -> None:
    assert not is_free("127.0.0.1", taken.port)
    holder = holder_of(taken.port)
    assert holder is not None
    assert (holder.pid, holder.stopped, holder.session) == (taken.pid, False, None)
    text = objection(wants(taken.port, shared(taken.session)))
    assert f"port {taken.port} on 127.0.0.1 is in use by" in text
    assert f"(pid {taken.pid})" in text


def test_the_head_whose_storage_is_taken_over_will_leave(taken: Taken) -> None:
    storage = shared(taken.session)
    is_head_of(taken, storage)
    assert objection(wants(taken.port, storage)) == ""


def test_the_head_of_another_cluster_will_not(taken: Taken) -> None:
    is_head_of(taken, shared(taken.session))
    other = StoragePlace(kind="file", path="/elsewhere", named=True)
    text = objection(wants(taken.port, other))
    assert f"is in use by the head of session {taken.session.path} (pid {taken.pid})" in text


def test_a_head_that_is_stopped_holds_its_port_for_good(taken: Taken) -> None:
    storage = shared(taken.session)
    is_head_of(taken, storage)
    os.kill(taken.pid, signal.SIGSTOP)
    eventually(lambda: (stat := read_stat(taken.pid)) and stat.state == "T")
    text = objection(wants(taken.port, storage))
    assert f"is held by the head of session {taken.session.path} (pid {taken.pid})" in text
    assert "which is stopped (SIGSTOP)" in text
    assert f"kill -KILL {taken.pid}" in text
    assert "\n" not in text
