"""The kernel's own kills for want of memory, by its counters.

So that "killed by the kernel" can be told from "killed by somebody". A counter of one of our groups
is exact (cgroup v1 memory.oom_control, v2 memory.events); the machine's, in /proc/vmstat, covers
groups of other programs too and is the only one where we are in no group. Which process was killed
no counter tells: whoever saw a SIGKILL at that time concludes.
"""

from __future__ import annotations

from mray.memory.groups import groups_of, read_file

_MARK = b"oom_kill "


class OomKills:
    """Counts since it was made. Counters that vanish or cannot be read count nothing."""

    def __init__(self, proc: str = "/proc", cgroup: str = "/sys/fs/cgroup") -> None:
        names = {1: "memory.oom_control", 2: "memory.events"}
        ours = [
            f"{group.path}/{names[group.version]}"
            for group in groups_of("memory", proc=proc, cgroup=cgroup)
        ]
        # Ours first: what they count is the better evidence.
        self._files = [*ours, f"{proc}/vmstat"]
        self._seen = self._read()
        #: Kills counted so far; one that several counters have seen is one.
        self.count = 0

    def look(self) -> str:
        """Evidence of kills since the last look, for people; "" for none."""
        before, self._seen = self._seen, self._read()
        rises = {
            path: count - before[path] for path, count in self._seen.items() if path in before
        }
        self.count += max(0, *rises.values(), 0)
        for path, more in rises.items():
            if more > 0:
                return f"oom_kill of {path} went up by {more}"
        return ""

    def _read(self) -> dict[str, int]:
        counts = {}
        for path in self._files:
            text = read_file(path) or b""
            start = 0 if text.startswith(_MARK) else text.find(b"\n" + _MARK) + 1
            if not start and not text.startswith(_MARK):
                continue
            word = text[start + len(_MARK) :].partition(b"\n")[0].strip()
            if word.isdigit():
                counts[path] = int(word)
        return counts
