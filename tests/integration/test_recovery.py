"""Values that are lost on one node: results of tasks are made again, with whatever they need.

What is lost here is spilled to disk and its file is deleted or damaged.
"""

from __future__ import annotations

import glob
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mray
from mray import current
from mray._private.internal_api import free
from mray.exceptions import (
    ActorDiedError,
    GetTimeoutError,
    ObjectFreedError,
    ObjectLostError,
    ObjectReconstructionFailedError,
    ObjectReconstructionFailedMaxAttemptsExceededError,
    RayActorError,
    RayTaskError,
)
from mray.ownership.kinds import LINEAGE, kinds_of
from mray.units import MIB
from mray.wire.messages import GetStoreStats, StoreStats
from tests.run_log import Log
from tests.waiting import eventually

pytestmark = pytest.mark.integration

#: Bytes of one value; the store holds a dozen.
SIZE = 6 * MIB


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("disk")


@pytest.fixture(scope="module", autouse=True)
def cluster(disk: Path) -> Iterator[None]:
    mray.init(num_cpus=2, object_store_memory=75 * MIB, object_spilling_directory=str(disk))
    yield
    mray.shutdown()


@pytest.fixture(autouse=True)
def nothing_is_kept() -> Iterator[None]:
    yield
    rt = current.get()
    eventually(lambda: not rt.references.lineage.records, what="lineage is let go")
    eventually(lambda: not rt.recovering.rebuilding.jobs, what="the last generator has ended")
    assert rt.references.lineage.total_bytes == 0


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log")


@pytest.fixture
def lose(disk: Path) -> Any:
    """Everything in the store goes to disk, and is lost there."""

    def lose(damage: bool = False) -> None:
        # A worker keeps arguments in place for a tenth of a second.
        rt = current.get()
        eventually(lambda: _pins(rt) == 0, what="nobody reads values in place")
        padding = [mray.put(np.zeros(SIZE, np.uint8)) for _ in range(24)]
        for path in glob.glob(f"{disk}/*/*.spill"):
            if damage:
                with open(path, "r+b") as file:
                    file.seek(1000)
                    file.write(b"\xff\xfe")
            else:
                os.unlink(path)
        del padding

    return lose


def _pins(rt: Any) -> int:
    stats = rt.ask(rt.node.address, lambda rid: GetStoreStats(rid, True), StoreStats)
    return sum(pins for _, _, _, pins, _ in stats.objects)


@mray.remote
def make(log: Log, name: str, value: int, *needs: Any) -> Any:
    log.note(name)
    return np.full(SIZE, value, np.uint8)


@mray.remote
def first_of(value: Any) -> int:
    return int(value[0])


@pytest.mark.parametrize("damage", [False, True])
def test_a_result_whose_file_is_lost_is_made_again(log: Log, lose: Any, damage: bool) -> None:
    ref = make.remote(log, "a", 7)
    mray.wait([ref])
    lose(damage)
    assert (mray.get(ref) == 7).all()
    assert log.count("a") == 2


