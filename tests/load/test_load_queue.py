"""Thousands of tasks queued behind what runs: what they cost, and that all of them run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import mray

from ..waiting import eventually
from .conftest import Size, Timed, use

pytestmark = [pytest.mark.load, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def one_cpu():
    mray.init(address="local", num_cpus=1, log_to_driver=False)
    yield
    mray.shutdown()


@pytest.mark.usefixtures("one_cpu")
def test_queued_tasks_cost_little_and_all_run(tmp_path: Path, size: Size, timed: Timed) -> None:
    count = size(20_000, 200_000)
    gate = str(tmp_path / "gate")
    os.mkfifo(gate)

    @mray.remote
    def wait() -> None:
        os.close(os.open(gate, os.O_RDONLY))

    @mray.remote
    def number(value: int) -> int:
        return value

    assert mray.get(number.remote(1), timeout=60) == 1
    blocked = wait.remote()
    warm = [number.remote(n) for n in range(1_000)]
    door = os.open(gate, os.O_WRONLY)  # Returns once the task waits.
    before = use()
    with timed(f"{count} tasks submitted"):
        refs = [number.remote(value) for value in range(count)]
    after = use()
    each = (after.rss_bytes - before.rss_bytes) / count
    print(f"{each:.0f} bytes a queued task")
    assert each <= 3 * 1024
    assert after.fd_count <= before.fd_count + 2
    assert after.thread_count <= before.thread_count + 1
    os.close(door)
    with timed(f"{count} tasks drained"):
        assert mray.get(refs, timeout=300) == list(range(count))
    assert mray.get([blocked, *warm], timeout=60)[1:] == list(range(1_000))
    eventually(lambda: mray.available_resources().get("CPU") == 1, 30, "the CPU is free again")
    assert use().fd_count <= before.fd_count + 2
