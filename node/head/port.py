"""Who has the port that a head wants, found before the head becomes one by its storage.

Taking the storage over ends the head that has it. One that could then not listen would have ended a
cluster for nothing; so what makes a start impossible is looked at first.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import Final, NamedTuple

from mray.daemon_params import DaemonParams
from mray.process import read_stat
from mray.rpc.endpoints import is_ipv6
from mray.session_files import Session

_TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")
_LISTENS: Final = "0A"
#: That of mray.session_end, which starts and asks more than a head should load.
_SESSION_VARIABLE: Final = "MRAY_SESSION_DIR"
_STOPPED: Final = ("T", "t")


class Holder(NamedTuple):
    """A process that listens on a port. ``session``: of which it is the head, if it is one."""

    pid: int
    command: str
    stopped: bool
    session: Session | None

    def __str__(self) -> str:
        if self.session is not None:
            return f"the head of session {self.session.path} (pid {self.pid})"
        return f"{self.command} (pid {self.pid})"


def objection(params: DaemonParams) -> str:
    """Why a head cannot have its port, for people; "" where it can, or will soon.

    It will where the port is held by the head that is taken over: that one ends when it finds out.
    """
    host, port = params.tcp_host, params.tcp_port
    if not host or not port or params.resume or is_free(host, port):
        return ""
    holder = holder_of(port)
    if holder is None:
        return f"port {port} on {host} is in use by another program: {_OTHER}"
    if holder.stopped:
        return (
            f"port {port} on {host} is held by {holder}, which is stopped (SIGSTOP): `kill -CONT "
            f"{holder.pid}` lets it go on, `kill -KILL {holder.pid}` frees the port for this start;"
            " or choose another port with --port"
        )
    if holder.session is not None and params.storage.named:
        with contextlib.suppress(OSError, ValueError):
            if holder.session.info().storage == params.storage:
                return ""
    return f"port {port} on {host} is in use by {holder}: {_OTHER}"


_OTHER: Final = "stop that one, or choose another port with --port"


def is_free(host: str, port: int) -> bool:
    """Whether somebody could listen there at this moment. True where only trying can tell."""
    family = socket.AF_INET6 if is_ipv6(host) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As libzmq does: connections of a former listener that close do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def holder_of(port: int) -> Holder | None:
    """Who listens on a port of this machine; None where that cannot be seen (another user's)."""
    sockets = {f"socket:[{inode}]" for path in _TABLES for inode in _listening(path, port)}
    if not sockets:
        return None
    for name in os.listdir("/proc"):
        if name.isdigit() and _has(name, sockets):
            return _described(int(name))
    return None


def _listening(path: str, port: int) -> list[str]:
    """The inodes of the sockets of one table that listen on a port."""
    try:
        with open(path, encoding="ascii") as file:
            rows = [line.split() for line in file.readlines()[1:]]
    except OSError:
        return []
    ending = f":{port:04X}"
    return [row[9] for row in rows if row[3] == _LISTENS and row[1].endswith(ending)]


def _has(pid: str, sockets: set[str]) -> bool:
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False  # Another user's, or gone.
    for number in numbers:
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/fd/{number}") in sockets:
                return True
    return False


def _described(pid: int) -> Holder | None:
    stat = read_stat(pid)
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read(200).replace(b"\0", b" ").decode(errors="replace").strip()
        with open(f"/proc/{pid}/environ", "rb") as file:
            variables = file.read().split(b"\0")
    except OSError:
        return None
    if stat is None:
        return None
    start = f"{_SESSION_VARIABLE}=".encode()
    places = [os.fsdecode(v.removeprefix(start)) for v in variables if v.startswith(start)]
    session = None
    for place in places:
        for record in Session(place).processes():
            if record.kind == "head" and (record.pid, record.start_time) == (pid, stat.start_time):
                session = Session(place)
    return Holder(pid, command, stat.state in _STOPPED, session)
