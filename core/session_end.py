"""Ends a session's processes, exactly those, and cleans up after sessions that died.

Covers: asking daemons to shut down, SIGTERM and SIGKILL with the process's identity checked before
each, removal of sockets and stores, pruning of old sessions. Does not touch drivers that users
started themselves: they see their cluster end.

Which processes: the recorded ones, their descendants, and whatever else carries the session's
directory in its environment (a child that left its parents behind). Never a name or a command line.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import time
from dataclasses import dataclass, field
from typing import Final

from mray.process import alive, open_pidfd, read_stat, send_signal
from mray.rpc.client import Client
from mray.session import ProcessRecord, Session, all_sessions
from mray.session_files import SHM_DIR, try_lock_store_dir
from mray.storage_place import FILE_NAME
from mray.wire.messages import Message, Shutdown

#: Set by bootstrap.py in the daemons' environment, and so in that of all that they start.
SESSION_VARIABLE: Final = "MRAY_SESSION_DIR"
#: Shares of the grace: the daemons' own orderly end, then what SIGTERM gets.
_ORDERLY_SHARE: Final = 0.6
#: A daemon whose loop turns answers in a millisecond.
_ANSWER_WAIT_S: Final = 1.0
#: After SIGKILL only the kernel's work is left; a process in uninterruptible sleep survives.
_KILL_WAIT_S: Final = 1.0
_LOOK_S: Final = 0.02
#: A directory that old without a session.json was never finished.
_UNFINISHED_S: Final = 3600.0


@dataclass(frozen=True, kw_only=True)
class EndReport:
    """What end_session did. ``survivors`` is empty unless something could not be ended."""

    stopped: list[ProcessRecord] = field(default_factory=list)
    survivors: list[ProcessRecord] = field(default_factory=list)


def end_session(
    session: Session, *, force: bool = False, grace_s: float = 5.0, reason: str = "mray stop"
) -> EndReport:
    """End every process of the session, then remove its sockets and stores; logs stay.

    Asks the daemons first, sends SIGTERM to what is left, then SIGKILL, all within ``grace_s`` and
    a second. ``force`` starts with SIGKILL. A session that has ended gives an empty report.
    """
    started_at = time.monotonic()
    found = _living(session)
    if not force:
        if _ask(session, reason, grace_s * _ORDERLY_SHARE):
            _wait_gone(found, started_at + grace_s * _ORDERLY_SHARE)
        found = _more(session, found)
        _signal(found, signal.SIGTERM)
        _wait_gone(found, started_at + grace_s)
    # Killed processes may have had time to start others: look again until there are none.
    kill_until = time.monotonic() + _KILL_WAIT_S
    while True:
        found = _more(session, found)
        left = [record for record in found if record.alive]
        if not left or time.monotonic() >= kill_until:
            break
        _signal(left, signal.SIGKILL)
        _wait_gone(left, kill_until)
    session.release()
    if not left:
        _remove_places(session)
    return EndReport(stopped=[record for record in found if record not in left], survivors=left)


def clean_stale(
    tmpdir: str, *, retention_s: float, retention_count: int, now_unix_s: float | None = None
) -> list[Session]:
    """Clean up after sessions that nobody holds, and prune ended ones; returns the former.

    Costs a directory listing where nothing is stale, and a look at all processes where something
    is.
    """
    now_unix_s = time.time() if now_unix_s is None else now_unix_s
    sessions = all_sessions(tmpdir)
    stale = [s for s in sessions if not s.ended and _unheld(s) and _clean(s)]
    kept = 0
    for session in sessions:
        if not session.ended:
            continue
        age_s = now_unix_s - _modified(session.path)
        if not os.path.exists(f"{session.path}/session.json"):
            if age_s > _UNFINISHED_S:
                shutil.rmtree(session.path, ignore_errors=True)
        elif kept >= retention_count or age_s > retention_s:
            shutil.rmtree(session.path, ignore_errors=True)
        else:
            kept += 1
    _sweep_stores([s.store_prefix for s in sessions if not s.ended])
    return stale


# -- finding processes


def _living(session: Session) -> list[ProcessRecord]:
    """The session's living processes, but for drivers of users, and this process."""
    found = {}
    drivers = {os.getpid()}
    for record in session.processes():
        if record.alive and record.pid != os.getpid():
            if record.kind == "driver":
                drivers.add(record.pid)
            else:
                found[record.pid] = record
    parents = _parents()
    # A driver that a job or a worker started belongs to the session; only its record does not tell.
    drivers = {pid for pid in drivers if pid not in found and _session_of(pid) != session.path}
    for pid in parents:
        if pid in found or pid in drivers:
            continue
        theirs = _session_of(pid)
        if theirs == session.path or (not theirs and _descends(pid, parents, found, drivers)):
            stat = read_stat(pid)
            if stat is not None and alive(pid, stat.start_time):
                found[pid] = ProcessRecord(
                    kind="child", pid=pid, start_time=stat.start_time, name=_command(pid)
                )
    return list(found.values())


