"""The cause of a worker's end is judged when all that it had sent has been read."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mray.node.workers.processes import Processes
from mray.rpc.pump import Timer
from mray.wire.messages import DeathCause, Message

WORKER = b"w" * 16
LEFT = DeathCause("intended", "exit_actor() was called")
EXIT_0, EXIT_1 = 0, 1 << 8


class Rig:
    """A node's workers: one, which is reaped as the test says, and its connection."""

    def __init__(self, folder: Path) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, int, Timer]] = []
        self.numbers = itertools.count()
        #: Whether its connection is still open, as far as the door has seen.
        self.open = True
        self.probes = 0
        self.told: list[tuple[float, DeathCause]] = []
        self.reap: Callable[[int], None] = lambda status: None
        params: Any = SimpleNamespace(
            process_id=WORKER, progress_path=str(folder / "progress"), ipc=str(folder / "ipc"),
            job=SimpleNamespace(job_id=b"job"), node=SimpleNamespace(log_dir=str(folder)),
        )  # fmt: skip
        pump: Any = self
        children: Any = SimpleNamespace(watch=self.watch, knows=lambda pid: True)
        spawner: Any = SimpleNamespace(
            spawn=lambda params, started: started(77_777_777, ""), hear=lambda: None,
            started=lambda pid: True,
        )  # fmt: skip
        self.processes = Processes(
            pump, children, spawner, b"node", lambda process: None,
            lambda process_id, cause: self.told.append((self.now, cause)),
        )  # fmt: skip
        self.processes.spawn(params)

    def watch(self, pid: int, on_exit: Callable[[int], None]) -> None:
        self.reap = on_exit

    # -- the pump

    def clock(self) -> float:
        return self.now

    def after(self, delay_s: float, call: Callable[[], None]) -> Timer:
        timer = Timer(call, None)
        heapq.heappush(self.timers, (self.now + delay_s, next(self.numbers), timer))
        return timer

    def send(self, process_id: bytes, message: Message) -> bool:
        self.probes += 1
        return self.open

    def turn(self) -> None:
        """The next timer's time comes."""
        self.now, _, timer = heapq.heappop(self.timers)
        assert timer.call is not None
        timer.call()

    def finish(self) -> DeathCause:
        while not self.told:
            self.turn()
        return self.told[0][1]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_what_is_read_after_the_end_of_the_process_counts(rig: Rig) -> None:
    rig.open = False
    rig.reap(EXIT_0)
    rig.processes.announce(WORKER, LEFT)
    assert (rig.finish().kind, rig.told[0][1].text) == (LEFT.kind, LEFT.text)
    assert rig.told[0][0] - 100.0 < 0.02


def test_it_is_waited_for_until_the_connection_was_read_to_its_end(rig: Rig) -> None:
    rig.reap(EXIT_0)
    for _ in range(5):
        rig.turn()
    assert (rig.told, rig.probes) == ([], 5)
    rig.open = False
    rig.turn()
    assert rig.told == [], "what came at last is read before"
    rig.processes.announce(WORKER, LEFT)
    assert rig.finish().text == LEFT.text


def test_a_connection_that_stays_open_is_not_waited_for(rig: Rig) -> None:
    rig.reap(EXIT_1)
    cause = rig.finish()
    assert (cause.kind, cause.exit_code, cause.pid) == ("exit", 1, 77_777_777)
    assert rig.told[0][0] - 100.0 < 0.3
    assert not rig.timers


def test_a_kill_that_comes_too_late_is_no_cause(rig: Rig) -> None:
    rig.reap(EXIT_1)
    rig.processes.kill(WORKER, DeathCause("ray_kill", "kill() was called"), 0.0)
    assert rig.finish().kind == "exit"


def test_a_kill_that_was_meant_is_the_cause(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig.processes, "_signal", lambda process, number: None)
    rig.processes.kill(WORKER, DeathCause("ray_kill", "kill() was called"), 0.0)
    rig.reap(9)
    rig.processes.announce(WORKER, LEFT)
    assert rig.finish().kind == "ray_kill"
