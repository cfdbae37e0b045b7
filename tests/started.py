"""A cluster that `mray start` started, and the programs that use it, for tests that end its head.

Everything runs as a user would run it: the command line, and programs of their own that are told by
their standard input what to do next and say on their standard output what came of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from mray.session import all_sessions
from mray.session_files import ProcessRecord, Session

from .waiting import eventually

MRAY = (sys.executable, "-m", "mray.cli")
#: Begins every program: a cluster, what to call, and `line()`, which waits for the test.
PRELUDE = """
import os, sys, threading, time
import mray
mray.init(address="auto", namespace="tests", log_to_driver=False)

@mray.remote(max_restarts=-1, num_cpus=0)
class Counter:
    def __init__(self):
        self.count = 0
    def add(self):
        self.count += 1
        return self.count
    def pid(self):
        return os.getpid()

@mray.remote
def square(x):
    return x * x

def say(*words):
    print(*words, flush=True)

def line():
    return sys.stdin.readline().strip()
"""


class Program:
    """A program that runs: ``tell()`` it a line, ``expect()`` one that begins so."""

    def __init__(self, text: str, environment: dict[str, str], folder: Path) -> None:
        self._lines: list[str] = []
        self._seen = 0
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + text], env=environment, cwd=folder, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self._lines.extend(iter(self.process.stdout.readline, ""))

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def expect(self, start: str, timeout_s: float = 30.0) -> str:
        """The next line that begins so, without that."""

        def found() -> str | None:
            for number in range(self._seen, len(self._lines)):
                if self._lines[number].startswith(start):
                    self._seen = number + 1
                    return self._lines[number]
            assert self.process.poll() is None or self._reader.is_alive(), self.output
            return None

        try:
            return eventually(found, timeout_s, start).removeprefix(start).strip()
        except AssertionError as error:
            raise AssertionError(f"no line {start!r}; it said:\n{self.output}") from error

    @property
    def output(self) -> str:
        """All that it has said."""
        return "".join(self._lines)

    def end(self, timeout_s: float = 30.0) -> int:
        """Wait for its end; the exit code."""
        code = self.process.wait(timeout_s)
        self._reader.join(10)
        return code

    def close(self) -> None:
        """End it, however it is."""
        self.process.kill()
        self.process.wait()
        self._reader.join(10)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


class StartedCluster:
    """See the module. ``variables`` are settings."""

    def __init__(self, folder: Path, **variables: str) -> None:
        folder.mkdir(exist_ok=True)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MRAY_"))}
        self.folder = folder
        self.environment = {
            **kept, "HOME": str(folder), "MRAY_TMPDIR": str(folder), "RAY_AUTH_TOKEN": "t" * 32,
            **variables,
        }  # fmt: skip
        self._programs: list[Program] = []
        self.port = _free_port()

    def run(self, *words: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run `mray`."""
        return subprocess.run(
            [*MRAY, *words], env=self.environment, cwd=self.folder, capture_output=True,
            text=True, timeout=timeout_s,
        )  # fmt: skip

    def start(self, *words: str) -> str:
        """`mray start --head …`; its output. The same words start a head again."""
        started = self.run("start", "--head", "--port", str(self.port), "--num-cpus", "2", *words)
        assert started.returncode == 0, started.stdout + started.stderr
        return started.stdout

    def program(self, text: str) -> Program:
        """Start a program."""
        program = Program(text, self.environment, self.folder)
        self._programs.append(program)
        return program

    # -- what runs

    @property
    def session(self) -> Session:
        """The newest one with a head's role."""
        return next(s for s in all_sessions(str(self.folder)) if s.info().role == "head")

    def daemon(self, kind: str) -> ProcessRecord:
        """The record of the living head, or node daemon."""
        return next(r for r in self.session.processes() if r.kind == kind and r.alive)

    def daemons(self) -> Sequence[ProcessRecord]:
        """All living heads and node daemons."""
        records = [r for s in all_sessions(str(self.folder)) for r in s.processes()]
        return [r for r in records if r.kind in ("head", "node") and r.alive]

    def kill_head(self, number: int = signal.SIGKILL) -> int:
        """Kill the head, and wait for its end; its pid."""
        head = self.daemon("head")
        os.kill(head.pid, number)
        eventually(lambda: not head.alive, what="the head has ended")
        return head.pid

    def log(self, name: str) -> str:
        """A daemon's log: gcs_server or raylet."""
        with open(f"{self.session.logs}/{name}.out", encoding="utf-8") as file:
            return file.read()

    def json(self, *words: str) -> object:
        """What `mray … --json` prints."""
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def left(self) -> list[psutil.Process]:
        """What still runs of its sessions."""
        found = []
        for process in psutil.process_iter():
            try:
                place = process.environ().get("MRAY_SESSION_DIR", "")
                if place.startswith(f"{self.folder}/") and process.status() != "zombie":
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def close(self) -> None:
        """End everything; nothing may be left."""
        for program in self._programs:
            program.close()
        for record in self.daemons():
            os.kill(record.pid, signal.SIGCONT)
        self.run("stop", "--all", "--force")
        assert self.left() == []


def _free_port() -> int:
    """One that the system gives to nobody who asks for any: while the head is away, it is free."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", random.randrange(11_000, 32_000)))
            return int(probe.getsockname()[1])


@contextlib.contextmanager
def started(folder: Path, *words: str, **variables: str) -> Iterator[StartedCluster]:
    """A started cluster that ends with the block."""
    cluster = StartedCluster(folder, **variables)
    try:
        cluster.start(*words)
        yield cluster
    finally:
        cluster.close()
