"""What the machine shows of a cluster that should be at rest: the outside half of quiescent.py.

Covers: processes, descriptors and threads of daemons, shared memory, sockets, logs, all read from
/proc and the file system, so that a cluster which deceives itself is found out. Asks no process.
"""

from __future__ import annotations

import glob
import os
import re
import socket
import stat
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from mray.process import read_stat
from mray.session_end import SESSION_VARIABLE
from mray.session_files import ProcessRecord, Session

DAEMONS = ("head", "node")
#: How far descriptors and threads of a daemon may be from its baseline.
SLACK = 2
#: What a worker more than at the baseline costs its daemons: pipes, logs, pidfd, statm, connection.
PER_WORKER = 7

#: In /proc/PID/net/tcp.
_ESTABLISHED = "01"

_BAD = re.compile(r"\bERROR\b|\bCRITICAL\b|Traceback|Exception ignored|unraisable|InvariantError")
_LOGS = ("gcs_server", "raylet")


@dataclass(frozen=True)
class Figures:
    """Descriptors and threads of one daemon, and how many workers there were.

    Connections by tcp are counted apart: a node daemon has one to each process elsewhere that owns
    what it has pulled, for as long as that lives, and workers that are kept idle live on.
    """

    #: But for ``connections``.
    descriptors: int
    connections: int
    threads: int
    workers: int
    #: Of the other nodes.
    workers_elsewhere: int = 0


def daemons(sessions: Iterable[Session]) -> list[ProcessRecord]:
    """The daemons of these sessions that run."""
    return [
        record
        for session in sessions
        for record in session.processes()
        if record.kind in DAEMONS and record.alive
    ]


def count_descriptors(pid: int) -> int:
    """Of a process, but for what it reads of the system: such files are opened when first looked at
    and stay open. FileNotFoundError where the process has ended."""
    return sum(not target.startswith(("/proc/", "/sys/")) for target in _targets(pid))


def _targets(pid: int) -> list[str]:
    """What the descriptors of a process are."""
    targets = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            targets.append(os.readlink(f"/proc/{pid}/fd/{number}"))
        except FileNotFoundError:
            continue
    return targets


def figures_of(record: ProcessRecord, workers: int, workers_elsewhere: int = 0) -> Figures | None:
    """None where it ended meanwhile."""
    try:
        connections = len(_connections(record.pid))
        descriptors = count_descriptors(record.pid) - connections
        threads = len(os.listdir(f"/proc/{record.pid}/task"))
    except FileNotFoundError:
        return None
    return Figures(descriptors, connections, threads, workers, workers_elsewhere)


def _connections(pid: int) -> list[str]:
    """The tcp connections of a process that stand, each as "from to" in the kernel's digits."""
    found = {}
    try:
        for family in ("tcp", "tcp6"):
            with open(f"/proc/{pid}/net/{family}") as file:
                for line in file.readlines()[1:]:
                    _, source, target, state, *_, inode = line.split()[:10]
                    if state == _ESTABLISHED:
                        found[f"socket:[{inode}]"] = f"{source} {target}"
        return [found[target] for target in _targets(pid) if target in found]
    except FileNotFoundError:
        return []  # It has ended.


def growth(record: ProcessRecord, before: Figures, now: Figures) -> list[str]:
    """What a daemon has more of than its baseline allows."""
    room = SLACK + PER_WORKER * max(0, now.workers - before.workers)
    lines = []
    if now.descriptors > before.descriptors + room:
        lines.append(
            f"{record.kind} pid {record.pid} has {now.descriptors} descriptors, "
            f"{before.descriptors} before: {_descriptors(record.pid)}"
        )
    room = SLACK + now.workers + now.workers_elsewhere
    if now.connections > before.connections + room:
        lines.append(
            f"{record.kind} pid {record.pid} has {now.connections} connections, "
            f"{before.connections} before: {_connections(record.pid)}"
        )
    if now.threads > before.threads + SLACK:
        lines.append(
            f"{record.kind} pid {record.pid} has {now.threads} threads, {before.threads} before"
        )
    return lines


def _descriptors(pid: int) -> dict[str, int]:
    """How many of which kind; numbers within a target do not tell two apart."""
    counts: dict[str, int] = {}
    try:
        targets = _targets(pid)
    except FileNotFoundError:
        return counts
    for target in targets:
        kind = re.sub(r"\d+", "#", os.path.basename(target))
        counts[kind] = counts.get(kind, 0) + 1
    return dict(sorted(counts.items()))


def orphans(sessions: Iterable[Session]) -> list[str]:
    """Processes of these sessions that no living daemon is the ancestor of, and zombies."""
    sessions = list(sessions)
    paths = {session.path for session in sessions}
    roots = {record.pid for record in daemons(sessions)}
    drivers = {
        record.pid
        for session in sessions
        for record in session.processes()
        if record.kind in ("driver", "job")
    }
    lines = []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                if process.ppid() in roots:
                    lines.append(f"pid {process.pid} is a zombie of daemon {process.ppid()}")
                continue
            if process.environ().get(SESSION_VARIABLE) not in paths:
                continue
            if process.pid in roots | drivers or _descends(process.pid, roots):
                continue
            lines.append(f"pid {process.pid} is nobody's: {' '.join(process.cmdline())}")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return lines


def _descends(pid: int, roots: set[int]) -> bool:
    while pid > 1:
        found = read_stat(pid)
        if found is None:
            return True  # It has ended, so it is no orphan.
        pid = found.parent_pid
        if pid in roots:
            return True
    return False


def places(sessions: Iterable[Session]) -> list[str]:
    """Stores and sockets whose process is dead."""
    lines = []
    for session in sessions:
        living = {record.name[:8] for record in daemons([session]) if record.kind == "node"}
        stores = glob.glob(f"{glob.escape(session.store_prefix)}*")
        lines += [
            f"{store} has outlived its node"
            for store in stores
            if store.removeprefix(session.store_prefix)[:8] not in living
        ]
        if os.path.isdir(session.sockets):
            for name in sorted(os.listdir(session.sockets)):
                path = f"{session.sockets}/{name}"
                if _is_deaf(path):
                    lines.append(f"nobody listens on {path}")
    return lines


def _is_deaf(path: str) -> bool:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            probe.connect(path)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def log_lines(sessions: Iterable[Session], allowed: Iterable[str]) -> list[str]:
    """Lines of the daemons' logs that tell of an error and are not expected (``allowed``:
    regular expressions)."""
    passes = [re.compile(each) for each in allowed]
    lines = []
    for session in sessions:
        for name in _LOGS:
            for path in sorted(glob.glob(f"{glob.escape(session.logs)}/{name}*")):
                with open(path, errors="replace") as file:
                    lines += [
                        f"{path}: {line.rstrip()}"
                        for line in file
                        if _BAD.search(line) and not any(each.search(line) for each in passes)
                    ]
    return lines


def tails(sessions: Iterable[Session], line_count: int = 40) -> dict[str, str]:
    """The end of each log of these sessions, by path."""
    ends = {}
    for session in sessions:
        for path in sorted(glob.glob(f"{glob.escape(session.logs)}/*")):
            with open(path, errors="replace") as file:
                text = "".join(file.readlines()[-line_count:]).strip()
            if text:
                ends[path] = text
    return ends
