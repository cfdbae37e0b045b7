"""Disks that are too small, and nodes that die: errors with numbers, and nothing left behind."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.failure

needs_mounts = pytest.mark.skipif(
    os.getuid() != 0 or shutil.which("unshare") is None,
    reason="mounting a tmpfs in a namespace of its own needs root and unshare",
)

_SMALL_DISK = """
import glob, os, sys, time
import numpy, mray
from mray import current, exceptions

tmpfs = sys.argv[1]
mray.init(num_cpus=1, object_store_memory=75 * 2**20, object_spilling_directory=tmpfs)

def fill():
    refs = []
    try:
        for number in range(100):
            began = time.monotonic()
            refs.append(mray.put(numpy.full(2 * 2**20, number, numpy.uint8)))
    except exceptions.OutOfDiskError as error:
        assert time.monotonic() - began < 5, time.monotonic() - began
        assert "local_fs_capacity_threshold" in str(error), error
        assert "are free" in str(error), error
    else:
        raise AssertionError("the disk held all of it")
    return refs

refs = fill()
# Memory and disk are full: what is on disk has room to come back once somebody lets go.
del refs[-2:]
for number, ref in enumerate(refs):
    assert (mray.get(ref) == number).all()
log_dir = current.get().node.log_dir
lines = [line for line in open(f"{log_dir}/raylet.out") if "objects are" in line]
lines = [line for line in lines if "is a tmpfs" not in line]
assert 1 <= len(lines) <= 3, lines
del refs, ref
give_up_at = time.monotonic() + 10
while glob.glob(f"{tmpfs}/*/*.spill") and time.monotonic() < give_up_at:
    time.sleep(0.01)
assert not glob.glob(f"{tmpfs}/*/*.spill")
# Without a restart, once there is room again.
again = [mray.put(numpy.full(2 * 2**20, number, numpy.uint8)) for number in range(45)]
assert [int(mray.get(ref)[7]) for ref in again] == list(range(45))
mray.shutdown()
assert os.listdir(tmpfs) == []
print("done")
"""

_KILLED_NODE = """
import os, signal, sys
import numpy, mray
from mray import current

mray.init(num_cpus=1, object_store_memory=75 * 2**20, object_spilling_directory=sys.argv[1])
if len(sys.argv) > 2:
    refs = [mray.put(numpy.zeros(6 * 2**20, numpy.uint8)) for _ in range(20)]
    os.kill(current.get().node.pid, signal.SIGKILL)
    os._exit(0)
mray.shutdown()
"""


def run(code: str, *arguments: str, prefix: tuple[str, ...] = ()) -> str:
    done = subprocess.run(
        [*prefix, sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_mounts
def test_a_disk_that_is_too_small_fails_the_put_and_works_again_when_there_is_room(
    tmp_path: Path,
) -> None:
    mount = 'mount -t tmpfs -o size=60m none "$0" && exec "$@"'
    prefix = ("unshare", "-m", "sh", "-c", mount, str(tmp_path))
    assert "done" in run(_SMALL_DISK, str(tmp_path), prefix=prefix)


def test_what_a_killed_node_spilled_is_removed_by_the_next_start(tmp_path: Path) -> None:
    run(_KILLED_NODE, str(tmp_path), "kill")
    assert glob.glob(f"{tmp_path}/*/*.spill")
    run(_KILLED_NODE, str(tmp_path))
    assert os.listdir(tmp_path) == []


_SHARED_MEMORY_FILLS_UP = """
import os, sys, threading, time
import numpy, mray
from mray import exceptions

mray.init(num_cpus=2, object_store_memory=90 * 2**20)

@mray.remote
def make(number):
    return numpy.full(2**20, number % 251, numpy.uint8)

def use(first):
    made, refused = [], 0
    for number in range(first, first + 60):
        value = numpy.full(2**20, number % 251, numpy.uint8)
        made.append((number, mray.put(value) if number % 2 else make.remote(number)))
    for number, ref in made:
        try:
            value = mray.get(ref, timeout=30)
            assert value[0] == value[-1] == number % 251, number
        except exceptions.ObjectStoreFullError:
            refused += 1
    return refused

assert use(0) == 0
# Another program takes all that is left, in the middle of the work.
stop = threading.Event()
def fill():
    with open("/dev/shm/of-somebody-else", "wb", buffering=0) as file:
        while not stop.is_set():
            try:
                file.write(bytes(2**20))
            except OSError:
                time.sleep(0.01)
filler = threading.Thread(target=fill, daemon=True)
filler.start()
began = time.monotonic()
for turn in range(3):
    assert use(100 * turn) == 0
print("took", time.monotonic() - began)
stop.set()
filler.join()
os.unlink("/dev/shm/of-somebody-else")
assert use(7) == 0
mray.shutdown()
print("done", os.listdir("/dev/shm"))
"""

_STORE_LARGER_THAN_WHAT_IS_ASKED = """
import os, sys
import numpy, mray
from mray import exceptions

mray.init(num_cpus=1)
value = numpy.full(100 * 2**20, 7, numpy.uint8)
try:
    ref = mray.put(value)
    assert (mray.get(ref) == 7).all()
    print("stored")
except exceptions.ObjectStoreFullError as error:
    assert "larger than the whole" in str(error), error
    print("refused")
mray.shutdown()
"""


def small_shm(size: str) -> tuple[str, ...]:
    mount = f'mount -t tmpfs -o size={size} none /dev/shm && exec "$0" "$@"'
    return ("unshare", "-m", "sh", "-c", mount)


@needs_mounts
def test_another_program_that_fills_shared_memory_stops_nobody() -> None:
    out = run(_SHARED_MEMORY_FILLS_UP, prefix=small_shm("100m"))
    assert out.endswith("done []\n")


@needs_mounts
@pytest.mark.parametrize(("spilling", "outcome"), [("1", "stored"), ("0", "refused")])
def test_an_object_larger_than_a_small_shared_memory_goes_to_disk_or_is_refused(
    spilling: str, outcome: str
) -> None:
    setting = ("env", f"RAY_automatic_object_spilling_enabled={spilling}")
    done = subprocess.run(
        [*setting, *small_shm("64m"), sys.executable, "-c", _STORE_LARGER_THAN_WHAT_IS_ASKED],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, f"{outcome}\n"), done.stderr
    assert "WARNING" not in done.stderr
