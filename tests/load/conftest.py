"""Loads at two sizes: one that fits a change's tests, and the full one with ``--soak``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import psutil
import pytest

import mray

from ..quiescent_outside import count_descriptors

#: ``size(here, full)``: the one that is wanted.
Size = Callable[[int, int], int]
#: ``timed("what")``: prints how long the block took; the figures are shown with ``-s``.
Timed = Callable[[str], AbstractContextManager[None]]


@pytest.fixture
def size(request: pytest.FixtureRequest) -> Size:
    full = request.config.getoption("--soak")
    return lambda here, there: there if full else here


@pytest.fixture
def timed(request: pytest.FixtureRequest) -> Timed:
    @contextmanager
    def block(what: str) -> Iterator[None]:
        began_at = time.monotonic()
        yield
        print(f"{request.node.name}: {what}: {time.monotonic() - began_at:.2f} s")

    return block


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A cluster of two CPUs for all tests of a file, its workers there."""
    mray.init(address="local", num_cpus=2, log_to_driver=False)
    try:
        warm = mray.remote(lambda: time.sleep(0.05))
        mray.get([warm.remote() for _ in range(4)], timeout=60)
        yield
    finally:
        mray.shutdown()


@dataclass
class Use:
    """What driver and daemons have."""

    rss_bytes: int
    fd_count: int
    thread_count: int


def daemons() -> list[psutil.Process]:
    """Head and node of the cluster that this process started."""
    return [
        child
        for child in psutil.Process().children()
        if "mray.node" in child.cmdline()
    ]


def use() -> Use:
    """Of this process and its daemons together, workers left out."""
    us = [psutil.Process(), *daemons()]
    assert len(us) == 3, us
    return Use(
        sum(one.memory_info().rss for one in us),
        sum(count_descriptors(one.pid) for one in us),
        sum(one.num_threads() for one in us),
    )
