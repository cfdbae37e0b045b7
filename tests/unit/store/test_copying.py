"""CopyPool: bytes arrive, whoever copies them."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Iterator
from queue import SimpleQueue

import numpy as np
import pytest

from mray.store import copying
from mray.store.copying import BIG_BYTES, CopyPool
from mray.units import MIB


@pytest.fixture
def pool() -> Iterator[CopyPool]:
    pool = CopyPool(3)
    yield pool
    pool.close()


def helpers() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith("mray-copy")]


def noise(size: int) -> bytes:
    return np.random.default_rng(size).bytes(size)


@pytest.mark.parametrize(
    "size", [0, 1, 100_000, BIG_BYTES - 1, BIG_BYTES, BIG_BYTES + 1, 5 * BIG_BYTES + 12_345]
)
def test_every_byte_arrives_and_no_more(pool: CopyPool, size: int) -> None:
    source = noise(size)
    target = bytearray(b"." * (size + 3))
    pool.copy(memoryview(target), memoryview(source))
    assert target == source + b"..."


@pytest.mark.parametrize("extra", [0, 1, 2, 63, 64, 65, 12_345])
def test_huge_copies_are_shared_out_in_equal_parts(
    pool: CopyPool, monkeypatch: pytest.MonkeyPatch, extra: int
) -> None:
    monkeypatch.setattr(copying, "_STREAMED_BYTES", 2 * MIB)
    source = noise(6 * MIB + extra)
    target = bytearray(b"." * (len(source) + 3))
    pool.copy(memoryview(target), memoryview(source))
    assert target == source + b"..."


def test_buffers_of_any_type_and_shape_are_copied_as_bytes(pool: CopyPool) -> None:
    for shape in ((4, 8), (1024, 1024)):
        array = np.arange(shape[0] * shape[1], dtype=np.float64).reshape(shape)
        target = bytearray(array.nbytes)
        pool.copy(memoryview(target), memoryview(array))
        assert target == array.tobytes()


@pytest.mark.parametrize("size", [10, BIG_BYTES + 10])
def test_a_target_that_is_too_short_is_refused(pool: CopyPool, size: int) -> None:
    with pytest.raises(ValueError, match=f"{size} bytes do not fit into {size - 1}"):
        pool.copy(memoryview(bytearray(size - 1)), memoryview(bytes(size)))


def test_a_small_copy_starts_no_thread(pool: CopyPool) -> None:
    pool.copy(memoryview(bytearray(BIG_BYTES)), memoryview(bytes(BIG_BYTES - 1)))
    assert helpers() == []


def test_helpers_stay_for_the_next_copy_and_end_with_the_pool(pool: CopyPool) -> None:
    source, target = memoryview(noise(32 * MIB)), memoryview(bytearray(32 * MIB))
    pool.copy(target, source)
    first = helpers()
    assert len(first) == 2
    pool.copy(target, source)
    assert helpers() == first
    pool.close()
    assert helpers() == []
    pool.copy(target, source)
    assert len(helpers()) == 2


def test_no_buffer_is_held_after_a_copy(pool: CopyPool) -> None:
    """Even by a helper that was asked and never came to it."""
    target = bytearray(32 * MIB)
    for _ in range(20):
        with memoryview(target) as view:
            pool.copy(view, memoryview(bytes(32 * MIB)))
    target.clear()


def test_several_threads_copy_at_once(pool: CopyPool) -> None:
    sources = [noise(9 * MIB + index) for index in range(4)]
    targets = [bytearray(len(source)) for source in sources]
    threads = [
        threading.Thread(target=pool.copy, args=(memoryview(target), memoryview(source)))
        for target, source in zip(targets, sources, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert targets == sources


def test_one_thread_needs_no_helper() -> None:
    pool = CopyPool(1)
    source = noise(9 * MIB)
    target = bytearray(len(source))
    pool.copy(memoryview(target), memoryview(source))
    assert target == source
    assert helpers() == []


def test_an_error_in_a_helper_reaches_the_caller() -> None:
    helping = threading.Event()

    def run(piece: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            helping.set()
            raise MemoryError("in the helper")
        helping.wait()

    job = copying._Job(run, 2)
    helper = threading.Thread(target=job.help)
    helper.start()
    with pytest.raises(MemoryError, match="in the helper"):
        job.lead()
    helper.join()


def test_an_interrupt_is_raised_after_the_helpers_are_done() -> None:
    helping, go_on = threading.Event(), threading.Event()
    written = []

    def run(piece: int) -> None:
        if threading.current_thread() is threading.main_thread():
            helping.wait()
            go_on.set()
            raise KeyboardInterrupt
        helping.set()
        go_on.wait()
        written.append(piece)

    job = copying._Job(run, 100)
    helper = threading.Thread(target=job.help)
    helper.start()
    with pytest.raises(KeyboardInterrupt):
        job.lead()
    count = len(written)
    helper.join()
    assert len(written) == count >= 1


def test_a_helper_that_comes_too_late_does_nothing() -> None:
    done = []
    job = copying._Job(done.append, 2)
    job.lead()
    job.help()
    assert done == [0, 1]


def test_a_forked_child_has_helpers_of_its_own(pool: CopyPool) -> None:
    source = noise(9 * MIB)
    target = bytearray(len(source))
    pool.copy(memoryview(target), memoryview(source))
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        # Leaves by os._exit whatever happens: this is a copy of the test runner.
        try:
            again = bytearray(len(source))
            pool.copy(memoryview(again), memoryview(source))
            assert again == source
            assert len(helpers()) == 2
            pool.close()
            assert helpers() == []
        except BaseException:
            os.write(write_end, traceback.format_exc().encode())
        os._exit(0)
    os.close(write_end)
    with open(read_end) as report:
        assert report.read() == ""
    os.waitpid(child, 0)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two processors")
def test_a_helper_keeps_off_the_processor_of_the_thread_it_helps() -> None:
    before = os.sched_getaffinity(0)
    kept: list[set[int]] = []
    jobs: SimpleQueue[copying._Job | None] = SimpleQueue()

    def run(piece: int) -> None:
        kept.append(os.sched_getaffinity(0))

    job = copying._Job(run, 1)
    jobs.put(job)
    jobs.put(None)
    helper = threading.Thread(target=copying._help, args=(jobs, before))
    helper.start()
    helper.join()
    assert kept == [before - {job.cpu}]
    assert os.sched_getaffinity(0) == before


def test_a_helper_works_where_it_may_not_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, cpus: set[int]) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(copying.os, "sched_setaffinity", refuse)
    done: list[int] = []
    jobs: SimpleQueue[copying._Job | None] = SimpleQueue()
    jobs.put(copying._Job(done.append, 2))
    jobs.put(None)
    copying._help(jobs, {0, 1})
    assert done == [0, 1]
