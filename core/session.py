"""Makes and finds sessions: the base directory, new ones, running ones, and what an address means.

Covers: ``<tmpdir>/mray-<uid>`` and whose it is, the names of sessions, session_latest, addresses.
What is in a session is session_files.py's. Does not start daemons (bootstrap.py) nor end any
(session_end.py), and talks to nobody: what runs is known from the records alone.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from mray.session_files import NodeEntry, ProcessKind, ProcessRecord, Session, SessionInfo

__all__ = [
    "NoClusterError",
    "NodeEntry",
    "ProcessKind",
    "ProcessRecord",
    "Session",
    "SessionInfo",
    "Target",
    "all_running",
    "all_sessions",
    "base_dir",
    "create_session",
    "find_running",
    "find_started",
    "open_session",
    "resolve_address",
]

_PREFIX: Final = "session_"
_LATEST: Final = "session_latest"
_HERE: Final = ("localhost", "127.0.0.1", "::1")
_HOST_PORT: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:/]+):([0-9]{1,5})")


def base_dir(tmpdir: str) -> str:
    """``<tmpdir>/mray-<uid>``, made 0700. PermissionError where it is somebody else's."""
    path = f"{tmpdir.rstrip('/')}/mray-{os.getuid()}"
    _make_private(path)
    return path


