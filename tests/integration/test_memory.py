"""The memory report of a real cluster: each kind of reference, its holder, its line of code."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import mray
from mray import current
from mray._private.internal_api import free, global_gc, memory_summary
from mray.exceptions import ObjectFreedError
from mray.memory_collect import of_runtime
from mray.memory_report import Memory, MemoryObject
from mray.memory_summary import summary
from mray.wire.messages import GetStoreStats, StoreStats

from ..waiting import eventually

pytestmark = pytest.mark.integration

MIB = 1 << 20
HERE = str(Path(__file__))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    mray.init(num_cpus=3, object_store_memory=100 * MIB)
    yield
    mray.shutdown()


@pytest.fixture(autouse=True)
def nothing_held(cluster: None) -> Iterator[None]:
    """What one test held is let go before the next."""
    yield
    gc.collect()


def report() -> Memory:
    return of_runtime(current.get())


def find(ref: Any) -> MemoryObject:
    (found,) = [one for one in report().objects if one.object_id == ref.hex()]
    return found


def becomes(ref: Any, kinds: dict[str, int]) -> MemoryObject:
    """The object, once it is held in these ways: processes tell of changes a moment later."""
    eventually(lambda: find(ref).kinds == kinds, 5.0, f"{find(ref).kinds} becomes {kinds}")
    return find(ref)


@mray.remote
class Keeper:
    def __init__(self) -> None:
        self.kept: list[Any] = []

    def keep(self, value: Any) -> int:
        self.kept.append(value)
        return os.getpid()

    def cycle(self, value: Any) -> None:
        """Leave the value in garbage that only a collection finds."""
        gc.disable()
        ring: list[Any] = [value]
        ring.append(ring)

    def drop(self) -> None:
        self.kept.clear()


@mray.remote
def make_big() -> bytes:
    return b"x" * MIB


@mray.remote
def put_elsewhere() -> list[Any]:
    return [mray.put(b"x" * MIB)]


@mray.remote
def wait_for(path: str, *rest: Any) -> None:
    while not os.path.exists(path):
        time.sleep(0.01)


@mray.remote
def pickled_out_of_band() -> bytes:
    from mray import cloudpickle

    return cloudpickle.dumps(mray.put(1))


def test_a_put_value_with_its_size_age_and_line() -> None:
    ref = mray.put(np.zeros(MIB, dtype=np.uint8))
    line = sys._getframe().f_lineno - 1
    also = ref
    found = find(ref)
    assert found.kinds == {"LOCAL_REFERENCE": 1}
    assert found.size_bytes is not None
    assert MIB <= found.size_bytes < MIB + 4096
    assert found.call_site.startswith(f"{HERE}:{line} in test_a_put_value")
    assert found.age_s is not None
    assert 0 <= found.age_s < 60
    assert found.why == f"1 reference in driver {os.getpid()}"
    assert found.stored_on == (current.get().node.node_id.hex(),)
    del also


def test_a_value_read_in_place_pins_it() -> None:
    ref = mray.put(np.zeros(MIB, dtype=np.uint8))
    value = mray.get(ref)
    assert find(ref).kinds == {"PINNED_IN_MEMORY": 1, "LOCAL_REFERENCE": 1}
    object_id = ref.hex()
    del ref

    def only_pinned() -> bool:
        return any(
            one.object_id == object_id and one.kinds == {"PINNED_IN_MEMORY": 1} and one.is_leak
            for one in report().objects
        )

    eventually(only_pinned, 5.0, "the value alone keeps the object")
    del value


def test_arguments_of_pending_tasks_and_why_a_result_is_not_there(tmp_path: Path) -> None:
    go = tmp_path / "go"
    ref = mray.put(np.zeros(MIB, dtype=np.uint8))
    results = [wait_for.remote(str(go), ref) for _ in range(2)]
    line = sys._getframe().f_lineno - 1
    found = becomes(ref, {"PINNED_IN_MEMORY": 2, "USED_BY_PENDING_TASK": 2, "LOCAL_REFERENCE": 1})
    assert "needed by 2 pending tasks of driver" in found.why
    result = find(results[0])
    assert (result.state, result.size_bytes, result.name) == ("pending", None, "wait_for")
    assert f"{HERE}:{line} in " in result.call_site
    assert "runs in worker pid" in result.why
    go.touch()
    mray.get(results)
    eventually(lambda: "USED_BY_PENDING_TASK" not in find(ref).kinds, 5.0, "nothing pends")


def test_a_reference_inside_another_object() -> None:
    inner = mray.put(1)
    outer = [mray.put([inner]), mray.put({"deep": [(inner, inner)]})]
    found = becomes(inner, {"LOCAL_REFERENCE": 1, "CAPTURED_IN_OBJECT": 2})
    assert "inside 2 objects of driver" in found.why
    del outer


def test_an_actor_that_borrows_is_named() -> None:
    keeper = Keeper.remote()
    ref = mray.put(b"x" * MIB)
    pid = mray.get(keeper.keep.remote([ref]))
    found = becomes(ref, {"LOCAL_REFERENCE": 2, "BORROWED": 1})
    assert f"1 reference in actor Keeper {pid}" in found.why
    assert [reference.process.pid for reference in found.references] == [os.getpid(), pid]
    object_id = ref.hex()
    del ref

    def theirs() -> list[dict[str, int]]:
        return [one.kinds for one in report().objects if one.object_id == object_id]

    eventually(lambda: theirs() == [{"LOCAL_REFERENCE": 1, "BORROWED": 1}], 5.0, "only the actor")
    mray.get(keeper.drop.remote())
    eventually(lambda: not theirs(), 5.0, "nobody")


def test_handles_of_actors() -> None:
    keeper = Keeper.remote()
    line = sys._getframe().f_lineno - 1
    mray.get(keeper.drop.remote())
    (found,) = [
        one
        for one in report().objects
        if one.name == "Keeper" and one.call_site.startswith(f"{HERE}:{line} ")
    ]
    assert found.kinds == {"ACTOR_HANDLE": 1}
    assert found.size_bytes is None


def test_closures_keep_what_they_capture() -> None:
    ref = mray.put(1)

    @mray.remote
    def captures() -> Any:
        return mray.get(ref)

    assert mray.get(captures.remote()) == 1
    found = find(ref)
    assert found.kinds["CLOSURE"] == 1
    assert f"captured by a function of driver {os.getpid()}: kept until its job ends" in found.why


@pytest.mark.filterwarnings("ignore:ObjectRef")
def test_out_of_band_pins_are_a_kind_of_their_own_and_a_leak() -> None:
    mray.get(pickled_out_of_band.options(num_cpus=1).remote())
    pinned = [one for one in report().objects if "OUT_OF_BAND" in one.kinds]
    assert pinned
    assert all(one.is_leak for one in pinned)
    assert "in pickled_out_of_band" in pinned[0].call_site
    line = next(line for line in memory_summary().splitlines() if pinned[0].object_id in line)
    assert "OUT_OF_BAND" in line
    assert "(put object)" in line


def test_references_in_values_that_tasks_return() -> None:
    @mray.remote
    def nested() -> list[Any]:
        return [mray.put(7)]

    outer = nested.remote()
    (inner,) = mray.get(outer)
    found = find(inner)
    assert found.kinds["LOCAL_REFERENCE"] == 1
    assert found.owner is not None
    assert found.owner.type == "Worker"
    assert "in test_references_in_values_that_tasks_return.<locals>.nested" in found.call_site


def test_a_process_that_does_not_answer_is_named() -> None:
    keeper = Keeper.remote()
    pid = mray.get(keeper.keep.remote(0))
    ref = mray.put(1)
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, 5.0, "it stands")
        found = report()
        assert not found.unreachable
        assert [process.who for process in found.silent] == [f"actor Keeper {pid}"]
        assert ref.hex() in [one.object_id for one in found.objects]
        assert f"Not shown: actor Keeper {pid} on" in summary(found, made_at="now")
    finally:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: not report().silent, 5.0, "it answers again")


def test_free_takes_the_value_and_leaves_the_reference() -> None:
    rt = current.get()

    def used() -> int:
        return rt.ask(rt.node.address, GetStoreStats, StoreStats).used_bytes

    before = used()
    inner = mray.put(b"x" * MIB)
    refs = [mray.put([inner]), mray.put(b"x" * MIB), make_big.remote()]
    mray.wait([refs[2]])
    free(refs)
    for ref in refs:
        with pytest.raises(ObjectFreedError, match="freed by hand"):
            mray.get(ref)
    assert find(inner).kinds == {"LOCAL_REFERENCE": 1}
    del inner
    eventually(lambda: used() <= before, 5.0, "their room is free")


def test_free_of_what_another_process_owns_and_of_what_is_not_there_yet() -> None:
    (theirs,) = mray.get(put_elsewhere.remote())
    free(theirs)
    with pytest.raises(ObjectFreedError):
        mray.get(theirs)
    pending = make_big.remote()
    free([pending])
    with pytest.raises(ObjectFreedError):
        mray.get(pending)


@pytest.mark.parametrize(("wrong", "error"), [((7,), TypeError), (([], True), ValueError)])
def test_free_refuses_what_it_cannot_do(wrong: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        free(*wrong)


def test_cyclic_garbage_of_other_processes_is_collected() -> None:
    keeper = Keeper.remote()
    ref = mray.put(b"x" * MIB)
    object_id = ref.hex()
    mray.get(keeper.cycle.remote([ref]))
    del ref
    listed = [one.kinds for one in report().objects if one.object_id == object_id]
    assert listed == [{"LOCAL_REFERENCE": 1, "BORROWED": 1}]
    global_gc()
    eventually(
        lambda: object_id not in [one.object_id for one in report().objects], 5.0, "it is gone"
    )


def test_the_text_that_programs_search() -> None:
    ref = mray.put(np.zeros(20 * MIB, dtype=np.uint8))
    text = memory_summary(units="MB")
    (line,) = [line for line in text.splitlines() if ref.hex() in line]
    assert "Driver" in line
    assert "LOCAL_REFERENCE" in line
    assert re.search(r"Plasma memory usage 2\d MiB, \d+ objects, ", text)
    stats = memory_summary(stats_only=True)
    assert ref.hex() not in stats
    assert "Plasma memory usage" in stats
    again = memory_summary(address=current.get().node.session_dir, group_by="STACK_TRACE")
    assert ref.hex() in again


def test_the_command_prints_lines_and_json() -> None:
    ref = mray.put(b"x" * MIB)
    words = [
        sys.executable,
        "-m",
        "mray.cli",
        "memory",
        "--address",
        current.get().node.session_dir,
    ]

    def run(*more: str) -> str:
        environ = {**os.environ, "COLUMNS": "80"}
        return subprocess.run(
            [*words, *more], check=True, capture_output=True, text=True, env=environ, timeout=30
        ).stdout

    # The loop answers while this thread waits elsewhere.
    lines = run().splitlines()
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 80
    assert any(ref.hex()[:8] in line and "LOCAL_REFERENCE" in line for line in lines)
    facts = json.loads(run("--json", "--filter", f"object_id={ref.hex()}"))
    assert [one["kinds"] for one in facts["objects"]] == [{"LOCAL_REFERENCE": 1}]
    assert facts["objects"][0]["references"][0]["pid"] == os.getpid()


def test_storing_references_over_and_over_leaks_nothing() -> None:
    """An actor that replaces what it keeps, 200 times: the store never holds more than a few."""
    rt = current.get()

    @mray.remote
    class Latest:
        def keep(self, refs: list[Any]) -> None:
            self.refs = refs

    @mray.remote
    def make() -> Any:
        return np.zeros(MIB // 2, dtype=np.uint8)

    def stored() -> StoreStats:
        return rt.ask(rt.node.address, GetStoreStats, StoreStats)

    before = stored().object_count
    latest = Latest.remote()
    most = 0
    for turn in range(100):
        mray.get(latest.keep.remote([mray.put(np.zeros(MIB // 2, dtype=np.uint8))]))
        mray.get(latest.keep.remote([make.remote()]))
        most = max(most, stored().object_count - before)
        if turn % 20 == 0:
            eventually(lambda: stored().object_count - before <= 3, 5.0, "three objects at most")
    assert most <= 20
    assert stored().spilled_objects_total == 0
    mray.get(latest.keep.remote([]))
    eventually(lambda: stored().object_count <= before, 5.0, "nothing of it is left")


def test_the_table_is_read_while_threads_change_it() -> None:
    """Entries come and go in other threads while the table is read."""
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            refs = [mray.put(number) for number in range(100)]
            del refs

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(5):
            assert all(
                process.answered for process in report().processes if process.type == "Driver"
            )
    finally:
        stop.set()
        thread.join()
