"""What workers have in memory with all their descendants: on a laid-out /proc and for real."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from mray.memory import trees
from mray.memory.trees import ProcessUsage, TreeReader
from mray.units import MIB

PAGE = os.sysconf("SC_PAGE_SIZE")


class Table:
    """A /proc of processes with figures in pages; counts the looks at smaps_rollup."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 0.0
        self.listed = 0
        self._fork_count = 0

    def add(
        self, pid: int, parent: int = 1, session: int | None = None, *, anonymous: int = 100,
        shared: int = 40, private: int | None = None, share: int | None = None, start: int = 7,
        environment: bytes = b"",
    ) -> None:  # fmt: skip
        folder = self.root / str(pid)
        folder.mkdir(exist_ok=True)
        session = pid if session is None else session
        stat = f"{pid} (odd) name) S {parent} {pid} {session}{' 0' * 15} {start} 0 0\n"
        (folder / "stat").write_text(stat)
        (folder / "environ").write_bytes(environment)
        self.size(pid, anonymous, shared)
        own = anonymous if private is None else private
        part = own if share is None else share
        k = PAGE // 1024
        (folder / "smaps_rollup").write_text(
            "0-f ---p 00:00 [rollup]\nPss: 9 kB\n"
            f"Pss_Anon: {part * k} kB\nPrivate_Clean: {k} kB\nPrivate_Dirty: {(own - 1) * k} kB\n"
        )
        self._fork_count += 1
        (self.root / "loadavg").write_text(f"0.1 0.2 0.3 1/99 {1000 + self._fork_count}\n")

    def size(self, pid: int, anonymous: int, shared: int = 40) -> None:
        file = self.root / str(pid) / "statm"
        file.write_text(f"9999 {anonymous + shared} {shared} 1 0 7 0\n")

    def move(self, pid: int, parent: int, session: int, start: int = 7) -> None:
        stat = f"{pid} (x) S {parent} {pid} {session}{' 0' * 15} {start} 0 0\n"
        (self.root / str(pid) / "stat").write_text(stat)

    def end(self, pid: int) -> None:
        # A file of /proc that is open says nothing any more once its process is gone.
        (self.root / str(pid) / "statm").write_text("")
        shutil.rmtree(self.root / str(pid))

    def clock(self) -> float:
        return self.now

    def reader(self, maker_pid: Callable[[bytes], int | None] | None = None) -> TreeReader:
        return TreeReader(str(self.root), maker_pid, self.clock)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(tmp_path)


def pages(usage: ProcessUsage) -> tuple[int, int]:
    assert usage.private_bytes % PAGE == usage.rss_bytes % PAGE == 0
    return usage.private_bytes // PAGE, usage.rss_bytes // PAGE


def test_pages_shared_with_others_are_not_blamed_on_a_worker(table) -> None:
    table.add(10, anonymous=100, private=30, share=35)
    table.add(11, anonymous=100, private=80, share=50)
    found = table.reader().read([10, 11])
    assert pages(found[10]) == (30, 140)
    assert pages(found[11]) == (50, 140), "private pages of files are no worker's memory either"
    assert found[10].tree_pids == (10,)
    assert found[10].start_times == (7,)


def test_a_tree_is_its_root_with_all_descendants_and_their_shared_pages(table) -> None:
    table.add(10, private=30, share=60)
    table.add(12, parent=10, session=10, private=5, share=40)
    table.add(5, parent=12, session=5, private=7, share=8)
    table.add(99, parent=1)
    found = table.reader().read([10])
    assert found[10].tree_pids == (10, 5, 12)
    assert pages(found[10]) == (108, 3 * 140)


def test_a_double_forked_grandchild_is_found_by_its_session(table) -> None:
    table.add(10)
    table.add(20, parent=1, session=10)
    table.add(21, parent=20, session=21)
    assert table.reader().read([10])[10].tree_pids == (10, 20, 21)


def test_who_was_seen_in_a_tree_stays_in_it(table) -> None:
    reader = table.reader()
    table.add(10)
    table.add(20, parent=10, session=10)
    assert reader.read([10])[10].tree_pids == (10, 20)
    table.move(20, parent=1, session=20)
    for _ in range(40):
        assert reader.read([10])[10].tree_pids == (10, 20)


def test_an_orphan_in_a_session_of_its_own_is_found_by_its_environment(table) -> None:
    asked = []

    def maker_pid(environment: bytes) -> int | None:
        asked.append(environment)
        return 10 if environment == b"A=1\0MAKER=w10\0" else None

    table.add(10)
    table.add(20, parent=os.getpid(), environment=b"A=1\0MAKER=w10\0")
    table.add(21, parent=os.getpid(), environment=b"A=1\0")
    table.add(22, parent=1, environment=b"A=1\0MAKER=w10\0")
    reader = table.reader(maker_pid)
    assert reader.read([10])[10].tree_pids == (10, 20)
    reader.read([10], complete=True)
    assert sorted(asked) == [b"A=1\0", b"A=1\0MAKER=w10\0"], "each orphan is asked about once"


def test_the_reader_and_what_it_has_started_are_not_its_parents(table) -> None:
    table.add(10)
    table.add(os.getpid(), parent=10, session=10)
    table.add(20, parent=os.getpid())
    table.add(30, parent=20)
    found = table.reader().read([10, 20])
    assert found[10].tree_pids == (10,)
    assert found[20].tree_pids == (20, 30)


