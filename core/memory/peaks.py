"""The most memory that each attempt of a task has had, and what is usual for its function.

Machine. Fed with the private bytes of workers and with the attempt each of them runs. Keeps one
peak for each attempt that is running; of those that have ended, the last ones and, by function,
how many there were, their median and their greatest. Reads nothing.

An attempt shorter than the time between two readings is seen only if its begin and its end are fed
with a reading: its peak is 0 then, which tells "not seen", and it does not count for its function.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from mray.machine import InvariantError

#: Functions of which figures are kept; the one that was heard of longest ago goes first.
FUNCTIONS_MAX: Final = 1000
#: Ended attempts of which the peak is kept.
ENDED_MAX: Final = 10_000
#: The last peaks of one function, of which the median is told.
_RECENT_MAX: Final = 101


class Attempt(msgspec.Struct, frozen=True):
    """One run of a task. ``number`` counts from 0; ``name`` is the function's."""

    task_id: bytes
    number: int
    name: str


class FunctionPeaks(msgspec.Struct, frozen=True):
    """Peaks of a function's attempts, in bytes. The median is of the last hundred."""

    name: str
    count: int
    p50_bytes: int
    max_bytes: int


class _Function(msgspec.Struct):
    recent: deque[int]
    count: int = 0
    max_bytes: int = 0


class Peaks:
    """One per node. Workers are named by their process id; a pid is never two attempts at once."""

    def __init__(self) -> None:
        self._running: dict[bytes, Attempt] = {}
        self._peaks: dict[bytes, int] = {}
        #: (task, number) -> peak, the oldest first.
        self._ended: dict[tuple[bytes, int], int] = {}
        self._functions: dict[str, _Function] = {}

    def began(self, worker_id: bytes, attempt: Attempt) -> None:
        """The worker runs this attempt from now on; whatever it ran before has ended."""
        if self._running.get(worker_id) == attempt:
            return
        self.ended(worker_id)
        self._running[worker_id] = attempt
        self._peaks[worker_id] = 0

    def reading(self, worker_id: bytes, private_bytes: int) -> None:
        """The worker has so much now. Nothing is kept of one that runs nothing."""
        if private_bytes > self._peaks.get(worker_id, private_bytes):
            self._peaks[worker_id] = private_bytes

    def ended(self, worker_id: bytes) -> int:
        """The worker's attempt is over, or the worker is. Its peak in bytes, 0 for not seen."""
        attempt = self._running.pop(worker_id, None)
        if attempt is None:
            return 0
        peak = self._peaks.pop(worker_id)
        if peak == 0:
            return 0
        key = (attempt.task_id, attempt.number)
        self._ended.pop(key, None)
        self._ended[key] = peak
        if len(self._ended) > ENDED_MAX:
            del self._ended[next(iter(self._ended))]
        function = self._functions.pop(attempt.name, None) or _Function(deque(maxlen=_RECENT_MAX))
        self._functions[attempt.name] = function  # Now the last one heard of.
        function.recent.append(peak)
        function.count += 1
        function.max_bytes = max(function.max_bytes, peak)
        if len(self._functions) > FUNCTIONS_MAX:
            del self._functions[next(iter(self._functions))]
        return peak

    def running(self, worker_id: bytes) -> tuple[Attempt, int] | None:
        """What a worker runs and its peak so far; None where it runs nothing."""
        attempt = self._running.get(worker_id)
        return None if attempt is None else (attempt, self._peaks[worker_id])

    def peak(self, task_id: bytes, number: int) -> int:
        """The peak of an attempt, running or ended, in bytes; 0 where it is not known."""
        for worker_id, attempt in self._running.items():
            if attempt.task_id == task_id and attempt.number == number:
                return self._peaks[worker_id]
        return self._ended.get((task_id, number), 0)

    def peaks_of(self, task_ids: AbstractSet[bytes]) -> list[tuple[bytes, int, int]]:
        """(task, number, peak) of all attempts of these tasks that were seen, in no order."""
        found = [
            (task_id, number, peak) for (task_id, number), peak in self._ended.items()
            if task_id in task_ids
        ]  # fmt: skip
        for worker_id, attempt in self._running.items():
            if attempt.task_id in task_ids and self._peaks[worker_id]:
                found.append((attempt.task_id, attempt.number, self._peaks[worker_id]))
        return found

    def functions(self) -> list[FunctionPeaks]:
        """What is known of each function, by name."""
        found = []
        for name, function in sorted(self._functions.items()):
            ordered = sorted(function.recent)
            p50_bytes = ordered[(len(ordered) - 1) // 2]
            found.append(FunctionPeaks(name, function.count, p50_bytes, function.max_bytes))
        return found

    def check(self) -> None:
        """See mray.machine."""
        if self._running.keys() != self._peaks.keys():
            raise InvariantError("workers with an attempt and workers with a peak differ")
        if len(self._ended) > ENDED_MAX or len(self._functions) > FUNCTIONS_MAX:
            raise InvariantError("more peaks are kept than allowed")
        for name, function in self._functions.items():
            if not 0 < len(function.recent) <= function.count:
                raise InvariantError(f"{name}: {len(function.recent)} of {function.count} peaks")
            if max(function.recent) > function.max_bytes:
                raise InvariantError(f"{name}: a peak above the greatest")
