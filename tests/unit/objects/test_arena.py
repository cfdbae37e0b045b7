"""The arena's files: rights, lock, holes, stale directories, sizes."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mray.node.objects import arena as arena_module
from mray.node.objects import directory as directory_module
from mray.node.objects.allocator import ADDRESS_MULTIPLE
from mray.node.objects.arena import (
    PAGE_BYTES,
    Arena,
    ArenaError,
    check_room,
    clean_stale,
    default_capacity,
    free_bytes,
)
from mray.units import GIB, MIB

NODE = "6d0123456789"


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory on a file system with holes."""
    place = tempfile.mkdtemp(prefix="arena-test-", dir="/dev/shm")
    yield Path(place)
    shutil.rmtree(place)


@pytest.fixture
def arena(base: Path) -> Iterator[Arena]:
    made = Arena.make("s1", NODE, 8 * MIB, str(base))
    yield made
    made.close()


def test_files_are_the_users_alone(arena: Arena, base: Path) -> None:
    directory = base / f"mray-{os.getuid()}-s1-6d012345"
    assert arena.path == str(directory / "arena")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "arena").stat().st_mode) == 0o600
    assert stat.S_IMODE((directory / "lock").stat().st_mode) == 0o600


def test_the_file_is_long_and_empty(arena: Arena) -> None:
    assert os.path.getsize(arena.path) == arena.virtual_bytes == 8 * MIB * ADDRESS_MULTIPLE
    assert arena.resident_bytes() == 0


def test_a_capacity_is_rounded_down_to_pages(base: Path) -> None:
    made = Arena.make("s1", NODE, 8 * MIB + 17, str(base))
    assert made.capacity_bytes == 8 * MIB
    made.close()


def test_punched_pages_go_back_and_read_as_zeros(arena: Arena) -> None:
    with open(arena.path, "r+b") as file:
        file.write(b"x" * 4 * MIB)
        file.flush()
        assert arena.resident_bytes() == 4 * MIB
        arena.punch([(0, MIB), (2 * MIB, MIB)])
        assert arena.resident_bytes() == 2 * MIB
        file.seek(MIB - 1)
        assert file.read(2) == b"\0x"


def test_close_leaves_nothing_behind(base: Path) -> None:
    made = Arena.make("s1", NODE, 8 * MIB, str(base))
    made.close()
    made.close()
    assert list(base.iterdir()) == []


def test_a_live_store_is_not_stale(arena: Arena, base: Path) -> None:
    assert clean_stale(str(base)) == []
    assert os.path.exists(arena.path)


def test_a_second_node_of_the_same_name_is_refused(arena: Arena, base: Path) -> None:
    with pytest.raises(ArenaError, match="a node of the same name runs"):
        Arena.make("s1", NODE, 8 * MIB, str(base))
    assert os.path.exists(arena.path)


def test_the_store_of_a_killed_daemon_is_cleared(base: Path) -> None:
    code = (
        "import sys, time; from mray.node.objects.arena import Arena;"
        f"a = Arena.make('s1', {NODE!r}, 1 << 23, {str(base)!r});"
        "print(a.directory, flush=True); time.sleep(60)"
    )
    daemon = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    directory = daemon.stdout.readline().strip()
    assert clean_stale(str(base)) == []
    daemon.send_signal(signal.SIGKILL)
    daemon.communicate()
    assert clean_stale(str(base)) == [directory]
    assert list(base.iterdir()) == []


def test_a_new_store_takes_the_place_of_a_dead_one(base: Path) -> None:
    dead = base / f"mray-{os.getuid()}-s1-6d012345"
    dead.mkdir()
    (dead / "arena").write_bytes(b"old")
    (dead / "lock").touch()
    made = Arena.make("s1", NODE, 8 * MIB, str(base))
    assert made.resident_bytes() == 0
    made.close()


def test_only_what_looks_like_a_store_is_cleared(base: Path) -> None:
    prefix = f"mray-{os.getuid()}-"
    foreign = base / f"{prefix}notes"
    foreign.mkdir()
    (foreign / "letter.txt").write_text("keep")
    (base / f"{prefix}file").write_text("keep")
    (base / f"{prefix}link").symlink_to(foreign)
    (base / "mray-99999-s1-6d012345").mkdir()
    (base / "other").mkdir()
    assert clean_stale(str(base)) == []
    assert len(list(base.iterdir())) == 5
    assert (foreign / "letter.txt").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="changing a directory's owner needs root")
