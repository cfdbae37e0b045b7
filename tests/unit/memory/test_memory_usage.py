"""The one reading of memory, on laid-out machines and in a real group."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from mray.memory.usage import MemoryReader, MemoryReading, read_memory
from mray.units import GIB, MIB

NONE_IN_V1 = "9223372036854771712"
MOUNT_V1 = "35 31 0:32 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
MOUNT_V2 = "35 31 0:32 {root} /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"


class Tree:
    """A machine of 16 GiB, half of it free, that is in no group yet."""

    def __init__(self, root: Path) -> None:
        self.proc, self.cgroup = root / "proc", root / "cgroup"
        self.cgroup.mkdir(parents=True)
        self.write(
            "proc/meminfo",
            f"MemTotal: {16 * MIB} kB\nMemFree: {2 * MIB} kB\nMemAvailable: {8 * MIB} kB\n"
            f"Buffers: 0 kB\nCached: {7 * MIB} kB\nShmem: {MIB} kB\n"
            "SwapTotal: 2048 kB\nSwapFree: 1024 kB\n",
        )

    def write(self, path: str, text: str) -> None:
        file = self.proc.parent / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def v1(self, group: str, limit: str | int, used: str | int = 0, stat: str = "") -> None:
        self.write(f"cgroup/{group}/memory.limit_in_bytes", f"{limit}\n")
        self.write(f"cgroup/{group}/memory.usage_in_bytes", f"{used}\n")
        default = "inactive_file 1\nactive_file 1\ntotal_inactive_file 0\ntotal_active_file 0\n"
        self.write(f"cgroup/{group}/memory.stat", stat or default)

    def v2(self, group: str, limit: str | int, used: str | int = 0, stat: str = "") -> None:
        self.write(f"cgroup/{group}/memory.max", f"{limit}\n")
        self.write(f"cgroup/{group}/memory.current", f"{used}\n")
        self.write(f"cgroup/{group}/memory.stat", stat or "inactive_file 0\nactive_file 0\n")

    def remove(self, group: str) -> None:
        for file in (self.cgroup / group).glob("memory.*"):
            # A file of a group that is open says nothing any more once its group is gone.
            file.write_text("")
            file.unlink()

    def reader(self) -> MemoryReader:
        return MemoryReader(proc=str(self.proc), cgroup=str(self.cgroup))

    def read(self) -> MemoryReading:
        return read_memory(proc=str(self.proc), cgroup=str(self.cgroup))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def is_host(reading: MemoryReading) -> bool:
    figures = (reading.used_bytes, reading.limit_bytes, reading.available_bytes)
    return figures == (8 * GIB, 16 * GIB, 8 * GIB)


# Each lays out a machine; the reading has to be (used, limit) and name the file, or the host's.


def v1_limited(tree: Tree) -> tuple[int, int, str]:
    tree.write("proc/self/cgroup", "4:memory:/job\n3:cpu:/\n")
    stat = "cache 9\ntotal_inactive_file 100\ntotal_active_file 10\ntotal_swap 5\n"
    tree.v1("memory/job", GIB, 5000, f"inactive_file 7\nactive_file 7\n{stat}")
    tree.v1("memory", NONE_IN_V1, 9000)
    return 4890, GIB, "cgroup v1 {}/memory/job/memory.limit_in_bytes"


def v2_limited(tree: Tree) -> tuple[int, int, str]:
    tree.write("proc/self/cgroup", "0::/job\n")
    tree.v2("job", GIB, 5000, "anon 3\nfile 8\ninactive_file 100\nactive_file 10\n")
    return 4890, GIB, "cgroup v2 {}/job/memory.max"


def hybrid(tree: Tree) -> tuple[int, int, str]:
    tree.write("proc/self/cgroup", "4:cpu,memory:/job\n1:name=systemd:/\n0::/job\n")
    tree.v1("cpu,memory/job", GIB, 700)
    tree.write("cgroup/unified/job/cgroup.procs", "")
    return 700, GIB, "cgroup v1 {}/cpu,memory/job/memory.limit_in_bytes"


def slurm(tree: Tree) -> tuple[int, int, str]:
    """The limit is the job's; step and task have none, the node has a larger one."""
    tree.write("proc/self/cgroup", "4:memory:/slurm/uid_7/job_9/step_0/task_0\n")
    tree.v1("memory/slurm", 12 * GIB, 11 * GIB)
    tree.v1("memory/slurm/uid_7", NONE_IN_V1, 10 * GIB)
    tree.v1("memory/slurm/uid_7/job_9", 4 * GIB, 3 * GIB)
    tree.v1("memory/slurm/uid_7/job_9/step_0", NONE_IN_V1, 2 * GIB)
    tree.v1("memory/slurm/uid_7/job_9/step_0/task_0", NONE_IN_V1, GIB)
    return 3 * GIB, 4 * GIB, "cgroup v1 {}/memory/slurm/uid_7/job_9/memory.limit_in_bytes"


