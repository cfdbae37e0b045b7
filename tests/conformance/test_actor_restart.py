"""Restarts of actors: which calls run again, which fail and how, what ends an actor for good."""

from __future__ import annotations

import time
from typing import Any

import pytest

pytestmark = pytest.mark.conformance


@pytest.fixture
def make(ray, tally):
    """Makes actors that die by their methods; a count tells how often these ran."""
    add = tally.adder()

    @ray.remote(num_cpus=0)
    class Mortal:
        def __init__(self):
            self.count = 0

        def increment(self):
            self.count += 1
            return self.count

        def die_before(self, run):
            """Dies in each run before the ``run``-th."""
            import os

            runs = add()
            if runs < run:
                os._exit(1)
            return runs

        def raise_before(self, run):
            runs = add()
            if runs < run:
                raise ValueError(runs)
            return runs

        def wait(self, seconds):
            add()
            time.sleep(seconds)
            return "waited"

        def leave(self, how):
            import os
            import sys

            if how == "exit_actor":
                ray.actor.exit_actor()
            elif how == "os._exit":
                os._exit(0)
            sys.exit(how)

    def made(**options):
        actor = Mortal.options(**options).remote()
        assert ray.get(actor.increment.remote(), timeout=60) == 1
        return actor

    return made


def when_back(ray: Any, actor: Any) -> Any:
    """The result of increment() of the next life."""
    give_up_at = time.monotonic() + 60
    while True:
        try:
            return ray.get(actor.increment.remote(), timeout=60)
        except ray.exceptions.ActorUnavailableError:
            assert time.monotonic() < give_up_at
            time.sleep(0.05)


def await_next_life(ray: Any, actor: Any) -> None:
    """Until a life answers for the first time: one that is being killed may answer still."""
    give_up_at = time.monotonic() + 60
    while when_back(ray, actor) != 1:
        assert time.monotonic() < give_up_at


def wait_runs(tally: Any, count: int) -> None:
    give_up_at = time.monotonic() + 60
    while tally.count < count:
        assert time.monotonic() < give_up_at, "it never runs"
        time.sleep(0.01)


@pytest.mark.parametrize("retries", [0, 1, -1])
def test_without_restarts_a_call_in_flight_fails_and_so_do_all_later_ones(
    ray, make, tally, retries
):
    actor = make(max_restarts=0, max_task_retries=retries)
    for ref in (actor.die_before.remote(9), actor.increment.remote()):
        with pytest.raises(ray.exceptions.ActorDiedError):
            ray.get(ref, timeout=60)
    assert tally.count == 1


@pytest.mark.parametrize("restarts", [1, -1])
def test_without_retries_a_call_in_flight_is_unavailable_and_the_actor_returns(
    ray, make, tally, restarts
):
    actor = make(max_restarts=restarts)
    refs = [actor.die_before.remote(9), actor.increment.remote()]
    for ref in refs:
        with pytest.raises(ray.exceptions.ActorUnavailableError):
            ray.get(ref, timeout=60)
    assert when_back(ray, actor) == 1
    assert tally.count == 1


@pytest.mark.parametrize("restarts", [1, -1])
@pytest.mark.parametrize("retries", [1, -1])
def test_with_retries_a_call_in_flight_runs_again_in_the_next_life(
    ray, make, tally, restarts, retries
):
    actor = make(max_restarts=restarts, max_task_retries=retries)
    assert ray.get(actor.die_before.remote(2), timeout=60) == 2
    assert ray.get(actor.increment.remote(), timeout=60) == 1


def test_retries_run_out(ray, make, tally):
    actor = make(max_restarts=-1, max_task_retries=2)
    with pytest.raises(ray.exceptions.ActorUnavailableError):
        ray.get(actor.die_before.remote(9), timeout=60)
    assert tally.count == 3
    assert when_back(ray, actor) == 1


def test_restarts_run_out_before_retries(ray, make, tally):
    actor = make(max_restarts=1, max_task_retries=-1)
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(actor.die_before.remote(9), timeout=60)
    assert tally.count == 2


def test_unlimited_retries_last_as_long_as_it_takes(ray, make, tally):
    actor = make(max_restarts=-1, max_task_retries=-1)
    assert ray.get(actor.die_before.remote(4), timeout=60) == 4


def test_calls_behind_one_that_kills_are_run_too(ray, make):
    actor = make(max_restarts=1, max_task_retries=-1)
    refs = [actor.die_before.remote(2), actor.increment.remote(), actor.increment.remote()]
    first, *rest = ray.get(refs, timeout=60)
    assert first == 2
    assert sorted(rest) == [1, 2]


def test_a_kill_with_restart_fails_what_runs_or_runs_it_again(ray, make, tally):
    actor = make(max_restarts=1)
    ref = actor.wait.remote(30)
    wait_runs(tally, 1)
    ray.kill(actor, no_restart=False)
    with pytest.raises(ray.exceptions.ActorUnavailableError):
        ray.get(ref, timeout=60)
    assert when_back(ray, actor) == 1

    retried = make(max_restarts=1, max_task_retries=1)
    ref = retried.wait.remote(1.0)
    wait_runs(tally, 2)
    ray.kill(retried, no_restart=False)
    assert ray.get(ref, timeout=60) == "waited"
    assert tally.count == 3
    assert ray.get(retried.increment.remote(), timeout=60) == 1


def test_a_kill_with_restart_beyond_the_last_one_is_the_end(ray, make):
    actor = make(max_restarts=1)
    ray.kill(actor, no_restart=False)
    await_next_life(ray, actor)
    ray.kill(actor, no_restart=False)
    with pytest.raises(ray.exceptions.ActorDiedError):
        await_next_life(ray, actor)


