"""Spilling to a place that fsspec opens by URL: s3://, gs://, sftp:// and what else is installed.

Owns <url>/mray-<uid>-<session>-<node>/ and the file in it that says whose it is. Does not know
objects (files.py) or threads (spill_pool.py), in which reading and writing run.

There are no locks at a URL. What a killed node leaves is removed by who can tell that the owner's
process is dead: another node of its cluster on the same machine (remains.py), or the next start
there with the same URL. A node of another machine, or of this one before it was started anew, may
be alive for all that anybody can tell: its files stay until somebody, or a rule of the storage,
removes them.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
from typing import Any

from mray.node.objects.directory import SPILL_SUFFIX, ArenaError, directory_name
from mray.node.objects.disks import Pieces
from mray.process import alive, start_time_of

log = logging.getLogger(__name__)

OWNER_NAME = "owner.json"
_REMOVE_ATTEMPTS = 10
#: File systems of fsspec that cannot hold what a node has to find again, and why.
_REFUSED = {
    "memory": "its files are in the memory that spilling is to spare",
    "http": "it cannot be written to",
    "https": "it cannot be written to",
    "data": "it cannot be written to",
}


class RemoteDisk:
    """A place that fsspec opens by URL (s3://bucket/prefix). ArenaError where that cannot be."""

    def __init__(self, url: str, session: str, node: str) -> None:
        why_not = _REFUSED.get(url.split("://", 1)[0])
        if why_not is not None:
            raise ArenaError(
                f"objects cannot be spilled to {url}: {why_not}. Set another "
                "object_spilling_directory"
            )
        try:
            fsspec = importlib.import_module("fsspec")
        except ImportError as error:
            raise ArenaError(
                f"spilling to {url} needs the package fsspec: pip install 'mray[spill]', or set "
                "object_spilling_directory to a local directory"
            ) from error
        try:
            self._fs, root = fsspec.core.url_to_fs(url)
            self.path = url
            self._root = f"{root.rstrip('/')}/{directory_name(session, node)}"
            self._fs.makedirs(root, exist_ok=True)
            self._clean_stale(root)
            self._fs.makedirs(self._root, exist_ok=True)
            self._fs.pipe_file(f"{self._root}/{OWNER_NAME}", json.dumps(_myself()).encode())
        except Exception as error:
            # Any plug-in may raise anything here: an unknown scheme, a missing one, no rights.
            raise ArenaError(f"objects cannot be spilled to {url}: {error}") from error

    def write(self, number: int, size: int, pieces: Pieces) -> None:
        """See Storage."""
        name = self._name(number)
        done = 0
        try:
            with self._fs.open(name, "wb") as file:
                for at, piece in pieces:
                    if at > done:
                        file.write(bytes(at - done))
                    file.write(bytes(piece))
                    done = at + len(piece)
        except BaseException:
            self.delete(number)
            raise

    def read(self, number: int, at: int, buffer: memoryview) -> None:
        """See Storage."""
        data: Any = self._fs.cat_file(self._name(number), start=at, end=at + len(buffer))
        if len(data) != len(buffer):
            raise EOFError(f"{self._name(number)} ends at {at + len(data)}")
        buffer[:] = data

    def delete(self, number: int) -> None:
        """See Storage."""
        try:
            self._fs.rm_file(self._name(number))
        except FileNotFoundError:
            return

    def punch(self, number: int, at: int, size: int) -> None:
        """Not possible: the file goes with its last object."""

    def close(self) -> None:
        """See Storage."""
        try:
            self._fs.rm(self._root, recursive=True)
        except FileNotFoundError:
            return

    def _clean_stale(self, root: str) -> None:
        """Remove what nodes of this user left here that ran on this machine and are dead."""
        prefix = directory_name("", "").rstrip("-")
        self._fs.invalidate_cache()
        for path in self._fs.ls(root, detail=False):
            if not path.rstrip("/").rsplit("/", 1)[-1].startswith(f"{prefix}-"):
                continue
            _clear(self._fs, path)

    def _name(self, number: int) -> str:
        return f"{self._root}/{number}{SPILL_SUFFIX}"


def clear(url: str, session: str, node: str) -> bool:
    """Remove what a node has spilled to ``url`` if it is known to be dead, whether or not we spill
    there; whether nothing is left of it. May raise whatever fsspec and its plug-ins do."""
    fs, root = importlib.import_module("fsspec").core.url_to_fs(url)
    path = f"{root.rstrip('/')}/{directory_name(session, node)}"
    fs.invalidate_cache()
    return _clear(fs, path) or not fs.exists(path)


def _clear(fs: Any, path: str) -> bool:  # Any: fsspec has no types
    """Remove the directory of a node that is known to be dead; whether it was that."""
    try:
        owner = json.loads(fs.cat_file(f"{path}/{OWNER_NAME}"))
    except (FileNotFoundError, ValueError):
        return False  # Nobody knows whose it is.
    if not _is_dead(owner):
        return False
    for _ in range(_REMOVE_ATTEMPTS):
        try:
            fs.rm(path, recursive=True)
        except FileNotFoundError:
            fs.invalidate_cache()
            if not fs.exists(path):
                break  # Another node was faster; or it is at it, and each took files of the other.
        else:
            log.info("removed what a dead node had spilled to %s", path)
            break
    return True


def _myself() -> dict[str, Any]:  # Any: JSON
    """This process, as others on this machine can recognize it: a number means something only in
    its namespace, and until the machine starts again."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()
    pid = os.getpid()
    return {
        "boot": boot,
        "namespace": os.readlink("/proc/self/ns/pid"),
        "pid": pid,
        "start_time": start_time_of(pid),
    }


def _is_dead(owner: Any) -> bool:  # Any: JSON
    """Whether an owner is known to be dead: of another machine, nothing is."""
    me = _myself()
    if not isinstance(owner, dict) or owner.keys() != me.keys():
        return False
    if (owner["boot"], owner["namespace"]) != (me["boot"], me["namespace"]):
        return False
    return not alive(owner["pid"], owner["start_time"])