def create_session(tmpdir: str) -> Session:
    """A new, empty session, held by this process, with session_latest pointing at it."""
    base = base_dir(tmpdir)
    while True:
        now_ns = time.time_ns()
        day = time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(now_ns // 10**9))
        name = f"{_PREFIX}{day}_{now_ns // 1000 % 10**6:06d}_{os.getpid()}"
        try:
            os.mkdir(f"{base}/{name}", 0o700)
            break
        except FileExistsError:
            continue  # Made by another thread in this very microsecond.
    session = Session(f"{base}/{name}")
    session.hold()
    for path in (session.logs, f"{session.path}/pids", f"{session.path}/sockets"):
        if path != f"{session.path}/sockets" or session.sockets == path:
            os.mkdir(path, 0o700)
        else:
            _make_private(f"/tmp/mray-{os.getuid()}")
            os.makedirs(session.sockets, 0o700)
            os.symlink(session.sockets, path)
    _point_latest(base, name)
    return session


def open_session(path: str) -> Session:
    """The session in a directory. FileNotFoundError where there is none."""
    path = os.path.realpath(path)
    if not os.path.isfile(f"{path}/session.json"):
        raise FileNotFoundError(f"{path} holds no mray session: there is no session.json in it")
    return Session(path)


def all_sessions(tmpdir: str) -> list[Session]:
    """Every session directory of this user, ended ones too, newest first."""
    base = f"{tmpdir.rstrip('/')}/mray-{os.getuid()}"
    try:
        if os.lstat(base).st_uid != os.getuid():
            return []
        names = os.listdir(base)
    except FileNotFoundError:
        return []
    sessions = sorted((n for n in names if n.startswith(_PREFIX) and n != _LATEST), reverse=True)
    return [Session(f"{base}/{name}") for name in sessions]


def all_running(tmpdir: str) -> list[Session]:
    """The running sessions of this user: those with a head here first, then newest first."""
    running = [s for s in all_sessions(tmpdir) if not s.ended and s.running()]
    return sorted(running, key=lambda session: session.info().role != "head")


def find_running(tmpdir: str) -> Session | None:
    """The first of all_running(), or None."""
    return next(iter(all_running(tmpdir)), None)


def find_started(tmpdir: str) -> Session | None:
    """The latest running session that `mray start` began, or None: what init() joins unasked."""
    return next((s for s in all_running(tmpdir) if s.info().started_by == "cli"), None)


def _point_latest(base: str, name: str) -> None:
    temporary = f"{base}/.{_LATEST}.{name}"
    os.symlink(name, temporary)
    os.replace(temporary, f"{base}/{_LATEST}")


@dataclass(frozen=True, kw_only=True)
class Target:
    """What an address means. ``kind``:

    local    make a new cluster
    session  a running session on this machine: drivers join its node, the CLI asks its head
    tcp      a head elsewhere at ``endpoint``; no node daemon of it runs on this machine
    """

    kind: Literal["local", "session", "tcp"]
    #: The head's endpoint for Client.reach: "ipc:///…" or "tcp://host:port"; "" for local.
    endpoint: str = ""
    session: Session | None = None
    #: Where the address came from, for messages: "MRAY_ADDRESS=…", "the latest session …".
    why: str = ""


class NoClusterError(ConnectionError):
    """No address was given and none was found. ``looked_for`` lists the places in order."""

    def __init__(self, looked_for: list[str]) -> None:
        super().__init__(
            f"no running cluster found; looked for {', '.join(looked_for)}; "
            "start one with `mray start --head`, or name one by address"
        )
        self.looked_for = looked_for


def resolve_address(address: str | None, environ: Mapping[str, str], *, tmpdir: str) -> Target:
    """What to connect to.

    ``address``: None or "auto" takes MRAY_ADDRESS, then RAY_ADDRESS, then the first running
    session; "local"; "host:port"; a session directory; the path of a socket of a session (with or
    without ipc://). Raises NoClusterError where nothing was named and nothing runs,
    ConnectionError where what was named does not run here, ValueError where it is no address.
    Does not talk to a tcp address.
    """
    why = "the address given"
    looked_for = []
    if address in (None, "", "auto"):
        address = None
        for variable in ("MRAY_ADDRESS", "RAY_ADDRESS"):
            named = environ.get(variable, "").strip()
            if named and named != "auto":
                address, why = named, f"{variable}={named}"
                break
            looked_for.append(f"{variable} ({named or 'not set'})")
    if address is None:
        running = find_running(tmpdir)
        if running is None:
            looked_for.append(f"a running session in {tmpdir.rstrip('/')}/mray-{os.getuid()}")
            raise NoClusterError(looked_for)
        return _session_target(running, f"the latest running session {running.name}")
    if address == "local":
        return Target(kind="local", why=why)
    path = address.removeprefix("ipc://")
    if path.startswith("/"):
        return _path_target(path, tmpdir, why)
    return _tcp_target(address, tmpdir, why)


def _session_target(session: Session, why: str) -> Target:
    info = session.info()
    endpoint = f"ipc://{info.head_ipc}" if info.head_ipc else f"tcp://{info.head_tcp}"
    return Target(kind="session", endpoint=endpoint, session=session, why=why)


def _path_target(path: str, tmpdir: str, why: str) -> Target:
    if os.path.isdir(path):
        try:
            session = open_session(path)
        except FileNotFoundError as error:
            raise ConnectionError(f"{why}: {error}") from error
        if session.ended or not session.running():
            raise ConnectionError(f"{why}: the session {session.path} does not run any more")
        return _session_target(session, why)
    for session in all_running(tmpdir):
        info = session.info()
        if path in (info.head_ipc, *(node.ipc for node in info.nodes)):
            return _session_target(session, why)
    raise ConnectionError(f"{why}: no running session has the socket {path}")


def _tcp_target(address: str, tmpdir: str, why: str) -> Target:
    if address.startswith("ray://"):
        raise ValueError(
            f"{why}: {address} is an address of Ray Client, which mray does not have; "
            "use HOST:PORT on a machine with a node of the cluster"
        )
    found = _HOST_PORT.fullmatch(address)
    if found is None or not 0 < int(found[2]) < 65536:
        raise ValueError(
            f"{why}: {address!r} is no address: expected auto, local, HOST:PORT, a session "
            "directory or the path of a socket"
        )
    host, port = found[1].strip("[]"), found[2]
    for session in all_running(tmpdir):
        info = session.info()
        their_host, _, their_port = info.head_tcp.rpartition(":")
        here = info.role == "head" and host in _HERE
        if port == their_port and (host == their_host.strip("[]") or here):
            return _session_target(session, why)
    return Target(kind="tcp", endpoint=f"tcp://{address}", why=why)


def _make_private(path: str) -> None:
    """Make a directory for this user alone. PermissionError where it is not ours or is a link."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            what = (
                f"owned by uid {found.st_uid}" if stat.S_ISDIR(found.st_mode) else "a link or file"
            )
            raise PermissionError(
                f"{path} is {what}, and has to be a directory of uid {os.getuid()}: "
                "remove it, or set MRAY_TMPDIR to another directory"
            ) from None
        if found.st_mode & 0o077:
            os.chmod(path, 0o700)
