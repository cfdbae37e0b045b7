"""Actors and nodes as ray._private.state tells of them."""

from __future__ import annotations

import importlib
import time

import pytest

pytestmark = pytest.mark.conformance


def test_an_actor_is_told_by_its_id(ray):
    state = importlib.import_module(f"{ray.__name__}._private.state")

    @ray.remote
    class Named:
        def where(self):
            import os

            return ray.get_runtime_context().get_node_id(), os.getpid()

    actor = Named.options(name="told").remote()
    node_id, pid = ray.get(actor.where.remote(), timeout=60)
    actor_id = actor._ray_actor_id.hex()
    told = state.actors(actor_id)
    assert told["Address"]["NodeID"] == node_id
    assert told["Address"]["IPAddress"]
    assert (told["ActorID"], told["Name"]) == (actor_id, "told")
    assert told["ActorClassName"].endswith("Named")
    assert (told["State"], told["NumRestarts"], told["Pid"]) == ("ALIVE", 0, pid)
    assert state.actors()[actor_id] == told
    assert actor_id in state.actors(actor_state_name="ALIVE")
    assert actor_id not in state.actors(actor_state_name="DEAD")
    assert state.actors("ab" * 16) == {}


def test_each_node_has_its_resources(ray):
    state = importlib.import_module(f"{ray.__name__}._private.state")
    node_id = ray.get_runtime_context().get_node_id()

    @ray.remote(num_cpus=1)
    class Holder:
        def one(self):
            return 1

    total, free = state.total_resources_per_node(), state.available_resources_per_node()
    assert total.keys() == free.keys() == {node_id}
    assert total[node_id] == ray.nodes()[0]["Resources"]
    assert total[node_id]["CPU"] == 4
    assert total[node_id]["node:__internal_head__"] == 1
    holder = Holder.remote()
    ray.get(holder.one.remote(), timeout=60)
    give_up_at = time.monotonic() + 60
    while state.available_resources_per_node()[node_id]["CPU"] != 3:
        assert time.monotonic() < give_up_at
        time.sleep(0.05)