def _more(session: Session, found: list[ProcessRecord]) -> list[ProcessRecord]:
    """``found`` and what has turned up since."""
    known = {(record.pid, record.start_time) for record in found}
    return found + [r for r in _living(session) if (r.pid, r.start_time) not in known]


def _parents() -> dict[int, int]:
    """The parent of every process of this user."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == os.getuid():
                    stat = read_stat(int(name))
                    if stat is not None:
                        parents[int(name)] = stat.parent_pid
            except FileNotFoundError:
                continue
    return parents


def _descends(
    pid: int, parents: dict[int, int], roots: dict[int, ProcessRecord], spared: set[int]
) -> bool:
    """Whether one of ``roots`` is above ``pid``, with none of ``spared`` in between."""
    while pid in parents:
        pid = parents[pid]
        if pid in spared:
            return False
        if pid in roots:
            return True
    return False


def _session_of(pid: int) -> str:
    """The session that the process was started in, as its environment says; "" where it is silent.

    A cluster that a job starts and leaves behind has a session of its own and is not the job's.
    """
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environ = file.read()
    except OSError:
        return ""  # Gone, or not ours to look into.
    start = f"{SESSION_VARIABLE}=".encode()
    for entry in environ.split(b"\0"):
        if entry.startswith(start):
            return os.fsdecode(entry.removeprefix(start))
    return ""


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read(200).replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "(gone)"


# -- ending them


def _ask(session: Session, reason: str, grace_s: float) -> bool:
    """Send Shutdown to the head, or without one to the nodes. False where there is none to ask.

    The head asks its nodes itself: asked by both, a node that ends on the head's word would leave
    our question unanswered. Whether anybody obeys is seen by their end.
    """
    try:
        info = session.info()
    except (FileNotFoundError, ValueError):
        return False  # Without its description only signals are left.
    living = {record.name for record in session.processes() if record.alive}
    if info.head_id in living:
        sockets = [info.head_ipc]
    else:
        sockets = [node.ipc for node in info.nodes if node.node_id in living]
    if not sockets:
        return False
    with Client() as client:
        answers: list[Message] = []
        for path in sockets:
            peer = client.reach(f"ipc://{path}")
            client.pump.request(
                peer, lambda rid: Shutdown(rid, reason, grace_s), answers.append, grace_s
            )
        # Whoever hangs up before the answer makes the daemon linger over it for a second.
        give_up_at = time.monotonic() + min(grace_s, _ANSWER_WAIT_S)
        while len(answers) < len(sockets) and (left_s := give_up_at - time.monotonic()) > 0:
            client.pump.run_once(left_s)
    return True


def _signal(records: list[ProcessRecord], number: signal.Signals) -> None:
    for record in records:
        try:
            send_signal(record.pid, record.start_time, number)
        except PermissionError:
            continue  # It became another user's; it is named among the survivors.


def _wait_gone(records: list[ProcessRecord], until: float) -> None:
    """Wait until all have ended, or until that moment (monotonic seconds)."""
    poller = select.poll()
    waiting = set()
    for record in records:
        pidfd = open_pidfd(record.pid, record.start_time)
        if pidfd is not None:
            waiting.add(pidfd)
            poller.register(pidfd, select.POLLIN)
    try:
        while waiting and (left_s := until - time.monotonic()) > 0:
            for pidfd, _ in poller.poll(left_s * 1000):
                poller.unregister(pidfd)
                waiting.remove(pidfd)
                os.close(pidfd)
    finally:
        for pidfd in waiting:
            os.close(pidfd)


# -- removing what they left


def _unheld(session: Session) -> bool:
    """Whether no process holds the session; then this one does, exclusively."""
    try:
        return session.try_own()
    except FileNotFoundError:
        return False  # Pruned by another start in this moment.


def _clean(session: Session) -> bool:
    """Kill what is left of a session that we own, and remove its places."""
    try:
        found = _living(session)
        _signal(found, signal.SIGKILL)
        _wait_gone(found, time.monotonic() + _KILL_WAIT_S)
        if any(record.alive for record in found):
            return False
        _remove_places(session)
        return True
    finally:
        session.release()


def _remove_places(session: Session) -> None:
    """Remove sockets, stores, spilled objects and process records; the session has then ended."""
    # A child that its killed parent was just making still has the parent's locks: it is no process
    # of the session to any eye, and ends by itself.
    give_up_at = time.monotonic() + _KILL_WAIT_S
    while not _remove_stores(session.store_prefix) and time.monotonic() < give_up_at:
        time.sleep(_LOOK_S)
    shutil.rmtree(f"{session.path}/spill", ignore_errors=True)
    shutil.rmtree(f"{session.path}/runtime_resources", ignore_errors=True)
    kept = [f"{session.path}/{FILE_NAME}{suffix}" for suffix in ("", "-wal", "-shm")]
    for path in (*kept, session.sign):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    shutil.rmtree(session.sockets, ignore_errors=True)
    link = f"{session.path}/sockets"
    if os.path.islink(link):
        os.unlink(link)
    shutil.rmtree(f"{session.path}/pids", ignore_errors=True)


def remove_dead_stores(session: Session) -> None:
    """Remove what killed node daemons of a session that goes on have left in memory."""
    _remove_stores(session.store_prefix)


def _remove_stores(prefix: str) -> bool:
    """Remove the store directories whose paths begin so and that nobody uses; whether that was
    all of them."""
    all_gone = True
    directory, name = os.path.split(prefix)
    for entry in os.listdir(directory):
        if not entry.startswith(name):
            continue
        path = f"{directory}/{entry}"
        try:
            if os.lstat(path).st_uid != os.getuid():
                continue
            lock_fd = try_lock_store_dir(path)
        except (FileNotFoundError, NotADirectoryError):
            continue  # Gone meanwhile, or no store.
        if lock_fd is None:
            all_gone = False
            continue
        # The lock last: while it is there, nobody else can take the directory for his own.
        for file in sorted(os.listdir(path), key=lambda file: file == "lock"):
            os.unlink(f"{path}/{file}")
        os.rmdir(path)
        os.close(lock_fd)
    return all_gone


def _sweep_stores(in_use: list[str]) -> None:
    """Remove stores that no session speaks for any more (its directory was removed by hand)."""
    prefix = f"{SHM_DIR}/mray-{os.getuid()}-"
    for entry in sorted(os.listdir(SHM_DIR)):
        path = f"{SHM_DIR}/{entry}"
        if path.startswith(prefix) and not path.startswith(tuple(in_use)):
            _remove_stores(path)


def _modified(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0
