"""Sends what workers print to the drivers of their jobs, line by line.

Covers: which files belong to which worker and stream, the name in front of a line, pace. A file is
read when it changes, at most every 100 ms. A driver gets at most WINDOW_BYTES that it has not
confirmed (it answers a Ping behind the lines), so a driver that is busy costs nobody memory: the
rest stays in the file. Where that gets more than BACKLOG_BYTES, lines are left out and counted.

A worker's log exists once in full in its files; nothing here changes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from mray.node.logs.follow import Follower
from mray.node.logs.lines import LineCutter
from mray.node.logs.missing import MissingOutput
from mray.progress import Title, read_progress
from mray.rpc.pump import Pump, Timer
from mray.wire.messages import (
    JobInfo,
    LostOutput,
    Message,
    OutputLost,
    Ping,
    SetWorkerTitle,
    WorkerLines,
)

#: A first line is shown so soon after it was written: its name may come by another way just then.
FIRST_S: Final = 0.02
GAP_S: Final = 0.1
READ_BYTES: Final = 256 * 1024
WINDOW_BYTES: Final = 1024 * 1024
BACKLOG_BYTES: Final = 2 * 1024 * 1024
#: Read and counted of what is left out, in one go.
_SKIP_BYTES_MAX: Final = 64 * 1024 * 1024
_CONFIRM_TIMEOUT_S: Final = 30.0
#: Looks that wait for messages of whose the lines are: they are there at the next.
_LOOKS_MAX: Final = 20
_ROTATED: Final = re.compile(r"\.[0-9]+$")


class _Job:
    """A job whose driver prints what its workers print."""

    __slots__ = ("info", "sent_bytes", "streams")

    def __init__(self, info: JobInfo) -> None:
        self.info = info
        self.streams: dict[str, _Stream] = {}
        #: Sent to the driver and not confirmed.
        self.sent_bytes = 0


class _Names:
    """What is known of the names in front of one worker's lines: core/progress.py numbers them."""

    __slots__ = ("known", "path", "streams", "waited")

    def __init__(self, progress_path: str) -> None:
        self.path = progress_path
        self.streams: tuple[_Stream, ...] = ()
        #: All up to this one are.
        self.known = -1
        #: Looks at which some between were not.
        self.waited = 0

    def heard(self, number: int, title: Title) -> None:
        """A task has printed, and is over."""
        if number > self.known:
            self.known = number
            self._add(title)

    def catch_up(self, at_any_rate: bool) -> bool:
        """Learn whose lines all are that were written by now. False where it takes messages that
        are not read yet: of those that printed, the file holds but the last. ``at_any_rate``, or
        after some time, without."""
        progress = read_progress(self.path)
        first = progress.count - len(progress.titles)
        if first > self.known + 1 and not at_any_rate and self.waited < _LOOKS_MAX:
            self.waited += 1
            return False
        self.waited = 0
        for number, title in enumerate(progress.titles, first):
            # The last one is perhaps another than at the last look.
            if number > self.known or number == progress.count - 1:
                self.known = number - (number == progress.count - 1)
                self._add(title)
        return True

    def _add(self, title: Title) -> None:
        for stream in self.streams:
            offset = title.err_offset if stream.is_error else title.out_offset
            if offset >= 0:
                stream.title(offset, title.name)


class _Stream:
    """Standard output or error of one worker."""

    __slots__ = ("cutter", "file_name", "follower", "is_error", "job", "name", "names", "pid",
                 "titles")  # fmt: skip

    def __init__(
        self, path: str, backup_count: int, job: _Job, pid: int, is_error: bool, names: _Names
    ) -> None:
        self.names = names
        self.file_name = path.rpartition("/")[2]
        self.follower = Follower(path, backup_count)
        self.cutter = LineCutter()
        self.job = job
        self.pid = pid
        self.is_error = is_error
        #: Whose lines they are now, and from which offsets on others' are.
        self.name = ""
        self.titles: list[tuple[int, str]] = []

    def title(self, offset: int, name: str) -> None:
        """Lines from this offset on are of another. One that wrote nothing is forgotten: a silent
        worker is never read, and may run another function with each task."""
        if self.titles and self.titles[-1][0] == offset:
            self.titles.pop()
        self.titles.append((offset, name))

    def name_at(self, offset: int) -> str:
        while self.titles and self.titles[0][0] <= offset:
            self.name = self.titles.pop(0)[1]
        return self.name


