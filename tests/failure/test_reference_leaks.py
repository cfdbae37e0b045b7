"""References in awkward places and dying processes: nothing is lost, and nothing stays."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import mray
from mray import current
from mray.exceptions import OwnerDiedError, RayError
from mray.wire.messages import GetStoreStats, StoreStats

from ..waiting import eventually

pytestmark = pytest.mark.failure

MB = 1_000_000
BIG = b"x" * MB
SOON_S = 1.0


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    mray.init(num_cpus=2)
    yield
    mray.shutdown()


def used() -> int:
    rt = current.get()
    return rt.ask(rt.node.address, GetStoreStats, StoreStats).used_bytes


def freed(timeout_s: float = SOON_S, down_to: int = 0) -> None:
    gc.collect()
    eventually(lambda: used() <= down_to, timeout_s, "the store is empty")


@mray.remote
class Keeper:
    def __init__(self) -> None:
        self.kept: Any = None

    def pid(self) -> int:
        return os.getpid()

    def put(self) -> list[Any]:
        return [mray.put(BIG)]

    def keep(self, value: Any) -> None:
        self.kept = value

    def give(self) -> Any:
        return self.kept

    def size(self) -> int:
        return len(mray.get(self.kept[0]))


def test_references_in_cycles_go_with_the_collector() -> None:
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(20):
            cycle: list[Any] = [mray.put(BIG)]
            cycle.append(cycle)
            assert len(mray.get(cycle[0])) == MB
            del cycle
    finally:
        gc.set_threshold(*threshold)
    freed()


def test_a_chain_of_ten_borrowers() -> None:
    keepers = [Keeper.remote() for _ in range(10)]
    refs = mray.get(keepers[0].put.remote())
    for lender, borrower in itertools.pairwise(keepers):
        mray.get(lender.keep.remote(refs))
        del refs
        mray.get(borrower.keep.remote(lender.give.remote()))
        mray.get(lender.keep.remote(None))
        refs = mray.get(borrower.give.remote())
    del refs
    assert mray.get(keepers[-1].size.remote()) == MB
    mray.get(keepers[-1].keep.remote(None))
    freed()


def test_references_in_an_error_of_several_returns() -> None:
    class Carries(Exception):
        def __init__(self, ref: Any) -> None:
            super().__init__("an error with a reference")
            self.ref = ref

    @mray.remote(num_returns=3)
    def fails() -> None:
        raise Carries(mray.put(BIG))

    first, second, third = fails.remote()
    del first, second
    with pytest.raises(Carries) as caught:
        mray.get(third)
    assert mray.get(caught.value.ref) == BIG
    del third, caught
    freed()


def test_a_reference_in_a_retried_error_goes(tmp_path: Any) -> None:
    @mray.remote(max_retries=2, retry_exceptions=True)
    def fails_twice() -> int:
        tries = len(os.listdir(tmp_path))
        (tmp_path / str(tries)).touch()
        if tries < 2:
            raise ValueError(mray.put(BIG))
        return tries

    assert mray.get(fails_twice.remote(), timeout=20) == 2
    freed()


@pytest.mark.parametrize("after_s", [0.0, 0.0005, 0.001, 0.002, 0.004])
def test_a_worker_killed_while_it_hands_over_leaves_nothing(after_s: float) -> None:
    owner, lender = Keeper.remote(), Keeper.remote()
    refs = mray.get(owner.put.remote())
    mray.get(lender.keep.remote(refs))
    pid = mray.get(lender.pid.remote())
    del refs
    answer = lender.give.remote()
    mray.wait([answer], timeout=after_s)
    os.kill(pid, signal.SIGKILL)
    try:
        refs = mray.get(answer, timeout=20)
    except RayError:
        refs = None
    if refs is not None:
        assert mray.get(refs[0]) == BIG
    del answer, refs
    freed(5.0)


def test_the_death_of_the_owner_reaches_those_who_wait() -> None:
    owner, borrower = Keeper.remote(), Keeper.remote()
    refs = mray.get(owner.put.remote())
    mray.get(borrower.keep.remote(refs))
    os.kill(mray.get(owner.pid.remote()), signal.SIGKILL)
    with pytest.raises(OwnerDiedError):
        eventually(lambda: mray.get(borrower.size.remote()) is None, 5.0, "the owner's death")
    del refs
    mray.get(borrower.keep.remote(None))
    freed(5.0)


AT_EXIT = """
import mray
mray.init(num_cpus=1)

class Holder:
    def __init__(self):
        self.refs = [mray.put(b"x" * 200_000)]

    def __del__(self):
        del self.refs

holder = Holder()
holder.itself = holder
print("END")
"""


def test_references_dropped_at_the_exit_of_the_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_EXIT], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (0, "END\n"), done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def call_a_closure() -> bytes:
    """Call a function that captures a reference; the object's id."""
    ref = mray.put(BIG)

    @mray.remote
    def reads() -> int:
        return len(mray.get(ref))

    assert mray.get(reads.remote()) == MB
    return ref.binary()


def test_references_in_closures_stay_until_the_job_ends() -> None:
    object_id = call_a_closure()
    gc.collect()
    current.get().flush()
    entry = current.get().references.entries[object_id]
    assert (entry.captured, entry.pinned, entry.local) == (1, 0, 0)
    assert entry.kept
    assert used() >= MB


def test_references_pickled_out_of_band_are_pins() -> None:
    ref = mray.put(BIG)
    with pytest.warns(UserWarning, match="out of band"):
        mray.cloudpickle.dumps(ref)
    entry = current.get().references.entries[ref.binary()]
    current.get().flush()
    assert (entry.captured, entry.pinned) == (0, 1)
    del ref
    current.get().flush()
    assert entry.kept