def test_a_kill_for_good_fails_what_runs_whatever_is_left(ray, make, tally):
    actor = make(max_restarts=-1, max_task_retries=-1)
    ref = actor.wait.remote(30)
    wait_runs(tally, 1)
    ray.kill(actor)
    for each in (ref, actor.increment.remote()):
        with pytest.raises(ray.exceptions.ActorDiedError):
            ray.get(each, timeout=60)
    assert tally.count == 1


@pytest.mark.parametrize("how", ["exit_actor", 0])
def test_an_actor_that_leaves_on_purpose_is_not_restarted(ray, make, how):
    actor = make(max_restarts=-1)
    for ref in (actor.leave.remote(how), actor.increment.remote()):
        with pytest.raises(ray.exceptions.ActorDiedError):
            ray.get(ref, timeout=60)


@pytest.mark.parametrize("how", [1, None, "os._exit"])
def test_any_other_end_of_the_process_is_restarted(ray, make, how):
    actor = make(max_restarts=-1)
    with pytest.raises(ray.exceptions.ActorUnavailableError):
        ray.get(actor.leave.remote(how), timeout=60)
    assert when_back(ray, actor) == 1


def test_errors_of_the_application_are_retried_in_the_same_life_if_asked(ray, make, tally):
    actor = make()
    retried = actor.raise_before.options(max_task_retries=2, retry_exceptions=True)
    assert ray.get(retried.remote(3), timeout=60) == 3
    assert ray.get(actor.increment.remote(), timeout=60) == 2


def test_other_errors_of_the_application_are_not_retried(ray, make, tally):
    actor = make()
    picky = actor.raise_before.options(max_task_retries=5, retry_exceptions=[KeyError])
    with pytest.raises(ValueError):
        ray.get(picky.remote(9), timeout=60)
    assert tally.count == 1


def test_unlimited_retries_of_application_errors(ray, make, tally):
    actor = make(max_restarts=1, max_task_retries=-1)
    retried = actor.raise_before.options(retry_exceptions=True)
    assert ray.get(retried.remote(6), timeout=60) == 6


def test_a_constructor_that_raises_in_the_second_life_is_the_end(ray, tally):
    add = tally.adder()

    @ray.remote(num_cpus=0, max_restarts=-1)
    class Fickle:
        def __init__(self):
            if add() > 1:
                raise ValueError("the second birth")

        def die(self):
            import os

            os._exit(1)

        def alive(self):
            return 1

    actor = Fickle.remote()
    assert ray.get(actor.alive.remote(), timeout=60) == 1
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(actor.die.remote(), timeout=60)
    give_up_at = time.monotonic() + 60
    while True:
        assert time.monotonic() < give_up_at
        with pytest.raises(ray.exceptions.RayActorError) as caught:
            ray.get(actor.alive.remote(), timeout=60)
        if isinstance(caught.value, ray.exceptions.ActorDiedError):
            break
        time.sleep(0.05)
    assert "the second birth" in str(caught.value)
    assert tally.count == 2


@pytest.mark.parametrize(("restarts", "births"), [(0, 1), (2, 3)])
def test_a_constructor_that_crashes_is_tried_as_often_as_restarts_allow(
    ray, tally, restarts, births
):
    add = tally.adder()

    @ray.remote(num_cpus=0, max_restarts=restarts)
    class Stillborn:
        def __init__(self):
            import os

            add()
            os._exit(1)

        def alive(self):
            return 1

    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(Stillborn.remote().alive.remote(), timeout=60)
    assert tally.count == births


# -- max_pending_calls


def test_calls_beyond_the_limit_raise_at_once_and_leave_the_others_alone(ray, gate):
    wait = gate.waiter()

    @ray.remote(num_cpus=0, max_pending_calls=3)
    class Slow:
        def call(self):
            wait()
            return 1

    actor = Slow.remote()
    refs = [actor.call.remote() for _ in range(3)]
    for _ in range(2):
        with pytest.raises(ray.exceptions.PendingCallsLimitExceeded):
            actor.call.remote()
    gate.open()
    assert ray.get(refs, timeout=60) == [1] * 3
    assert ray.get([actor.call.remote() for _ in range(3)], timeout=60) == [1] * 3


def test_the_limit_goes_with_the_handle_and_each_process_counts_for_itself(ray, gate):
    wait = gate.waiter()

    @ray.remote(num_cpus=0, max_pending_calls=1, name="limited")
    class Slow:
        def call(self):
            wait()
            return 1

    @ray.remote(num_cpus=0)
    def caller(actor):
        ref = actor.call.remote()
        try:
            actor.call.remote()
        except ray.exceptions.PendingCallsLimitExceeded:
            return [ref], "refused"
        return [ref], "taken"

    actor = Slow.remote()
    mine = actor.call.remote()
    with pytest.raises(ray.exceptions.PendingCallsLimitExceeded):
        ray.get_actor("limited").call.remote()
    (theirs,), what = ray.get(caller.remote(actor), timeout=60)
    assert what == "refused"
    gate.open()
    assert ray.get(mine, timeout=60) == 1
    del theirs


@pytest.mark.parametrize("limit", [0, -1])
def test_no_limit(ray, limit):
    @ray.remote(num_cpus=0)
    class Quick:
        def call(self):
            return 1

    actor = Quick.options(max_pending_calls=limit).remote()
    assert ray.get([actor.call.remote() for _ in range(200)], timeout=60) == [1] * 200


def test_wrong_limits_are_refused(ray):
    @ray.remote
    class Quick:
        pass

    with pytest.raises(ValueError):
        Quick.options(max_pending_calls=-2).remote()
    with pytest.raises(TypeError):
        Quick.options(max_pending_calls="many").remote()
