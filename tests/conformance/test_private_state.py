"""Actors as ray._private.state tells of them."""

from __future__ import annotations

import importlib

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
