"""Many lives of an owner whose objects lie on nodes that die, each from its own seed.

MRAY_SIM_SEEDS=N runs N of them in place of 1,000. A failure prints its seed and its last events;
``live_on_nodes(seed)`` in node_life.py repeats it exactly.
"""

from __future__ import annotations

import os

import pytest

from .node_life import live_on_nodes

SEEDS = int(os.environ.get("MRAY_SIM_SEEDS", "1000"))
PARTS = 10


@pytest.mark.parametrize("part", range(PARTS))
def test_lost_values_come_back_once_and_nothing_is_kept(part: int) -> None:
    for seed in range(part, SEEDS, PARTS):
        live_on_nodes(seed)


def test_lives_on_nodes_meet_what_they_are_about() -> None:
    """Rebuilds, errors that have a reason, and lineage that is dropped."""
    worlds = [live_on_nodes(seed) for seed in range(100)]
    assert sum(world.rebuilds for world in worlds) > 100
    assert sum(world.owner.recovering.given_up for world in worlds) > 50
    assert sum(world.owner.references.lineage.evicted for world in worlds) > 10
    assert sum(len(world.dead) for world in worlds) > 200


def test_the_same_seed_is_the_same_life_on_nodes() -> None:
    assert live_on_nodes(3).story == live_on_nodes(3).story