def test_a_directory_of_another_user_is_not_cleared(base: Path) -> None:
    stranger = base / f"mray-{os.getuid()}-s1-6d012345"
    stranger.mkdir()
    os.chown(stranger, 65534, 65534)
    assert clean_stale(str(base)) == []
    with pytest.raises(ArenaError, match="not this user's store"):
        Arena.make("s1", NODE, 8 * MIB, str(base))


def test_a_maker_whose_directory_is_cleared_under_it_makes_it_again(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleared: list[list[str]] = []
    mkdir = os.mkdir

    def mkdir_then_cleared(path: str, mode: int = 0o777) -> None:
        mkdir(path, mode)
        if not cleared:
            cleared.append(clean_stale(str(base)))

    monkeypatch.setattr(directory_module.os, "mkdir", mkdir_then_cleared)
    made = Arena.make("s1", NODE, 8 * MIB, str(base))
    assert cleared == [[made.directory]]
    assert clean_stale(str(base)) == []
    made.close()


def test_a_maker_waits_for_one_who_is_clearing_and_starts_over(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clearer has the lock and has not unlinked it yet when the maker comes to it."""
    flock = fcntl.flock
    clearers: list[threading.Thread] = []
    directory = base / f"mray-{os.getuid()}-s1-6d012345"

    def flock_behind_a_clearer(fd: int, operation: int) -> None:
        if not clearers and operation == fcntl.LOCK_EX:
            held = os.open(directory / "lock", os.O_RDWR)
            flock(held, fcntl.LOCK_EX)

            def clear() -> None:
                (directory / "lock").unlink()
                directory.rmdir()
                os.close(held)

            clearers.append(threading.Thread(target=clear))
            clearers[0].start()
        flock(fd, operation)

    monkeypatch.setattr(directory_module.fcntl, "flock", flock_behind_a_clearer)
    made = Arena.make("s1", NODE, 8 * MIB, str(base))
    clearers[0].join()
    assert os.path.exists(made.path)
    assert clean_stale(str(base)) == []
    made.close()


def test_a_store_larger_than_its_file_system_is_refused_with_the_fix(base: Path) -> None:
    free = free_bytes(str(base))
    with pytest.raises(
        ArenaError, match=r"does not fit in .*set object_store_memory to .* or less"
    ):
        check_room(str(base), free * 2)
    with pytest.raises(ArenaError, match="does not fit"):
        Arena.make("s1", NODE, free * 2, str(base))
    assert list(base.iterdir()) == []


def test_a_store_of_nothing_is_refused(base: Path) -> None:
    with pytest.raises(ArenaError, match="holds nothing"):
        Arena.make("s1", NODE, PAGE_BYTES - 1, str(base))


def test_a_base_that_is_not_there_is_named() -> None:
    with pytest.raises(ArenaError, match="/no/such/place: No such file"):
        Arena.make("s1", NODE, 8 * MIB, "/no/such/place")


def test_a_session_with_a_slash_is_refused(base: Path) -> None:
    with pytest.raises(ArenaError, match="slash"):
        Arena.make("../s1", NODE, 8 * MIB, str(base))


def test_a_file_system_without_holes_is_refused_and_left_clean(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_holes(fd: int, start: int, length: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(arena_module, "punch_hole", no_holes)
    with pytest.raises(ArenaError, match=r"Operation not supported.*sparse files and holes"):
        Arena.make("s1", NODE, 8 * MIB, str(base))
    assert list(base.iterdir()) == []


@pytest.mark.parametrize(
    ("limit", "shm_free", "capacity"),
    [
        (10 * GIB, 10 * GIB, 3 * GIB),
        (10 * GIB, 64 * MIB, 64 * MIB * 9 // 10),
        (10**13, 10**13, 200 * 10**9),
    ],
)
def test_the_default_capacity_fits_memory_and_file_system(
    limit: int, shm_free: int, capacity: int
) -> None:
    assert default_capacity(limit, shm_free) == capacity - capacity % PAGE_BYTES


def test_the_default_capacity_takes_other_shares() -> None:
    assert default_capacity(10 * GIB, 10 * GIB, proportion=0.5) == 5 * GIB
    assert default_capacity(10 * GIB, 10 * GIB, capacity_bytes_max=GIB) == GIB
