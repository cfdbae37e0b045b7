"""The kernel's own kills for want of memory, seen by its counters."""

from __future__ import annotations

from pathlib import Path

from mray.memory.kernel import OomKills


def test_kernel_kills_are_seen_once_in_any_version_of_groups(tmp_path: Path) -> None:
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    for path, text in (
        (proc / "self/cgroup", "4:memory:/job\n0::/job\n"),
        (proc / "vmstat", "pgfault 5\noom_kill 3\n"),
        (cgroup / "memory/job/memory.oom_control", "under_oom 0\noom_kill 1\n"),
        (cgroup / "job/memory.events", "oom 1\noom_kill 1\n"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    kills = OomKills(str(proc), str(cgroup))
    assert kills.look() == ""
    (cgroup / "job/memory.events").write_text("oom 1\noom_kill 2\n")
    assert "job/memory.events went up by 1" in kills.look()
    assert kills.look() == ""
    (cgroup / "memory/job/memory.oom_control").write_text("oom_kill 3\n")
    assert "memory.oom_control went up by 2" in kills.look()
    (proc / "vmstat").write_text("oom_kill 4\n")
    assert "vmstat" in kills.look()
    assert kills.count == 4


def test_counters_that_vanish_or_say_nonsense_count_nothing(tmp_path: Path) -> None:
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self/cgroup").write_text("0::/job\n")
    (cgroup / "job").mkdir(parents=True)
    events = cgroup / "job/memory.events"
    events.write_text("oom_kill 7\n")
    kills = OomKills(str(proc), str(cgroup))
    for text in ("oom_kill soon\n", "", "oom_kill\n"):
        events.write_text(text)
        assert kills.look() == ""
    events.unlink()
    assert kills.look() == ""
    # It is back with a higher count: whether that was since our last look nobody knows.
    events.write_text("oom_kill 9\n")
    assert kills.look() == ""
    assert kills.count == 0
