"""What counts as more than a daemon may have, and what does not."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from mray.process import start_time_of
from mray.session_files import ProcessRecord

from ..quiescent_outside import PER_WORKER, SLACK, Figures, figures_of, growth


def me() -> ProcessRecord:
    pid = os.getpid()
    return ProcessRecord(kind="node", pid=pid, start_time=start_time_of(pid), name="6d")


def figures() -> Figures:
    found = figures_of(me(), 0)
    assert found is not None
    return found


@pytest.fixture
def five_connections() -> Iterator[Figures]:
    """The figures before there were five connections, both ends of which are here."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        before = figures()
        for _ in range(5):
            stack.enter_context(socket.create_connection(listener.getsockname()))
            stack.enter_context(listener.accept()[0])
        yield before


def test_connections_are_no_descriptors(five_connections: Figures) -> None:
    now = figures()
    assert now.connections == five_connections.connections + 10
    assert now.descriptors == five_connections.descriptors


def test_a_connection_for_each_living_worker_is_no_growth(five_connections: Figures) -> None:
    now = figures()
    assert growth(me(), five_connections, replace(now, workers_elsewhere=10 - SLACK)) == []
    (line,) = growth(me(), five_connections, replace(now, workers_elsewhere=9 - SLACK))
    assert f"has {now.connections} connections" in line
    assert "0100007F" in line  # 127.0.0.1, as the kernel writes it.


def test_descriptors_and_threads_grow_with_own_workers_alone() -> None:
    before = Figures(60, 10, 5, workers=1)
    assert growth(me(), before, Figures(60 + SLACK, 10, 5 + SLACK, workers=1)) == []
    assert growth(me(), before, Figures(60 + SLACK + PER_WORKER, 10, 5, workers=2)) == []
    lines = growth(me(), before, Figures(61 + SLACK, 10, 6 + SLACK, 1, workers_elsewhere=50))
    assert ["descriptors" in lines[0], "threads" in lines[1]] == [True, True]
