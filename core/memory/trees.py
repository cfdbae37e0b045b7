"""What each worker has in memory, with all processes it has started.

A tree is a root with its descendants, and with those of its process session, whose ancestors may
have ended: double forks, daemons. Once seen in a tree a process stays in it. One that left the
session and lost its parent before it was ever seen is found by the maker named in its environment.

Private is what killing the tree would free: anonymous pages, each counted by the share that the
process has of it (Pss_Anon), and for a root alone at most its private pages. So neither pages
shared with the zygote, nor the object store, nor mapped files are blamed on a worker, while pages
that a worker shares with its own children are. What shared pages of the zygote add is
at most their size divided by the number of processes that share them.

Cost: smaps_rollup walks all pages of a process (100 us, and some ms a GiB), so it is read when a
process is first seen, and then for one process after the other, within a time per read on average.
Between two looks the figure follows the count of anonymous pages in statm: whatever is new there
is private. The processes of the machine are listed only when the kernel has given a new pid
since, and at most each fourth read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from mray.memory.groups import KeptFile, read_file

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
#: Time for smaps_rollup per read, on average; what one long look takes over is saved up again.
_LOOK_BUDGET_S: Final = 100e-6
#: Reads between two listings of the processes, at least.
_LIST_EVERY: Final = 4
#: Listings after which also those are looked at anew that belonged to nobody: pids are used again.
_FORGET_EVERY: Final = 32
#: Files kept open at most: a daemon's descriptors are few, and are not ours alone.
_KEPT_MAX: Final = 128


class ProcessUsage(msgspec.Struct, frozen=True):
    """A worker's memory in bytes, with all its descendants."""

    pid: int
    #: The root first where it lives; sorted.
    tree_pids: tuple[int, ...]
    private_bytes: int
    #: Resident pages of all, shared ones counted for each.
    rss_bytes: int
    #: When each of tree_pids began, in clock ticks: a pid may have been used again since.
    start_times: tuple[int, ...] = ()


class _Member:
    """A living process of a tree, and its figures at the last look."""

    __slots__ = ("anonymous", "private", "root", "rss", "share", "start_time", "statm")

    def __init__(self, root: int, start_time: int, statm: KeptFile | None) -> None:
        self.root = root
        self.start_time = start_time
        self.statm = statm
        self.rss = 0
        #: Anonymous bytes by statm when private and share were looked at, -1 for never.
        self.anonymous = -1
        self.private = 0
        self.share = 0


class _Found(msgspec.Struct, frozen=True):
    """A line of /proc/<pid>/stat."""

    parent: int
    session: int
    start_time: int


