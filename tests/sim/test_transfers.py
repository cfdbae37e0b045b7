"""Transfers between nodes over a bad network: see transfer_world.py for what must be true."""

from __future__ import annotations

import pytest

from tests.sim.transfer_world import CHUNK, Faults, World

NODES = 6


def some_day(seed: int, faults: Faults, deaths: int) -> World:
    """Objects of many sizes, readers everywhere, nodes that die."""
    world = World(seed, NODES, faults)
    random, ids = world.random, list(world.nodes)
    world.spilled = random.random() < 0.5
    for number in range(random.randint(1, 12)):
        object_id = b"o%d" % number
        size = random.choice((0, 3, CHUNK, 95, 300, 550, 900))
        homes = random.sample(ids[1:], random.choice((1, 1, 2)))
        world.put(object_id, size, *homes)
        if random.random() < faults.damage:
            world.nodes[homes[0]].damaged.add(object_id)
    for node in world.nodes.values():
        node.slowness = random.choice((1.0, 1.0, 1.0, 30.0))
        for object_id in world.sizes:
            if random.random() < 0.7:
                priority = random.choice((0, 0, 1, 2))
                world.after(
                    random.random() * 0.3,
                    lambda n=node, o=object_id, p=priority: n.alive and n.read(o, p),
                )
    for victim in random.sample(ids[1:], deaths):
        world.after(random.random() * 0.5, lambda v=victim: world.kill(v))
    world.run()
    return world


@pytest.mark.parametrize("seed", range(12))
def test_every_reader_is_served_on_a_good_network(seed: int) -> None:
    world = some_day(seed, Faults(), deaths=0)
    assert world.failures == []


@pytest.mark.parametrize("seed", range(30))
def test_loss_copies_and_overtaking_only_cost_time(seed: int) -> None:
    some_day(seed, Faults(loss=0.05, copies=0.1), deaths=0)


@pytest.mark.parametrize("seed", range(40))
def test_nodes_that_die_in_the_middle_are_replaced_by_others(seed: int) -> None:
    some_day(seed, Faults(loss=0.02, copies=0.05), deaths=2)


@pytest.mark.parametrize("seed", range(15))
def test_damaged_copies_are_not_kept(seed: int) -> None:
    world = some_day(seed, Faults(damage=0.3), deaths=1)
    if world.spilled:
        for node in world.nodes.values():
            homes = {o for o in node.full if o in node.damaged}
            assert homes <= node.damaged


@pytest.mark.parametrize("seed", range(6))
def test_stores_without_room_now_and_then_only_delay(seed: int) -> None:
    world = World(seed, 3, Faults())
    world.no_place = 0.2
    for number in range(8):
        world.put(b"o%d" % number, 200, b"n1")
        world.nodes[b"n0"].read(b"o%d" % number)
    world.run()


def test_a_broadcast_is_carried_by_all_nodes_together() -> None:
    chunks = 200
    world = World(1, 9, Faults())
    world.put(b"big", chunks * CHUNK, b"n0")
    for node in list(world.nodes.values())[1:]:
        node.read(b"big")
    took_s = world.run()
    source = world.nodes[b"n0"]
    assert source.sent <= 2.5 * chunks
    # One node alone would take 8 x 200 ms.
    assert took_s < 0.5 * 8 * chunks * 0.001


def test_a_broadcast_goes_on_when_one_who_passes_it_on_dies() -> None:
    world = World(2, 9, Faults())
    world.put(b"big", 200 * CHUNK, b"n0")
    for node in list(world.nodes.values())[1:]:
        node.read(b"big")
    world.after(0.1, lambda: world.kill(b"n1"))
    world.after(0.15, lambda: world.kill(b"n2"))
    world.run()
    assert all(b"big" in node.full for node in world.nodes.values() if node.alive)


def test_after_the_death_of_a_source_only_the_rest_is_sent() -> None:
    world = World(3, 3, Faults())
    world.put(b"big", 60 * CHUNK, b"n1", b"n2")
    reader = world.nodes[b"n0"]
    reader.read(b"big")
    world.after(0.03, lambda: world.kill(b"n1"))
    world.run()
    assert b"big" in reader.full
    before = world.nodes[b"n1"].sent
    assert 10 < before < 50
    assert world.nodes[b"n2"].sent <= 60 - before + 8  # a window was under way
