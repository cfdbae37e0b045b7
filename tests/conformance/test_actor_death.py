"""How actors end, and what their callers see.

kill() asks and does not wait: on Ray a call made right after it may still be answered. A test that
needs the actor dead waits for its process to go.
"""

from __future__ import annotations

import os

import pytest

pytestmark = pytest.mark.conformance


@pytest.fixture
def mortal(ray):
    """A class of actors that know many ways to go."""

    class Mortal:
        def pid(self):
            return os.getpid()

        def crash(self):
            os._exit(1)

        def leave(self):
            ray.actor.exit_actor()

        def sys_exit(self):
            raise SystemExit(0)

    return ray.remote(num_cpus=0)(Mortal)


def test_kill_ends_the_process_and_every_later_call(ray, mortal, wait_exit):
    actor = mortal.remote()
    pid = ray.get(actor.pid.remote())
    ray.kill(actor)
    assert wait_exit(pid)
    for _ in range(2):
        with pytest.raises(ray.exceptions.RayActorError, match="kill"):
            ray.get(actor.pid.remote(), timeout=60)


def test_kill_fails_calls_that_run_and_calls_that_wait(ray, make_gate):
    started, held = make_gate(), make_gate()
    tell_started, wait_held = started.waiter(), held.waiter()

    @ray.remote
    class Held:
        def hold(self):
            tell_started()
            wait_held()

        def quick(self):
            return 1

    actor = Held.remote()
    calls = [actor.hold.remote(), actor.quick.remote()]
    started.wait_arrival()
    ray.kill(actor)
    for call in [*calls, actor.quick.remote()]:
        with pytest.raises(ray.exceptions.RayActorError):
            ray.get(call, timeout=60)


def test_kill_takes_only_actors(ray):
    with pytest.raises(ValueError):
        ray.kill(ray.put(1))


def test_kill_of_a_dead_actor_is_harmless(ray, mortal, wait_exit):
    actor = mortal.remote()
    pid = ray.get(actor.pid.remote())
    ray.kill(actor)
    assert wait_exit(pid)
    ray.kill(actor)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(actor.pid.remote(), timeout=60)


def test_a_name_is_free_again_after_kill(ray, mortal, wait_exit):
    actor = mortal.options(name="again").remote()
    pid = ray.get(actor.pid.remote())
    ray.kill(actor)
    assert wait_exit(pid)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(actor.pid.remote(), timeout=60)
    with pytest.raises(ValueError):
        ray.get_actor("again")
    assert ray.get(mortal.options(name="again").remote().pid.remote(), timeout=60)


@pytest.mark.parametrize("way", ["crash", "leave", "sys_exit"])
def test_a_call_that_ends_the_actor_fails_and_so_do_later_ones(ray, mortal, wait_exit, way):
    actor = mortal.remote()
    pid = ray.get(actor.pid.remote())
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(getattr(actor, way).remote(), timeout=60)
    assert wait_exit(pid)
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(actor.pid.remote(), timeout=60)


def test_an_actor_killed_from_outside_is_reported(ray, mortal, wait_exit):
    import signal

    actor = mortal.remote()
    pid = ray.get(actor.pid.remote())
    os.kill(pid, signal.SIGKILL)
    assert wait_exit(pid)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(actor.pid.remote(), timeout=60)


def test_results_got_before_the_death_stay(ray):
    import numpy as np

    @ray.remote
    class Maker:
        def small(self):
            return [1, 2]

        def big(self):
            return np.ones(500_000)

    maker = Maker.remote()
    small, big = maker.small.remote(), maker.big.remote()
    ray.wait([small, big], num_returns=2, timeout=60)
    ray.kill(maker)
    assert ray.get(small) == [1, 2]
    assert ray.get(big, timeout=60).sum() == 500_000


def test_a_failing_constructor_fails_every_call_with_its_error(ray):
    @ray.remote
    class Broken:
        def __init__(self):
            raise ValueError("cannot be made")

        def work(self):
            return 1

    broken = Broken.remote()
    for _ in range(2):
        with pytest.raises(ray.exceptions.ActorDiedError, match="cannot be made"):
            ray.get(broken.work.remote(), timeout=60)


def test_a_failed_argument_of_the_constructor_fails_the_actor(ray):
    @ray.remote
    def fail():
        raise ValueError("at the source")

    @ray.remote
    class Needy:
        def __init__(self, value):
            self.value = value

        def work(self):
            return self.value

    with pytest.raises(ray.exceptions.RayError):
        ray.get(Needy.remote(fail.remote()).work.remote(), timeout=60)


def test_the_process_goes_with_the_last_handle(ray, mortal, wait_exit):
    actor = mortal.remote()
    pid = ray.get(actor.pid.remote())
    del actor
    assert wait_exit(pid)


def test_calls_made_before_the_last_handle_went_still_run(ray, mortal):
    pids = [mortal.remote().pid.remote() for _ in range(3)]
    assert len(set(ray.get(pids, timeout=60))) == 3


def test_a_handle_held_by_another_actor_keeps_the_actor(ray, mortal):
    @ray.remote(num_cpus=0)
    class Holder:
        def __init__(self, actor):
            self.actor = actor

        def pid(self):
            return ray.get(self.actor.pid.remote())

    actor = mortal.remote()
    pid = ray.get(actor.pid.remote())
    holder = Holder.remote(actor)
    ray.get(holder.pid.remote())
    del actor
    assert ray.get(holder.pid.remote(), timeout=60) == pid


def test_an_actor_restarts_as_often_as_allowed(ray, mortal, wait_exit):
    actor = mortal.options(max_restarts=1, max_task_retries=0).remote()
    first = ray.get(actor.pid.remote())
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(actor.crash.remote(), timeout=60)
    assert wait_exit(first)
    second = None
    while second is None:
        try:
            second = ray.get(actor.pid.remote(), timeout=60)
        except ray.exceptions.ActorUnavailableError:
            continue
    assert second != first
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(actor.crash.remote(), timeout=60)
    assert wait_exit(second)
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(actor.pid.remote(), timeout=60)


def test_the_error_names_the_actor(ray, mortal, wait_exit):
    actor = mortal.remote()
    pid = ray.get(actor.pid.remote())
    ray.kill(actor)
    assert wait_exit(pid)
    with pytest.raises(ray.exceptions.ActorDiedError) as caught:
        ray.get(actor.pid.remote(), timeout=60)
    assert caught.value.actor_id in repr(actor)
    assert "Mortal" in str(caught.value)
