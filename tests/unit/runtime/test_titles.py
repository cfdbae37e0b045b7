"""When a node daemon is told what a worker is called."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mray.progress import FILE_BYTES, Title, read_progress
from mray.runtime import process_title
from mray.runtime.titles import Titles
from mray.wire.messages import Address, SetWorkerTitle

NODE = Address(b"node", b"node")


class Worker:
    """What Titles has to do with. ``where``: bytes of output and error so far."""

    def __init__(self, folder: Path) -> None:
        self.told: list[Any] = []
        self.sent_at_once = 0
        self.where = (0, 0)
        self.memory = bytearray(FILE_BYTES)
        self.path = folder / "w.seq"
        self.rt: Any = SimpleNamespace(
            title="", node=SimpleNamespace(address=NODE), send_now=self._send_now,
            post_to=lambda address, message: self.told.append(message),
        )  # fmt: skip
        output: Any = SimpleNamespace(offsets=lambda: self.where)
        self.titles = Titles(self.rt, self.memory, output)

    def _send_now(self) -> None:
        self.sent_at_once += 1

    def file(self) -> tuple[Title, ...]:
        self.path.write_bytes(self.memory)
        return read_progress(str(self.path)).titles

    def prints(self, out: int, err: int = 0) -> None:
        self.where = (self.where[0] + out, self.where[1] + err)
        self.titles.printed()


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setattr(process_title, "show", lambda text: None)
    return Worker(tmp_path)


def test_of_silent_tasks_nothing_is_told(worker: Worker) -> None:
    for name in "fgfgh":
        worker.titles.announce(name, True, "")
    assert worker.told == []
    assert worker.file() == (Title("h", True, 0, 0),)
    assert worker.rt.title == "h"


def test_what_printed_is_told_once_and_stays_in_the_file(worker: Worker) -> None:
    worker.titles.announce("f", False, "")
    worker.prints(4)
    worker.prints(0, 3)
    worker.titles.announce("g", True, "")
    worker.titles.announce("h", True, "")
    worker.prints(1)
    assert worker.told == [SetWorkerTitle("f", 0, 0, 0), SetWorkerTitle("h", 4, 3, 1)]
    assert worker.file() == (Title("f", False, 0, 0), Title("h", True, 4, 3))
    assert worker.sent_at_once == 0


def test_an_actor_is_told_at_once_and_its_methods_are_not(worker: Worker) -> None:
    worker.titles.announce("L", False, "L")
    worker.titles.announce("L", False, "an L")
    for name in ("L.m", "L.n"):
        worker.titles.announce(name, False, "an L")
        worker.prints(2)
    assert worker.told == [SetWorkerTitle("L", 0, 0), SetWorkerTitle("an L", 0, 0)]
    assert worker.sent_at_once == 2
    assert worker.file() == (Title("L.n"),)