def equal_limits(tree: Tree) -> tuple[int, int, str]:
    """The outer one is nearer to its end: others are in it too."""
    tree.write("proc/self/cgroup", "0::/pod/container\n")
    tree.v2("pod", GIB, 900)
    tree.v2("pod/container", GIB, 500)
    return 900, GIB, "cgroup v2 {}/pod/memory.max"


def docker_with_the_hosts_namespace(tree: Tree) -> tuple[int, int, str]:
    tree.write("proc/self/cgroup", "4:memory:/docker/abc\n")
    tree.write("proc/self/mountinfo", MOUNT_V1.format(root="/docker/abc"))
    tree.v1("memory", GIB, 300)
    return 300, GIB, "cgroup v1 {}/memory/memory.limit_in_bytes"


def a_group_in_a_docker_group(tree: Tree) -> tuple[int, int, str]:
    tree.write("proc/self/cgroup", "0::/docker/abc/job\n")
    tree.write("proc/self/mountinfo", MOUNT_V2.format(root="/docker/abc"))
    tree.v2("", 2 * GIB, 300)
    tree.v2("job", GIB, 200)
    return 200, GIB, "cgroup v2 {}/job/memory.max"


def docker_with_a_namespace_of_its_own(tree: Tree) -> tuple[int, int, str]:
    tree.write("proc/self/cgroup", "0::/\n")
    tree.write("proc/self/mountinfo", "junk\n1 2 - x\n" + MOUNT_V2.format(root="/"))
    tree.v2("", GIB, 300)
    return 300, GIB, "cgroup v2 {}/memory.max"


def a_path_that_leads_out_of_the_namespace(tree: Tree) -> tuple[int, int, str]:
    tree.write("proc/self/cgroup", "0::/../other\n")
    tree.write("proc/self/mountinfo", MOUNT_V2.format(root="/"))
    tree.v2("", GIB, 300)
    return 300, GIB, "cgroup v2 {}/memory.max"


def a_tighter_group_out_of_sight(tree: Tree) -> tuple[int, int, str]:
    tree.write("proc/self/cgroup", "4:memory:/docker/abc\n")
    tree.write("proc/self/mountinfo", MOUNT_V1.format(root="/docker/abc"))
    stat = f"hierarchical_memory_limit {GIB}\ntotal_inactive_file 1\ntotal_active_file 2\n"
    tree.v1("memory", NONE_IN_V1, 300, stat)
    return 297, GIB, "cgroup v1 {}/memory/memory.limit_in_bytes"


def cache_above_usage(tree: Tree) -> tuple[int, int, str]:
    tree.write("proc/self/cgroup", "0::/job\n")
    tree.v2("job", GIB, 50, "inactive_file 40\nactive_file 20\n")
    return 0, GIB, "cgroup v2 {}/job/memory.max"


@pytest.mark.parametrize(
    "lay_out",
    [
        v1_limited, v2_limited, hybrid, slurm, equal_limits, docker_with_the_hosts_namespace,
        a_group_in_a_docker_group, docker_with_a_namespace_of_its_own,
        a_path_that_leads_out_of_the_namespace, a_tighter_group_out_of_sight, cache_above_usage,
    ],
)  # fmt: skip
def test_the_tightest_group_above_us_is_the_limit_and_its_usage_counts(tree, lay_out) -> None:
    used, limit, source = lay_out(tree)
    reading = tree.read()
    assert (reading.used_bytes, reading.limit_bytes) == (used, limit)
    assert reading.source == source.format(tree.cgroup)
    assert (reading.total_bytes, reading.available_bytes) == (16 * GIB, 8 * GIB)


