"""Connecting and disconnecting. Each test has a cluster of its own."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.conformance


def test_a_process_may_connect_again_and_again(disconnected):
    ray = disconnected

    def one():
        return 1

    for _ in range(2):
        assert not ray.is_initialized()
        ray.init(address="local", num_cpus=1)
        assert ray.is_initialized()
        assert ray.get(ray.remote(one).remote(), timeout=60) == 1
        ray.shutdown()
    assert not ray.is_initialized()
    ray.shutdown()


def test_a_remote_function_outlives_the_connection(disconnected):
    ray = disconnected

    @ray.remote
    def one():
        return 1

    for _ in range(2):
        ray.init(address="local", num_cpus=1)
        assert ray.get(one.remote(), timeout=60) == 1
        ray.shutdown()


def test_connecting_twice_is_refused_unless_allowed(disconnected):
    ray = disconnected
    ray.init(address="local", num_cpus=1)
    with pytest.raises(RuntimeError):
        ray.init(address="local")
    ray.init(address="local", ignore_reinit_error=True)
    assert ray.is_initialized()


def test_the_context_disconnects_at_its_end(disconnected):
    ray = disconnected
    with ray.init(address="local", num_cpus=3) as context:
        assert context.address_info["node_id"] == ray.get_runtime_context().get_node_id()
        assert ray.cluster_resources()["CPU"] == 3
    assert not ray.is_initialized()


def test_resources_and_namespace_of_init_hold(disconnected):
    ray = disconnected
    ray.init(address="local", num_cpus=2, num_gpus=0, resources={"slot": 3}, namespace="mine")
    assert ray.cluster_resources()["slot"] == 3
    assert ray.get_runtime_context().namespace == "mine"

    @ray.remote(resources={"slot": 2})
    def held():
        return ray.available_resources().get("slot", 0)

    # The view of what is available may lag behind.
    assert ray.get(held.remote(), timeout=60) in (1, 3)


def test_unknown_keywords_are_refused(disconnected):
    with pytest.raises(RuntimeError, match="nonsense"):
        disconnected.init(nonsense=1)
    assert not disconnected.is_initialized()


def test_bad_resources_are_refused(disconnected):
    with pytest.raises(ValueError):
        disconnected.init(address="local", num_cpus=-1)


def test_workers_end_with_the_cluster(disconnected, wait_exit):
    import os

    ray = disconnected
    ray.init(address="local", num_cpus=2)

    @ray.remote
    class Actor:
        def pid(self):
            return os.getpid()

    @ray.remote
    def pid():
        return os.getpid()

    actor = Actor.remote()
    pids = ray.get([actor.pid.remote(), pid.remote()], timeout=60)
    ray.shutdown()
    assert all(wait_exit(p) for p in pids)


def test_a_driver_without_a_namespace_has_one_of_its_own(engine):
    names = []
    for _ in range(2):
        engine.init(address="local", num_cpus=1, log_to_driver=False)
        try:
            names.append(engine.get_runtime_context().namespace)
        finally:
            engine.shutdown()
    assert all(names)
    assert names[0] != names[1]


def test_what_asks_the_cluster_needs_a_connection(engine):
    engine.shutdown()
    for ask in (engine.nodes, engine.cluster_resources, engine.available_resources):
        with pytest.raises(engine.exceptions.RaySystemError):
            ask()
    with pytest.raises(RuntimeError):
        engine.timeline()
    assert not engine.is_initialized()


def test_what_init_returns_says_the_versions(engine):
    with engine.init(address="local", num_cpus=1, log_to_driver=False) as context:
        assert context.ray_version.startswith("2.60")
        assert context.python_version.count(".") == 2
        assert isinstance(context.ray_commit, str)
        assert isinstance(context.address_info["metrics_export_port"], int)
        assert context["redis_address"] is None
    assert not engine.is_initialized()
