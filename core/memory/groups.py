"""Which cgroups this process is in, as directories, from its own up to the highest one visible.

Covers: versions 1 and 2 and both at once, mounts that show only a part of the hierarchy (containers
with the host's or their own cgroup namespace), paths that are not there. Reads no limit. ``proc``
and ``cgroup`` are parameters so that tests can lay out any machine; mount points below
/sys/fs/cgroup are looked for below ``cgroup``.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

_STANDARD_ROOT: Final = "/sys/fs/cgroup"


class Group(NamedTuple):
    """One directory. ``partial``: groups above the highest one may exist that we cannot see."""

    path: str
    version: int
    partial: bool


class _Mount(NamedTuple):
    """``root`` is the group that ``point`` shows, as /proc/self/cgroup would name it."""

    root: str
    point: str


def read_file(path: str) -> bytes | None:
    """The bytes of a small kernel file; None where it cannot be read.

    A controller that is not there, another version and another user's file are all alike here:
    the caller falls back and says so.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = os.read(descriptor, 65536)
    except OSError:
        return None  # ENODEV: the group was removed between the two calls.
    finally:
        os.close(descriptor)
    return data


class KeptFile:
    """A kernel file that is read again and again; kept open, because opening is what costs.

    Closed with the object. Reading one whose group or process is gone gives None for ever, also
    where another has its name by then.
    """

    __slots__ = ("_descriptor", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._descriptor = -1

    @property
    def is_open(self) -> bool:
        """False where it could not be opened, or was lost at a read."""
        return self._descriptor >= 0

    def read(self) -> bytes | None:
        """What it says now; None where it cannot be read."""
        if self._descriptor < 0:
            return None
        try:
            return os.pread(self._descriptor, 16384, 0)
        except OSError:
            self.close()
            return None

    def close(self) -> None:
        """Give the descriptor back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    __del__ = close


def groups_of(
    controller: str, *, proc: str = "/proc", cgroup: str = _STANDARD_ROOT
) -> list[Group]:
    """Our groups that may limit ``controller`` ("memory", "cpu"), the innermost first.

    Where both versions are mounted, groups of both are told: only files show who has a controller.
    """
    mounts = _mounts(proc, cgroup)
    found: dict[str, Group] = {}
    text = (read_file(f"{proc}/self/cgroup") or b"").decode("utf-8", "replace")
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            version, key = 2, ""
            usual = [f"{cgroup}/unified", cgroup]
        elif controller in controllers.split(","):
            version, key = 1, controller
            usual = [f"{cgroup}/{controllers}", f"{cgroup}/{controller}"]
        else:
            continue
        known = mounts.get(key) or [_Mount("/", point) for point in usual]
        for mount in known:
            chain = _chain(mount, path, version)
            if chain:
                found.update((group.path, group) for group in chain)
                break  # The two usual names of a v1 root are links to the same.
    return list(found.values())


def _chain(mount: _Mount, path: str, version: int) -> list[Group]:
    """The groups from ``path`` up to the mount's root that exist, the innermost first."""
    if not os.path.isdir(mount.point):
        return []
    # In a container the path may be the host's, or lead out of our namespace ("/../x"): of such a
    # path only the mount's root is known to be ours or above us.
    root = mount.root.rstrip("/")
    inside = path[len(root) :] if path == root or path.startswith(f"{root}/") else ""
    parts = [part for part in inside.split("/") if part]
    if ".." in parts:
        parts = []
    directories = [
        "/".join([mount.point, *parts[:length]]) for length in range(len(parts), -1, -1)
    ]
    return [
        Group(directory, version, bool(root)) for directory in directories
        if os.path.isdir(directory)
    ]  # fmt: skip


def _mounts(proc: str, cgroup: str) -> dict[str, list[_Mount]]:
    """Where each v1 controller ("" for version 2) is mounted. Empty where nothing tells."""
    found: dict[str, list[_Mount]] = {}
    text = (_read_all(f"{proc}/self/mountinfo") or b"").decode("utf-8", "replace")
    for line in text.splitlines():
        left, separator, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if not separator or len(fields) < 5 or len(kind) < 3:
            continue
        root, point = _plain(fields[3]), _plain(fields[4])
        if point == _STANDARD_ROOT or point.startswith(f"{_STANDARD_ROOT}/"):
            point = cgroup + point[len(_STANDARD_ROOT) :]
        mount = _Mount(root, point)
        if kind[0] == "cgroup2":
            found.setdefault("", []).append(mount)
        elif kind[0] == "cgroup":
            for name in kind[2].split(","):
                found.setdefault(name, []).append(mount)
    return found


def _read_all(path: str) -> bytes | None:
    """As read_file, of any length: a machine may have thousands of mounts."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def _plain(text: str) -> str:
    """A path of mountinfo, which writes blanks and the like as octal escapes."""
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escape, character)
    return text