def test_children_are_noticed_within_some_reads_and_at_once_when_asked_to(table) -> None:
    reader = table.reader()
    table.add(10)
    reader.read([10])
    table.add(20, parent=10)
    reads = [reader.read([10])[10].tree_pids for _ in range(4)]
    assert reads[-1] == (10, 20)
    table.add(30, parent=20)
    assert reader.read([10], complete=True)[10].tree_pids == (10, 20, 30)


def test_what_has_ended_is_no_longer_counted(table) -> None:
    reader = table.reader()
    table.add(10)
    table.add(20, parent=10, session=10)
    table.add(30)
    assert reader.read([10, 30]).keys() == {10, 30}
    table.end(10)
    table.end(30)
    found = reader.read([10, 30])
    assert found.keys() == {10}
    assert found[10].tree_pids == (20,), "what the dead have left behind is still theirs"
    table.end(20)
    assert reader.read([10, 30]) == {}
    assert reader.read([]) == {}


def test_a_pid_that_was_used_again_leaves_the_tree(table) -> None:
    reader = table.reader()
    table.add(10)
    table.add(20, parent=10)
    assert reader.read([10])[10].tree_pids == (10, 20)
    table.add(20, parent=1, start=9000)
    assert reader.read([10], complete=True)[10].tree_pids == (10,)


def test_growth_between_two_looks_is_private(table) -> None:
    reader = table.reader()
    table.now = 0.0
    table.add(10, anonymous=100, private=30)
    assert pages(reader.read([10])[10])[0] == 30
    reader._credit_s = -1.0  # No looks for now.
    table.size(10, anonymous=1100)
    assert pages(reader.read([10])[10]) == (1030, 1140)
    table.size(10, anonymous=50)
    assert pages(reader.read([10])[10])[0] == 0


def test_looks_stay_within_their_budget_and_reach_everybody(table, monkeypatch) -> None:
    looks: list[int] = []
    read_file = trees.read_file

    def counted(path: str) -> bytes | None:
        if path.endswith("smaps_rollup"):
            looks.append(int(Path(path).parent.name))
            table.now += 200e-6
        return read_file(path)

    monkeypatch.setattr(trees, "read_file", counted)
    workers = list(range(100, 120))
    for pid in workers:
        table.add(pid)
    reader = table.reader()
    reader.read(workers)
    assert sorted(looks) == workers, "everybody is looked at when it is first seen"
    looks.clear()
    for _ in range(200):
        reader.read(workers)
    budget = 200 * trees._LOOK_BUDGET_S / 200e-6
    assert budget * 0.5 < len(looks) <= budget + 1
    assert set(looks) == set(workers)


def test_processes_are_listed_only_when_the_kernel_gave_a_new_pid(table, monkeypatch) -> None:
    listings = []
    monkeypatch.setattr(trees, "_listed", lambda path: listings.append(path) or os.listdir(path))
    table.add(10)
    reader = table.reader()
    for _ in range(20):
        reader.read([10])
    assert len(listings) == 1
    for pid in range(20, 40):
        table.add(pid)
        reader.read([10])
    assert len(listings) == 1 + 20 / 4


@pytest.mark.parametrize("rollup", [None, "", "junk\n", "Pss_Anon: x kB\n", "Rss: 5 kB\n"])
def test_without_smaps_anonymous_pages_are_private(table, rollup) -> None:
    table.add(10, anonymous=100, private=30)
    file = table.root / "10/smaps_rollup"
    file.unlink()
    if rollup is not None:
        file.write_text(rollup)
    assert pages(table.reader().read([10])[10]) == (100, 140)


@pytest.mark.parametrize("name", ["stat", "statm"])
@pytest.mark.parametrize("text", ["", "10", "10 (x) S", "0 0 0", f"1 (x) {'S ' * 30}"])
def test_a_process_that_tells_nonsense_is_left_out(table, name, text) -> None:
    table.add(10)
    table.add(20)
    (table.root / "10" / name).write_text(text)
    assert table.reader().read([10, 20]).keys() == {20}


# -- real processes

WORKER = """
import os, sys, time
common = bytearray(b"x") * (40 << 20)
for _ in range(2):
    if os.fork() == 0:
        if os.fork() == 0:  # Orphaned, in the session of its root.
            mine = bytearray(b"x") * (30 << 20)
            os.write(1, b"up\\n")
            time.sleep(600)
        os._exit(0)
    os.wait()
os.write(1, b"up\\n")
sys.stdin.read()
"""


@pytest.fixture
def worker() -> Iterator[int]:
    """A process of 40 MiB with two orphans of 30 MiB, which share those 40."""
    process = Popen(
        [sys.executable, "-c", WORKER], stdin=PIPE, stdout=PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        assert [process.stdout.readline().strip() for _ in range(3)] == ["up"] * 3
        yield process.pid
    finally:
        os.killpg(process.pid, 9)
        process.communicate()


def test_a_real_tree_counts_each_page_once(worker: int) -> None:
    usage = TreeReader().read([worker])[worker]
    assert len(usage.tree_pids) == 3
    assert usage.tree_pids[0] == worker
    assert 95 * MIB < usage.private_bytes < 125 * MIB
    assert usage.rss_bytes > 170 * MIB


def test_growth_of_a_real_process_is_followed(worker: int) -> None:
    reader = TreeReader()
    before = reader.read([os.getpid()])[os.getpid()]
    assert worker in before.tree_pids
    kept = bytearray(b"x") * (50 * MIB)
    after = reader.read([os.getpid()])[os.getpid()]
    assert 45 * MIB < after.private_bytes - before.private_bytes < 60 * MIB
    assert len(kept) == 50 * MIB
