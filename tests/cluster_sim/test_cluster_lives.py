"""Many lives of whole clusters, each from its own seed.

MRAY_SIM_SEEDS=N runs N of them in place of 1,000. `scripts/test --soak` runs 100,000 in pieces of
10,000, each a test of its own, over all CPUs: minutes a piece. One piece, with its progress and a
summary, or some:

    scripts/test --soak tests/cluster_sim/test_cluster_lives.py -k from_30000
    scripts/test --soak tests/cluster_sim/test_cluster_lives.py -k "from_30000 or from_40000"

A failure prints its seed and its last events, and the other seeds are lived all the same;
``python -m tests.cluster_sim SEED SEED+1`` repeats it exactly.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .lives import live

SEEDS = int(os.environ.get("MRAY_SIM_SEEDS", "1000"))
_PIECE = 10_000
_ROOT = Path(__file__).parents[2]


class Lives:
    """Those of a range of seeds, in a process a CPU. ``tell`` gets a line now and then."""

    def __init__(self, first: int, end: int, tell: Callable[[str], None]) -> None:
        self._count, self._tell = end - first, tell
        self._began_at = time.monotonic()
        step = len(os.sched_getaffinity(0))
        command = [sys.executable, "-m", "tests.cluster_sim"]
        self._processes = [
            subprocess.Popen(
                [*command, str(first + part), str(end), str(step)],
                cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for part in range(step)
        ]  # fmt: skip
        #: How far each part is.
        self._told: list[dict[str, Any]] = [{"lived": 0, "failed": [], "cpu_s": 0.0}] * step

    def all_lived(self) -> None:
        """Wait for them all. AssertionError, with all stories, if one failed."""
        try:
            with ThreadPoolExecutor(len(self._processes)) as pool:
                outputs = list(pool.map(self._listen, range(len(self._processes))))
        except BaseException:
            for process in self._processes:
                process.kill()
            raise
        statuses = [process.wait() for process in self._processes]
        assert not any(statuses), "\n".join([*outputs, self._progress()])

    def _listen(self, part: int) -> str:
        output: list[str] = []
        stdout = self._processes[part].stdout
        assert stdout is not None
        with stdout:
            for line in stdout:
                if line.startswith('{"lived"'):
                    self._told[part] = json.loads(line)
                    self._tell(self._progress())
                else:
                    output.append(line)
        return "".join(output)

    def _progress(self) -> str:
        lived = sum(told["lived"] for told in self._told)
        failed = sorted(seed for told in self._told for seed in told["failed"])
        cpu_s = sum(told["cpu_s"] for told in self._told) / max(1, lived)
        took_s = time.monotonic() - self._began_at
        return (
            f"{lived} of {self._count} lives in {took_s:.0f} s ({cpu_s:.3f} CPU-s a life), "
            f"{len(failed)} failed: {failed[:10]}"
        )


@pytest.mark.timeout(600)
def test_every_task_ends_once_and_nothing_is_left() -> None:
    Lives(0, SEEDS, lambda text: None).all_lived()


@pytest.mark.soak
@pytest.mark.timeout(3 * 3600)
@pytest.mark.parametrize("first", range(0, 100_000, _PIECE), ids="from_{}".format)
def test_a_hundred_thousand_lives(first: int, capfd: pytest.CaptureFixture[str]) -> None:
    def tell(text: str) -> None:
        with capfd.disabled():
            print(f"\r{text}", end="", file=sys.stderr, flush=True)

    Lives(first, first + _PIECE, tell).all_lived()


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
