"""Nothing may outlive the tests that started it: the leak check of integration, failure and
conformance tests.

The check runs once a test file, after its fixtures: the tests of a file may share a cluster, whose
worker processes and threads come and go between two tests. What a file started is told from what
runs beside it by a variable that every child inherits, and by the folders that its sessions are in.
Whatever is left is ended before the check fails, so that the next file starts clean.
"""

from __future__ import annotations

import gc
import glob
import os
import shutil
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

#: In the environment of everything that a test file starts. Not called MRAY_...: tests that run
#: programs in a user's environment drop those.
MARK = "PYTEST_STARTED_BY"
CHECKED = ("integration", "failure", "conformance", "load")

# A shell that runs the tests in the background has them ignore it, and all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

#: How long what was told to end may take; nothing waits longer than it must.
PATIENCE_S = 10.0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="full sizes, and tests that take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--soak"):
        for item in items:
            if item.get_closest_marker("soak"):
                item.add_marker(pytest.mark.skip("it takes minutes: scripts/test --soak"))


@pytest.fixture(scope="module", autouse=True)
def nothing_left_behind(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Fail when processes, threads, sockets or files in shared memory outlive the test file."""
    if not any(request.node.get_closest_marker(name) for name in CHECKED):
        yield
        return
    # Short: the path of a unix socket has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="mray-t-", dir="/tmp"))
    mark, started_at = uuid.uuid4().hex, time.time()
    threads, sockets = set(threading.enumerate()), _sockets()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, mark)
        patch.setenv("MRAY_TMPDIR", str(folder))
        yield
    left = [
        *_processes_left(mark, started_at),
        *_threads_left(threads),
        *_sockets_left(sockets),
        *_files_left([folder, tmp_path_factory.getbasetemp()]),
    ]
    shutil.rmtree(folder, ignore_errors=True)
    assert not left, f"left behind by {request.node.name}:\n" + "\n".join(left)


def _processes_left(mark: str, started_at: float) -> list[str]:
    """End what runs with this mark, or as our child, beyond its time; say what it was."""
    running = psutil.Process().children(recursive=True)
    for process in psutil.process_iter():
        try:
            if process not in running and _mark_of(process, started_at) == mark:
                running.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    _, alive = psutil.wait_procs(running, timeout=PATIENCE_S)
    texts = []
    for process in alive:
        try:
            texts.append(f"process {process.pid}: {' '.join(process.cmdline())}")
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=PATIENCE_S)
    return texts


def _mark_of(process: psutil.Process, started_at: float) -> str | None:
    """The mark in a process's environment, None without one."""
    give_up_at = time.monotonic() + 1
    environment = process.environ()
    # In the middle of an exec the environment is empty, for less than a millisecond.
    while (
        not environment
        and process.create_time() >= started_at - 1
        and process.status() != psutil.STATUS_ZOMBIE
        and time.monotonic() < give_up_at
    ):
        environment = process.environ()
    return environment.get(MARK)


def _threads_left(before: set[threading.Thread]) -> list[str]:
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        thread.join(PATIENCE_S)
    return [f"thread {thread.name}" for thread in left if thread.is_alive()]


def _sockets() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # The descriptor of this very listing.
        if target.startswith("socket:"):
            found.add(target)
    return found


def _sockets_left(before: set[str]) -> list[str]:
    gc.collect()
    return [f"open {name}" for name in sorted(_sockets() - before)]


def _files_left(folders: list[Path]) -> list[str]:
    """Object stores and sockets of the sessions in these folders."""
    from mray.session_files import Session  # Here: a broken import must not stop unit tests.

    user = os.getuid()
    left = []
    for folder in folders:
        for path in folder.rglob(f"mray-{user}/session_*"):
            if path.is_symlink():
                continue
            session = Session(str(path))
            left += glob.glob(f"{glob.escape(session.store_prefix)}*")
            if os.path.isdir(session.sockets):
                left += [f"{session.sockets}/{name}" for name in os.listdir(session.sockets)]
    return left
