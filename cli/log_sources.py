"""Where logs are read from: a node of a running cluster, or the files of a session that ended."""

from __future__ import annotations

import fnmatch
import os
import re
from typing import Protocol

from mray.cli.cluster import Cluster, RefusedBy
from mray.cli.failure import Failure
from mray.cli.render import ID_DIGITS
from mray.session import Session, all_sessions
from mray.task_output import INDEX_END
from mray.wire.messages import (
    ListLogs,
    LogChunk,
    LogFile,
    LogFiles,
    NodeView,
    ReadLog,
)

_ANSWER_S = 10.0
_ROTATED = re.compile(r".+\.[0-9]+")


class LogSource(Protocol):
    """The logs of one node."""

    @property
    def title(self) -> str:
        """What to call the node in a list."""

    @property
    def ip(self) -> str:
        """The node's address, "" where it is not known."""

    @property
    def node_id(self) -> str:
        """The node's id in hex, "" where it is not known."""

    def files(self, pattern: str) -> list[LogFile]:
        """The logs whose names match, rotated parts left out."""

    def read(self, name: str, offset: int, max_bytes: int, wait_s: float) -> LogChunk:
        """As the message ReadLog."""


class ClusterLogs:
    """The logs of a running node, asked of its daemon."""

    def __init__(self, cluster: Cluster, view: NodeView) -> None:
        self._cluster = cluster
        self._view = view
        self.ip = view.node.ip
        self.node_id = view.node.node_id.hex()
        self.title = f"node {self.ip} ({self.node_id[:ID_DIGITS]})"

    def files(self, pattern: str) -> list[LogFile]:
        """See LogSource."""
        return self._cluster.ask_node(
            self._view, lambda rid: ListLogs(rid, pattern), LogFiles, _ANSWER_S
        ).files

    def read(self, name: str, offset: int, max_bytes: int, wait_s: float) -> LogChunk:
        """See LogSource."""
        try:
            return self._cluster.ask_node(
                self._view,
                lambda rid: ReadLog(rid, name, offset, max_bytes, wait_s),
                LogChunk,
                wait_s + _ANSWER_S,
            )
        except RefusedBy as refused:
            raise Failure(f"{name} cannot be read: {refused.reason}") from refused


class SessionLogs:
    """The log files of a session on this machine; nobody writes to them any more."""

    ip = ""
    node_id = ""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self.title = directory

    def files(self, pattern: str) -> list[LogFile]:
        """See LogSource."""
        found = []
        for entry in os.scandir(self._directory):
            if entry.is_file() and fnmatch.fnmatchcase(entry.name, pattern):
                stat = entry.stat()
                found.append(LogFile(entry.name, stat.st_size, stat.st_mtime))
        indexes = INDEX_END in pattern
        return [
            file
            for file in found
            if not _ROTATED.fullmatch(file.name) and (indexes or INDEX_END not in file.name)
        ]

    def read(self, name: str, offset: int, max_bytes: int, wait_s: float) -> LogChunk:
        """See LogSource. Offsets count over all parts that rotation has left."""
        parts = self._parts(name)
        if offset < 0:
            offset = _tail_offset(parts, -offset)
        offset = min(offset, sum(map(os.path.getsize, parts)))
        data, begin = b"", 0
        for part in parts:
            size = os.path.getsize(part)
            if begin <= offset + len(data) < begin + size and len(data) < max_bytes:
                with open(part, "rb") as file:
                    file.seek(offset + len(data) - begin)
                    data += file.read(max_bytes - len(data))
            begin += size
        return LogChunk(0, data, offset + len(data), at_end=offset + len(data) >= begin)

    def _parts(self, name: str) -> list[str]:
        """The file and what rotation made of it, oldest first."""
        path = os.path.join(self._directory, name)
        numbers = sorted(
            int(entry.rpartition(".")[2])
            for entry in os.listdir(self._directory)
            if _ROTATED.fullmatch(entry) and entry.rpartition(".")[0] == name
        )
        return [*(f"{path}.{number}" for number in reversed(numbers)), path]


def _tail_offset(parts: list[str], line_count: int) -> int:
    """Where, over all parts, the last ``line_count`` lines begin."""
    contents = b"".join(_contents(part) for part in parts)
    position = len(contents) - contents.endswith(b"\n")
    for _ in range(line_count):
        position = contents.rfind(b"\n", 0, position)
        if position < 0:
            return 0
    return position + 1


def _contents(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def last_session(tmpdir: str) -> Session | None:
    """The newest session of this user that left logs."""
    for session in all_sessions(tmpdir):
        if os.path.isdir(session.logs):
            return session
    return None
