"""Small names of ray.util: named actors, the node's address, where names are imported from."""

from __future__ import annotations

import importlib

import pytest

pytestmark = pytest.mark.conformance


@pytest.fixture
def actor(ray):
    @ray.remote
    class Idle:
        def ready(self):
            return True

    return Idle


def test_named_actors_are_listed_while_they_live(ray, actor):
    namespace = ray.get_runtime_context().namespace
    assert ray.util.list_named_actors() == []
    first = actor.options(name="first").remote()
    other = actor.options(name="second", namespace="elsewhere").remote()
    nameless = actor.remote()
    ray.get([handle.ready.remote() for handle in (first, other, nameless)])
    assert ray.util.list_named_actors() == ["first"]
    listed = ray.util.list_named_actors(all_namespaces=True)
    assert sorted(listed, key=lambda entry: entry["name"]) == [
        {"name": "first", "namespace": namespace},
        {"name": "second", "namespace": "elsewhere"},
    ]
    ray.kill(first)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(first.ready.remote(), timeout=30)
    assert ray.util.list_named_actors() == []
    assert ray.util.list_named_actors(True) == [{"name": "second", "namespace": "elsewhere"}]
    assert ray.get(other.ready.remote())


def test_tasks_list_named_actors_too(ray, actor):
    name = ray.__name__
    keep = actor.options(name="seen from a task").remote()
    ray.get(keep.ready.remote())

    @ray.remote
    def task():
        import importlib

        return importlib.import_module(f"{name}.util").list_named_actors()

    assert "seen from a task" in ray.get(task.remote())


def test_the_address_of_the_node(ray):
    address = ray.util.get_node_ip_address()
    assert address in [node["NodeManagerAddress"] for node in ray.nodes()]
    services = importlib.import_module(f"{ray.__name__}._private.services")
    assert services.get_node_ip_address() == address
    name = ray.__name__

    @ray.remote
    def task():
        import importlib

        return importlib.import_module(f"{name}.util").get_node_ip_address()

    assert ray.get(task.remote()) == address


def test_inspect_serializability_is_found_in_both_places(ray):
    module = importlib.import_module(f"{ray.__name__}.util.check_serialize")
    assert module.inspect_serializability is ray.util.inspect_serializability
    serializable, failures = module.inspect_serializability(lambda: 1, name="plain")
    assert serializable
    assert failures == set()
    assert module.FailureTuple.__name__ == "FailureTuple"


def test_unknown_names_are_refused(ray):
    with pytest.raises(AttributeError):
        _ = ray.util.no_such_name
