"""Where an actor's class goes by its qualified name, and where by the last part of it."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.conformance


@pytest.fixture(scope="module")
def named(ray):
    class Outer:
        class Named:
            def me(self):
                return repr(ray.get_runtime_context().current_actor)

            def task(self):
                return ray.get_runtime_context().get_task_name()

            def fail(self):
                raise ValueError("no")

            def end(self):
                import os

                os._exit(1)

    return ray.remote(Outer.Named)


def test_a_handle_shows_the_qualified_name(ray, named):
    actor = named.remote()
    shown = repr(actor)
    assert shown.startswith("Actor(")
    assert shown.split(",")[0].endswith("Outer.Named")
    assert ray.get(actor.me.remote(), timeout=60) == shown


def test_a_call_goes_by_the_last_part(ray, named):
    actor = named.remote()
    assert ray.get(actor.task.remote(), timeout=60) == "Named.task"
    with pytest.raises(ValueError) as caught:
        ray.get(actor.fail.remote(), timeout=60)
    assert "ray::Named.fail()" in str(caught.value)


def test_the_error_of_a_dead_actor_says_the_qualified_name(ray, named):
    with pytest.raises(ray.exceptions.ActorDiedError) as caught:
        ray.get(named.remote().end.remote(), timeout=60)
    assert "Outer.Named" in str(caught.value)


@pytest.mark.mray_only("Ray's lists need its dashboard")
def test_lists_show_the_qualified_name(ray, named):
    import mray.util.state as state

    actor = named.remote()
    ray.get(actor.me.remote(), timeout=60)
    names = [entry.class_name for entry in state.list_actors()]
    assert {name.rpartition("Outer.")[2] for name in names} == {"Named"}
    assert state.summarize_actors()["cluster"]["summary"].keys() == set(names)
