"""Threads that tasks leave behind them, and what they do to the worker that the next tasks get."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mray
from mray import current
from tests.waiting import eventually

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    mray.init(num_cpus=1)
    yield
    mray.shutdown()


@mray.remote
def leaves(refs: list[Any], began: str) -> int:
    def wait() -> None:
        mray.get(refs[0])

    threading.Thread(target=wait, daemon=True).start()
    eventually(Path(began).exists, what="what the thread waits for has begun")
    return 1


@mray.remote
def add_one(value: int) -> int:
    return value + 1


@mray.remote
def nested(value: int) -> int:
    return int(mray.get(add_one.remote(value))) + 1


def leases() -> list[Any]:
    return list(current.get().tasks.dispatcher.by_worker.values())


def test_a_thread_left_waiting_does_not_keep_the_worker_from_the_next_tasks(
    tmp_path: Path,
) -> None:
    gate, began = tmp_path / "gate", tmp_path / "began"

    @mray.remote
    def held(began: str, gate: str) -> None:
        Path(began).touch()
        eventually(Path(gate).exists, 100, what="the gate is open")

    # Of another class: it has a worker and a CPU of its own while the thread waits for it.
    ref = held.options(num_cpus=0).remote(str(began), str(gate))
    assert mray.get(leaves.remote([ref], str(began)), timeout=60) == 1
    # More than once: the worker goes back when it is idle, and is the one that is lent again.
    for value in range(3):
        eventually(lambda: len(leases()) == 1, what="its lease is returned")
        assert mray.get(add_one.remote(value), timeout=30) == value + 1
    # It still gives its CPU back for those who do wait.
    assert mray.get(nested.remote(1), timeout=30) == 3
    gate.touch()
    mray.get(ref, timeout=30)
