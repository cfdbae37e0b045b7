"""What asyncio does in an async actor while its thread turns mray's event loop too."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import mray

pytestmark = pytest.mark.integration


@mray.remote(max_concurrency=1000)
class Host:
    """A server of its own, timers, threads and children, beside calls."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.gate = asyncio.Event()

    async def serve(self) -> int:
        async def echo(reader: Any, writer: Any) -> None:
            while line := await reader.readline():
                writer.write(line.upper())
                await writer.drain()
            writer.close()

        self.server = await asyncio.start_server(echo, "127.0.0.1", 0)
        return int(self.server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        self.server.close()

    async def say(self, word: str) -> str:
        return word

    async def later(self, delay_s: float) -> str:
        asyncio.get_running_loop().call_later(delay_s, self.gate.set)
        await self.gate.wait()
        return "came"

    async def from_a_thread(self) -> str:
        loop = asyncio.get_running_loop()
        event = asyncio.Event()
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(event.set,))
        thread.start()
        await event.wait()
        thread.join()
        return await loop.run_in_executor(None, lambda: "from a thread")

    async def child(self) -> bytes:
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", "read line; echo got $line", stdin=-1, stdout=-1
        )
        out, _ = await process.communicate(b"it\n")
        return out

    async def block(self, ref: list[Any]) -> Any:
        return mray.get(ref[0])

    async def wait_for(self, ref: list[Any]) -> Any:
        return await ref[0]

    async def give(self) -> list[Any]:
        self.kept = mray.put([1] * 100_000)
        return [self.kept]

    async def compute(self, path: str) -> None:
        """Keep the thread until a file is there."""
        while not os.path.exists(path):
            time.sleep(0)

    async def spin(self, path: str) -> int:
        """Never let asyncio sleep."""
        rounds = 0
        while not os.path.exists(path):
            rounds += 1
            await asyncio.sleep(0)
        return rounds

    async def cpu_s_of_sleep(self) -> float:
        """Of all threads, while asyncio is wanted and its thread sleeps in a call."""
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(self.seen.clear)
        before = time.process_time()
        time.sleep(0.5)
        return time.process_time() - before


@mray.remote
def touch(path: str) -> str:
    with open(path, "w"):
        return path


@pytest.fixture(scope="module")
def host() -> Iterator[Any]:
    mray.init(num_cpus=2)
    yield Host.remote()
    mray.shutdown()


def test_sockets_of_the_actor_are_served_beside_calls(host: Any) -> None:
    port = mray.get(host.serve.remote())
    with socket.create_connection(("127.0.0.1", port)) as client, client.makefile("rwb") as file:
        for number in range(50):
            file.write(b"line %d\n" % number)
            file.flush()
            said = host.say.remote(f"word {number}")
            assert file.readline() == b"LINE %d\n" % number
            assert mray.get(said) == f"word {number}"
    mray.get(host.close.remote())


def test_timers_fire_while_nothing_comes(host: Any) -> None:
    assert mray.get(host.later.remote(0.05), timeout=30) == "came"


def test_threads_wake_asyncio(host: Any) -> None:
    assert mray.get([host.from_a_thread.remote() for _ in range(20)], timeout=30) == (
        ["from a thread"] * 20
    )


def test_children_of_asyncio_are_heard(host: Any) -> None:
    assert mray.get(host.child.remote(), timeout=30) == b"got it\n"


@pytest.mark.parametrize("method", ["block", "wait_for"])
def test_results_of_others_arrive_in_a_call(host: Any, method: str, tmp_path: Any) -> None:
    @mray.remote
    def number(path: str) -> int:
        while not os.path.exists(path):
            time.sleep(0.001)
        return 5

    refs = [[number.remote(str(tmp_path / "go"))] for _ in range(2)]
    asked = [getattr(host, method).remote(ref) for ref in refs]
    touch.options(num_cpus=0).remote(str(tmp_path / "go"))
    assert mray.get(asked, timeout=30) == [5, 5]


def test_a_call_that_keeps_the_thread_holds_up_no_messages(host: Any, tmp_path: Any) -> None:
    """The stand-in answers for it: who asks the owner of an object is told."""
    path = str(tmp_path / "go")
    [ref] = mray.get(host.give.remote())
    computing = host.compute.remote(path)
    assert len(mray.get(ref, timeout=30)) == 100_000
    touch.remote(path)
    assert mray.get(computing, timeout=30) is None


def test_calls_run_while_asyncio_never_sleeps(host: Any, tmp_path: Any) -> None:
    path = str(tmp_path / "go")
    ref = host.spin.remote(path)
    assert mray.get([host.say.remote(str(i)) for i in range(500)], timeout=30) == [
        str(i) for i in range(500)
    ]
    touch.remote(path)
    assert mray.get(ref, timeout=30) > 0


def test_what_wakes_asyncio_is_heard_once_while_its_thread_is_away(host: Any) -> None:
    assert mray.get(host.cpu_s_of_sleep.remote()) < 0.25
