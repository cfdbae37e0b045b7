"""The work that goes on while a nemesis does harm: Ray's long-running workloads in small.

Many tasks with large values between them, actors whose calls are logged, references inside values.
``begin`` submits a round and ``end`` checks all that comes of it. Runs in any driver, also in that
of netcluster_driver.py, so it imports nothing of the tests.
"""

from __future__ import annotations

from typing import Any

import numpy

import mray
from mray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_PATIENCE_S = 120


class Work:
    """``log``: the file of calls, ``writer``: nemesis_history.WRITER. Tellers want "away"."""

    def __init__(self, log: str, writer: str) -> None:
        names: dict[str, Any] = {"LOG": log}
        exec(writer, names)
        note = names["note"]
        #: (actor, caller, number) of calls whose result came.
        self.acknowledged: set[tuple[str, int, int]] = set()
        self._expected: list[tuple[Any, Any]] = []
        self._calls: list[Any] = []

        @mray.remote(max_retries=-1, scheduling_strategy="SPREAD")
        def square(x: Any) -> Any:
            return x * x

        @mray.remote(max_retries=-1)
        def total(*parts: Any) -> int:
            return int(sum(int(numpy.sum(part)) for part in parts))

        @mray.remote(max_retries=-1)
        def inside(refs: dict[str, Any]) -> int:
            return sum(mray.get(refs["list"]))

        @mray.remote(max_restarts=-1, max_task_retries=-1, num_cpus=0, resources={"away": 1})
        class Teller:
            def __init__(self, name: str) -> None:
                self.name = name
                note("born", name, 0)

            def call(self, number: int) -> tuple[str, int]:
                note("begin", self.name, number)
                note("end", self.name, number)
                return self.name, number

        self._square, self._total, self._inside = square, total, inside
        self._tellers = [Teller.remote(f"teller{number}") for number in range(3)]

    def warm_up(self, node_ids: list[str]) -> None:
        """Workers and bulk connections are made when they are first needed."""
        places = [NodeAffinitySchedulingStrategy(each, soft=False) for each in node_ids]
        parts = [
            self._square.options(scheduling_strategy=place).remote(numpy.ones(30_000))
            for place in places
        ]
        totals = [
            self._total.options(scheduling_strategy=place).remote(*parts) for place in places
        ]
        count = len(node_ids)
        assert mray.get(totals, timeout=_PATIENCE_S) == [30_000 * count] * count
        mray.get(parts)

    def begin(self, number: int) -> None:
        """Submit round ``number``."""
        small = [self._square.remote(i) for i in range(60)]
        large = [self._square.remote(numpy.full(60_000, i)) for i in range(6)]
        self._expected = [
            (small, [i * i for i in range(60)]),
            (self._total.remote(*large), sum(i * i for i in range(6)) * 60_000),
            (self._inside.remote({"list": small[:20]}), sum(i * i for i in range(20))),
        ]
        self._calls = [
            teller.call.remote(number * 10 + i) for i in range(10) for teller in self._tellers
        ]

    def end(self) -> None:
        """Wait for the round; AssertionError for a wrong result."""
        for refs, expected in self._expected:
            assert mray.get(refs, timeout=_PATIENCE_S) == expected
        for name, call in mray.get(self._calls, timeout=_PATIENCE_S):
            self.acknowledged.add((name, 0, call))
        self._expected, self._calls = [], []
