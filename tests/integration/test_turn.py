"""Who turns a driver's event loop: signals, other threads, a busy main thread."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import mray

pytestmark = pytest.mark.integration

INTERRUPTED = """
import os, signal, threading
import mray

mray.init(num_cpus=2)

@mray.remote
class Gate:
    async def wait(self):
        import asyncio
        await asyncio.Event().wait()

@mray.remote
def quick(x):
    return x

gate = Gate.remote()
mray.get(gate.__ray_ready__.remote())
{set_up}
try:
    mray.get(gate.wait.remote())
except {error} as caught:
    print("caught", type(caught).__name__)
print(mray.get([quick.remote(i) for i in range(100)]) == list(range(100)))
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    mray.init(num_cpus=2)
    yield
    mray.shutdown()


def run(set_up: str, error: str) -> str:
    program = INTERRUPTED.format(set_up=set_up, error=error)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ctrl_c_ends_a_get_and_leaves_the_driver_whole() -> None:
    set_up = "threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()"
    assert run(set_up, "KeyboardInterrupt") == "caught KeyboardInterrupt\nTrue\n"


def test_a_handler_that_raises_ends_a_get_and_leaves_the_driver_whole() -> None:
    set_up = (
        "def give_up(number, frame):\n    raise LookupError('time is up')\n"
        "signal.signal(signal.SIGALRM, give_up)\nsignal.setitimer(signal.ITIMER_REAL, 0.3)"
    )
    assert run(set_up, "LookupError") == "caught LookupError\nTrue\n"


def test_the_handler_of_the_program_is_put_back(cluster: None) -> None:
    before = signal.getsignal(signal.SIGINT)

    @mray.remote
    def pid() -> int:
        return os.getpid()

    mray.get(pid.remote())
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_get_while_the_main_thread_computes(cluster: None) -> None:
    @mray.remote
    def double(x: int) -> int:
        return 2 * x

    results: dict[int, Any] = {}

    def work(number: int) -> None:
        results[number] = [mray.get(double.remote(i), timeout=30) for i in range(50)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        sum(range(1000))
    assert results == {number: [2 * i for i in range(50)] for number in range(4)}


def test_threads_and_main_thread_get_at_once(cluster: None) -> None:
    @mray.remote
    def double(x: int) -> int:
        return 2 * x

    results: list[bool] = []

    def work() -> None:
        results.append(all(mray.get(double.remote(i), timeout=30) == 2 * i for i in range(200)))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    work()
    for thread in threads:
        thread.join()
    assert results == [True] * 4


def test_a_task_that_computes_long_does_not_keep_its_worker_from_answering(cluster: None) -> None:
    @mray.remote
    class Counter:
        def __init__(self) -> None:
            self.ref = mray.put([1] * 100_000)

        def give(self) -> list[Any]:
            return [self.ref]

        def compute(self, until: str) -> None:
            while not os.path.exists(until):
                sum(range(1000))

    counter = Counter.remote()
    [ref] = mray.get(counter.give.remote())
    stop = f"{mray.current.runtime.node.session_dir}/stop"  # type: ignore[attr-defined]
    computing = counter.compute.remote(stop)
    # The owner of the object is the actor that computes: its stand-in answers.
    assert len(mray.get(ref, timeout=30)) == 100_000
    os.close(os.open(stop, os.O_CREAT | os.O_WRONLY))
    mray.get(computing, timeout=30)


def test_many_calls_in_a_row_leave_before_the_last_is_made(
    cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    @mray.remote
    class Server:
        def echo(self, x: int) -> int:
            return x

    server = Server.remote()
    mray.get(server.echo.remote(0))
    turn = mray.current.runtime.turn  # type: ignore[attr-defined]
    posts = mray.current.runtime.mailbox.posts  # type: ignore[attr-defined]
    left: list[tuple[int, int]] = []
    glance = type(turn).glance

    def counted(self: Any) -> None:
        before = len(posts)
        glance(self)
        left.append((before, len(posts)))

    monkeypatch.setattr(type(turn), "glance", counted)
    # The stand-in may turn the loop at times, and then sends them itself.
    while not any(before >= 64 and after == 0 for before, after in left):
        assert mray.get([server.echo.remote(i) for i in range(1000)]) == list(range(1000))


def test_calls_are_made_in_a_row_while_another_thread_gets(cluster: None) -> None:
    @mray.remote
    def double(x: int) -> int:
        return 2 * x

    results: list[bool] = []

    def work() -> None:
        results.append(all(mray.get(double.remote(i), timeout=30) == 2 * i for i in range(100)))

    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        assert mray.get([double.remote(i) for i in range(300)]) == [2 * i for i in range(300)]
    assert results == [True]
