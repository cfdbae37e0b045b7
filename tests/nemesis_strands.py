"""What a driver does while a nemesis does harm: strands of rounds whose results are known.

``strands(name, log, writer)`` gives one of each kind. A strand's ``next()`` does some calls, waits
for them and returns an ``Outcome``: how many were acknowledged, and which answers were wrong. It
raises what its calls must not raise. Runs in any driver, also in that of netcluster_driver.py, so
it imports nothing of the tests; functions and classes are local, so that they travel by value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy

import mray

#: A get that takes longer is a hang. The longest harm is a worker that is stopped for 20 s; a round
#: may meet several, one after the other.
PATIENCE_S = 90.0


@dataclass
class Outcome:
    """Of one round. ``refused``: calls that ended in an error which they may end in."""

    acknowledged: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)

    def expect(self, what: str, found: Any, wanted: Any, count: int = 1) -> None:
        """Count ``count`` calls, and whether they gave what they should."""
        self.acknowledged += count
        if found != wanted:
            self.wrong.append(f"{what}: {found!r} in place of {wanted!r}"[:2_000])


@dataclass
class Strand:
    """``rate`` rounds a second are begun at most; fewer where rounds take longer."""

    kind: str
    rate: float
    round: Callable[[int], Outcome]
    #: Of the last round.
    number: int = -1
    #: Acknowledged calls of an actor that keeps a log: (actor, number).
    calls: list[tuple[str, int]] = field(default_factory=list)


    def next(self) -> Outcome:
        """One more round."""
        self.number += 1
        return self.round(self.number)


def _get(refs: Any) -> Any:
    return mray.get(refs, timeout=PATIENCE_S)


def strands(name: str, log: str, writer: str) -> list[Strand]:
    """All kinds. ``name`` is the driver's; ``log``: the file of calls; ``writer``:
    nemesis_history.WRITER."""
    names: dict[str, Any] = {"LOG": log}
    exec(writer, names)
    note = names["note"]
    return [
        _tasks(),
        _objects(),
        _nested(),
        _lent(),
        _streams(),
        _teller(f"{name}-teller0", note),
        _teller(f"{name}-teller1", note),
        _once(f"{name}-once", note),
    ]


def _tasks() -> Strand:
    @mray.remote(max_retries=-1, scheduling_strategy="SPREAD")
    def square(x: int) -> int:
        return x * x

    def round(number: int) -> Outcome:
        outcome = Outcome()
        values = range(number, number + 10)
        found = _get([square.remote(value) for value in values])
        outcome.expect("squares", found, [value * value for value in values], len(values))
        return outcome

    return Strand("tasks", 4, round)


def _objects() -> Strand:
    """Some MB each, made on one node and read on others, and by the driver."""
    cells = 250_000  # of 8 bytes

    @mray.remote(max_retries=-1, scheduling_strategy="SPREAD")
    def make(first: int) -> Any:
        return numpy.arange(first, first + cells)

    @mray.remote(max_retries=-1, scheduling_strategy="SPREAD")
    def total(*parts: Any) -> int:
        return sum(int(part.sum()) for part in parts)

    def sum_of(first: int) -> int:
        return cells * first + cells * (cells - 1) // 2

    def round(number: int) -> Outcome:
        outcome = Outcome()
        made = [make.remote(number), make.remote(number + 1)]
        put = mray.put(numpy.arange(number + 2, number + 2 + cells))
        wanted = sum_of(number) + sum_of(number + 1) + sum_of(number + 2)
        totals = [total.remote(*made, put) for _ in range(2)]
        outcome.expect("totals", _get(totals), [wanted] * 2, 4)
        here = _get(made[0])
        outcome.expect("an object read here", int(here.sum()), sum_of(number))
        return outcome

    return Strand("objects", 1, round)


def _nested() -> Strand:
    """References in values, handed on and back, and tasks that have tasks."""

    @mray.remote(max_retries=-1)
    def leaf(x: int) -> Any:
        return numpy.full(30_000, x) if x % 5 == 0 else x

    @mray.remote(max_retries=-1)
    def hand_on(box: dict[str, Any]) -> dict[str, Any]:
        return {"again": box["refs"][::-1]}

    @mray.remote(max_retries=-1)
    def inside(box: dict[str, Any]) -> int:
        return sum(int(numpy.max(value)) for value in mray.get(box["refs"]))

    @mray.remote(max_retries=-1)
    def root(number: int) -> int:
        return sum(int(numpy.max(v)) for v in mray.get([leaf.remote(number + i) for i in range(4)]))

    def round(number: int) -> Outcome:
        outcome = Outcome()
        refs = [leaf.remote(number + i) for i in range(6)]
        box = hand_on.remote({"refs": refs})
        wanted = sum(range(number, number + 6))
        sums = [inside.remote({"refs": refs}), root.remote(number)]
        outcome.expect("sums", _get(sums), [wanted, sum(range(number, number + 4))], 2 + 4)
        del refs
        back = [int(numpy.max(value)) for value in _get(_get(box)["again"])]
        outcome.expect("handed back", back, list(range(number + 5, number - 1, -1)), 7)
        return outcome

    return Strand("nested", 2, round)


def _lent() -> Strand:
    """What workers own and the driver reads: the owner may die, and then it is an error at once."""

    @mray.remote(max_retries=-1)
    def own(number: int) -> list[Any]:
        return [mray.put(number), mray.put(numpy.full(30_000, number))]

    def round(number: int) -> Outcome:
        outcome = Outcome()
        for ref in _get(own.remote(number)):
            try:
                outcome.expect("lent", int(numpy.max(_get(ref))), number)
            except mray.exceptions.ObjectLostError:  # its owner or its node has died
                outcome.refused += 1
        return outcome

    return Strand("lent", 2, round)


def _streams() -> Strand:
    @mray.remote(num_returns="streaming", max_retries=-1)
    def count(first: int, length: int) -> Any:
        for number in range(first, first + length):
            yield numpy.full(30_000, number) if number % 5 == 0 else number

    def round(number: int) -> Outcome:
        outcome = Outcome()
        items = [int(numpy.max(_get(ref))) for ref in count.remote(number, 20)]
        outcome.expect("items", items, list(range(number, number + 20)), 20)
        return outcome

    return Strand("streams", 2, round)


def _noting(name: str, note: Any, **options: Any) -> Any:
    """An actor that is restarted and writes down its births and calls."""

    @mray.remote(max_restarts=-1, num_cpus=0, resources={"away": 0.01}, **options)
    class Noting:
        def __init__(self) -> None:
            note("born", name, 0)

        def call(self, number: int) -> int:
            note("begin", name, number)
            note("end", name, number)
            return number

    return Noting.remote()


def _teller(name: str, note: Any) -> Strand:
    """An actor that is restarted and whose calls are repeated: none may be lost."""

    teller = _noting(name, note, max_task_retries=-1)

    def round(number: int) -> Outcome:
        outcome = Outcome()
        wanted = list(range(number * 10, number * 10 + 10))
        outcome.expect(name, _get([teller.call.remote(each) for each in wanted]), wanted, 10)
        strand.calls += [(name, each) for each in wanted]
        return outcome

    strand = Strand(name.split("-")[1], 3, round)
    return strand


def _once(name: str, note: Any) -> Strand:
    """An actor whose calls are not repeated: none may run twice, some may fail."""

    once = _noting(name, note)

    def round(number: int) -> Outcome:
        outcome = Outcome()
        wanted = range(number * 5, number * 5 + 5)
        for each, ref in [(each, once.call.remote(each)) for each in wanted]:
            try:
                outcome.expect(name, _get(ref), each)
                strand.calls.append((name, each))
            except mray.exceptions.RayActorError:
                outcome.refused += 1
        return outcome

    strand = Strand("once", 3, round)
    return strand
