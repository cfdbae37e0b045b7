"""Many lives of processes that lend references, each from its own seed.

MRAY_SIM_SEEDS=N runs N of them in place of 1,000. A failure prints its seed and its last events;
``live(seed)`` in life.py repeats it exactly.
"""

from __future__ import annotations

import itertools
import os

import pytest

from .life import hand_over, live
from .world import World

SEEDS = int(os.environ.get("MRAY_SIM_SEEDS", "1000"))
PARTS = 10


@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_is_freed_too_early_and_nothing_is_kept(part: int) -> None:
    for seed in range(part, SEEDS, PARTS):
        live(seed)


def test_a_worker_dies_at_any_moment_of_a_hand_over() -> None:
    for seed in range(SEEDS):
        hand_over(seed)


def test_the_same_seed_is_the_same_life() -> None:
    hashes = [live(seed).trace_hash() for seed in (1, 2, 1)]
    assert hashes[0] == hashes[2] != hashes[1]


def test_lives_meet_what_they_are_about() -> None:
    """Deaths, losses, offers that were asked about, and replies that came too late."""
    worlds = [live(seed) for seed in range(100)]
    assert sum(world.loss > 0 for world in worlds) > 20
    assert sum(len(world.all) - len(world.living()) for world in worlds) > 50
    assert sum(bool(p.ledger._refused) for world in worlds for p in world.living()) > 5


def test_a_chain_of_ten_borrowers_keeps_the_object_until_the_last_lets_go() -> None:
    world = World(0, process_count=11)
    world.loss, world.copies, world.delay_s = 0.3, 0.3, 0.1
    processes = world.living()
    entry = world.put(processes[0], [])
    held = entry
    for lender, borrower in itertools.pairwise(processes):
        task = world.submit(lender, borrower, [held])
        world.keep_all.add(task.number)
        while task.number in lender.pending:
            assert world.step()
        held = borrower.refs.entries[entry.object_id]
        world.forget(lender, lender.refs.entries[entry.object_id])
        world.forget(lender, task.result)
    while world.step():
        assert entry.object_id not in world.freed
    assert list(entry.borrowers or ()) == [processes[-1].id]
    world.forget(processes[-1], held)
    while world.step():
        continue
    assert entry.object_id in world.freed
