"""Many lives of whole clusters, each from its own seed.

MRAY_SIM_SEEDS=N runs N of them in place of 1,000; `scripts/test --soak` runs 100,000. A failure
prints its seed and its last events; ``python -m tests.cluster_sim SEED SEED+1`` repeats it exactly.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .lives import live

SEEDS = int(os.environ.get("MRAY_SIM_SEEDS", "1000"))
_ROOT = Path(__file__).parents[2]


def _live_all(first: int, end: int) -> None:
    """One process a CPU: a life takes a tenth of a second."""
    count = len(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "tests.cluster_sim"]
    running = [
        subprocess.Popen(
            [*command, str(first + part), str(end), str(count)],
            cwd=_ROOT, stdout=subprocess.PIPE, text=True,
        )
        for part in range(count)
    ]  # fmt: skip
    outputs = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0] * count, "\n".join(outputs)


@pytest.mark.timeout(600)
def test_every_task_ends_once_and_nothing_is_left() -> None:
    _live_all(0, SEEDS)


@pytest.mark.soak
@pytest.mark.timeout(6 * 3600)
def test_a_hundred_thousand_lives() -> None:
    _live_all(SEEDS, 100_000)


def test_the_same_seed_is_the_same_life() -> None:
    digests = [live(seed).world.digest for seed in (1, 2, 1)]
    assert digests[0] == digests[2] != digests[1]


def test_lives_meet_what_they_are_about() -> None:
    """Tasks and actors that begin again, work on other nodes, nodes that go, copies that come."""
    lives = [live(seed) for seed in range(60)]
    assert sum(life.record.worker_deaths for life in lives) > 200
    assert sum(any(len(b) > 1 for b in life.record.begins.values()) for life in lives) > 10
    assert sum(life.record.begun_abroad for life in lives) > 200
    assert sum(life.node_deaths for life in lives) > 20
    assert sum(incarnation > 0 for life in lives for _, incarnation in life.record.served) > 5
    assert sum(rt.recovering.rebuilt for life in lives for rt in life.all_runtimes) > 0
    assert (
        sum(n._transfer.pulled_bytes_total for life in lives for n in life.nodes.values()) > 10**7
    )
