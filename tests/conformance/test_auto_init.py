"""Which names of the API start a cluster by themselves, and what init() refuses."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.conformance

USES = {
    "put": lambda ray: ray.put(1),
    "get": lambda ray: ray.get([]),
    "wait": lambda ray: ray.wait([]),
    "get_actor": lambda ray: ray.get_actor("nobody"),
    "get_gpu_ids": lambda ray: ray.get_gpu_ids(),
    "kill": lambda ray: ray.kill(1),
    "cancel": lambda ray: ray.cancel(1),
    "get_runtime_context": lambda ray: ray.get_runtime_context(),
    "a task": lambda ray: ray.get(ray.remote(lambda: 1).remote()),
}


@pytest.mark.parametrize("name", ["put", "get_actor", "kill", "get_runtime_context", "a task"])
def test_what_needs_a_cluster_starts_one(disconnected, name):
    assert not disconnected.is_initialized()
    try:
        USES[name](disconnected)
    except (ValueError, TypeError):
        assert name in ("get_actor", "kill")
    assert disconnected.is_initialized()


@pytest.mark.mray_only("as on Ray, where each start takes seconds")
@pytest.mark.parametrize("name", ["get", "wait", "get_gpu_ids", "cancel"])
def test_so_do_the_others(disconnected, name):
    try:
        USES[name](disconnected)
    except (ValueError, TypeError):
        assert name == "cancel"
    assert disconnected.is_initialized()


def test_a_relative_temp_dir_is_refused(disconnected):
    with pytest.raises(ValueError, match="absolute"):
        disconnected.init(address="local", _temp_dir="relative")
    assert not disconnected.is_initialized()
