"""A store in a shared-memory file system that is really small, and really full."""

from __future__ import annotations

import ctypes
import os
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from mray import exceptions
from mray.node.objects.arena import ArenaError, default_capacity, free_bytes
from mray.units import MIB

pytestmark = pytest.mark.skipif(
    os.getuid() != 0, reason="mounting a tmpfs in a namespace of its own needs root"
)

ME = b"m" * 28
_CLONE_NEWNS = 0x00020000
_MS_REC_PRIVATE = 0x4000 | 0x40000


def in_tmpfs(size: str, scene: Callable[[str], None]) -> None:
    """Play a scene in a child process that sees a tmpfs of ``size`` at /mnt."""
    libc = ctypes.CDLL(None, use_errno=True)
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        # Leaves by os._exit whatever happens: this is a copy of the test runner.
        try:
            for call in (
                lambda: libc.unshare(_CLONE_NEWNS),
                lambda: libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None),
                lambda: libc.mount(b"none", b"/mnt", b"tmpfs", 0, f"size={size}".encode()),
            ):
                if call():
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            scene("/mnt")
        except BaseException:
            os.write(write_end, traceback.format_exc().encode())
            os._exit(1)
        os._exit(0)
    os.close(write_end)
    with open(read_end) as report:
        text = report.read()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, text or f"the scene ended by status {status}"


def object_id(number: int) -> bytes:
    return number.to_bytes(28, "little")


def stamp(number: int) -> Callable[[memoryview], None]:
    def write(view: memoryview) -> None:
        for at in range(0, len(view), 4096):
            view[at] = number
        view[-1] = number

    return write


def test_a_store_in_a_small_file_system_takes_nine_tenths_of_it(local_node: Any) -> None:
    def scene(base: str) -> None:
        assert free_bytes(base) == 64 * MIB
        capacity = default_capacity(1 << 40, free_bytes(base))
        assert 57 * MIB < capacity < 58 * MIB
        node = local_node(base, capacity)
        client = node.client(ME)
        client.put(object_id(1), ME, 50 * MIB, stamp(1))
        with pytest.raises(exceptions.ObjectStoreFullError):
            client.put(object_id(2), ME, 10 * MIB, stamp(2))
        with pytest.raises(exceptions.ObjectStoreFullError, match="larger than the whole"):
            client.put(object_id(2), ME, 100 * MIB, stamp(2))
        node.close()
        assert os.listdir(base) == []

    in_tmpfs("64m", scene)


def test_free_pages_of_the_store_never_stand_in_its_own_way(local_node: Any) -> None:
    """Holes too short for the next object hold pages; used and free ones would exceed the disk."""

    def scene(base: str) -> None:
        node = local_node(base, 60 * MIB)
        client = node.client(ME)
        for turn in range(30):
            for number in range(6):
                client.put(object_id(10 * turn + number), ME, (7 + number % 3) * MIB, stamp(number))
            for number in range(0, 6, 2):
                client.free(object_id(10 * turn + number))
            client.put(object_id(10 * turn + 9), ME, 30 * MIB, stamp(9))
            view = client.get(object_id(10 * turn + 9))
            assert (view[0], view[-1]) == (9, 9)
            del view
            client.free_many([object_id(10 * turn + number) for number in (1, 3, 5, 9)])
        node.close()

    in_tmpfs("62m", scene)


def test_another_program_fills_the_file_system(local_node: Any) -> None:
    def scene(base: str) -> None:
        node = local_node(base, 48 * MIB)
        client = node.client(ME)
        client.put(object_id(1), ME, 8 * MIB, stamp(1))
        with open(os.path.join(base, "filler"), "wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, 50 * MIB)
        with pytest.raises(
            exceptions.ObjectStoreFullError, match=r"file system .* 6 MiB are free"
        ) as caught:
            client.put(object_id(2), ME, 16 * MIB, stamp(2))
        assert isinstance(caught.value.__cause__, OSError)
        node.settle()
        assert node.arena.resident_bytes() == 8 * MIB
        assert node.server.used_bytes == 8 * MIB
        view = client.get(object_id(1))
        assert (view[0], view[-1]) == (1, 1)
        del view
        os.unlink(os.path.join(base, "filler"))
        client.put(object_id(2), ME, 16 * MIB, stamp(2))
        node.close()

    in_tmpfs("64m", scene)


def test_a_full_file_system_gets_the_stores_free_pages_back_first(local_node: Any) -> None:
    def scene(base: str) -> None:
        node = local_node(base, 60 * MIB)
        client = node.client(ME)
        client.put(object_id(1), ME, 20 * MIB, stamp(1))
        client.put(object_id(2), ME, 4 * MIB, stamp(2))
        client.free(object_id(1))
        with open(os.path.join(base, "filler"), "wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, 30 * MIB)
        # 10 MiB are free, 20 MiB lie in a hole that is too short, 24 MiB are needed.
        client.put(object_id(3), ME, 24 * MIB, stamp(3))
        view = client.get(object_id(3))
        assert (view[0], view[-1]) == (3, 3)
        del view
        node.close()

    in_tmpfs("64m", scene)


def test_a_store_larger_than_the_file_system_is_refused(local_node: Any) -> None:
    def scene(base: str) -> None:
        with pytest.raises(ArenaError, match=r"1 MiB free: set object_store_memory to 0 or less"):
            local_node(base, 4 * MIB)

    in_tmpfs("1m", scene)
