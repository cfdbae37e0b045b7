"""What is remembered of processes that died."""

from __future__ import annotations

import pytest

from mray.last_deaths import DEATHS_MAX, WHOLE_MAX, LastDeaths
from mray.wire.messages import DeathCause, ProcessDied

LAST_WORDS = ["Traceback (most recent call last):", "ValueError: no"]


def died(number: int) -> ProcessDied:
    cause = DeathCause("exit", "it ended", 1, None, number, stderr_tail=LAST_WORDS, oom=b"facts")
    return ProcessDied(number.to_bytes(4, "big"), "worker", b"job1", cause)


def weight(deaths: LastDeaths) -> int:
    """Lines and facts that are kept, over all."""
    return sum(len(d.cause.stderr_tail) + bool(d.cause.oom) for d in deaths.values())


@pytest.fixture
def deaths() -> LastDeaths:
    deaths = LastDeaths()
    for number in range(DEATHS_MAX + 500):
        deaths.add(died(number))
    return deaths


def test_the_last_are_kept_and_their_last_words_of_the_newest_alone(deaths: LastDeaths) -> None:
    assert len(deaths) == DEATHS_MAX
    assert died(499).process_id not in deaths
    assert died(500).process_id in deaths
    assert weight(deaths) == WHOLE_MAX * 3
    assert deaths[died(DEATHS_MAX + 499).process_id] == died(DEATHS_MAX + 499)


def test_the_cause_stays_without_its_last_words(deaths: LastDeaths) -> None:
    old = deaths[died(600).process_id]
    assert old.process_kind == "worker"
    assert old.cause == DeathCause("exit", "it ended", 1, None, 600)


def test_who_dies_twice_is_remembered_once() -> None:
    deaths = LastDeaths()
    for _ in range(3 * WHOLE_MAX):
        deaths.add(died(1))
    assert list(deaths) == [died(1).process_id]
