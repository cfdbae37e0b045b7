"""How long objects live: as long as somebody can get them, and not a second longer."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import mray
from mray import current
from mray.exceptions import GetTimeoutError
from mray.wire.messages import GetStoreStats, StoreStats

from ..waiting import eventually

pytestmark = pytest.mark.integration

MB = 1_000_000
BIG = b"x" * MB
#: An object is gone this soon after its last reference.
SOON_S = 1.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    mray.init(num_cpus=2)
    yield
    mray.shutdown()


@pytest.fixture(autouse=True)
def empty_store(cluster: None) -> Iterator[None]:
    """Each test begins and ends with an empty store."""
    freed()
    yield
    freed(10.0)


def used() -> int:
    rt = current.get()
    return rt.ask(rt.node.address, GetStoreStats, StoreStats).used_bytes


def freed(timeout_s: float = SOON_S) -> None:
    gc.collect()
    eventually(lambda: used() == 0, timeout_s, "the store is empty")


@mray.remote
def make() -> bytes:
    return BIG


@mray.remote
def size(value: bytes) -> int:
    return len(value)


@mray.remote
class Keeper:
    def __init__(self) -> None:
        self.kept: Any = None

    def keep(self, value: Any) -> None:
        self.kept = value

    def drop(self) -> None:
        self.kept = None

    def size(self) -> int:
        return len(mray.get(self.kept[0]))


def test_put() -> None:
    ref = mray.put(BIG)
    copy = ref
    del ref
    assert mray.get(copy) == BIG
    assert used() >= MB
    del copy
    freed()


def test_returns_of_tasks() -> None:
    refs = [make.remote() for _ in range(3)]
    mray.get(refs)
    assert used() >= 3 * MB
    del refs[1:]
    eventually(lambda: used() < 2 * MB, SOON_S)
    assert mray.get(refs[0]) == BIG
    refs.clear()
    freed()


def test_returns_dropped_before_they_are_made() -> None:
    make.remote()
    marker = make.remote()
    mray.get(marker)
    del marker
    freed()


def test_arguments() -> None:
    ref = mray.put(BIG)
    answer = size.remote(ref)
    del ref
    assert mray.get(answer) == MB
    freed()
    assert mray.get(size.remote(b"y" * MB)) == MB
    freed()


def test_references_within_objects() -> None:
    outer = mray.put([mray.put([mray.put(BIG)])])
    assert used() >= MB
    inner = mray.get(mray.get(outer)[0])[0]
    del outer
    assert mray.get(inner) == BIG
    del inner
    freed()


def test_references_within_returns_of_tasks() -> None:
    @mray.remote
    def nested() -> list[Any]:
        return [mray.put(BIG), make.remote()]

    outer = nested.remote()
    values = mray.get(mray.get(outer))
    assert values == [BIG, BIG]
    del outer, values
    freed()


def test_references_kept_by_an_actor() -> None:
    keeper = Keeper.remote()
    ref = mray.put(BIG)
    mray.get(keeper.keep.remote([ref]))
    del ref
    assert mray.get(keeper.size.remote()) == MB
    assert used() >= MB
    mray.get(keeper.drop.remote())
    freed()


def test_references_kept_by_an_actor_that_is_killed() -> None:
    keeper = Keeper.remote()
    mray.get(keeper.keep.remote([mray.put(BIG)]))
    assert mray.get(keeper.size.remote()) == MB
    mray.kill(keeper)
    freed()


def test_references_kept_by_an_actor_without_handles() -> None:
    keeper = Keeper.remote()
    mray.get(keeper.keep.remote([mray.put(BIG)]))
    del keeper
    freed()


def test_a_chain_of_borrowers() -> None:
    @mray.remote
    def pass_on(refs: list[Any], depth: int) -> int:
        if not depth:
            return len(mray.get(refs[0]))
        further = pass_on.remote(refs, depth - 1)
        del refs
        return int(mray.get(further))

    ref = mray.put(BIG)
    answer = pass_on.remote([ref], 4)
    del ref
    assert mray.get(answer, timeout=20) == MB
    freed()


def test_a_chain_of_borrowers_that_ends_in_an_actor() -> None:
    @mray.remote
    def pass_on(refs: list[Any], depth: int, keeper: Any) -> None:
        if depth:
            mray.get(pass_on.remote(refs, depth - 1, keeper))
        else:
            mray.get(keeper.keep.remote(refs))

    keeper = Keeper.remote()
    ref = mray.put(BIG)
    answer = pass_on.remote([ref], 3, keeper)
    del ref
    mray.get(answer, timeout=20)
    del answer
    assert mray.get(keeper.size.remote()) == MB
    mray.get(keeper.drop.remote())
    freed()


def test_a_reference_that_comes_back_from_a_borrower() -> None:
    @mray.remote
    def same(refs: list[Any]) -> list[Any]:
        return refs

    refs = [mray.put(BIG)]
    for _ in range(5):
        refs = mray.get(same.remote(refs))
    assert mray.get(refs[0]) == BIG
    del refs
    freed()


class Carries(Exception):
    def __init__(self, ref: Any) -> None:
        super().__init__("an error with a reference")
        self.ref = ref


def test_references_within_exceptions() -> None:
    @mray.remote
    def fails() -> None:
        raise Carries(mray.put(BIG))

    failed = fails.remote()
    with pytest.raises(Carries) as caught:
        mray.get(failed)
    assert mray.get(caught.value.ref) == BIG
    del caught, failed
    freed()


def test_arguments_of_tasks_that_fail() -> None:
    @mray.remote
    def fails(value: bytes, inside: list[Any]) -> None:
        raise ValueError("no")

    failed = fails.remote(mray.put(BIG), [mray.put(BIG)])
    with pytest.raises(ValueError, match="no"):
        mray.get(failed)
    del failed
    freed()


def test_arguments_of_tasks_whose_worker_dies() -> None:
    @mray.remote(max_retries=1)
    def dies(value: bytes, inside: list[Any]) -> None:
        os._exit(1)

    failed = dies.remote(mray.put(BIG), [mray.put(BIG)])
    with pytest.raises(mray.exceptions.WorkerCrashedError):
        mray.get(failed, timeout=20)
    del failed
    freed()


def test_references_in_other_threads() -> None:
    def work() -> None:
        for _ in range(5):
            ref = mray.put(BIG)
            assert mray.get(size.remote(ref)) == MB

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    freed()


def test_many_small_and_big_objects_leave_nothing() -> None:
    for _ in range(5):
        refs = [mray.put(bytes(n * 20_000)) for n in range(20)]
        assert sum(mray.get([size.remote(ref) for ref in refs])) == 20_000 * sum(range(20))
    del refs
    freed()


# -- zero-copy


def test_an_array_keeps_its_object_until_its_last_slice_dies() -> None:
    ref = mray.put(np.arange(MB))
    array = mray.get(ref)
    part = array[10:20:3]
    again = part.reshape(2, 2)
    del ref, array, part
    gc.collect()
    others = [mray.put(np.zeros(MB)) for _ in range(3)]  # would be written over it
    assert again.tolist() == [[10, 13], [16, 19]]
    assert used() >= 8 * MB * 4
    del others
    eventually(lambda: used() < 9 * MB, SOON_S)
    assert again.tolist() == [[10, 13], [16, 19]]
    del again
    freed()


def test_an_array_in_a_worker_keeps_the_object_of_the_driver() -> None:
    keeper = Keeper.remote()
    ref = mray.put(np.arange(MB))
    mray.get(keeper.keep.remote(ref))  # the actor keeps the array, not the reference
    del ref
    gc.collect()
    current.get().flush()
    assert used() >= 8 * MB
    mray.get(keeper.drop.remote())
    freed()


def test_arrays_from_the_store_are_read_only() -> None:
    array = mray.get(mray.put(np.zeros(MB)))
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    del array
    freed()


# -- waits and errors on the way


def test_gets_nested_deeper_than_there_are_cpus_do_not_lock_up() -> None:
    @mray.remote
    def deep(depth: int) -> int:
        return 1 + int(mray.get(deep.remote(depth - 1))) if depth else 0

    assert mray.get(deep.remote(20), timeout=60) == 20


def test_the_message_of_a_get_that_timed_out_says_what_it_waited_for() -> None:
    event = Keeper.remote()

    @mray.remote
    def waits(keeper: Any) -> None:
        import time

        while mray.get(keeper.keep.remote(0)) is None:
            time.sleep(0.01)

    ref = waits.remote(event)
    with pytest.raises(GetTimeoutError) as caught:
        mray.get([ref], timeout=0.2)
    text = str(caught.value)
    assert "0.2 s" in text
    assert ref.hex() in text
    assert "waits" in text
    assert isinstance(caught.value, TimeoutError)
    mray.kill(event)
    with pytest.raises(mray.exceptions.RayError):
        mray.get(ref, timeout=20)


def test_the_error_of_an_argument_that_cannot_be_pickled_says_which_and_why() -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError) as caught:
        size.remote({"deep": [1, lock]})
    text = str(caught.value)
    assert "lock" in text
    assert "size" in text
    with pytest.raises(TypeError, match=r"put\(\)"):
        mray.put(lock)


SMALL_SHM = """
    mount -t tmpfs -o size=100m tmpfs /dev/shm && {settings} exec {python} - <<'END'
    import mray
    mray.init(num_cpus=1, object_store_memory=90_000_000)
    with open("/dev/shm/of-somebody-else", "wb") as file:
        file.write(bytes(80_000_000))
    refs = []
    try:
        for number in range(60):
            refs.append(mray.put(bytes([number]) * 1_000_000))
    except mray.exceptions.ObjectStoreFullError as error:
        print("FULL", len(refs), error)
    for number, ref in enumerate(refs):
        assert mray.get(ref) == bytes([number]) * 1_000_000, number
    print("EXACT", len(refs))
    refs.clear()
    del ref
    mray.get(mray.remote(lambda: 1).remote())
    mray.shutdown()
    print("END")
    END
