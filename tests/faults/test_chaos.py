"""Work goes on while workers are killed and stopped at random: exact results, and rest afterwards.

One node. The seed is in the name of the test; what was done when is shown where it fails.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest

import mray
from mray.session_files import Session

from .. import nemesis_history as checks
from ..nemesis import Nemesis, Target, workers_of
from ..nemesis_history import WRITER, History
from ..waiting import eventually

pytestmark = [pytest.mark.failure, pytest.mark.usefixtures("at_rest")]

ROUNDS = 12


@pytest.fixture
def history() -> History:
    return History()


@pytest.fixture
def target(watch: Any, session: Session) -> Target:
    (pid,) = [each.pid for each in session.processes() if each.kind == "node" and each.alive]
    return Target("here", lambda: workers_of(pid))


def _shown(history: History, error: BaseException) -> AssertionError:
    return AssertionError(f"{error}\n{history}")


@pytest.mark.parametrize("seed", [1, 2])
def test_tasks_give_exact_results_while_workers_die(
    target: Target, history: History, seed: int
) -> None:
    @mray.remote(max_retries=-1)
    def square(x: Any) -> Any:
        return x * x

    @mray.remote(max_retries=-1)
    def total(*parts: Any) -> int:
        return int(sum(int(numpy.sum(part)) for part in parts))

    nemesis = Nemesis([target], history, seed, longest_s=0.5)
    try:
        for number in range(ROUNDS):
            small = [square.remote(i) for i in range(100)]
            large = [square.remote(numpy.full(50_000, i)) for i in range(8)]
            chain = total.remote(*large)
            if number % 2:
                nemesis.step()
            assert mray.get(small, timeout=60) == [i * i for i in range(100)]
            assert mray.get(chain, timeout=60) == sum(i * i for i in range(8)) * 50_000
    except BaseException as error:
        raise _shown(history, error) from error
    finally:
        nemesis.heal()
    assert nemesis.count == ROUNDS // 2


@pytest.mark.parametrize("seed", [3, 4])
def test_calls_of_actors_are_neither_lost_nor_swapped_while_they_die(
    target: Target, history: History, tmp_path: Path, seed: int
) -> None:
    log = tmp_path / "calls"
    names: dict[str, Any] = {"LOG": str(log)}
    exec(WRITER, names)
    note = names["note"]

    @mray.remote(max_restarts=-1, max_task_retries=-1, num_cpus=0)
    class Teller:
        def __init__(self, name: str) -> None:
            self.name = name
            note("born", name, 0)

        def call(self, number: int) -> tuple[str, int]:
            note("begin", self.name, number)
            note("end", self.name, number)
            return self.name, number

    actors = {f"actor{i}": Teller.remote(f"actor{i}") for i in range(3)}
    nemesis = Nemesis([target], history, seed, longest_s=0.5)
    acknowledged: set[tuple[str, int, int]] = set()
    try:
        for number in range(ROUNDS):
            calls = [
                actor.call.remote(number * 20 + i) for i in range(20) for actor in actors.values()
            ]
            if number % 2:
                nemesis.step()
            for name, call in mray.get(calls, timeout=60):
                acknowledged.add((name, 0, call))
        lines = checks.read(log)
        assert len(acknowledged) == ROUNDS * 20 * len(actors)
        checks.check_acknowledged(lines, acknowledged)
        checks.check_incarnations(lines)
        checks.check_order(lines)
    except BaseException as error:
        raise _shown(history, error) from error
    finally:
        nemesis.heal()


def test_calls_that_may_not_be_repeated_run_at_most_once(
    target: Target, history: History, tmp_path: Path
) -> None:
    log = tmp_path / "calls"
    names: dict[str, Any] = {"LOG": str(log)}
    exec(WRITER, names)
    note = names["note"]

    @mray.remote(max_restarts=-1, num_cpus=0)
    class Once:
        def call(self, number: int) -> int:
            note("begin", "once", number)
            note("end", "once", number)
            return number

        def is_there(self) -> bool:
            return True

    actor = Once.remote()

    def is_there() -> bool:
        try:
            return bool(mray.get(actor.is_there.remote(), timeout=60))
        except mray.exceptions.RayActorError:
            return False

    nemesis = Nemesis([target], history, 5, longest_s=0.5)
    acknowledged = set()
    lost = 0
    try:
        for number in range(0, 400, 20):
            eventually(is_there, 30)
            refs = [actor.call.remote(number + i) for i in range(20)]
            if number % 80 == 0:
                nemesis.step()
            for ref in refs:
                try:
                    acknowledged.add(("once", 0, mray.get(ref, timeout=60)))
                except mray.exceptions.RayActorError:
                    lost += 1
        lines = checks.read(log)
        checks.check_acknowledged(lines, acknowledged)
        checks.check_at_most_once(lines)
        assert len(acknowledged) + lost == 400
        assert len(acknowledged) >= 200
    except BaseException as error:
        raise _shown(history, error) from error
    finally:
        nemesis.heal()
