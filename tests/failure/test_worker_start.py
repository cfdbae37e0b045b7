"""Workers that never appear: it is noticed within worker_register_timeout_seconds."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import psutil
import pytest

import mray

from ..waiting import eventually

pytestmark = pytest.mark.failure


@pytest.fixture(autouse=True)
def cluster() -> Iterator[None]:
    mray.init(num_cpus=2, _system_config={"worker_register_timeout_seconds": 3.0})
    yield
    mray.shutdown()


@mray.remote
def whoami() -> int:
    return os.getpid()


@mray.remote
class Actor:
    def whoami(self) -> int:
        return os.getpid()


def zygote() -> psutil.Process:
    """The zygote, once it is there."""

    def found() -> list[psutil.Process]:
        return [
            process
            for process in psutil.Process().children(recursive=True)
            if any("zygote" in part for part in process.cmdline())
        ]

    return eventually(found)[0]


def test_a_zygote_that_does_not_answer_is_replaced_and_tasks_and_actors_run() -> None:
    mray.get(whoami.remote(), timeout=30)
    stopped = zygote()
    os.kill(stopped.pid, signal.SIGSTOP)
    actors = [Actor.remote() for _ in range(3)]
    pids = mray.get([actor.whoami.remote() for actor in actors], timeout=30)
    assert len(set(pids)) == 3
    assert zygote().pid != stopped.pid
