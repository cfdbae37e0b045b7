"""The most memory that attempts have had."""

from __future__ import annotations

import random

from mray.memory import peaks
from mray.memory.peaks import Attempt, FunctionPeaks, Peaks


def attempt(task: int, number: int = 0, name: str = "f") -> Attempt:
    return Attempt(bytes([task]), number, name)


def test_the_peak_of_an_attempt_is_its_greatest_reading() -> None:
    kept = Peaks()
    kept.began(b"w", attempt(1))
    for size in (10, 50, 20):
        kept.reading(b"w", size)
    assert kept.running(b"w") == (attempt(1), 50)
    assert kept.peak(b"\1", 0) == 50
    assert kept.ended(b"w") == 50
    assert kept.peak(b"\1", 0) == 50
    assert kept.running(b"w") is None
    assert kept.ended(b"w") == 0
    kept.check()


def test_the_next_attempt_of_a_worker_begins_anew() -> None:
    kept = Peaks()
    kept.began(b"w", attempt(1))
    kept.reading(b"w", 50)
    kept.began(b"w", attempt(1))
    assert kept.peak(b"\1", 0) == 50, "said twice, it is still the same attempt"
    kept.began(b"w", attempt(1, number=1))
    kept.reading(b"w", 70)
    kept.ended(b"w")
    assert (kept.peak(b"\1", 0), kept.peak(b"\1", 1), kept.peak(b"\1", 2)) == (50, 70, 0)
    kept.check()


def test_readings_of_a_worker_that_runs_nothing_are_nobodys() -> None:
    kept = Peaks()
    kept.reading(b"w", 99)
    kept.began(b"w", attempt(1))
    assert kept.ended(b"w") == 0
    assert kept.functions() == [], "an attempt that was never seen says nothing of its function"


def test_functions_have_count_median_and_greatest() -> None:
    kept = Peaks()
    for number, size in enumerate((30, 10, 20, 40)):
        kept.began(b"w", attempt(number))
        kept.reading(b"w", size)
    kept.began(b"w", attempt(9, name="a"))
    kept.reading(b"w", 5)
    kept.ended(b"w")
    assert kept.functions() == [FunctionPeaks("a", 1, 5, 5), FunctionPeaks("f", 4, 20, 40)]


def test_memory_is_bounded_and_the_oldest_goes(monkeypatch) -> None:
    monkeypatch.setattr(peaks, "FUNCTIONS_MAX", 3)
    monkeypatch.setattr(peaks, "ENDED_MAX", 5)
    kept, chance = Peaks(), random.Random(1)
    for number in range(200):
        worker = bytes([chance.randrange(4)])
        name = chance.choice("abcdefgh")
        kept.began(worker, Attempt(number.to_bytes(2, "big"), 0, name))
        kept.reading(worker, chance.randrange(1, 100))
        kept.check()
    kept.ended(worker)
    kept.check()
    assert len(kept.functions()) == 3
    assert name in {function.name for function in kept.functions()}
    assert kept.peak((0).to_bytes(2, "big"), 0) == 0
    assert kept.peak((199).to_bytes(2, "big"), 0) > 0
