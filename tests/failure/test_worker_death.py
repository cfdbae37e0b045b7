"""Workers that die: what is run again, and what the error says otherwise."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import mray
from mray.exceptions import OwnerDiedError, RayTaskError, WorkerCrashedError

from ..waiting import eventually

pytestmark = pytest.mark.failure


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    mray.init(num_cpus=2)
    yield
    mray.shutdown()


def attempt_of(folder: str) -> int:
    """How often this was called with the folder, now included."""
    number = len(os.listdir(folder)) + 1
    Path(folder, f"{number}-{os.getpid()}").touch()
    return number


def pid_in(folder: Path, number: int) -> int:
    """The pid of the attempt with this number, once it runs."""
    names = eventually(
        lambda: [p.name for p in folder.iterdir() if p.name.startswith(f"{number}-")]
    )
    return int(names[0].partition("-")[2])


@mray.remote
def waits_the_first_time(folder: str) -> int:
    number = attempt_of(folder)
    while number == 1:
        signal.pause()
    return number


def test_a_task_whose_worker_is_killed_runs_again(tmp_path: Path) -> None:
    ref = waits_the_first_time.remote(str(tmp_path))
    os.kill(pid_in(tmp_path, 1), signal.SIGKILL)
    assert mray.get(ref, timeout=20) == 2


def test_tasks_queued_behind_a_killed_one_run_without_loss(tmp_path: Path) -> None:
    @mray.remote
    def double(x: int) -> int:
        return 2 * x

    first = waits_the_first_time.remote(str(tmp_path))
    rest = [double.remote(i) for i in range(500)]
    os.kill(pid_in(tmp_path, 1), signal.SIGKILL)
    assert mray.get(rest, timeout=20) == [2 * i for i in range(500)]
    assert mray.get(first, timeout=20) == 2


def test_retries_end_at_their_number(tmp_path: Path) -> None:
    @mray.remote(max_retries=2)
    def dies(folder: str) -> None:
        attempt_of(folder)
        os._exit(3)

    with pytest.raises(WorkerCrashedError, match="exit code 3"):
        mray.get(dies.remote(str(tmp_path)), timeout=20)
    assert len(list(tmp_path.iterdir())) == 3


def exits() -> None:
    os._exit(7)


def is_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def segfaults() -> None:
    ctypes.string_at(0)


@pytest.mark.parametrize(
    ("how", "code", "number", "text"),
    [
        (exits, 7, None, "exit code 7"),
        (is_killed, None, signal.SIGKILL, "a SIGKILL from outside"),
        (segfaults, None, signal.SIGSEGV, "SIGSEGV"),
    ],
    ids=["exit", "kill", "segfault"],
)
def test_the_error_tells_how_the_worker_ended(
    how: Any, code: int | None, number: int | None, text: str
) -> None:
    @mray.remote(max_retries=0)
    def last_words() -> None:
        print("these are", file=sys.stderr)
        print("my last words", file=sys.stderr)
        how()

    with pytest.raises(WorkerCrashedError) as caught:
        mray.get(last_words.remote(), timeout=20)
    error = caught.value
    assert (error.exit_code, error.signal) == (code, number)
    assert error.pid
    assert error.task_name.endswith("last_words")
    assert text in str(error)
    assert list(error.stderr_tail)[-2:] == ["these are", "my last words"]
    assert "my last words" in str(error)


def test_a_death_takes_down_no_neighbour() -> None:
    @mray.remote
    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def more(self) -> int:
            self.count += 1
            return self.count

    @mray.remote(max_retries=0)
    def dies() -> None:
        os._exit(1)

    counter = Counter.remote()
    assert mray.get(counter.more.remote()) == 1
    for _ in range(3):
        with pytest.raises(WorkerCrashedError):
            mray.get(dies.remote(), timeout=20)
    assert mray.get(counter.more.remote()) == 2


def test_an_error_of_an_argument_that_crashed_reaches_the_tasks_after_it() -> None:
    @mray.remote(max_retries=0)
    def dies() -> int:
        os._exit(1)

    @mray.remote
    def after(x: int) -> int:
        return x

    with pytest.raises(WorkerCrashedError, match="exit code 1"):
        mray.get(after.remote(after.remote(dies.remote())), timeout=20)


def test_a_crash_within_a_task_of_a_task_says_what_crashed() -> None:
    @mray.remote(max_retries=0)
    def dies() -> int:
        os._exit(9)

    @mray.remote
    def asks() -> Any:
        return mray.get(dies.remote())

    with pytest.raises(RayTaskError, match="exit code 9"):
        mray.get(asks.remote(), timeout=20)


# -- owners


@mray.remote
class Owner:
    def pid(self) -> int:
        return os.getpid()

    def small(self) -> list[Any]:
        self.kept = [mray.put(1)]
        return self.kept

    def big(self) -> list[Any]:
        self.kept = [mray.put(b"x" * 1_000_000)]
        return self.kept

    def unfinished(self, folder: str) -> list[Any]:
        self.kept = [waits_the_first_time.remote(folder)]
        return self.kept


def kill(actor: Any) -> None:
    """Kill an actor and wait until its process is gone: kill() does not."""
    process = psutil.Process(mray.get(actor.pid.remote(), timeout=20))
    mray.kill(actor)
    psutil.wait_procs([process], timeout=10)


@pytest.mark.parametrize("what", ["small", "big"])
def test_get_of_an_object_whose_owner_is_dead_raises_at_once(what: str) -> None:
    owner = Owner.remote()
    (ref,) = mray.get(getattr(owner, what).remote())
    kill(owner)
    with pytest.raises(OwnerDiedError, match=ref.hex()):
        mray.get(ref, timeout=5)


def test_a_get_that_waits_is_woken_by_the_owners_death(tmp_path: Path) -> None:
    owner = Owner.remote()
    pid = mray.get(owner.pid.remote())
    (ref,) = mray.get(owner.unfinished.remote(str(tmp_path)))
    pid_in(tmp_path, 1)
    ready, _ = mray.wait([ref], timeout=0)
    assert ready == []

    @mray.remote
    def send_kill(pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    killed = send_kill.remote(pid)
    with pytest.raises(OwnerDiedError):
        mray.get(ref, timeout=10)
    mray.get(killed)


def test_a_task_that_takes_an_object_of_a_dead_owner_fails() -> None:
    owner = Owner.remote()
    (ref,) = mray.get(owner.small.remote())
    kill(owner)

    @mray.remote
    def take(x: int) -> int:
        return x

    with pytest.raises(OwnerDiedError):
        mray.get(take.remote(ref), timeout=10)


def test_references_of_a_dead_owner_can_be_passed_on_and_dropped() -> None:
    owner = Owner.remote()
    refs = mray.get(owner.big.remote())
    kill(owner)

    @mray.remote
    def keeps(inside: list[Any]) -> list[Any]:
        return inside

    again = mray.get(keeps.remote(refs), timeout=10)
    del refs
    with pytest.raises(OwnerDiedError):
        mray.get(again[0], timeout=5)


# -- forks


def test_a_task_may_fork() -> None:
    @mray.remote
    def forks() -> tuple[int, int]:
        import multiprocessing

        pid = os.fork()
        if pid == 0:
            os._exit(5)
        status = os.waitpid(pid, 0)[1]
        with multiprocessing.get_context("fork").Pool(2) as pool:
            total = sum(pool.map(abs, [-1, -2, -3]))
        return os.waitstatus_to_exitcode(status), total

    assert mray.get(forks.remote(), timeout=20) == (5, 6)


@pytest.mark.parametrize("how", ["exit", "raise", "return"])
def test_a_child_of_a_task_that_comes_back_does_not_answer_for_it(how: str) -> None:
    @mray.remote
    def forks(how: str) -> int:
        me = os.getpid()
        pid = os.fork()
        if pid == 0:
            if how == "exit":
                sys.exit(0)
            if how == "raise":
                raise ValueError("from the child")
            return -1
        os.waitpid(pid, 0)
        return me

    @mray.remote
    def pid() -> int:
        return os.getpid()

    assert mray.get(forks.remote(how), timeout=20) > 0
    assert mray.get([pid.remote() for _ in range(20)], timeout=20)
