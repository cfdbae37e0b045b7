"""A store smaller than its live data keeps working, and its disk is empty afterwards."""

from __future__ import annotations

import glob
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mray
from mray import current
from mray.exceptions import ObjectLostError
from mray.units import MIB
from mray.wire.messages import GetStoreStats, StoreStats
from tests.waiting import eventually

pytestmark = pytest.mark.integration

STORE = 75 * MIB


def files_in(*directories: Path) -> list[str]:
    return [path for one in directories for path in glob.glob(f"{one}/*/*.spill")]


def stats() -> StoreStats:
    rt = current.get()
    return rt.ask(rt.node.address, GetStoreStats, StoreStats)


def filled(number: int, mebibytes: int) -> Any:
    return np.full(mebibytes * MIB, number % 251, np.uint8)


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [tmp_path_factory.mktemp("disk-a"), tmp_path_factory.mktemp("disk-b")]


@pytest.fixture(scope="module", autouse=True)
def cluster(disks: list[Path]) -> Iterator[None]:
    mray.init(
        num_cpus=2,
        object_store_memory=STORE,
        object_spilling_directory=",".join(map(str, disks)),
    )
    yield
    mray.shutdown()
    assert [os.listdir(one) for one in disks] == [[], []]


def test_puts_beyond_the_store_come_back_exactly_and_leave_nothing(disks: list[Path]) -> None:
    refs = [mray.put(filled(number, 6)) for number in range(30)]
    assert stats().spilled_bytes_total > 0
    assert all(files_in(one) for one in disks)
    for number, ref in enumerate(refs):
        value = mray.get(ref)
        assert value[0] == value[-1] == number
        assert zlib.crc32(value) == zlib.crc32(filled(number, 6))
    del refs, ref, value
    eventually(lambda: files_in(*disks) == [], what="spill files are deleted")
    eventually(lambda: stats().object_count == 0, what="objects are freed")


def test_a_shuffle_larger_than_the_store_is_exact(disks: list[Path]) -> None:
    parts, rows = 12, MIB // 8

    @mray.remote
    def cut(number: int) -> list[Any]:
        rng = np.random.default_rng(number)
        return [rng.integers(0, 1 << 40, rows) for _ in range(parts)]

    @mray.remote
    def total(*pieces: Any) -> int:
        return int(sum(int(piece.sum()) for piece in pieces))

    table = [cut.options(num_returns=parts).remote(number) for number in range(parts)]
    sums = mray.get([total.remote(*[row[column] for row in table]) for column in range(parts)])
    expected = [0] * parts
    for number in range(parts):
        rng = np.random.default_rng(number)
        for column in range(parts):
            expected[column] += int(rng.integers(0, 1 << 40, rows).sum())
    assert sums == expected
    del table
    eventually(lambda: files_in(*disks) == [], what="spill files are deleted")


def test_what_a_reader_holds_stays_in_memory_while_others_go_to_disk() -> None:
    @mray.remote
    def make() -> Any:
        return filled(7, 8)

    held = mray.get(make.remote())
    refs = [mray.put(filled(number, 8)) for number in range(20)]
    assert (held == 7).all()
    assert [int(mray.get(ref)[5]) for ref in refs] == list(range(20))


def test_an_object_larger_than_the_store_is_made_on_disk(disks: list[Path]) -> None:
    ref = mray.put(filled(9, 90))
    assert stats().overflow_bytes >= 90 * MIB

    @mray.remote
    def last(value: Any) -> int:
        return int(value[-1])

    assert mray.get(last.remote(ref)) == 9
    value = mray.get(ref, writable=True)
    value[0] = 1
    assert mray.get(ref)[0] == 9
    del ref, value
    eventually(lambda: stats().overflow_bytes == 0, what="the overflow file is empty")


def test_values_in_use_beyond_the_store_are_made_on_disk() -> None:
    refs = [mray.put(filled(number, 20)) for number in range(5)]
    values = [mray.get(ref) for ref in refs]
    assert [int(value[-1]) for value in values] == list(range(5))


def test_files_of_a_dead_worker_go_with_it(disks: list[Path]) -> None:
    @mray.remote
    class Owner:
        def fill(self) -> int:
            self.refs = [mray.put(filled(number, 6)) for number in range(25)]
            return len(self.refs)

    owner = Owner.remote()
    assert mray.get(owner.fill.remote()) == 25
    assert files_in(*disks)
    mray.kill(owner)
    eventually(lambda: files_in(*disks) == [], what="spill files are deleted")


def test_a_damaged_file_is_an_error_that_says_so_and_never_wrong_bytes(disks: list[Path]) -> None:
    refs = [mray.put(filled(number, 6)) for number in range(25)]
    damaged = files_in(*disks)
    for path in damaged:
        with open(path, "r+b") as file:
            file.seek(1000)
            file.write(b"\xff\xfe")
    reasons = []
    for number, ref in enumerate(refs):
        try:
            assert (mray.get(ref) == number).all()
        except ObjectLostError as error:
            reasons.append(error.reason)
    assert 0 < len(reasons) <= len(damaged)
    assert all("damaged" in reason and "checksum" in reason for reason in reasons)