def test_many_threads_that_miss_a_value_have_it_made_once(log: Log, lose: Any) -> None:
    ref = make.remote(log, "a", 7)
    mray.wait([ref])
    lose()
    seen: list[int] = []
    threads = [
        threading.Thread(target=lambda: seen.append(int(mray.get(ref)[0]))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [7] * 8
    assert log.count("a") == 2


def test_an_argument_of_a_task_is_made_again_while_the_task_waits(log: Log, lose: Any) -> None:
    ref = make.remote(log, "a", 7)
    mray.wait([ref])
    lose()
    # As many as there are CPUs: those that wait give theirs to the one that runs again.
    assert mray.get([first_of.remote(ref) for _ in range(4)]) == [7] * 4
    assert log.count("a") == 2


def test_a_borrower_in_another_process_gets_it_from_the_owner(log: Log, lose: Any) -> None:
    @mray.remote
    class Reader:
        def hold(self, refs: list[Any]) -> None:
            self.refs = refs

        def read(self) -> int:
            return int(mray.get(self.refs[0])[0])

    reader = Reader.remote()
    ref = make.remote(log, "a", 7)
    mray.get(reader.hold.remote([ref]))
    mray.wait([ref])
    lose()
    assert mray.get(reader.read.remote()) == 7
    del ref
    lose()
    assert mray.get(reader.read.remote()) == 7
    assert log.count("a") == 3


def test_three_hops_are_run_again_in_order_when_only_the_last_is_held(log: Log, lose: Any) -> None:
    first = make.remote(log, "first", 1)
    second = make.remote(log, "second", 2, first)
    third = make.remote(log, "third", 3, second)
    mray.wait([third])
    del first, second
    lose()
    assert mray.get(third)[0] == 3
    assert [log.count(name) for name in ("first", "second", "third")] == [2, 2, 2]


def test_a_put_argument_is_kept_for_the_task_that_may_run_again(log: Log, lose: Any) -> None:
    put = mray.put(np.full(1 * MIB, 5, np.uint8))
    ref = make.remote(log, "a", 7, put)
    mray.wait([ref])
    entries, made = current.get().references.entries, put.binary()
    del put
    eventually(
        lambda: kinds_of(entries[made]) == {LINEAGE: 1},
        what="only the lineage keeps the argument",
    )
    lose()
    with pytest.raises(ObjectLostError):  # It was on disk as well.
        mray.get(ref)
    del ref


def test_references_inside_arguments_are_there_again(log: Log, lose: Any) -> None:
    @mray.remote
    def nested(log: Log, refs: list[Any]) -> Any:
        log.note("nested")
        return np.full(SIZE, int(mray.get(refs[0])[0]) + 1, np.uint8)

    inner = make.remote(log, "inner", 3)
    ref = nested.remote(log, [inner])
    mray.wait([ref])
    del inner
    lose()
    assert mray.get(ref)[0] == 4
    assert [log.count("nested"), log.count("inner")] == [2, 2]


def test_big_arguments_that_are_lost_too_are_named(log: Log, lose: Any) -> None:
    @mray.remote
    def big(log: Log, data: bytes) -> Any:
        return np.full(SIZE, len(data) % 251, np.uint8)

    ref = big.remote(log, b"x" * MIB)
    mray.wait([ref])
    lose()
    with pytest.raises(ObjectLostError, match=r"arguments of .*big"):
        mray.get(ref)


def test_what_is_lost_of_several_returns_comes_back_and_the_rest_stays(log: Log, lose: Any) -> None:
    @mray.remote(num_returns=3)
    def three(log: Log) -> Any:
        run = log.note("three")
        return run, np.full(SIZE, 1, np.uint8), np.full(SIZE, 2, np.uint8)

    small, one, two = three.remote(log)
    mray.wait([one])
    lose()
    assert [int(mray.get(ref)[0]) for ref in (two, one)] == [2, 1]
    assert mray.get(small) == 1, "what was not lost is not replaced"
    assert log.count("three") == 2


def test_references_inside_a_result_are_those_of_the_last_run(log: Log, lose: Any) -> None:
    @mray.remote
    def outer(log: Log) -> Any:
        run = log.note("outer")
        return [mray.put(run), np.zeros(SIZE, np.uint8)]

    ref = outer.remote(log)
    mray.wait([ref])
    old = mray.get(ref)[0]
    lose()
    again = mray.get(ref)[0]
    assert (mray.get(old), mray.get(again)) == (1, 2)


def test_items_of_a_generator_come_back(log: Log, lose: Any) -> None:
    @mray.remote(num_returns="streaming", max_retries=-1)
    def items(log: Log, count: int) -> Any:
        log.note("run")
        for number in range(count):
            log.note(f"item {number}")
            yield np.full(SIZE, number, np.uint8)

    refs = list(items.remote(log, 4))
    lose()
    del refs[1]
    assert [int(mray.get(ref)[0]) for ref in refs] == [0, 2, 3]
    assert 2 <= log.count("run") <= 4


def test_a_dynamic_generator_keeps_its_items(log: Log, lose: Any) -> None:
    def items(log: Log) -> Any:
        log.note("run")
        for number in range(3):
            yield np.full(SIZE, number, np.uint8)

    with pytest.warns(DeprecationWarning, match="dynamic"):
        dynamic = mray.remote(num_returns="dynamic")(items)
    ref = dynamic.remote(log)
    refs = list(mray.get(ref))
    del ref
    lose()
    assert [int(mray.get(one)[0]) for one in refs] == [0, 1, 2]


def test_a_result_that_is_small_the_second_time_is_taken_as_it_is(log: Log, lose: Any) -> None:
    @mray.remote
    def shrinks(log: Log) -> Any:
        return np.zeros(SIZE if log.note("run") == 1 else 3, np.uint8)

    ref = shrinks.remote(log)
    mray.wait([ref])
    lose()
    assert len(mray.get(ref)) == 3


def test_what_the_second_run_raises_is_the_result(log: Log, lose: Any) -> None:
    @mray.remote
    def raises(log: Log) -> Any:
        if log.note("run") > 1:
            raise ValueError("the second time")
        return np.zeros(SIZE, np.uint8)

    ref = raises.remote(log)
    mray.wait([ref])
    lose()
    with pytest.raises(RayTaskError, match="the second time") as caught:
        mray.get(ref)
    assert isinstance(caught.value, ValueError)
    del caught


def test_without_retries_it_is_lost_and_the_error_says_why(log: Log, lose: Any) -> None:
    ref = make.options(max_retries=0).remote(log, "a", 7)
    mray.wait([ref])
    lose()
    with pytest.raises(ObjectReconstructionFailedError, match="max_retries") as caught:
        mray.get(ref)
    error = caught.value
    assert error.reason == "OBJECT_UNRECONSTRUCTABLE_RETRIES_DISABLED"
    assert "spill file" in str(error.reason_message)
    assert error.object_ref_hex == ref.hex()
    with pytest.raises(ObjectReconstructionFailedError):
        mray.get(first_of.remote(ref))
    assert log.count("a") == 1
    del caught, error


def test_runs_again_are_charged_as_retries(log: Log, lose: Any) -> None:
    ref = make.options(max_retries=1).remote(log, "a", 7)
    mray.wait([ref])
    lose()
    assert mray.get(ref)[0] == 7
    lose()
    with pytest.raises(ObjectReconstructionFailedMaxAttemptsExceededError) as caught:
        mray.get(ref)
    assert caught.value.reason == "OBJECT_UNRECONSTRUCTABLE_MAX_ATTEMPTS_EXCEEDED"
    assert log.count("a") == 2
    del caught


def test_a_put_value_stays_lost_with_the_file_and_the_reason(lose: Any, disk: Path) -> None:
    ref = mray.put(np.zeros(SIZE, np.uint8))
    lose()
    with pytest.raises(ObjectLostError, match=r"put\(\)") as caught:
        mray.get(ref)
    assert str(disk) in caught.value.reason
    del caught


def test_results_of_an_actor_come_back_where_its_tasks_may_run_again(log: Log, lose: Any) -> None:
    @mray.remote(max_task_retries=2)
    class Maker:
        def make(self, log: Log) -> Any:
            return np.full(SIZE, log.note("run"), np.uint8)

    maker = Maker.remote()
    ref = maker.make.remote(log)
    plain = maker.make.options(max_task_retries=0).remote(log)
    mray.wait([ref, plain], num_returns=2)
    lose()
    assert mray.get(ref)[0] == 3
    with pytest.raises(ObjectReconstructionFailedError, match="max_task_retries"):
        mray.get(plain)
    lose()
    mray.kill(maker)
    with pytest.raises(ActorDiedError):
        mray.get(ref)


def test_the_argument_of_a_constructor_is_made_again_for_a_restart(log: Log, lose: Any) -> None:
    @mray.remote(max_restarts=1)
    class Keeper:
        def __init__(self, value: Any) -> None:
            self.first = int(value[0])

        def read(self) -> int:
            return self.first

        def pid(self) -> int:
            return os.getpid()

    ref = make.remote(log, "a", 9)
    keeper = Keeper.remote(ref)
    former = mray.get(keeper.pid.remote())
    del ref
    lose()
    mray.kill(keeper, no_restart=False)
    eventually(lambda: _pid_of(keeper) not in (former, 0), what="the actor has restarted")
    assert mray.get(keeper.read.remote()) == 9
    assert log.count("a") == 2
    mray.kill(keeper)


def _pid_of(keeper: Any) -> int:
    try:
        return int(mray.get(keeper.pid.remote()))
    except RayActorError:
        return 0


def test_what_was_freed_by_hand_stays_freed(log: Log, lose: Any) -> None:
    ref = make.remote(log, "a", 7)
    mray.wait([ref])
    free([ref])
    lose()
    with pytest.raises(ObjectFreedError):
        mray.get(ref)
    assert log.count("a") == 1


def test_wait_and_a_timeout_while_it_is_made_again(log: Log, lose: Any, tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    @mray.remote
    def slow(log: Log, gate: str) -> Any:
        if log.note("run") > 1:
            eventually(lambda: os.path.exists(gate), what="the gate is there")
        return np.full(SIZE, 4, np.uint8)

    ref = slow.remote(log, str(gate))
    mray.wait([ref])
    lose()
    with pytest.raises(GetTimeoutError, match=r"its task runs again|looks for it"):
        mray.get(ref, timeout=1.0)
    assert mray.wait([ref], timeout=0) == ([], [ref])
    gate.touch()
    assert mray.wait([ref], timeout=30) == ([ref], [])
    assert mray.get(ref)[0] == 4
    assert log.count("run") == 2


def test_a_worker_that_dies_while_it_makes_it_again_is_replaced(log: Log, lose: Any) -> None:
    @mray.remote(max_retries=2)
    def dies(log: Log) -> Any:
        if log.note("run") == 2:
            os._exit(1)
        return np.full(SIZE, 4, np.uint8)

    ref = dies.remote(log)
    mray.wait([ref])
    lose()
    assert mray.get(ref)[0] == 4
    assert log.count("run") == 3


def test_awaiting_and_futures_wait_for_the_value_too(log: Log, lose: Any) -> None:
    ref = make.remote(log, "a", 7)
    mray.wait([ref])
    lose()
    assert ref.future().result(timeout=60)[0] == 7
    assert log.count("a") == 2