@pytest.mark.parametrize(
    ("own", "version", "limit"),
    [
        ("4:memory:/job\n", 1, NONE_IN_V1),
        ("4:memory:/job\n", 1, 16 * GIB),
        ("4:memory:/job\n", 1, 64 * GIB),
        ("0::/job\n", 2, "max"),
        ("0::/job\n", 2, 16 * GIB),
        ("0::/elsewhere\n", 2, "max"),
        ("", 2, 1000),
        ("4:cpu:/job\n", 1, 1000),
        ("junk\n::\n:\n\n4:memory\n", 2, 1000),
    ],
)
def test_without_a_tighter_group_the_machine_is_the_limit(tree, own, version, limit) -> None:
    tree.write("proc/self/cgroup", own)
    if version == 1:
        tree.v1("memory/job", limit, 300)
    else:
        tree.v2("job", limit, 300)
    reading = tree.read()
    assert is_host(reading)
    assert reading.source == f"{tree.proc}/meminfo"
    assert (reading.cache_bytes, reading.swap_used_bytes) == (6 * GIB, MIB)
    assert reading.free_bytes == 8 * GIB


@pytest.mark.parametrize("text", ["", "-1", "0", "soon", "12 34", "1.5", "\N{SUPERSCRIPT TWO}"])
def test_a_limit_that_is_none_is_left_out_and_named(tree, text) -> None:
    tree.write("proc/self/cgroup", "0::/pod/job\n")
    tree.v2("pod", 2 * GIB, 300)
    tree.v2("pod/job", text, 100)
    reading = tree.read()
    assert (reading.used_bytes, reading.limit_bytes) == (300, 2 * GIB)
    assert f"{tree.cgroup}/pod/job/memory.max says" in reading.source


def test_a_usage_that_is_none_makes_the_next_tightest_group_count(tree) -> None:
    tree.write("proc/self/cgroup", "0::/pod/job\n")
    tree.v2("pod", 2 * GIB, 300)
    tree.v2("pod/job", GIB, "much")
    reading = tree.read()
    assert (reading.used_bytes, reading.limit_bytes) == (300, 2 * GIB)
    assert f"{tree.cgroup}/pod/job/memory.current says" in reading.source
    (tree.cgroup / "pod/memory.current").unlink()
    assert is_host(tree.read())


@pytest.mark.parametrize("stat", ["x\n", "inactive_file 40\n", "inactive_file a\nactive_file 1\n"])
def test_file_cache_that_is_not_told_counts_as_used(tree, stat) -> None:
    tree.write("proc/self/cgroup", "0::/job\n")
    tree.v2("job", GIB, 100, stat)
    reading = tree.read()
    assert reading.used_bytes == 100 - reading.cache_bytes
    assert "does not tell all file cache" in reading.source


def test_swap_is_told_beside_what_is_used(tree) -> None:
    tree.write("proc/self/cgroup", "0::/job\n")
    tree.v2("job", GIB, 100)
    tree.write("cgroup/job/memory.swap.current", "77\n")
    assert (tree.read().used_bytes, tree.read().swap_used_bytes) == (100, 77)
    v1_limited(tree)
    assert tree.read().swap_used_bytes == 5


def test_limits_and_usage_are_read_anew_each_time(tree) -> None:
    tree.write("proc/self/cgroup", "0::/job\n")
    tree.v2("job", "max", 100)
    reader = tree.reader()
    assert is_host(reader.read())
    tree.v2("job", GIB, 200)
    assert (reader.read().limit_bytes, reader.read().used_bytes) == (GIB, 200)
    tree.v2("job", 2 * GIB, 300)
    assert (reader.read().limit_bytes, reader.read().used_bytes) == (2 * GIB, 300)
    tree.v2("job", "max")
    assert is_host(reader.read())


def test_groups_that_vanish_are_looked_up_again(tree) -> None:
    tree.write("proc/self/cgroup", "0::/pod/job\n")
    tree.v2("pod", 2 * GIB, 300)
    tree.v2("pod/job", GIB, 100)
    reader = tree.reader()
    assert reader.read().limit_bytes == GIB
    tree.remove("pod/job")
    assert (reader.read().limit_bytes, reader.read().used_bytes) == (2 * GIB, 300)
    tree.remove("pod")
    assert is_host(reader.read())


def test_a_process_that_is_moved_to_another_group_is_noticed(tree) -> None:
    tree.write("proc/self/cgroup", "0::/a\n")
    tree.v2("a", 2 * GIB)
    tree.v2("b", GIB)
    reader = tree.reader()
    tree.write("proc/self/cgroup", "0::/b\n")
    assert GIB in {reader.read().limit_bytes for _ in range(100)}


