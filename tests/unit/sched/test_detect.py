"""What a machine has, read from laid-out /proc and cgroup trees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from mray.config import Config
from mray.node.sched.detect import Machine, look, node_resources, store_capacity
from mray.units import GIB, MIB


class Tree:
    def __init__(self, root: Path) -> None:
        self.proc, self.cgroup = root / "proc", root / "cgroup"
        self.cgroup.mkdir(parents=True)
        self.write(self.proc / "meminfo", "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n")
        self.write(self.proc / "self/cgroup", "0::/\n")

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def look(self, environ: dict[str, str] | None = None, affinity: int = 8) -> Machine:
        return look(
            environ or {},
            proc=str(self.proc), cgroup=str(self.cgroup), shm=str(self.proc), affinity=affinity,
        )  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_without_groups_the_machine_is_the_limit(tree: Tree) -> None:
    found = tree.look()
    assert found.cpu_count == 8
    assert found.memory_total_bytes == 16 * GIB
    assert found.memory_available_bytes == 8 * GIB
    assert found.gpu_count == 0


def test_the_tightest_v2_group_above_us_counts(tree: Tree) -> None:
    tree.write(tree.proc / "self/cgroup", "0::/pod/job\n")
    tree.write(tree.cgroup / "pod/memory.max", f"{2 * GIB}\n")
    tree.write(tree.cgroup / "pod/memory.current", f"{GIB}\n")
    tree.write(tree.cgroup / "pod/memory.stat", f"anon 5\ninactive_file {GIB // 2}\n")
    tree.write(tree.cgroup / "pod/cpu.max", "150000 100000\n")
    tree.write(tree.cgroup / "pod/job/memory.max", "max\n")
    tree.write(tree.cgroup / "pod/job/cpu.max", "max 100000\n")
    found = tree.look()
    assert found.cpu_count == 2
    assert found.memory_total_bytes == 2 * GIB
    assert found.memory_available_bytes == 2 * GIB - GIB // 2


def test_v1_groups_count_where_the_path_is_not_there_the_root_does(tree: Tree) -> None:
    tree.write(tree.proc / "self/cgroup", "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n")
    tree.write(tree.cgroup / "memory/memory.limit_in_bytes", f"{GIB}\n")
    tree.write(tree.cgroup / "memory/memory.usage_in_bytes", f"{GIB}\n")
    tree.write(tree.cgroup / "memory/memory.stat", f"total_inactive_file {GIB // 4}\n")
    tree.write(tree.cgroup / "cpu,cpuacct/cpu.cfs_quota_us", "400000\n")
    tree.write(tree.cgroup / "cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    found = tree.look()
    assert found.memory_total_bytes == GIB
    assert found.memory_available_bytes == GIB // 4
    assert found.cpu_count == 4


def test_a_v1_group_without_limit_does_not_count(tree: Tree) -> None:
    tree.write(tree.proc / "self/cgroup", "4:memory:/\n2:cpu:/\n")
    tree.write(tree.cgroup / "memory/memory.limit_in_bytes", "9223372036854771712\n")
    tree.write(tree.cgroup / "cpu/cpu.cfs_quota_us", "-1\n")
    assert tree.look().memory_total_bytes == 16 * GIB
    assert tree.look().cpu_count == 8


@pytest.mark.parametrize(
    ("visible", "count"), [("0,1", 2), ("", 0), ("-1", 0), ("0,-1,2", 1), ("GPU-ab, GPU-cd", 2)]
)
def test_gpus_are_those_that_cuda_is_shown(tree: Tree, visible: str, count: int) -> None:
    assert tree.look({"CUDA_VISIBLE_DEVICES": visible}).gpu_count == count


MACHINE = Machine(
    cpu_count=4, memory_total_bytes=16 * GIB, memory_available_bytes=10 * GIB,
    shm_free_bytes=8 * GIB, gpu_count=0,
)  # fmt: skip


def test_the_store_takes_its_share_within_shared_memory() -> None:
    assert store_capacity(MACHINE, Config(), None) == 3 * GIB
    tight = Machine(
        cpu_count=4, memory_total_bytes=16 * GIB, memory_available_bytes=10 * GIB,
        shm_free_bytes=GIB, gpu_count=0,
    )  # fmt: skip
    assert store_capacity(tight, Config(), None) == int(GIB * 0.95)
    assert store_capacity(MACHINE, Config(), 100 * MIB) == 100 * MIB
    named = msgspec.structs.replace(Config().object_store, object_store_memory=GIB)
    config = msgspec.structs.replace(Config(), object_store=named)
    assert store_capacity(MACHINE, config, None) == GIB


def test_a_store_that_cannot_be_is_refused_with_numbers() -> None:
    with pytest.raises(ValueError, match=r"9 GiB.*/dev/shm has only 8 GiB"):
        store_capacity(MACHINE, Config(), 9 * GIB)
    with pytest.raises(ValueError, match="at least 75 MiB are needed"):
        store_capacity(MACHINE, Config(), 1000)
    tiny = replace(MACHINE, shm_free_bytes=10 * MIB)
    with pytest.raises(ValueError, match=r"would have 9.5 MiB, at least 16 MiB are needed"):
        store_capacity(tiny, Config(), None)


def test_a_small_dev_shm_makes_a_small_store() -> None:
    small = replace(MACHINE, shm_free_bytes=64 * MIB)
    assert store_capacity(small, Config(), None) == int(64 * MIB * 0.95)


def test_what_the_user_names_comes_before_what_was_found() -> None:
    found = node_resources(
        MACHINE, {"CPU": 1, "gadget": 2.5}, store_bytes=3 * GIB, ip="10.0.0.1", is_head=True
    )
    assert found == {
        "CPU": 10_000,
        "memory": 7 * GIB * 10_000,
        "object_store_memory": 3 * GIB * 10_000,
        "gadget": 25_000,
        "node:10.0.0.1": 10_000,
        "node:__internal_head__": 10_000,
    }
