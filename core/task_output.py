"""Which bytes of a worker's log files which attempt of a task printed: the index beside the log.

Covers the layout of the index, finding an attempt in it, and reading just those bytes. The worker
writes it (runtime/printed.py); `mray logs task` and get_log() read it like any other log. An
attempt has a record when it has printed or failed: one that finished without a record printed
nothing, and one whose worker died in it has everything behind the last record.

Exact where a worker runs one call at a time. What threads or processes that a call left behind
print is that of whoever runs then. Actors that run several calls at a time keep no records.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, Protocol

from mray.wire.messages import LogChunk, LogFile, TaskView

#: What the name of an index ends with, where a log has ".out" or ".err". Not in lists of logs.
INDEX_END: Final = ".tasks"
#: Task id, attempt or one of the kinds below, standard output from, to, standard error from, to.
RECORD: Final = struct.Struct("<24si4xqqqq")
#: Records of a file of the index; there are two, so at least the newest so many are kept.
RECORDS_MAX: Final = 100_000

#: In place of an attempt. Where the present files of the log begin ("from"); older records are gone
#: where one of the "to" is not 0.
BEGINNING: Final = -1
#: Nobody's bytes.
NOBODY: Final = -2
#: It is not known whose: there was no room for records.
UNKNOWN: Final = -3
#: From here on calls run side by side.
SIDE_BY_SIDE: Final = -4

_CHUNK_BYTES: Final = 262_144
_WAIT_S: Final = 1.0
#: Behind the end of any log.
_FAR: Final = 1 << 60
#: Errors of attempts that ended with their worker.
_DIED: Final = frozenset(
    ("WORKER_DIED", "OUT_OF_MEMORY", "NODE_DIED", "ACTOR_DIED", "ACTOR_UNAVAILABLE",
     "TASK_CANCELLED", "OWNER_DIED")
)  # fmt: skip


class Logs(Protocol):
    """The logs of one node."""

    def files(self, pattern: str) -> list[LogFile]:
        """Those whose names match."""

    def read(self, name: str, offset: int, max_bytes: int, wait_s: float) -> LogChunk:
        """As the message ReadLog."""


class Span(NamedTuple):
    """Bytes of a log. ``end`` None: up to what is written last."""

    begin: int
    end: int | None


class Found(NamedTuple):
    """What the index says of an attempt. ``doubt``: why it may not be exactly that, "" if it is."""

    span: Span
    doubt: str = ""


def index_of(log_name: str) -> str:
    """The name of the index beside a worker's log."""
    return log_name.rpartition(".")[0] + INDEX_END


def find(index: bytes, task_id: bytes, attempt: int, state: str, error: str, err: bool) -> Found:
    """Where an attempt's bytes are. ``state`` and ``error``: as of TaskView, of the attempt."""
    column = 4 if err else 2
    last = 0
    beside = -1
    dropped = lost = False
    for record in _records(index):
        kind = record[1]
        if kind == attempt and record[0] == task_id:
            return Found(Span(record[column], record[column + 1]))
        if kind == BEGINNING:
            dropped = dropped or bool(record[3] or record[5])
        else:
            last = record[column + 1]
            lost = lost or kind == UNKNOWN
            if kind == SIDE_BY_SIDE:
                beside = record[column + 1]
    if beside >= 0:
        text = "calls of this actor run side by side: this is what all of them printed"
        return Found(Span(beside, None), text)
    if lost:
        return Found(Span(0, None), "the disk was full: this is what all of its worker printed")
    if state == "RUNNING" or (state == "FAILED" and error in _DIED):
        return Found(Span(last, None))
    if dropped:
        text = f"only the newest {RECORDS_MAX:,} calls that printed are told apart, and it is none"
        return Found(Span(0, 0), text)
    return Found(Span(0, 0))


def _beginning(index: bytes, err: bool) -> int:
    """Where the newest file of the log begins, counted since the log began."""
    column = 4 if err else 2
    return max((record[column] for record in _records(index) if record[1] == BEGINNING), default=0)


def _records(index: bytes) -> Iterator[Any]:
    """The last record may be half written."""
    return RECORD.iter_unpack(index[: len(index) // RECORD.size * RECORD.size])


def _read_all(logs: Logs, name: str) -> bytes:
    data, offset = bytearray(), 0
    while True:
        chunk = logs.read(name, offset, _CHUNK_BYTES, 0.0)
        if not chunk.data:
            return bytes(data)
        data += chunk.data
        offset = chunk.next_offset


def look_up(logs: Logs, log_name: str, view: TaskView) -> Found:
    """Where an attempt's bytes are in the log of its worker, in the offsets of ``logs``."""
    name = index_of(log_name)
    err = log_name.endswith(".err")
    index = _read_all(logs, name) if logs.files(name) else b""
    found = find(index, view.task_id, view.attempt, view.state, view.error_type, err)
    begins = _beginning(index, err)
    if not begins or found.doubt:
        return found
    # Those who read count from the first part that they saw; the worker from its first byte.
    end = logs.read(log_name, _FAR, 1, 0.0).next_offset
    newest = sum(file.size_bytes for file in logs.files(log_name) if file.name == log_name)
    shift = max(0, begins - (end - newest))
    span = found.span
    return Found(Span(span.begin - shift, None if span.end is None else span.end - shift))


def printed(
    logs: Logs, log_name: str, view: TaskView, found: Found, *, tail: int = -1, follow: bool = False
) -> Iterator[bytes]:
    """The bytes that ``look_up`` found, piece by piece. ``tail``: the last lines only, -1 for all.
    ``follow``: go on until the attempt has ended; forever where it cannot be told apart."""
    span = found.span
    may_end = not found.doubt and view.state == "RUNNING"
    kept: deque[bytes] = deque(maxlen=tail if tail >= 0 else None)
    offset, held = max(0, span.begin), b""
    wait_s = 0.0
    while span.end is None or offset < span.end:
        chunk = logs.read(log_name, offset, _CHUNK_BYTES, wait_s)
        offset = chunk.next_offset
        if span.end is None and may_end:
            # Looked up behind what was read: who prints after it begins after its record.
            span = look_up(logs, log_name, view).span
        data = _before(span.end, chunk)
        if tail < 0:
            if data:
                yield data
        else:
            *lines, held = (held + data).split(b"\n")
            kept.extend(line + b"\n" for line in lines)
        if not chunk.data:
            if not follow or span.end is not None:
                break
            if tail >= 0:
                yield b"".join(_last(kept, held, tail))
                tail, held = -1, b""
            wait_s = _WAIT_S
    if tail > 0:
        yield b"".join(_last(kept, held, tail))


def _last(kept: deque[bytes], held: bytes, tail: int) -> list[bytes]:
    """The last lines, of which one may be unfinished."""
    lines = [*kept, held] if held else [*kept]
    return lines[-tail:] if tail else []


def _before(end: int | None, chunk: LogChunk) -> bytes:
    """What of a chunk comes before ``end``."""
    if end is None:
        return chunk.data
    return chunk.data[: max(0, end - (chunk.next_offset - len(chunk.data)))]