"""

FULL_SESSION = """
    mkdir -p {folder} && mount -t tmpfs -o size=200k tmpfs {folder} &&
    dd if=/dev/zero of={folder}/fill bs=4k 2>/dev/null
    MRAY_TMPDIR={folder} exec {python} -c 'import mray; mray.init(num_cpus=1)'
"""


def in_own_mounts(script: str, **names: str) -> subprocess.CompletedProcess[str]:
    """Run as root in a mount namespace of its own; skip the test where that cannot be."""
    probe = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    if os.getuid() != 0 or probe.returncode != 0:
        pytest.skip("needs root and mount namespaces")
    text = textwrap.dedent(script).format(python=sys.executable, **names)
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", text], capture_output=True, text=True, timeout=60, check=False
    )


def test_puts_into_a_full_shared_memory_go_to_disk() -> None:
    done = in_own_mounts(SMALL_SHM, settings="")
    assert "FULL" not in done.stdout, done.stdout
    assert done.stdout.endswith("EXACT 60\nEND\n"), done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_shared_memory_is_an_error_of_put_where_nothing_is_spilled() -> None:
    done = in_own_mounts(SMALL_SHM, settings="RAY_automatic_object_spilling_enabled=0")
    assert "FULL" in done.stdout, done.stdout + done.stderr
    assert "the file system of the object store" in done.stdout
    assert done.stdout.endswith("END\n"), done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_one_clear_message_of_init() -> None:
    folder = f"/tmp/mray-full-{os.getpid()}"
    try:
        done = in_own_mounts(FULL_SESSION, folder=folder)
    finally:
        if os.path.isdir(folder):
            os.rmdir(folder)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "No space left" in last or "full" in last, done.stderr
    assert folder in last, done.stderr
