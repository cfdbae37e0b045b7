"""The files of one session: one cluster's, or one node's, directory on this machine.

Covers: the layout, session.json, the record of processes, and the locks on the session, its
sockets and its stores. Sessions are made and found by session.py, ended by session_end.py.

    <tmpdir>/mray-<uid>/                      0700
        session_latest -> session_…
        session_2026-01-31_12-00-00_123456_4121/
            session.json    SessionInfo
            lock            held shared by whoever uses the session, exclusively to clean it up
            logs/           gcs_server.out, raylet.out, worker-….out, …; kept when the session ends
            sockets/        or a link to /tmp/mray-<uid>/s/<key> where paths would be too long
            pids/           one ProcessRecord a file; gone when the session has ended
            gcs.sqlite      the head's state, unless it is kept elsewhere; gone with the session
            nodes-elsewhere touched by the head while it has nodes that this session does not
    /dev/shm/mray-<uid>-<session>-<node>/     the object store of one node, with a lock of its own

That a session is in use is known by its lock and never by a name or an age: a lock dies with its
holder, also in another container that shares the directory.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import time
from typing import Final, Literal

import msgspec

from mray.process import alive, start_time_of
from mray.storage_place import StoragePlace

#: A job is a driver that `mray submit` started; a child was never recorded, only found.
ProcessKind = Literal["head", "node", "zygote", "worker", "driver", "job", "child"]

#: A unix socket's path has at most 107 bytes; this many of them are for a socket's own name.
SOCKET_NAME_BYTES_MAX: Final = 32
_SOCKET_PATH_BYTES_MAX: Final = 107
#: Where nodes make their stores (mray.node.objects.arena).
SHM_DIR: Final = "/dev/shm"


class NodeEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A node daemon of the session: its id in hex and the unix socket it listens on."""

    node_id: str
    ipc: str
    #: The host that it listens on by tcp, "" for not at all, and under which others reach it.
    tcp_host: str = ""
    tcp_shown: str = ""


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
    #: The host that the head binds, and where it keeps its state: for a head that is started again.
    head_host: str = ""
    storage: StoragePlace | None = None


class ProcessRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A process of the session. ``pid`` and ``start_time`` (clock ticks) together are exact."""

    kind: ProcessKind
    pid: int
    start_time: int
    #: The process id of a head, node or worker in hex; a submission id; for people otherwise.
    name: str = ""

    @property
    def alive(self) -> bool:
        """Whether this very process runs."""
        return alive(self.pid, self.start_time)


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
        return os.path.basename(self.path)

    @property
    def key(self) -> str:
        """8 hex digits that stand for the session where names must be short."""
        # Of the name and not the path, which may be written in two ways where links are in it.
        return hashlib.blake2b(os.fsencode(self.name), digest_size=4).hexdigest()

    @property
    def logs(self) -> str:
        """The directory of the log files."""
        return f"{self.path}/logs"

    @property
    def sockets(self) -> str:
        """The directory of the sockets, short enough for names of SOCKET_NAME_BYTES_MAX."""
        plain = f"{self.path}/sockets"
        if len(os.fsencode(plain)) + 1 + SOCKET_NAME_BYTES_MAX <= _SOCKET_PATH_BYTES_MAX:
            return plain
        return f"/tmp/mray-{os.getuid()}/s/{self.key}"

    # -- session.json

    def info(self) -> SessionInfo:
        """What session.json says. FileNotFoundError or ValueError where it says nothing."""
        with open(f"{self.path}/session.json", "rb") as file:
            return msgspec.json.decode(file.read(), type=SessionInfo)

    def write_info(self, info: SessionInfo, *, new: bool = False) -> None:
        """Replace session.json, whole or not at all.

        ``new``: FileExistsError where there is one, so that a session is begun by one start only.
        """
        _write_whole(f"{self.path}/session.json", msgspec.json.encode(info), new=new)

    # -- processes

    def record_process(
        self, kind: ProcessKind, pid: int, name: str = "", start_time: int | None = None
    ) -> ProcessRecord:
        """Write down a process that belongs to the session. ProcessLookupError: it is gone.

        Read ``start_time`` yourself where the process is no child of the caller and could have
        ended meanwhile.
        """
        if start_time is None:
            start_time = start_time_of(pid)
        record = ProcessRecord(kind=kind, pid=pid, start_time=start_time, name=name)
        _write_whole(f"{self.path}/pids/{kind}-{pid}.json", msgspec.json.encode(record))
        return record

    def forget_process(self, kind: ProcessKind, pid: int) -> None:
        """Remove a record; no harm where there is none."""
        try:
            os.unlink(f"{self.path}/pids/{kind}-{pid}.json")
        except FileNotFoundError:
            return

    def processes(self) -> list[ProcessRecord]:
        """All records, living or not, by kind and pid. A torn or foreign file is left out."""
        records = []
        for name in self._record_names():
            record = self._read_record(name)
            if record is not None:
                records.append(record)
        return sorted(records, key=lambda record: (record.kind, record.pid))

    def _record_names(self) -> list[str]:
        try:
            return [name for name in os.listdir(f"{self.path}/pids") if name.endswith(".json")]
        except FileNotFoundError:
            return []

    def _read_record(self, name: str) -> ProcessRecord | None:
        try:
            with open(f"{self.path}/pids/{name}", "rb") as file:
                return msgspec.json.decode(file.read(), type=ProcessRecord)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    @property
    def ended(self) -> bool:
        """Whether it was ended in order, or cleaned up after: nothing but files is left of it."""
        return not os.path.isdir(f"{self.path}/pids")

    def running(self) -> bool:
        """Whether the head of it lives, or a node daemon that is there without the head: because
        the head is elsewhere, or waited for."""
        try:
            info = self.info()
        except (FileNotFoundError, ValueError):
            return False
        if info.role == "head" and self._lives("head"):
            return True
        return (info.role == "node" or info.storage is not None) and self._lives("node")

    def headless(self) -> bool:
        """Whether it is without its head, which can be started again: its node daemon waits."""
        if self.ended or not self.running():
            return False
        return self.info().role == "head" and not self._lives("head")

    def resumable(self, within_s: float) -> bool:
        """Whether a head that is started again has nodes to come back: its node daemon here, or,
        where nothing is left here, nodes elsewhere that saw it ``within_s`` seconds ago."""
        if self.headless():
            return True
        try:
            info = self.info()
            age_s = time.time() - os.stat(self.sign).st_mtime
        except (FileNotFoundError, ValueError):
            return False
        return not (self.ended or self._lives("head") or info.storage is None) and age_s < within_s

    @property
    def sign(self) -> str:
        """The file that a head touches while nodes elsewhere are in its cluster."""
        return f"{self.path}/nodes-elsewhere"

    def _lives(self, kind: ProcessKind) -> bool:
        for name in self._record_names():
            if name.startswith(f"{kind}-"):
                record = self._read_record(name)
                if record is not None and record.alive:
                    return True
        return False

    # -- locks

    def hold(self) -> None:
        """Keep the session from being cleaned up while this process lives. Idempotent.

        FileNotFoundError where it was cleaned up meanwhile.
        """
        if self._lock_fd < 0:
            lock_fd = os.open(f"{self.path}/lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(lock_fd, fcntl.LOCK_SH)
            self._lock_fd = lock_fd

    def release(self) -> None:
        """Undo hold()."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def try_own(self) -> bool:
        """Take the session for oneself, in place of hold(). False where others hold it."""
        if self._lock_fd < 0:
            self._lock_fd = os.open(f"{self.path}/lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            return False
        return True

    def claim_socket(self, name: str) -> int:
        """Take the right to listen on the socket ``name``; returns the descriptor that holds it.

        BlockingIOError where another process has it: binding would steal its path.
        """
        path = f"{self.sockets}/{name}.lock"
        while True:
            lock_fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock_fd)
                raise BlockingIOError(
                    f"another process listens on {self.sockets}/{name} already"
                ) from None
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(lock_fd).st_ino == os.stat(path).st_ino:
                    return lock_fd
            os.close(lock_fd)  # Whoever had it gave it up just then, and the file with it.

    def give_up_socket(self, name: str, lock_fd: int) -> None:
        """Undo claim_socket(): nobody listens there any more."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.sockets}/{name}.lock")
        os.close(lock_fd)

    @property
    def store_prefix(self) -> str:
        """What the paths of the store directories of the session's nodes begin with."""
        return f"{SHM_DIR}/mray-{os.getuid()}-{self.name}-"


def try_lock_store_dir(path: str) -> int | None:
    """The descriptor that locks a store directory, or None where somebody uses it.

    FileNotFoundError where it is gone. Whoever removes a store directory holds its lock, so a lock
    counts only if its file still stands at the path.
    """
    lock_fd = os.open(f"{path}/lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock_fd).st_ino == os.stat(f"{path}/lock").st_ino:
            return lock_fd
    except BlockingIOError:
        os.close(lock_fd)
        return None
    except FileNotFoundError:
        os.close(lock_fd)
        raise
    os.close(lock_fd)
    raise FileNotFoundError(f"{path} was made anew")


def _write_whole(path: str, data: bytes, *, new: bool = False) -> None:
    """Write a file that readers see either whole or not at all."""
    directory, name = os.path.split(path)
    temporary = f"{directory}/.{name}.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        # Fewer bytes than asked for: there was room for those only.
        if os.write(descriptor, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        os.unlink(temporary)
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(descriptor)
    if not new:
        os.replace(temporary, path)
        return
    try:
        os.link(temporary, path)
    finally:
        os.unlink(temporary)