class Tailer:
    """See the module. ``send(job, message)`` reaches the job's driver."""

    def __init__(
        self,
        pump: Pump,
        ip: str,
        backup_count: int,
        send: Callable[[JobInfo, Message], bool],
    ) -> None:
        self._pump = pump
        self._ip = ip
        self._backup_count = backup_count
        self._send = send
        self._jobs: dict[bytes, _Job] = {}
        #: By file name.
        self._streams: dict[str, _Stream] = {}
        #: By worker: output and error.
        self._workers: dict[bytes, tuple[_Stream, _Stream]] = {}
        self._changed: dict[str, None] = {}
        self._timer: Timer | None = None
        self._scanned_at = float("-inf")
        self._missing = MissingOutput(self._say)
        pump.on(OutputLost, self._missing.heard)
        pump.on(SetWorkerTitle, self._titled)

    # -- who is there

    def add_worker(
        self, job: JobInfo, process_id: bytes, pid: int, out: str, err: str, progress_path: str
    ) -> None:
        """A worker writes to these paths from now on."""
        if not job.log_to_driver:
            return
        known = self._jobs.setdefault(job.job_id, _Job(job))
        names = _Names(progress_path)
        pair = (
            _Stream(out, self._backup_count, known, pid, False, names),
            _Stream(err, self._backup_count, known, pid, True, names),
        )
        names.streams = pair
        self._workers[process_id] = pair
        for stream in pair:
            self._streams[stream.file_name] = stream
            known.streams[stream.file_name] = stream
        self.changed([stream.file_name for stream in pair])

    def title(self, process_id: bytes, name: str, out: int, err: int, number: int = -1) -> None:
        """Lines from these offsets on belong to ``name``. ``number``: of a task's title."""
        pair = self._workers.get(process_id)
        if pair is None:
            return
        title = Title(name, False, out, err)
        if number >= 0:
            pair[0].names.heard(number, title)
        else:
            pair[0].title(out, name)
            pair[1].title(err, name)

    def _titled(self, sender: bytes, message: SetWorkerTitle) -> None:
        name, number = message.name, message.number
        self.title(sender, name, message.out_offset, message.err_offset, number)

    def title_of(self, process_id: bytes) -> str:
        """The name that a worker's newest lines belong to, "" if it has said none."""
        pair = self._workers.get(process_id)
        if pair is None:
            return ""
        return pair[0].titles[-1][1] if pair[0].titles else pair[0].name

    def remove_worker(self, process_id: bytes) -> None:
        """A worker has ended: the rest of its output goes out, an unfinished line too."""
        self._missing.gone(process_id)
        for stream in self._workers.pop(process_id, ()):
            self._read(stream, whole=True)
            stream.follower.close()
            del self._streams[stream.file_name]
            stream.job.streams.pop(stream.file_name, None)
            self._changed.pop(stream.file_name, None)

    def remove_job(self, job_id: bytes) -> None:
        """The driver is gone: nobody prints any more."""
        job = self._jobs.pop(job_id, None)
        if job is None:
            return
        for stream in job.streams.values():
            stream.follower.close()
            self._streams.pop(stream.file_name, None)
            self._changed.pop(stream.file_name, None)
        gone = [p for p, pair in self._workers.items() if pair[0].job is job]
        for process_id in gone:
            del self._workers[process_id]

    def lost_output(self) -> LostOutput:
        """What workers printed and the disk had no room for."""
        return self._missing.lost()

    def _say(self, process_id: bytes, text: str) -> None:
        """Show a line to the driver of a worker, as if the worker had printed it."""
        pair = self._workers.get(process_id)
        if pair is not None:
            pair[0].names.catch_up(False)
            self._send_lines(pair[1], self.title_of(process_id), [text])

    # -- when something was written

    def changed(self, names: Iterable[str] | None) -> None:
        """These files of the log directory have changed; None: any may have."""
        for name in self._streams if names is None else names:
            name = _ROTATED.sub("", name)
            if name in self._streams:
                self._changed[name] = None
        self._arm()

    def drain(self, job_id: bytes, then: Callable[[], object]) -> None:
        """Send all that the job's workers have written by now, unfinished lines too; and go on.

        Messages that say whose lines they are, and are not read yet, are waited for.
        """
        job = self._jobs.get(job_id)
        streams = [] if job is None else list(job.streams.values())
        if not all(stream.names.catch_up(False) for stream in streams):
            self._pump.after(FIRST_S, lambda: self.drain(job_id, then))
            return
        for stream in streams:
            self._read(stream, whole=True)
        then()

    def _arm(self) -> None:
        if self._timer is None and self._changed:
            now = self._pump.clock()
            self._timer = self._pump.at(max(now + FIRST_S, self._scanned_at + GAP_S), self._scan)

    def _scan(self) -> None:
        self._timer = None
        self._scanned_at = self._pump.clock()
        changed, self._changed = self._changed, {}
        for name in changed:
            stream = self._streams.get(name)
            if stream is not None and not self._read(stream, whole=False):
                self._changed[name] = None
        self._arm()

    # -- reading

    def _read(self, stream: _Stream, *, whole: bool) -> bool:
        """Send what is new; False where some of it is left for later."""
        follower = stream.follower
        end = follower.position + follower.unread_bytes()
        # In this order: of all that is there by now it is known whose it is.
        if not stream.names.catch_up(whole):
            return False
        self._leave_out(stream)
        while True:
            room = WINDOW_BYTES - stream.job.sent_bytes
            if room <= 0 and not whole:
                return False
            data = follower.read(max(0, min(READ_BYTES, end - follower.position)))
            if not data:
                break
            self._lines(stream, stream.cutter.feed(data))
            if not whole and len(data) == READ_BYTES:
                return False
        if whole:
            self._lines(stream, stream.cutter.flush())
        return True

    def _leave_out(self, stream: _Stream) -> None:
        """Where too much waits, go on near its end, at the beginning of a line."""
        surplus = stream.follower.unread_bytes() - BACKLOG_BYTES
        if surplus <= 0:
            return
        surplus = min(surplus + BACKLOG_BYTES // 2, _SKIP_BYTES_MAX)
        lost = 0
        ends_line = True
        while surplus > 0:
            data = stream.follower.read(min(surplus, READ_BYTES * 4))
            if not data:
                break
            surplus -= len(data)
            lost += stream.cutter.skip(data)
            ends_line = data.endswith(b"\n")
        while not ends_line:
            data = stream.follower.read(READ_BYTES)
            if not data:
                break
            cut = data.find(b"\n") + 1
            lost += stream.cutter.skip(data[:cut] if cut else data)
            if cut:
                self._lines(stream, stream.cutter.feed(data[cut:]))
                break
        text = f"[{lost:,} lines skipped, see {stream.file_name}]"
        self._lines(stream, [(stream.cutter.position, text)])

    def _lines(self, stream: _Stream, lines: list[tuple[int, str]]) -> None:
        """Send lines, those of one name together."""
        batch: list[str] = []
        name = stream.name
        for offset, text in lines:
            now_name = stream.name_at(offset)
            if now_name != name and batch:
                self._send_lines(stream, name, batch)
                batch = []
            name = now_name
            batch.append(text)
        if batch:
            self._send_lines(stream, name, batch)

    def _send_lines(self, stream: _Stream, name: str, lines: list[str]) -> None:
        job = stream.job
        message = WorkerLines(job.info.job_id, stream.pid, self._ip, name, stream.is_error, lines)
        if not self._send(job.info, message):
            return
        size = sum(map(len, lines)) + 8 * len(lines)
        job.sent_bytes += size

        def confirmed(reply: Message) -> None:
            job.sent_bytes -= size
            if self._changed:
                self._arm()

        self._pump.request(job.info.driver.process_id, Ping, confirmed, _CONFIRM_TIMEOUT_S)
