"""Ending sessions and cleaning up after dead ones: exactly what is theirs, and all of it."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator

import pytest

import mray.session_end
from mray.process import alive, open_pidfd, start_time_of
from mray.session import NodeEntry, Session, SessionInfo, create_session
from mray.session_end import SESSION_VARIABLE, clean_stale, end_session

pytestmark = pytest.mark.failure

#: Says "up" when it stands, and waits; ignores SIGTERM.
STUBBORN = "trap '' TERM; echo up; while :; do sleep 1000; done"
#: The same, but ends on SIGTERM as anybody would.
POLITE = "echo up; exec sleep 1000"
#: Leaves a child behind in a process session of its own, says its pid, and ends.
LEAVES_A_CHILD = "setsid sleep 1000 >/dev/null & echo $!"
#: Has a child, says its pid, and waits.
HAS_A_CHILD = "sleep 1000 & echo $!; wait"

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def tmpdir() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="m", dir="/tmp") as path:
        yield path


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a shell script and wait for its first line; all are killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def begin(script: str, session: Session | None = None) -> subprocess.Popen[str]:
        environ = {k: v for k, v in os.environ.items() if k != SESSION_VARIABLE}
        if session is not None:
            environ[SESSION_VARIABLE] = session.path
        process = subprocess.Popen(
            ["sh", "-c", script], stdout=subprocess.PIPE, text=True, env=environ
        )
        started.append(process)
        assert process.stdout is not None
        process.args = process.stdout.readline().strip()
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def session(tmpdir: str) -> Iterator[Session]:
    made = create_session(tmpdir)
    describe(made)
    yield made
    made.release()


def describe(session: Session) -> None:
    session.write_info(
        SessionInfo(
            cluster_id="c",
            role="head",
            head_id="aa",
            head_ipc=f"{session.sockets}/gcs",
            head_tcp="",
            nodes=[NodeEntry(node_id="bb", ipc=f"{session.sockets}/raylet-1")],
            started_by="cli",
            created_unix_s=1.0,
        )
    )


def make_store(session: Session) -> str:
    path = f"{session.store_prefix}aabbccdd"
    os.mkdir(path, 0o700)
    for name in ("lock", "arena"):
        with open(f"{path}/{name}", "w") as file:
            file.write("x")
    return path


def wait_gone(pid: int, start_time: int) -> None:
    """Until a process that is not our child has ended."""
    pidfd = open_pidfd(pid, start_time)
    if pidfd is not None:
        assert select.select([pidfd], [], [], 30)[0]
        os.close(pidfd)


# -- ending


def test_recorded_processes_end_whatever_they_do_about_sigterm(
    session: Session, start: Start
) -> None:
    polite, stubborn = start(POLITE), start(STUBBORN)
    session.record_process("node", polite.pid, "n")
    session.record_process("worker", stubborn.pid, "w")
    report = end_session(session, grace_s=0.3)
    assert report.survivors == []
    assert {("node", polite.pid), ("worker", stubborn.pid)} <= {
        (r.kind, r.pid) for r in report.stopped
    }
    assert (polite.wait(), stubborn.wait()) == (-signal.SIGTERM, -signal.SIGKILL)


def test_force_does_not_ask(session: Session, start: Start) -> None:
    polite = start(POLITE)
    session.record_process("node", polite.pid)
    end_session(session, force=True)
    assert polite.wait() == -signal.SIGKILL


def test_places_are_removed_and_logs_stay(session: Session) -> None:
    store = make_store(session)
    with open(f"{session.sockets}/gcs", "w"), open(f"{session.logs}/raylet.out", "w"):
        pass
    end_session(session)
    assert not os.path.exists(store)
    assert not os.path.exists(session.sockets)
    assert os.listdir(session.logs) == ["raylet.out"]
    assert session.ended
    assert end_session(session) == mray.session_end.EndReport()


def test_children_of_recorded_processes_end_with_them(session: Session, start: Start) -> None:
    parent = start(HAS_A_CHILD)
    child = int(str(parent.args))
    child_start = start_time_of(child)
    session.record_process("worker", parent.pid)
    report = end_session(session, grace_s=0.5)
    assert (child, "child") in [(r.pid, r.kind) for r in report.stopped]
    wait_gone(child, child_start)


def test_a_child_that_left_its_parents_is_found_by_its_environment(
    session: Session, start: Start
) -> None:
    parent = start(LEAVES_A_CHILD, session)
    child = int(str(parent.args))
    child_start = start_time_of(child)
    parent.wait()
    report = end_session(session, grace_s=0.5)
    assert [r.pid for r in report.stopped] == [child]
    assert "sleep 1000" in report.stopped[0].name
    wait_gone(child, child_start)


def test_a_driver_of_the_user_is_left_alone_with_its_children(
    session: Session, start: Start
) -> None:
    driver = start(HAS_A_CHILD)
    session.record_process("driver", driver.pid)
    assert end_session(session, grace_s=0.2).stopped == []
    assert driver.poll() is None
    assert alive(int(str(driver.args)), start_time_of(int(str(driver.args))))
    os.kill(int(str(driver.args)), signal.SIGKILL)


def test_a_driver_that_a_job_started_ends(session: Session, start: Start) -> None:
    driver = start(POLITE, session)
    session.record_process("driver", driver.pid)
    assert [r.pid for r in end_session(session, grace_s=0.5).stopped] == [driver.pid]
    driver.wait()


def test_a_pid_that_is_used_again_is_left_alone(session: Session, start: Start) -> None:
    stranger = start(POLITE)
    session.record_process("worker", stranger.pid, start_time=start_time_of(stranger.pid) - 5)
    assert end_session(session, grace_s=0.2).stopped == []
    assert stranger.poll() is None


def test_a_session_beside_it_is_left_alone(session: Session, tmpdir: str, start: Start) -> None:
    other = create_session(tmpdir)
    describe(other)
    mine, theirs = start(POLITE, session), start(POLITE, other)
    session.record_process("node", mine.pid)
    other.record_process("node", theirs.pid)
    store = make_store(other)
    end_session(session, grace_s=0.5)
    assert mine.wait() == -signal.SIGTERM
    assert theirs.poll() is None
    assert os.path.exists(store)
    assert not other.ended
    end_session(other, force=True)


def test_what_cannot_be_ended_is_named_and_stays_recorded(
    session: Session, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = start(POLITE)
    session.record_process("worker", stuck.pid, "w1")
    with monkeypatch.context() as broken:
        broken.setattr(mray.session_end, "send_signal", lambda pid, start_time, number: False)
        broken.setattr(mray.session_end, "_KILL_WAIT_S", 0.1)
        report = end_session(session, grace_s=0.1)
    assert [(r.kind, r.pid, r.name) for r in report.survivors] == [("worker", stuck.pid, "w1")]
    assert report.stopped == []
    assert not session.ended
    assert [r.pid for r in end_session(session, force=True).stopped] == [stuck.pid]
    assert session.ended


# -- cleaning up after the dead


def clean(tmpdir: str, **changes: float) -> list[str]:
    options: dict[str, float] = {"retention_s": 1e9, "retention_count": 10, **changes}
    found = clean_stale(tmpdir, **options)  # type: ignore[arg-type]
    return [session.name for session in found]


def test_a_session_whose_processes_are_dead_is_cleaned(tmpdir: str, session: Session) -> None:
    store = make_store(session)
    session.record_process("head", os.getpid(), start_time=1)
    session.release()  # As if its processes had been killed, all at once.
    assert clean(tmpdir) == [session.name]
    assert session.ended
    assert not os.path.exists(store)
    assert os.path.isdir(session.logs)
    assert clean(tmpdir) == []


def test_orphans_of_a_dead_session_are_killed_and_strangers_are_not(
    tmpdir: str, session: Session, start: Start
) -> None:
    orphan, stranger, driver = start(STUBBORN), start(POLITE), start(POLITE)
    session.record_process("worker", orphan.pid)
    session.record_process("zygote", stranger.pid, start_time=start_time_of(stranger.pid) - 5)
    session.record_process("driver", driver.pid)
    session.release()
    assert clean(tmpdir) == [session.name]
    assert orphan.wait() == -signal.SIGKILL
    assert stranger.poll() is None
    assert driver.poll() is None


def test_orphans_that_were_never_recorded_are_found_by_their_environment(
    tmpdir: str, session: Session, start: Start
) -> None:
    orphan = start(POLITE, session)
    session.release()
    assert clean(tmpdir) == [session.name]
    assert orphan.wait() == -signal.SIGKILL


def test_a_held_session_is_left_alone(tmpdir: str, session: Session, start: Start) -> None:
    store, worker = make_store(session), start(POLITE)
    session.record_process("worker", worker.pid)
    assert clean(tmpdir, retention_count=0, retention_s=0) == []
    assert worker.poll() is None
    assert os.path.exists(store)
    assert os.path.isdir(session.sockets)
    end_session(session, force=True)


def test_a_store_that_somebody_uses_is_left_alone(tmpdir: str, session: Session) -> None:
    store = make_store(session)
    with open(f"{store}/lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        session.release()
        clean(tmpdir)
        assert os.path.exists(f"{store}/arena")
    clean(tmpdir)
    assert not os.path.exists(store)


def test_a_store_without_a_session_is_removed(tmpdir: str, session: Session) -> None:
    gone = Session(f"{tmpdir}/mray-{os.getuid()}/session_gone")
    store = make_store(gone)
    clean(tmpdir)
    assert not os.path.exists(store)


def test_what_merely_has_such_a_name_is_left_alone(tmpdir: str) -> None:
    path = f"/dev/shm/mray-{os.getuid()}-file-{os.getpid()}"
    with open(path, "w"):
        clean(tmpdir)
    assert os.path.exists(path)
    os.unlink(path)


def test_ended_sessions_are_kept_by_number_and_age(tmpdir: str) -> None:
    sessions = [create_session(tmpdir) for _ in range(4)]
    for age_s, session in zip((400, 300, 200, 100), sessions, strict=True):
        describe(session)
        end_session(session)
        os.utime(session.path, (1000 - age_s, 1000 - age_s))
    clean(tmpdir, retention_count=3, now_unix_s=1000)
    assert [os.path.isdir(s.path) for s in sessions] == [False, True, True, True]
    clean(tmpdir, retention_s=250, now_unix_s=1000)
    assert [os.path.isdir(s.path) for s in sessions] == [False, False, True, True]


def test_a_directory_that_is_being_made_is_not_pruned(tmpdir: str) -> None:
    session = create_session(tmpdir)
    os.rmdir(f"{session.path}/pids")
    os.utime(session.path, (1000, 1000))
    clean(tmpdir, retention_count=0, retention_s=0, now_unix_s=1001)
    assert os.path.isdir(session.path)
    session.release()
    clean(tmpdir, now_unix_s=1000 + 7200)
    assert not os.path.isdir(session.path)
