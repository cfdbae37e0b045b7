"""Sessions on disk: made, found, locked, recorded; and what an address means."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mray.process import start_time_of
from mray.session import (
    NoClusterError,
    NodeEntry,
    Session,
    SessionInfo,
    all_running,
    all_sessions,
    base_dir,
    create_session,
    find_running,
    find_started,
    open_session,
    resolve_address,
)
from mray.storage_place import StoragePlace


@pytest.fixture
def tmpdir() -> Iterator[str]:
    """A directory with a short path, so that sockets stay in their sessions."""
    with tempfile.TemporaryDirectory(prefix="m", dir="/tmp") as path:
        yield path


@pytest.fixture
def made(tmpdir: str) -> Iterator[list[Session]]:
    """Sessions to let go of at the end."""
    sessions: list[Session] = []
    yield sessions
    for session in sessions:
        session.release()


def info(session: Session, **changes: object) -> SessionInfo:
    fields: dict[str, object] = {
        "cluster_id": "c1",
        "role": "head",
        "head_id": "aa",
        "head_ipc": f"{session.sockets}/gcs",
        "head_tcp": "127.0.0.1:6379",
        "nodes": [NodeEntry(node_id="bb", ipc=f"{session.sockets}/raylet-1")],
        "started_by": "cli",
        "created_unix_s": 1.0,
    }
    return SessionInfo(**{**fields, **changes})  # type: ignore[arg-type]


def running(tmpdir: str, made: list[Session], **changes: object) -> Session:
    """A session whose head (or node) is this very process."""
    session = create_session(tmpdir)
    made.append(session)
    described = info(session, **changes)
    session.write_info(described)
    session.record_process(described.role, os.getpid())
    return session


# -- the base directory


def test_the_base_is_private_and_made_with_its_parents(tmpdir: str) -> None:
    base = base_dir(f"{tmpdir}/deep/er")
    assert base == f"{tmpdir}/deep/er/mray-{os.getuid()}"
    assert stat.S_IMODE(os.stat(base).st_mode) == 0o700


def test_a_base_that_others_could_read_is_closed(tmpdir: str) -> None:
    os.mkdir(f"{tmpdir}/mray-{os.getuid()}", 0o755)
    assert stat.S_IMODE(os.stat(base_dir(tmpdir)).st_mode) == 0o700


def test_a_base_of_another_user_is_refused(tmpdir: str) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a directory away")
    os.mkdir(f"{tmpdir}/mray-0", 0o700)
    os.chown(f"{tmpdir}/mray-0", 65534, -1)
    with pytest.raises(PermissionError, match=r"owned by uid 65534.*MRAY_TMPDIR"):
        create_session(tmpdir)
    assert all_sessions(tmpdir) == []


def test_a_base_that_is_a_link_is_refused(tmpdir: str) -> None:
    os.symlink("/tmp", f"{tmpdir}/mray-{os.getuid()}")
    with pytest.raises(PermissionError, match="a link or file"):
        base_dir(tmpdir)


# -- a session's directory


def test_a_new_session_is_private_empty_and_the_latest(tmpdir: str, made: list[Session]) -> None:
    session = create_session(tmpdir)
    made.append(session)
    assert session.path.startswith(f"{tmpdir}/mray-{os.getuid()}/session_")
    assert session.name.endswith(f"_{os.getpid()}")
    for path in (session.path, session.logs, session.sockets, f"{session.path}/pids"):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    latest = f"{os.path.dirname(session.path)}/session_latest"
    assert os.path.realpath(latest) == os.path.realpath(session.path)
    assert session.processes() == []
    assert not session.ended
    assert not session.running()


def test_sessions_made_in_one_moment_differ(tmpdir: str, made: list[Session]) -> None:
    made += [create_session(tmpdir) for _ in range(20)]
    assert len({session.path for session in made}) == 20
    assert len({session.key for session in made}) == 20


def test_sockets_move_where_their_paths_would_be_too_long(
    tmp_path: Path, made: list[Session]
) -> None:
    session = create_session(str(tmp_path / ("x" * 60)))
    made.append(session)
    try:
        assert session.sockets == f"/tmp/mray-{os.getuid()}/s/{session.key}"
        assert os.path.realpath(f"{session.path}/sockets") == session.sockets
        assert stat.S_IMODE(os.stat(session.sockets).st_mode) == 0o700
        assert len(f"{session.sockets}/{'n' * 32}") <= 107
    finally:
        os.rmdir(session.sockets)


def test_session_json_comes_back_as_written(tmpdir: str, made: list[Session]) -> None:
    session = create_session(tmpdir)
    made.append(session)
    with pytest.raises(FileNotFoundError):
        session.info()
    session.write_info(info(session))
    assert open_session(session.path).info() == info(session)


def test_a_directory_without_session_json_is_no_session(tmpdir: str) -> None:
    with pytest.raises(FileNotFoundError, match="holds no mray session"):
        open_session(tmpdir)


# -- processes


def test_processes_are_recorded_with_their_start_and_forgotten(
    tmpdir: str, made: list[Session]
) -> None:
    session = create_session(tmpdir)
    made.append(session)
    record = session.record_process("worker", os.getpid(), "w1")
    assert record.start_time == start_time_of(os.getpid())
    assert record.alive
    session.record_process("head", os.getpid(), "h", start_time=1)
    assert [r.kind for r in session.processes()] == ["head", "worker"]
    assert [r.alive for r in session.processes()] == [False, True]
    session.forget_process("head", os.getpid())
    session.forget_process("head", os.getpid())
    assert session.processes() == [record]


def test_a_process_that_is_gone_cannot_be_recorded(tmpdir: str, made: list[Session]) -> None:
    session = create_session(tmpdir)
    made.append(session)
    with pytest.raises(ProcessLookupError):
        session.record_process("worker", 2**22 + 1)


def test_a_torn_record_is_left_out(tmpdir: str, made: list[Session]) -> None:
    session = create_session(tmpdir)
    made.append(session)
    Path(session.path, "pids", "worker-1.json").write_text('{"kind": "wor')
    assert session.processes() == []


# -- locks


def test_a_held_session_cannot_be_owned_by_another(tmpdir: str, made: list[Session]) -> None:
    session = create_session(tmpdir)
    made.append(session)
    other = Session(session.path)
    assert not other.try_own()
    session.release()
    assert other.try_own()
    other.release()


def test_a_socket_has_one_listener(tmpdir: str, made: list[Session]) -> None:
    session = create_session(tmpdir)
    made.append(session)
    claim = session.claim_socket("gcs")
    with pytest.raises(BlockingIOError, match=r"another process listens on .*/gcs"):
        session.claim_socket("gcs")
    os.close(claim)
    os.close(session.claim_socket("gcs"))


def test_a_socket_that_is_given_up_leaves_nothing_and_goes_to_one_alone(
    tmpdir: str, made: list[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = create_session(tmpdir)
    made.append(session)
    claim, plain = session.claim_socket("gcs"), fcntl.flock

    def given_up_meanwhile(descriptor: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", plain)
        session.give_up_socket("gcs", claim)
        assert os.listdir(session.sockets) == []
        plain(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", given_up_meanwhile)
    next_claim = session.claim_socket("gcs")
    with pytest.raises(BlockingIOError):
        session.claim_socket("gcs")
    session.give_up_socket("gcs", next_claim)
    assert os.listdir(session.sockets) == []


# -- finding


def test_only_sessions_whose_head_lives_are_running(tmpdir: str, made: list[Session]) -> None:
    assert find_running(tmpdir) is None
    first = running(tmpdir, made)
    second = running(tmpdir, made)
    assert [s.path for s in all_running(tmpdir)] == [second.path, first.path]
    # The same pid, but of a process that started at another time.
    second.record_process("head", os.getpid(), start_time=1)
    found = find_running(tmpdir)
    assert found is not None
    assert found.path == first.path
    assert [s.path for s in all_sessions(tmpdir)] == [second.path, first.path]


def test_a_session_of_a_joined_node_comes_after_one_with_a_head(
    tmpdir: str, made: list[Session]
) -> None:
    with_head = running(tmpdir, made)
    joined = running(tmpdir, made, role="node", head_ipc="", head_tcp="10.0.0.5:6379")
    assert [s.path for s in all_running(tmpdir)] == [with_head.path, joined.path]


def test_only_what_was_started_by_command_is_joined_unasked(
    tmpdir: str, made: list[Session]
) -> None:
    running(tmpdir, made, started_by="init")
    assert find_started(tmpdir) is None
    first = running(tmpdir, made, started_by="cli")
    running(tmpdir, made, started_by="init")
    found = find_started(tmpdir)
    assert found is not None
    assert found.path == first.path


def test_a_process_that_ended_and_was_not_reaped_is_not_alive(
    tmpdir: str, made: list[Session]
) -> None:
    session = running(tmpdir, made)
    session.forget_process("head", os.getpid())
    child = subprocess.Popen([sys.executable, "-c", ""])
    session.record_process("head", child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not session.running()
    child.wait()


# -- addresses


def test_without_an_address_the_environment_comes_first(tmpdir: str, made: list[Session]) -> None:
    running(tmpdir, made)
    environ = {"RAY_ADDRESS": "10.0.0.1:1", "MRAY_ADDRESS": "10.0.0.2:2"}
    target = resolve_address(None, environ, tmpdir=tmpdir)
    assert (target.kind, target.endpoint) == ("tcp", "tcp://10.0.0.2:2")
    assert target.why == "MRAY_ADDRESS=10.0.0.2:2"
    del environ["MRAY_ADDRESS"]
    assert resolve_address("auto", environ, tmpdir=tmpdir).endpoint == "tcp://10.0.0.1:1"


@pytest.mark.parametrize("address", [None, "auto", ""])
def test_without_any_address_the_running_session_is_meant(
    tmpdir: str, made: list[Session], address: str | None
) -> None:
    session = running(tmpdir, made)
    target = resolve_address(address, {"RAY_ADDRESS": "auto"}, tmpdir=tmpdir)
    assert target.kind == "session"
    assert target.session is not None
    assert target.session.path == session.path
    assert target.endpoint == f"ipc://{session.sockets}/gcs"
    assert session.name in target.why


def test_with_nothing_running_the_error_names_what_was_looked_for(tmpdir: str) -> None:
    with pytest.raises(NoClusterError) as caught:
        resolve_address(None, {}, tmpdir=tmpdir)
    assert isinstance(caught.value, ConnectionError)
    assert caught.value.looked_for == [
        "MRAY_ADDRESS (not set)",
        "RAY_ADDRESS (not set)",
        f"a running session in {tmpdir}/mray-{os.getuid()}",
    ]
    assert "mray start --head" in str(caught.value)


def test_local_is_a_new_cluster_whatever_runs(tmpdir: str, made: list[Session]) -> None:
    running(tmpdir, made)
    assert resolve_address("local", {"RAY_ADDRESS": "h:1"}, tmpdir=tmpdir).kind == "local"


@pytest.mark.parametrize("address", ["127.0.0.1:6379", "localhost:6379"])
def test_a_port_of_a_session_here_is_that_session(
    tmpdir: str, made: list[Session], address: str
) -> None:
    session = running(tmpdir, made)
    target = resolve_address(address, {}, tmpdir=tmpdir)
    assert target.session is not None
    assert target.session.path == session.path


def test_a_port_that_a_node_here_has_joined_is_that_nodes_session(
    tmpdir: str, made: list[Session]
) -> None:
    joined = running(tmpdir, made, role="node", head_ipc="", head_tcp="10.0.0.5:6379")
    target = resolve_address("10.0.0.5:6379", {}, tmpdir=tmpdir)
    assert (target.kind, target.endpoint) == ("session", "tcp://10.0.0.5:6379")
    assert target.session is not None
    assert target.session.path == joined.path
    # The same port on this machine would be another head.
    assert resolve_address("localhost:6379", {}, tmpdir=tmpdir).kind == "tcp"


@pytest.mark.parametrize("form", ["{path}", "{path}/", "{sock}/gcs", "ipc://{sock}/raylet-1"])
def test_a_session_is_named_by_its_directory_or_a_socket(
    tmpdir: str, made: list[Session], form: str
) -> None:
    session = running(tmpdir, made)
    address = form.format(path=session.path, sock=session.sockets)
    target = resolve_address(address, {}, tmpdir=tmpdir)
    assert target.session is not None
    assert target.session.path == os.path.realpath(session.path)


def test_session_latest_names_a_session(tmpdir: str, made: list[Session]) -> None:
    session = running(tmpdir, made)
    latest = f"{os.path.dirname(session.path)}/session_latest"
    assert resolve_address(latest, {}, tmpdir=tmpdir).endpoint.endswith(
        f"{session.name}/sockets/gcs"
    )


def test_a_named_session_that_does_not_run_is_an_error(tmpdir: str, made: list[Session]) -> None:
    session = running(tmpdir, made)
    session.forget_process("head", os.getpid())
    with pytest.raises(ConnectionError, match="does not run any more"):
        resolve_address(session.path, {}, tmpdir=tmpdir)
    with pytest.raises(ConnectionError, match="no running session has the socket"):
        resolve_address(f"{session.sockets}/gcs", {}, tmpdir=tmpdir)
    with pytest.raises(ConnectionError, match="holds no mray session"):
        resolve_address(tmpdir, {}, tmpdir=tmpdir)


@pytest.mark.parametrize(
    "address", ["nonsense", "host", "host:", "host:0", "host:70000", "a b:1", "http://h:1", ":1"]
)
def test_what_is_no_address_is_said_to_be_none(tmpdir: str, address: str) -> None:
    with pytest.raises(ValueError, match=r"is no address: expected auto, local, HOST:PORT"):
        resolve_address(address, {}, tmpdir=tmpdir)


def test_ray_client_addresses_are_refused_with_a_way_out(tmpdir: str) -> None:
    with pytest.raises(ValueError, match=r"Ray Client.*use HOST:PORT"):
        resolve_address("ray://h:10001", {}, tmpdir=tmpdir)


def test_a_bracketed_ipv6_address_is_one(tmpdir: str) -> None:
    assert resolve_address("[fe80::1]:6379", {}, tmpdir=tmpdir).endpoint == "tcp://[fe80::1]:6379"


def _with_head(tmp_path: Path, *, storage: bool) -> Session:
    session = create_session(str(tmp_path))
    place = StoragePlace(kind="file", path="/x") if storage else None
    session.write_info(
        SessionInfo(
            cluster_id="c", role="head", head_id="aa", head_ipc="", head_tcp="127.0.0.1:7000",
            nodes=[NodeEntry(node_id="bb", ipc="")], started_by="cli", created_unix_s=0.0,
            storage=place,
        ),
        new=True,
    )  # fmt: skip
    return session


def test_a_session_whose_node_waits_for_its_head_runs_without_it(tmp_path: Path) -> None:
    session = _with_head(tmp_path, storage=True)
    session.record_process("node", os.getpid(), "bb")
    assert session.running()
    assert session.headless()
    assert session.resumable(60.0)
    session.record_process("head", os.getpid(), "aa")
    assert session.running()
    assert not session.headless()
    assert not session.resumable(60.0)
    session.release()


def test_a_head_without_storage_is_not_waited_for(tmp_path: Path) -> None:
    session = _with_head(tmp_path, storage=False)
    session.record_process("node", os.getpid(), "bb")
    assert not session.running()
    assert not session.headless()
    assert not session.resumable(60.0)
    session.release()


def test_a_session_of_which_nothing_lives_is_resumed_only_for_nodes_elsewhere(
    tmp_path: Path,
) -> None:
    session = _with_head(tmp_path, storage=True)
    assert not session.resumable(60.0)
    Path(session.sign).touch()
    assert session.resumable(60.0)
    os.utime(session.sign, (0, 0))
    assert not session.resumable(60.0)
    session.release()
