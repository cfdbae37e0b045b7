"""Many live actors, many running tasks, many placement groups."""

from __future__ import annotations

import psutil
import pytest

import mray
from mray.util.placement_group import placement_group, remove_placement_group

from ..waiting import eventually
from .conftest import Size, Timed

pytestmark = [pytest.mark.load, pytest.mark.timeout(300), pytest.mark.usefixtures("cluster")]


class Gate:
    """Counts who waits at it, and lets all go at once."""

    def __init__(self) -> None:
        import asyncio

        self.waiting = 0
        self.opened = asyncio.Event()

    async def wait(self) -> None:
        self.waiting += 1
        await self.opened.wait()

    async def count(self) -> int:
        return self.waiting

    async def open(self) -> None:
        self.opened.set()


def test_many_actors_live_answer_and_go(size: Size, timed: Timed) -> None:
    count = size(30, 200)

    @mray.remote(num_cpus=0)
    class Member:
        def pid(self) -> int:
            import os

            return os.getpid()

    with timed(f"{count} actors made and pinged"):
        members = [Member.remote() for _ in range(count)]
        pids = mray.get([member.pid.remote() for member in members], timeout=60)
    assert len(set(pids)) == count
    processes = [psutil.Process(pid) for pid in pids]
    with timed(f"{count} actors gone"):
        for member in members:
            mray.kill(member)
        _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive


def test_many_tasks_run_at_once(size: Size, timed: Timed) -> None:
    count = size(50, 200)
    gate = mray.remote(Gate).options(num_cpus=0, max_concurrency=1000).remote()

    @mray.remote(num_cpus=0.01)
    def stand(gate: object) -> int:
        mray.get(gate.wait.remote())  # type: ignore[attr-defined]
        return 1

    with timed(f"{count} tasks at once"):
        refs = [stand.remote(gate) for _ in range(count)]
        eventually(
            lambda: mray.get(gate.count.remote(), timeout=60) == count, 60, "all stand there"
        )
    mray.get(gate.open.remote(), timeout=60)
    assert mray.get(refs, timeout=60) == [1] * count
    mray.kill(gate)


def test_many_placement_groups(size: Size, timed: Timed) -> None:
    count = size(50, 500)
    total = mray.cluster_resources()
    with timed(f"{count} groups made and removed"):
        for _ in range(count):
            group = placement_group([{"CPU": 1}, {"CPU": 0.5}])
            assert group.wait(60)
            remove_placement_group(group)
    with timed(f"{count} groups at once"):
        groups = [placement_group([{"CPU": 0.001}]) for _ in range(count)]
        mray.get([group.ready() for group in groups], timeout=120)
        for group in groups:
            remove_placement_group(group)
    eventually(lambda: mray.available_resources() == total, 30, "all is free again")
