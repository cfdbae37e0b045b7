"""get() where nobody could answer it: in forks, within the event loop, at the interpreter's end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import mray
from mray import current

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    mray.init(num_cpus=2)
    yield
    mray.shutdown()


@pytest.mark.usefixtures("cluster")
def test_a_fork_of_a_task_is_refused_and_the_task_goes_on() -> None:
    @mray.remote
    def forks(box: list[Any]) -> tuple[int, int]:
        child = os.fork()
        if not child:
            try:
                mray.get(box[0])
            except RuntimeError as error:
                os._exit(3 if "fork" in str(error) else 4)
            os._exit(5)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(mray.get(box[0]))

    ref = mray.put(b"x" * 500_000)
    assert mray.get(forks.remote([ref]), timeout=20) == (3, 500_000)


@pytest.mark.usefixtures("cluster")
def test_a_pool_that_a_task_forks_works() -> None:
    @mray.remote
    def pool() -> list[int]:
        import multiprocessing

        with multiprocessing.get_context("fork").Pool(2) as processes:
            return processes.map(abs, range(-3, 0))

    assert mray.get(pool.remote(), timeout=30) == [3, 2, 1]


@pytest.mark.usefixtures("cluster")
def test_a_get_within_the_event_loop_raises_and_does_not_stop_it() -> None:
    caught: list[BaseException] = []
    over = threading.Event()

    @mray.remote
    def one() -> int:
        return 1

    pending = one.remote()
    entry = pending._entry
    # A reference whose value never comes: what a finalizer might ask for.
    unready = mray.ObjectRef(type(entry)(bytes(28), None, entry.home, 1))

    def finalizer() -> None:
        try:
            mray.get(unready)
        except mray.exceptions.RaySystemError as error:
            caught.append(error)
        over.set()

    current.get().post(finalizer)
    assert over.wait(20)
    assert "finalizer" in str(caught[0])
    assert mray.get(pending, timeout=20) == 1


FORKED_DRIVER = """
import os
import mray

mray.init(num_cpus=1)
ref = mray.remote(lambda: 1).remote()
child = os.fork()
if not child:
    try:
        mray.get(ref)
    except RuntimeError as error:
        print("child:", "fork" in str(error), mray.is_initialized(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print("parent:", mray.get(ref))
"""

AT_THE_END = """
import mray

class Late:
    def __init__(self):
        self.ref = mray.put(1)

    def __del__(self):
        try:
            mray.get(self.ref)
            mray.put(2)
        except RuntimeError as error:
            print("late:", error)

mray.init(num_cpus=1)
kept = Late()
"""


def _program(text: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_a_fork_of_a_driver_is_refused_and_the_driver_goes_on() -> None:
    assert _program(FORKED_DRIVER) == "child: True False\nparent: 1\n"


def test_a_get_at_the_end_of_the_interpreter_starts_no_cluster() -> None:
    assert "late: mray was used while the interpreter ends" in _program(AT_THE_END)