@pytest.mark.parametrize("text", ["", "MemTotal:\n", "MemTotal: many kB\n", "MemTotal: 0 kB\n"])
def test_without_a_total_the_system_is_asked(tree, text) -> None:
    tree.write("proc/meminfo", text)
    reading = tree.read()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert reading.limit_bytes == reading.total_bytes == pages
    assert "does not tell MemTotal" in reading.source


def test_without_memavailable_free_memory_and_file_cache_are_available(tree) -> None:
    text = (tree.proc / "meminfo").read_text()
    tree.write("proc/meminfo", text.replace("MemAvailable", "MemWhatever"))
    reading = tree.read()
    assert reading.available_bytes == 8 * GIB  # 2 free, 7 cached, of which 1 is shared memory.
    assert "without MemAvailable" in reading.source


def test_a_machine_without_proc_is_read_all_the_same(tmp_path: Path) -> None:
    reading = read_memory(proc=str(tmp_path / "no"), cgroup=str(tmp_path / "no"))
    assert 0 < reading.used_bytes < reading.limit_bytes


# -- a real group

V1_ROOT = Path("/sys/fs/cgroup/memory")
CHILD = """
import sys
from mray.memory.usage import MemoryReader
reader = MemoryReader()
kept = []
for line in sys.stdin:
    word, _, rest = line.strip().partition(" ")
    if word == "cache":
        with open(rest, "rb", buffering=0) as file:
            while file.read(1 << 20):
                pass
    elif word == "take":
        kept.append(bytearray(b"x") * int(rest))
    reading = reader.read()
    print(reading.used_bytes, reading.limit_bytes, reading.cache_bytes, reading.source, flush=True)
"""


@pytest.fixture
def group() -> Iterator[Path]:
    """A v1 group of 256 MiB of our own."""
    path = V1_ROOT / f"mray-test-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no group can be made in {V1_ROOT}: {error}")
    try:
        (path / "memory.limit_in_bytes").write_text(str(256 * MIB))
        yield path
    finally:
        path.rmdir()


def test_in_a_real_group_file_cache_is_not_used_memory_and_an_array_is(
    group: Path, tmp_path: Path
) -> None:
    big = tmp_path / "big"
    with open(big, "wb") as file:
        file.writelines(b"x" * MIB for _ in range(80))
        os.fsync(file.fileno())
        # Not in memory yet, or it would be charged to the group that has written it.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    child = Popen([sys.executable, "-c", CHILD], stdin=PIPE, stdout=PIPE, text=True)
    overdue = threading.Timer(60, lambda: child.send_signal(signal.SIGKILL))
    overdue.start()
    try:
        (group / "cgroup.procs").write_text(str(child.pid))
        assert child.stdin is not None
        assert child.stdout is not None

        def ask(line: str) -> tuple[int, int, int, str]:
            print(line, file=child.stdin, flush=True)
            used, limit, cache, source = child.stdout.readline().strip().split(" ", 3)
            return int(used), int(limit), int(cache), source

        used, limit, cache, source = ask("read")
        assert limit == 256 * MIB
        assert source == f"cgroup v1 {group}/memory.limit_in_bytes"
        after_cache, _, more_cache, _ = ask(f"cache {big}")
        assert more_cache - cache > 60 * MIB
        assert abs(after_cache - used) <= limit // 100
        after_array, *_ = ask(f"take {100 * MIB}")
        assert 95 * MIB < after_array - after_cache < 110 * MIB
        # A limit that changes while it runs.
        (group / "memory.limit_in_bytes").write_text(str(192 * MIB))
        assert ask("read")[1] == 192 * MIB
    finally:
        overdue.cancel()
        child.kill()
        child.communicate()


def test_a_real_group_that_is_removed_and_made_again_is_read_again(
    group: Path, tmp_path: Path
) -> None:
    own = tmp_path / "self/cgroup"
    own.parent.mkdir()
    own.write_text(f"4:memory:/{group.name}/inner\n")
    (tmp_path / "meminfo").write_text("MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n")
    inner = group / "inner"
    reader = MemoryReader(proc=str(tmp_path))
    assert reader.read().limit_bytes == 256 * MIB
    for limit in (64 * MIB, 32 * MIB):
        inner.mkdir()
        try:
            (inner / "memory.limit_in_bytes").write_text(str(limit))
            reader = reader if limit == 32 * MIB else MemoryReader(proc=str(tmp_path))
            assert reader.read().limit_bytes == limit
        finally:
            inner.rmdir()
    assert reader.read().limit_bytes == 256 * MIB