class TreeReader:
    """Reads again and again; not to be shared by threads.

    ``maker_pid(environment)``: the root that the NUL-separated environment of an orphan names, or
    None; asked once about each orphan. ``clock``: seconds, for the cost of looks.
    """

    def __init__(
        self,
        proc: str = "/proc",
        maker_pid: Callable[[bytes], int | None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._proc = proc
        self._maker_pid = maker_pid
        self._clock = clock
        self._members: dict[int, _Member] = {}
        #: Roots asked for at the last read.
        self._roots: set[int] = set()
        #: Processes that belong to no tree.
        self._strangers: set[int] = set()
        self._last_pid = b""
        self._stale = True
        self._reads_since_listing = 0
        self._listings = 0
        self._queue: list[int] = []
        self._credit_s = 0.0

    def read(self, roots: Sequence[int], *, complete: bool = False) -> dict[int, ProcessUsage]:
        """What the trees of ``roots`` have now. One of which nothing lives is left out.

        ``complete``: list the processes whatever it costs, as before a kill; else children
        born since the last few reads may be missing.
        """
        self._find(roots, complete)
        trees: dict[int, list[tuple[int, _Member]]] = {}
        gone = []
        for pid, member in self._members.items():
            if self._measure(pid, member):
                trees.setdefault(member.root, []).append((pid, member))
            else:
                gone.append(pid)
        for pid in gone:
            del self._members[pid]
            self._stale = True  # Its children have another parent now.
        self._look_again()
        return {root: _sum_up(root, trees[root]) for root in roots if root in trees}

    # -- which processes

    def _find(self, roots: Sequence[int], complete: bool) -> None:
        wanted = set(roots)
        if wanted != self._roots:
            self._stale = True
            for pid in [p for p, member in self._members.items() if member.root not in wanted]:
                del self._members[pid]
            # Whoever was in no tree may be in that of a new root.
            self._strangers.clear()
            self._roots = wanted
        self._reads_since_listing += 1
        new_root = not wanted <= self._members.keys() and self._stale
        if complete or new_root or self._reads_since_listing >= _LIST_EVERY:
            last_pid = (read_file(f"{self._proc}/loadavg") or b"").rpartition(b" ")[2]
            if complete or self._stale or last_pid != self._last_pid:
                self._last_pid = last_pid
                self._list()
            self._reads_since_listing = 0

    def _list(self) -> None:
        """Take in the processes that are new."""
        self._stale = False
        self._listings += 1
        if self._listings % _FORGET_EVERY == 0:
            self._strangers.clear()
        pids = {int(name) for name in _listed(self._proc) if name.isdigit()}
        self._strangers &= pids
        self._drop_reused()
        found = {
            pid: stat for pid in pids - self._strangers - self._members.keys()
            if (stat := self._stat(pid)) is not None
        }  # fmt: skip
        for pid, stat in found.items():
            root = self._root_of(pid, found)
            if root is None:
                root = self._made_by(pid, stat)
            if root is None:
                self._strangers.add(pid)
            else:
                path = f"{self._proc}/{pid}/statm"
                kept = KeptFile(path) if len(self._members) < _KEPT_MAX else None
                self._members[pid] = _Member(root, stat.start_time, kept)

    def _drop_reused(self) -> None:
        """Forget members whose pid belongs to another process by now. Roots are the caller's."""
        for pid in [pid for pid, member in self._members.items() if member.root != pid]:
            stat = self._stat(pid)
            if stat is None or stat.start_time != self._members[pid].start_time:
                del self._members[pid]

    def _root_of(self, pid: int, found: dict[int, _Found]) -> int | None:
        """The root above a process, through those that are new as well; None for none."""
        seen = set()
        while pid not in seen:
            seen.add(pid)
            if pid in self._roots:
                return pid
            known = self._members.get(pid)
            if known is not None:
                return known.root
            stat = found.get(pid)
            # Whoever reads is no part of a tree, though the driver may have started it.
            if stat is None or pid == os.getpid():
                return None
            if stat.session in self._roots:
                return stat.session
            pid = stat.parent
        return None

    def _made_by(self, pid: int, stat: _Found) -> int | None:
        if self._maker_pid is None or stat.parent != os.getpid():
            return None
        environment = read_file(f"{self._proc}/{pid}/environ")
        root = self._maker_pid(environment) if environment else None
        return root if root in self._roots else None

    def _stat(self, pid: int) -> _Found | None:
        text = read_file(f"{self._proc}/{pid}/stat")
        if not text:
            return None
        # The name in parentheses may hold anything, a ")" as well.
        fields = text[text.rfind(b")") + 2 :].split()
        if len(fields) < 20 or fields[0] in (b"Z", b"X"):
            return None
        try:
            return _Found(int(fields[1]), int(fields[3]), int(fields[19]))
        except ValueError:
            return None

    # -- how much each has

    def _measure(self, pid: int, member: _Member) -> bool:
        """Bring the figures up to date; False where it has ended."""
        kept = member.statm
        text = kept.read() if kept is not None else read_file(f"{self._proc}/{pid}/statm")
        words = (text or b"").split(None, 3)
        if len(words) < 3 or words[0] == b"0":
            return False
        try:
            member.rss = int(words[1]) * _PAGE_BYTES
            anonymous = member.rss - int(words[2]) * _PAGE_BYTES
        except ValueError:
            return False  # Not what a kernel writes.
        if member.anonymous < 0:
            self._look(pid, member, anonymous)
        elif anonymous != member.anonymous:
            change = anonymous - member.anonymous
            member.private = max(0, member.private + change)
            member.share = max(0, member.share + change)
            member.anonymous = anonymous
        return True

    def _look(self, pid: int, member: _Member, anonymous: int) -> None:
        """Read what is private, by its smaps_rollup."""
        begin = self._clock()
        figures = {
            name: int(words[0])
            for name, _, rest in (
                line.partition(b":")
                for line in (read_file(f"{self._proc}/{pid}/smaps_rollup") or b"").splitlines()
            )
            if name in _LOOKED_AT and (words := rest.split()) and words[0].isdigit()
        }
        self._credit_s -= self._clock() - begin
        member.anonymous = anonymous
        # An old kernel, or not ours to read: statm knows at least which pages are anonymous.
        member.share = figures[b"Pss_Anon"] * 1024 if b"Pss_Anon" in figures else anonymous
        private = [figures[name] for name in _PRIVATE if name in figures]
        member.private = min(member.share, sum(private) * 1024) if private else member.share

    def _look_again(self) -> None:
        """Look at those whose turn it is, as the budget allows."""
        self._credit_s = min(self._credit_s + _LOOK_BUDGET_S, 2 * _LOOK_BUDGET_S)
        if not self._queue:
            self._queue = list(self._members)
        while self._credit_s > 0 and self._queue:
            pid = self._queue.pop()
            if pid in self._members:
                self._members[pid].anonymous = -1
                self._measure(pid, self._members[pid])


_PRIVATE: Final = (b"Private_Clean", b"Private_Dirty", b"Private_Hugetlb")
_LOOKED_AT: Final = frozenset((*_PRIVATE, b"Pss_Anon"))


def _sum_up(root: int, tree: list[tuple[int, _Member]]) -> ProcessUsage:
    tree.sort(key=lambda pair: (pair[0] != root, pair[0]))
    alone = len(tree) == 1
    return ProcessUsage(
        pid=root,
        tree_pids=tuple([pid for pid, _ in tree]),
        # Pages that only a tree shares are the tree's; alone, private is the better figure.
        private_bytes=sum([member.private if alone else member.share for _, member in tree]),
        rss_bytes=sum([member.rss for _, member in tree]),
        start_times=tuple([member.start_time for _, member in tree]),
    )


def _listed(path: str) -> Iterable[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []
