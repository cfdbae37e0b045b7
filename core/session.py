"""A session: one cluster's files on this machine, and the record of its processes.

Covers: the base directory ``<tmpdir>/mray-<uid>``, session directories, the sockets' and the
store's places, session.json, the process records, and finding the session an address means. Does
not start anything (bootstrap.py) nor end anything (session_end.py).

    <tmpdir>/mray-<uid>/                      0700
        session_latest -> session_…
        session_2026-01-31_12-00-00_123456_4121/
            session.json    SessionInfo
            lock            held shared by whoever uses the session, exclusively to clean it up
            logs/           gcs_server.out, raylet.out, worker-….out, …; kept when the session ends
            sockets/        or a link to /tmp/mray-<uid>/s/<key> where paths would be too long
            pids/           one ProcessRecord a file; gone when the session has ended
    /dev/shm/mray-<uid>-<key>-<node>/         the object store of one node, with a lock of its own

That a session is in use is known by its lock and never by a name or an age: a lock dies with its
holder, also in another container that shares the directory.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from mray.process import alive, start_time_of

ProcessKind = Literal["head", "node", "zygote", "worker", "driver", "job"]

#: A unix socket's path has at most 107 bytes; this many of them are for a socket's own name.
SOCKET_NAME_BYTES_MAX: Final = 32
_SOCKET_PATH_BYTES_MAX: Final = 107
_PREFIX: Final = "session_"
_LATEST: Final = "session_latest"
_SHM: Final = "/dev/shm"


class NodeEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A node daemon of the session: its id in hex and the unix socket it listens on."""

    node_id: str
    ipc: str


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """session.json. ``role`` is head where the head runs in this session, else node."""

    cluster_id: str
    role: Literal["head", "node"]
    #: The head's process id in hex.
    head_id: str
    #: The head's unix socket; "" where the head is on another machine.
    head_ipc: str
    #: The head's "host:port"; "" where it does not listen on tcp.
    head_tcp: str
    nodes: list[NodeEntry]
    started_by: Literal["cli", "init"]
    created_unix_s: float
    mray_version: str


class ProcessRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A process of the session. ``pid`` and ``start_time`` (clock ticks) together are exact."""

    kind: ProcessKind
    pid: int
    start_time: int
    #: For people: a node id, a worker id, a submission id, a command.
    name: str = ""

    @property
    def alive(self) -> bool:
        """Whether this very process runs."""
        return alive(self.pid, self.start_time)


class NoClusterError(ConnectionError):
    """No address was given and none was found. ``looked_for`` lists the places in order."""

    def __init__(self, text: str, looked_for: list[str]) -> None:
        super().__init__(text)
        self.looked_for = looked_for


class Session:
    """One session directory. Cheap: holds its path, and its lock once ``hold()`` was called."""

    __slots__ = ("_lock_fd", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock_fd = -1

    def __repr__(self) -> str:
        return f"Session({self.path!r})"

    @property
    def name(self) -> str:
        """The directory's name."""
        raise NotImplementedError

    @property
    def key(self) -> str:
        """8 hex digits that stand for the session where names must be short."""
        raise NotImplementedError

    @property
    def logs(self) -> str:
        """The directory of the log files."""
        raise NotImplementedError

    @property
    def sockets(self) -> str:
        """The directory of the sockets, short enough for names of SOCKET_NAME_BYTES_MAX."""
        raise NotImplementedError

    def info(self) -> SessionInfo:
        """What session.json says. FileNotFoundError or ValueError where it says nothing."""
        raise NotImplementedError

    def write_info(self, info: SessionInfo) -> None:
        """Replace session.json, whole or not at all."""
        raise NotImplementedError

    def record_process(
        self, kind: ProcessKind, pid: int, name: str = "", start_time: int | None = None
    ) -> ProcessRecord:
        """Write down a process that belongs to the session. ProcessLookupError: it is gone."""
        raise NotImplementedError

    def forget_process(self, kind: ProcessKind, pid: int) -> None:
        """Remove a record; no harm where there is none."""
        raise NotImplementedError

    def processes(self) -> list[ProcessRecord]:
        """All records, living or not, by kind and pid."""
        raise NotImplementedError

    def running(self) -> bool:
        """Whether the head (or, where the head is elsewhere, a node daemon) of it lives."""
        raise NotImplementedError

    def hold(self) -> None:
        """Keep the session from being cleaned up while this process lives. Idempotent."""
        raise NotImplementedError

    def release(self) -> None:
        """Undo hold()."""
        raise NotImplementedError

    def claim_store_dir(self, node_id: bytes) -> tuple[str, int]:
        """Make the directory of a node's object store in /dev/shm, 0700, and lock it.

        Returns its path and the descriptor that holds the lock: keep it open while the store is
        used. BlockingIOError where another process has it.
        """
        raise NotImplementedError


def base_dir(tmpdir: str) -> str:
    """``<tmpdir>/mray-<uid>``, made 0700. PermissionError where it is somebody else's."""
    raise NotImplementedError


def create_session(tmpdir: str) -> Session:
    """A new, empty session, held by this process, with session_latest pointing at it."""
    raise NotImplementedError


def open_session(path: str) -> Session:
    """The session in a directory. FileNotFoundError where there is none."""
    raise NotImplementedError


def all_sessions(tmpdir: str) -> list[Session]:
    """Every session directory, ended ones too, newest first."""
    raise NotImplementedError


def all_running(tmpdir: str) -> list[Session]:
    """The running sessions of this user: those with a head here first, then newest first."""
    raise NotImplementedError


def find_running(tmpdir: str) -> Session | None:
    """The first of all_running(), or None."""
    raise NotImplementedError


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


def resolve_address(address: str | None, environ: Mapping[str, str], *, tmpdir: str) -> Target:
    """What to connect to.

    ``address``: None or "auto" takes MRAY_ADDRESS, then RAY_ADDRESS, then the first running
    session; "local"; "host:port"; a session directory; the path of a head's socket (with or
    without ipc://). Raises NoClusterError where nothing was named and nothing runs,
    ConnectionError where what was named does not run here, ValueError where it is no address.
    Does not talk to a tcp address.
    """
    raise NotImplementedError
