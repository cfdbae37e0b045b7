"""The monitor's thread: it ends whole process trees by itself, with nobody else's help."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mray.memory.trees import TreeReader
from mray.memory.usage import MemoryReading
from mray.node.memory.census import Count
from mray.node.memory.monitor import Kill, Monitor, MonitorRules, Snapshot
from mray.node.memory.policy import Candidate
from mray.node.memory.thread import MonitorThread
from mray.process import read_stat
from mray.units import GIB

from ...waiting import eventually

#: Starts a child in a session of its own that ignores SIGTERM, says its pid, and does so itself.
_STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) == 1:
    child = subprocess.Popen([sys.executable, __file__, "child"], start_new_session=True)
    print(child.pid, flush=True)
time.sleep(60)
"""


class Machine:
    """Memory as a test says; one worker."""

    def __init__(self) -> None:
        self.used = 9 * GIB
        self.log: list[str] = []
        self.pids: list[int] = []
        self.trees = TreeReader()

    def read(self) -> MemoryReading:
        return MemoryReading(self.used, 10 * GIB, "fake", 10 * GIB, 0, 0)

    def take(self, *, complete: bool = False) -> Count:
        usage = self.trees.read(self.pids[:1])
        candidates = [
            Candidate(worker_id=b"w", pid=pid, kind="task", owner_id=b"o", name="f",
                      retriable=True, private_bytes=tree.private_bytes)
            for pid, tree in usage.items()
        ]  # fmt: skip
        self.pids += [p for tree in usage.values() for p in tree.tree_pids if p not in self.pids]
        return Count(
            Snapshot(candidates=candidates), (), {b"w": next(iter(usage.values()))} if usage else {}
        )

    def killed(self, kill: Kill, count: Count) -> None:
        self.log.append(signal.Signals(kill.number).name)


@pytest.fixture
def make_thread() -> Iterator[Callable[[Machine], MonitorThread]]:
    threads: list[MonitorThread] = []

    def make(machine: Machine) -> MonitorThread:
        fake: Any = machine  # In place of the census and of the reader of memory.
        thread = MonitorThread(
            lambda reading: Monitor(MonitorRules(refresh_s=0.02)),
            fake, fake, 0.8, -1,
            on_kill=machine.killed,
            on_admit=lambda is_open: machine.log.append(f"admit {is_open}"),
            on_press=lambda excess: threads[0].pressed(),
            on_say=lambda say: machine.log.append(say.text[:16]),
            on_idle=lambda count, is_short: None,
        )  # fmt: skip
        threads.append(thread)
        thread.start()
        return thread

    yield make
    for thread in threads:
        thread.stop()


def ended(pid: int) -> bool:
    stat = read_stat(pid)
    return stat is None or stat.state == "Z"


def test_a_tree_that_ignores_sigterm_is_killed_whole_and_waited_for(
    make_thread: Callable[[Machine], MonitorThread], tmp_path: Any
) -> None:
    program = tmp_path / "stubborn.py"
    program.write_text(_STUBBORN)
    worker = subprocess.Popen(
        [sys.executable, str(program)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert worker.stdout is not None
    child = int(worker.stdout.readline())
    machine = Machine()
    machine.pids.append(worker.pid)
    begin = time.monotonic()
    make_thread(machine)
    try:
        assert worker.wait(timeout=10) == -signal.SIGKILL
        assert time.monotonic() - begin >= 0.1  # SIGTERM had its time.
        eventually(lambda: ended(child))
        assert machine.log[:2] == ["admit False", "SIGTERM"]
        machine.used = 5 * GIB
        eventually(lambda: "admit True" in machine.log)
    finally:
        worker.stdout.close()
        if not ended(child):
            os.kill(child, signal.SIGKILL)


def test_a_look_that_fails_does_not_end_the_monitor(
    make_thread: Callable[[Machine], MonitorThread], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mray.node.memory.thread._AFTER_ERROR_S", 0.01)
    machine = Machine()
    failures = iter([RuntimeError("once")])

    def take(*, complete: bool = False) -> Count:
        for failure in failures:
            raise failure
        return Count(Snapshot(candidates=[]), (), {})

    monkeypatch.setattr(machine, "take", take)
    make_thread(machine)
    eventually(lambda: any(line.startswith("memory is short") for line in machine.log))
