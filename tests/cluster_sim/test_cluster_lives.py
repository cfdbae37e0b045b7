"""Many lives of whole clusters, each from its own seed.

MRAY_SIM_SEEDS=N runs N of them in place of 1,000. A failure prints its seed and its last events;
``live(seed)`` in lives.py repeats it exactly.
"""

from __future__ import annotations

import os

import pytest

from .lives import live

SEEDS = int(os.environ.get("MRAY_SIM_SEEDS", "1000"))
PARTS = 10


@pytest.mark.parametrize("part", range(PARTS))
def test_every_task_ends_once_and_nothing_is_left(part: int) -> None:
    for seed in range(part, SEEDS, PARTS):
        live(seed)


def test_the_same_seed_is_the_same_life() -> None:
    digests = [live(seed).world.digest for seed in (1, 2, 1)]
    assert digests[0] == digests[2] != digests[1]


def test_lives_meet_what_they_are_about() -> None:
    """Tasks and actors that begin again, nodes that go, connections that are cut."""
    lives = [live(seed) for seed in range(60)]
    assert sum(life.record.worker_deaths for life in lives) > 200
    assert sum(any(len(b) > 1 for b in life.record.begins.values()) for life in lives) > 20
    assert sum(len(life.nodes) < 3 for life in lives) > 10
    assert sum(incarnation > 0 for life in lives for _, incarnation in life.record.served) > 5
