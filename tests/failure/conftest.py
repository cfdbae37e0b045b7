"""Programs that run short of memory: each in a memory group of its own.

Where the system lets us make no group (it takes root and cgroup v1), the threshold is computed from
what is used now, so that a program has as much room; tests that need the limit itself are skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mray.memory.usage import read_memory
from mray.units import MIB

from ..waiting import eventually

GROUPS = Path("/sys/fs/cgroup/memory")
#: What a program has in use with its daemons and two workers, before it does anything.
BASE = 90 * MIB

#: Begins programs that wait for a line: ``heard(text)`` waits until it was printed here, by whom
#: ever.
HEARS = """
import sys, time

class Ear:
    said = ""

    def __init__(self, stream):
        self.stream = stream

    def write(self, text):
        Ear.said += text
        return self.stream.write(text)

    def __getattr__(self, name):
        return getattr(self.stream, name)

sys.stdout, sys.stderr = Ear(sys.stdout), Ear(sys.stderr)

def heard(text):
    deadline = time.monotonic() + 30
    while text not in Ear.said:
        assert time.monotonic() < deadline, f"not heard: {text}"
        time.sleep(0.01)
"""

RunShort = Callable[..., list[str]]


class MemoryGroup:
    """A cgroup v1 with a limit. ``path`` is None where none can be made."""

    def __init__(self) -> None:
        self.path: Path | None = GROUPS / f"mray-test-{uuid.uuid4().hex[:8]}"
        try:
            self.path.mkdir()
        except OSError:
            self.path = None

    def set_limit(self, size: int) -> None:
        if self.path is not None:
            (self.path / "memory.limit_in_bytes").write_text(str(size))

    def join(self) -> None:
        """For a child, before it becomes the program."""
        if self.path is not None:
            (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def remove(self) -> None:
        if self.path is None:
            return
        path = self.path

        def empty() -> bool:
            return not (path / "cgroup.procs").read_text()

        eventually(empty)
        path.rmdir()


@pytest.fixture
def memory_group() -> Iterator[MemoryGroup]:
    """A memory group, empty."""
    group = MemoryGroup()
    yield group
    group.remove()


@pytest.fixture
def run_short(memory_group: MemoryGroup, tmp_path: Path) -> RunShort:
    """``run_short(program, room, …)`` runs a program in a group of ``limit`` bytes, of which it may
    use ``room`` before its node is short of memory; returns the lines it printed.

    ``needs_limit``: skip where no group can be made. ``as_ray``: by `mray run`, where `import ray`
    is mray. Everything else is environment.
    """

    def run(
        program: str, room: int = 200 * MIB, *, limit: int = 1024 * MIB, threshold: float = 0.0,
        as_ray: bool = False, needs_limit: bool = False, **settings: str,
    ) -> list[str]:  # fmt: skip
        if memory_group.path is None:
            if needs_limit:
                pytest.skip("no memory group can be made here")
            reading = read_memory()
            threshold = (reading.used_bytes + BASE + room) / reading.limit_bytes
        memory_group.set_limit(limit)
        path = tmp_path / "program.py"
        path.write_text(program)
        start = [sys.executable]
        if as_ray:
            start += ["-m", "mray.cli.main", "run", "--as-ray"]
        done = subprocess.run(
            [*start, str(path)],
            env={
                **os.environ,
                "RAY_memory_usage_threshold": str(threshold or (BASE + room) / limit),
                "MRAY_object_store_memory": "100MiB",
                **settings,
            },
            preexec_fn=memory_group.join, text=True, capture_output=True, timeout=90,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return (done.stdout + done.stderr).splitlines()

    return run
