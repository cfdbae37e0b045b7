"""ListLogs and ReadLog."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mray.node.logs.files import LogBook
from mray.node.logs.service import LogService
from mray.wire.messages import ListLogs, LogChunk, LogFiles, Message, ReadLog, Refused

ME = b"client"


class Service:
    def __init__(self, pump: Any, folder: Path) -> None:
        self.pump = pump
        self.folder = folder
        self.open_logs: set[str] = set()
        self.sent: list[Message] = []
        self.service = LogService(
            pump, LogBook(str(folder), 3), lambda name: name in self.open_logs, self.send
        )

    def send(self, peer: bytes, message: Message) -> bool:
        assert peer == ME
        self.sent.append(message)
        return True

    def read(self, name: str, offset: int = 0, wait_s: float = 0.0, max_bytes: int = 100) -> Any:
        self.sent.clear()
        self.service.read_log(ME, ReadLog(1, name, offset, max_bytes, wait_s))
        return self.sent[0] if self.sent else None

    def write(self, name: str, data: bytes) -> None:
        with (self.folder / name).open("ab") as file:
            file.write(data)
        self.service.changed([name])


@pytest.fixture
def logs(pump: Any, tmp_path: Path) -> Service:
    return Service(pump, tmp_path)


def test_a_log_is_read_piece_by_piece(logs: Service) -> None:
    logs.write("a.log", b"0123456789")
    assert logs.read("a.log", max_bytes=6) == LogChunk(1, b"012345", 6, False)
    assert logs.read("a.log", 6, max_bytes=6) == LogChunk(1, b"6789", 10, True)
    assert logs.read("a.log", 10) == LogChunk(1, b"", 10, True)
    assert logs.read("a.log", 99) == LogChunk(1, b"", 10, True)


def test_what_rotation_dropped_is_told(logs: Service) -> None:
    logs.write("a.log", b"aaaa")
    logs.read("a.log")
    for number in range(1, 6):
        for k in (3, 2, 1):
            older = logs.folder / (f"a.log.{k - 1}" if k > 1 else "a.log")
            if older.exists():
                older.rename(logs.folder / f"a.log.{k}")
        logs.write("a.log", b"%d" % number * 4)
        logs.read("a.log")
    assert logs.read("a.log", 2) == LogChunk(1, b"2222333344445555", 24, True, skipped_bytes=6)


def test_files_are_listed_by_pattern_but_neither_folders_nor_links(logs: Service) -> None:
    logs.write("b.log", b"1")
    logs.write("a.log", b"22")
    logs.write("c.txt", b"1")
    (logs.folder / "d.log").mkdir()
    (logs.folder / "e.log").symlink_to("/etc/passwd")
    logs.service.list_logs(ME, ListLogs(5, "*.log"))
    (listed,) = logs.sent
    assert isinstance(listed, LogFiles)
    assert [(file.name, file.size_bytes) for file in listed.files] == [("a.log", 2), ("b.log", 1)]


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "", ".", "..", "a/b", "a\0b"])
def test_only_plain_names_are_taken(logs: Service, name: str) -> None:
    refused = logs.read(name)
    assert isinstance(refused, Refused)
    assert refused.kind == "ValueError"


def test_a_log_that_is_not_there_is_refused(logs: Service) -> None:
    refused = logs.read("no.log")
    assert isinstance(refused, Refused)
    assert refused.kind == "FileNotFoundError"


def test_a_reader_that_waits_is_held_until_there_is_news(logs: Service) -> None:
    logs.write("a.log", b"one")
    assert logs.read("a.log", 3, wait_s=10.0) is None
    logs.write("b.log", b"other")
    assert logs.sent == []
    logs.write("a.log", b"two")
    assert logs.sent == [LogChunk(1, b"two", 6, True)]
    logs.pump.advance(20.0)
    assert len(logs.sent) == 1


def test_waiting_has_an_end(logs: Service) -> None:
    logs.write("a.log", b"one")
    assert logs.read("a.log", 3, wait_s=10.0) is None
    logs.pump.advance(10.0)
    assert logs.sent == [LogChunk(1, b"", 3, True)]


def test_the_log_of_a_running_job_ends_with_the_job(logs: Service) -> None:
    name = "job-driver-x.log"
    logs.open_logs.add(name)
    logs.write(name, b"one")
    assert logs.read(name) == LogChunk(1, b"one", 3, False)
    assert logs.read(name, 3, wait_s=10.0) is None
    logs.open_logs.clear()
    logs.service.changed([name])
    assert logs.sent == [LogChunk(1, b"", 3, True)]


def test_a_reader_may_wait_for_the_log_of_a_job_that_has_not_begun(logs: Service) -> None:
    name = "job-driver-x.log"
    assert logs.read(name, wait_s=10.0) is None
    logs.open_logs.add(name)
    logs.write(name, b"one")
    assert logs.sent == [LogChunk(1, b"one", 3, False)]


def test_the_last_lines_are_asked_for_with_a_negative_offset(logs: Service) -> None:
    logs.write("a.log", b"one\ntwo\nthree\n")
    assert logs.read("a.log", -2) == LogChunk(1, b"two\nthree\n", 14, True)
