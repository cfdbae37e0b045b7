"""The worker pool: states, patience, what is kept and what is ended."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from mray.node.workers.pool import Key, KeyFailed, Kill, Pool, PoolRules, Spawn
from mray.wire.messages import Address

JOB, OTHER_JOB = b"job1", b"job2"
KEY = Key(JOB)


def process(number: int) -> bytes:
    return b"p%d" % number


@pytest.fixture
def pool() -> Iterator[Pool]:
    numbers = itertools.count(1)
    rules = PoolRules(starting_max=4, idle_keep=2, idle_s=1.0, register_timeout_s=60.0, grace_s=5.0)
    made = Pool(rules, lambda: process(next(numbers)))
    made.job_known(JOB)
    yield made
    made.check()


def make_idle(pool: Pool, count: int, key: Key = KEY, now: float = 0.0) -> list[bytes]:
    started = [e.process_id for e in pool.want({key: count}, now) if isinstance(e, Spawn)]
    for process_id in started:
        assert pool.registered(process_id, Address(process_id, b"n"), 100, now)
    pool.want({}, now)
    return started


def test_wanted_workers_are_started_up_to_the_bound_in_flight(pool: Pool) -> None:
    assert pool.want({KEY: 6}, 0.0) == [Spawn(process(n), KEY) for n in (1, 2, 3, 4)]
    assert pool.want({KEY: 6}, 0.0) == []
    assert pool.registered(process(1), Address(process(1), b"n"), 11, 0.1)
    assert pool.want({KEY: 5}, 0.1) == [Spawn(process(5), KEY)]


def test_workers_of_an_unknown_job_are_not_started(pool: Pool) -> None:
    assert pool.want({Key(OTHER_JOB): 1}, 0.0) == []


def test_an_idle_worker_is_employed_and_released(pool: Pool) -> None:
    (first,) = make_idle(pool, 1)
    worker = pool.take_idle(KEY)
    assert worker is not None
    pool.employ(worker, "leased")
    assert pool.take_idle(KEY) is None
    assert pool.release(first, True, 1.0) == []
    assert pool.take_idle(KEY) is worker


def test_a_worker_that_must_not_be_used_again_is_ended(pool: Pool) -> None:
    (first,) = make_idle(pool, 1)
    worker = pool.take_idle(KEY)
    assert worker is not None
    pool.employ(worker, "leased")
    (kill,) = pool.release(first, False, 1.0)
    assert isinstance(kill, Kill)
    assert (kill.process_id, kill.grace_s) == (first, 5.0)
    assert pool.take_idle(KEY) is None


def test_idle_workers_beyond_the_soft_limit_end_after_a_while_longest_idle_first(
    pool: Pool,
) -> None:
    make_idle(pool, 2, now=0.0)
    make_idle(pool, 2, now=0.5)
    assert pool.deadline() == 1.0
    assert [e.process_id for e in pool.tick(1.0) if isinstance(e, Kill)] == [
        process(1),
        process(2),
    ]
    assert pool.deadline() is None


def test_idle_workers_are_asked_and_those_that_refuse_are_idle_again(pool: Pool) -> None:
    first, *_ = make_idle(pool, 3, now=0.0)
    (kill,) = pool.tick(1.0)
    assert isinstance(kill, Kill)
    assert (kill.process_id, kill.asked) == (first, True)
    assert pool.count("idle") == 2
    assert pool.keep(first, 1.5) == []
    assert pool.count("idle") == 3
    pool.check()
    # Another one is asked next, and it again a while later.
    assert [e.process_id for e in pool.tick(1.5) if isinstance(e, Kill)] == [process(2)]


def test_a_worker_that_refuses_and_whose_job_is_over_ends(pool: Pool) -> None:
    first, *_ = make_idle(pool, 3, now=0.0)
    pool.tick(1.0)
    pool.job_over(JOB, 1.0)
    (kill,) = pool.keep(first, 1.5)
    assert isinstance(kill, Kill)
    assert not kill.asked
    pool.exited(first, "killed", 2.0)
    assert pool.keep(first, 2.0) == []


def test_idle_and_starting_workers_of_a_finished_job_end_at_once(pool: Pool) -> None:
    make_idle(pool, 1)
    pool.want({KEY: 1}, 1.0)
    assert [e.process_id for e in pool.job_over(JOB, 1.0) if isinstance(e, Kill)] == [
        process(1),
        process(2),
    ]
    assert not pool.registered(process(2), Address(process(2), b"n"), 9, 1.0)


def test_a_leased_worker_of_a_finished_job_ends_when_it_is_given_back(pool: Pool) -> None:
    (first,) = make_idle(pool, 1)
    worker = pool.take_idle(KEY)
    assert worker is not None
    pool.employ(worker, "leased")
    assert pool.job_over(JOB, 1.0) == []
    assert [type(e) for e in pool.release(first, True, 1.0)] == [Kill]


def test_a_worker_that_does_not_register_in_time_is_killed(pool: Pool) -> None:
    pool.want({KEY: 1}, 0.0)
    assert pool.deadline() == 60.0
    (kill,) = pool.tick(60.0)
    assert isinstance(kill, Kill)
    assert kill.grace_s == 0.0
    assert "did not register within 60 s" in kill.cause.text
    assert not pool.registered(process(1), Address(process(1), b"n"), 9, 60.0)
    assert pool.exited(process(1), "killed", 60.1) == []


def test_failed_starts_back_off_one_at_a_time_and_give_up_after_five_rounds(pool: Pool) -> None:
    now = 0.0
    pool.want({KEY: 3}, now)
    for number in (1, 2, 3):
        assert pool.exited(process(number), "ImportError: no", now) == []
    number = 4
    for delay_s in (1.0, 2.0, 4.0, 8.0):
        assert pool.want({KEY: 3}, now + delay_s - 0.001) == []
        assert pool.deadline() == now + delay_s
        now += delay_s
        assert pool.want({KEY: 3}, now) == [Spawn(process(number), KEY)]
        effects = pool.exited(process(number), "ImportError: no", now)
        number += 1
        assert (effects == []) == (delay_s < 8.0)
    (failed,) = effects
    assert isinstance(failed, KeyFailed)
    assert failed.key == KEY
    assert "5 tries" in failed.text
    assert "ImportError: no" in failed.text


def test_workers_that_failed_together_count_as_one_try(pool: Pool) -> None:
    pool.want({KEY: 4}, 0.0)
    for number in (1, 2, 3, 4):
        pool.exited(process(number), "x", 0.5)
    assert pool.want({KEY: 4}, 1.5) == [Spawn(process(5), KEY)]


def test_a_start_that_works_ends_the_patience(pool: Pool) -> None:
    pool.want({KEY: 1}, 0.0)
    pool.exited(process(1), "x", 0.0)
    pool.want({KEY: 1}, 1.0)
    assert pool.registered(process(2), Address(process(2), b"n"), 9, 1.1)
    assert pool.want({KEY: 4}, 1.1) == [Spawn(process(n), KEY) for n in (3, 4, 5, 6)]


def test_room_is_made_from_idle_workers_of_other_kinds(pool: Pool) -> None:
    make_idle(pool, 1)
    other = Key(JOB, b"env")
    make_idle(pool, 1, other)
    assert [e.process_id for e in pool.make_room(5, other) if isinstance(e, Kill)] == [process(1)]


def test_a_worker_nobody_started_is_not_let_in(pool: Pool) -> None:
    assert not pool.registered(b"stranger", Address(b"stranger", b"n"), 1, 0.0)
