"""Workers' lines to their drivers: names, pace, floods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mray.node.logs.tailer import (
    BACKLOG_BYTES,
    FIRST_S,
    GAP_S,
    READ_BYTES,
    WINDOW_BYTES,
    Tailer,
)
from mray.progress import FILE_BYTES, Title, write_title
from mray.wire.messages import Address, JobInfo, Message, WorkerLines

JOB = JobInfo(b"job1", Address(b"driver", b"n"), "ns", b"", [], "", False, True)
WORKER = b"worker"


class Node:
    def __init__(self, pump: Any, folder: Path, job: JobInfo = JOB) -> None:
        self.pump = pump
        self.out, self.err = folder / "w.out", folder / "w.err"
        self.sent: list[WorkerLines] = []
        self.tailer = Tailer(pump, "10.0.0.1", 3, self.send)
        self.progress = folder / "w.seq"
        self.tailer.add_worker(
            job, WORKER, 77, str(self.out), str(self.err), str(self.progress)
        )

    def send(self, job: JobInfo, message: Message) -> bool:
        assert isinstance(message, WorkerLines)
        self.sent.append(message)
        return True

    def write(self, data: bytes, error: bool = False) -> None:
        path = self.err if error else self.out
        with path.open("ab") as file:
            file.write(data)
        self.tailer.changed([path.name])

    def says(self, number: int, title: Title) -> None:
        """The worker writes into its progress file."""
        memory = bytearray(self.progress.read_bytes() if self.progress.exists() else FILE_BYTES)
        write_title(memory, number, title)
        self.progress.write_bytes(memory)

    def tasks_print(self, count: int) -> None:
        """One after the other, f0 to f``count - 1``; no message tells of them."""
        for number in range(count):
            self.says(number, Title(f"f{number}", False, number * 2, 0))
            self.write(b"%d\n" % (number % 10))

    def messages_come(self, count: int) -> None:
        """Those of the first tasks."""
        for number in range(count):
            self.tailer.title(WORKER, f"f{number}", number * 2, 0, number)

    def names(self) -> list[tuple[str, str]]:
        return [(message.name, line) for message in self.sent for line in message.lines]

    def lines(self) -> list[str]:
        return [line for message in self.sent for line in message.lines]


@pytest.fixture
def node(pump: Any, tmp_path: Path) -> Node:
    return Node(pump, tmp_path)


def test_lines_come_with_all_that_their_prefix_needs(node: Node) -> None:
    node.write(b"hello\n")
    node.pump.advance(GAP_S)
    assert node.sent == [WorkerLines(b"job1", 77, "10.0.0.1", "", False, ["hello"])]
    node.write(b"oops\n", error=True)
    node.pump.advance(GAP_S)
    assert node.sent[1].is_error


def test_an_unfinished_line_waits_for_its_end_or_the_workers(node: Node) -> None:
    node.write(b"one\ntw")
    node.pump.advance(1.0)
    assert node.lines() == ["one"]
    node.write(b"o\nthr")
    node.pump.advance(1.0)
    assert node.lines() == ["one", "two"]
    node.tailer.remove_worker(WORKER)
    assert node.lines() == ["one", "two", "thr"]


def test_lines_belong_to_what_was_running_when_they_began(node: Node) -> None:
    node.tailer.title(WORKER, "f", 0, 0)
    node.tailer.title(WORKER, "g", 8, 0)
    node.write(b"f 1\nf 2\ng 1\n")
    node.pump.advance(1.0)
    assert [(m.name, m.lines) for m in node.sent] == [("f", ["f 1", "f 2"]), ("g", ["g 1"])]
    node.tailer.title(WORKER, "h", 12, 0)
    node.write(b"h 1\n")
    node.pump.advance(1.0)
    assert node.sent[-1].name == "h"


def test_who_prints_is_known_before_its_message_comes(node: Node) -> None:
    node.says(0, Title("f", False, 0, 0))
    node.says(1, Title("g", False, 4, 0))
    node.says(2, Title("f", False, 8, 0))
    node.write(b"f 1\ng 1\nf 2\n")
    node.write(b"oops\n", error=True)
    node.pump.advance(1.0)
    assert node.names() == [("f", "f 1"), ("g", "g 1"), ("f", "f 2"), ("f", "oops")]
    # The messages say what is known.
    node.tailer.title(WORKER, "g", 4, 0, 1)
    node.tailer.title(WORKER, "f", 8, 0, 2)
    node.write(b"f 3\n")
    node.says(3, Title("h", False, 16, 5))
    node.write(b"h 1\n")
    node.write(b"h 2\n", error=True)
    node.pump.advance(1.0)
    assert node.names()[4:] == [("f", "f 3"), ("h", "h 1"), ("h", "h 2")]


def test_of_more_that_printed_than_the_file_holds_messages_tell(node: Node) -> None:
    for number in range(50):
        node.says(number, Title(f"f{number}", False, number * 2, 0))
        if number < 49:
            node.tailer.title(WORKER, f"f{number}", number * 2, 0, number)
        node.write(b"%d\n" % (number % 10))
    node.pump.advance(1.0)
    assert node.names() == [(f"f{number}", str(number % 10)) for number in range(50)]


def test_lines_wait_for_messages_that_are_on_their_way(node: Node) -> None:
    node.tasks_print(40)
    node.pump.advance(1.0)
    assert node.names() == []
    node.messages_come(39)
    node.pump.advance(GAP_S)
    assert node.names() == [(f"f{number}", str(number % 10)) for number in range(40)]


def test_draining_waits_for_messages_that_are_on_their_way(node: Node) -> None:
    drained: list[bool] = []
    node.tasks_print(40)
    node.tailer.drain(b"job1", lambda: drained.append(True))
    assert (drained, node.names()) == ([], [])
    node.messages_come(39)
    node.pump.advance(FIRST_S)
    assert drained
    assert node.names() == [(f"f{number}", str(number % 10)) for number in range(40)]


def test_lines_whose_messages_never_come_are_shown_at_last(node: Node) -> None:
    node.tasks_print(40)
    node.pump.advance(10.0)
    assert node.names()[:24] == [("", str(number % 10)) for number in range(24)]
    assert node.names()[24:] == [(f"f{number}", str(number % 10)) for number in range(24, 40)]


def test_what_an_actor_runs_changes_no_name(node: Node) -> None:
    node.tailer.title(WORKER, "L", 0, 0)
    node.says(0, Title("L.m"))
    node.write(b"x\n")
    node.pump.advance(1.0)
    assert node.names() == [("L", "x")]


def test_many_writes_are_one_look_every_tenth_of_a_second(node: Node) -> None:
    for number in range(100):
        node.write(b"%d\n" % number)
        node.pump.advance(0.01)
    assert 5 <= len(node.sent) <= 11
    node.pump.advance(GAP_S)
    assert node.lines() == [str(number) for number in range(100)]


def test_nothing_is_done_while_nothing_is_written(node: Node) -> None:
    node.write(b"x\n")
    node.pump.advance(10.0)
    assert node.pump.timers == []


def test_a_driver_that_does_not_confirm_gets_no_more_and_nothing_is_lost(node: Node) -> None:
    data = b"".join(b"line %06d\n" % number for number in range(150_000))
    assert WINDOW_BYTES < len(data) < BACKLOG_BYTES
    node.write(data)
    node.pump.advance(10.0)
    assert sum(map(len, node.lines())) <= WINDOW_BYTES + READ_BYTES
    for _ in range(20):
        node.pump.answer_all()
        node.pump.advance(1.0)
    assert len(node.lines()) == 150_000


def test_a_flood_is_thinned_out_and_the_missing_lines_are_counted(node: Node) -> None:
    count = 2_000_000
    node.write(b"".join(b"line %07d\n" % number for number in range(count)))
    for _ in range(100):
        node.pump.advance(1.0)
        node.pump.answer_all()
    lines = node.lines()
    skipped = [line for line in lines if line.startswith("[")]
    shown = [line for line in lines if not line.startswith("[")]
    assert lines[-1] == f"line {count - 1:07d}"
    assert sum(int(s[1:].split()[0].replace(",", "")) for s in skipped) + len(shown) == count
    assert "lines skipped" in skipped[0]
    assert "w.out" in skipped[0]
    assert shown == sorted(shown)


def test_draining_sends_everything_at_once(node: Node) -> None:
    drained: list[bool] = []
    node.write(b"one\ntwo\nno end")
    node.write(b"err\n", error=True)
    node.tailer.drain(b"job1", lambda: drained.append(True))
    assert drained
    assert node.lines() == ["one", "two", "no end", "err"]
    node.pump.advance(1.0)
    node.write(b" more\n")
    node.pump.advance(1.0)
    assert node.lines()[-1] == " more"


def test_a_job_whose_driver_does_not_print_is_not_read(pump: Any, tmp_path: Path) -> None:
    import msgspec

    quiet = Node(pump, tmp_path, msgspec.structs.replace(JOB, log_to_driver=False))
    quiet.write(b"x\n")
    quiet.pump.advance(1.0)
    assert quiet.sent == []


def test_after_a_job_is_over_nothing_more_is_sent(node: Node) -> None:
    node.write(b"x\n")
    node.tailer.remove_job(b"job1")
    node.pump.advance(1.0)
    node.tailer.remove_worker(WORKER)
    assert node.sent == []


def test_rotation_does_not_move_names(node: Node) -> None:
    node.tailer.title(WORKER, "f", 0, 0)
    node.write(b"f 1\n")
    node.pump.advance(1.0)
    node.out.rename(node.out.with_name("w.out.1"))
    node.tailer.title(WORKER, "g", 8, 0)
    node.write(b"f 2\ng 1\n")
    node.pump.advance(1.0)
    assert [(m.name, m.lines) for m in node.sent] == [
        ("f", ["f 1"]),
        ("f", ["f 2"]),
        ("g", ["g 1"]),
    ]


def test_titles_of_a_silent_worker_are_not_kept(node: Node) -> None:
    node.write(b"f 1\n")
    for number in range(1000):
        node.tailer.title(WORKER, f"f{number}", 4, 0)
    assert [len(stream.titles) for stream in node.tailer._workers[WORKER]] == [1, 1]
    assert node.tailer.title_of(WORKER) == "f999"
    node.write(b"late\n")
    node.pump.advance(1.0)
    assert [(m.name, m.lines) for m in node.sent] == [("", ["f 1"]), ("f999", ["late"])]
