"""From an environment as the user wrote it to one that every node can make: packages uploaded.

Covers: packing what is local, asking the head whether it has it, sending it in pieces, the names in
its place. Used by drivers, workers and `mray submit`, each with its own way to ask the head. Does
not check fields (runtime_env.py).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, Final

from mray import packages
from mray.exceptions import RuntimeEnvSetupError
from mray.units import format_bytes
from mray.wire.messages import Message, PackageState, PutPackage, Refused

#: What one message carries.
PIECE_BYTES: Final = 2 * 1024 * 1024

#: How long the head may take to store a piece.
PACKAGE_TIMEOUT_S: Final = 60.0

#: Sends a request to the head and returns its answer; the maker gets the request's number.
Ask = Callable[[Callable[[int], Message]], Message]


class Uploads:
    """What this process has uploaded to one cluster."""

    def __init__(self) -> None:
        #: What a directory looked like when it was packed, and the URI it got.
        self._seen: dict[tuple[str, tuple[str, ...], bool], tuple[list[packages.Item], str]] = {}

    def resolve(self, env: Mapping[str, Any], ask: Ask) -> dict[str, Any]:
        """The checked ``env`` with URIs in place of what is local; ``excludes`` has done its work.

        Raises ValueError where a path is nothing that can be sent, RuntimeEnvSetupError where the
        head does not take it, OSError where it cannot be read.
        """
        found = dict(env)
        excludes = tuple(found.pop("excludes", ()))
        working_dir = found.get("working_dir")
        if working_dir:
            found["working_dir"] = self._directory_or_zip(working_dir, excludes, ask)
        if found.get("py_modules"):
            found["py_modules"] = [self._module(path, excludes, ask) for path in env["py_modules"]]
        hook = found.get("worker_process_setup_hook")
        if hook is not None and not isinstance(hook, str):
            found["worker_process_setup_hook"] = self._hook(hook, ask)
        return found

    def _directory_or_zip(self, path: str, excludes: tuple[str, ...], ask: Ask) -> str:
        if path.startswith(packages.SCHEME):
            packages.file_of(path)
            return path
        path = os.path.abspath(os.path.expanduser(path))
        if os.path.isdir(path):
            return self._directory(path, excludes, False, ask)
        if os.path.isfile(path) and path.endswith(".zip"):
            uri = packages.uri_of(packages.digest_of_file(path))
            _send(path, uri, ask)
            return uri
        raise ValueError(f"runtime_env: {path} is no directory and no .zip file on this machine")

    def _directory(self, path: str, excludes: tuple[str, ...], inside: bool, ask: Ask) -> str:
        """``inside``: the package has the directory itself, not only what is in it."""
        prefix = os.path.basename(path) + "/" if inside else ""
        items = packages.items_of(path, excludes, prefix)
        if inside:
            items.insert(0, packages.Item(prefix, path, 0, 0, 0o40700))
        key = (path, excludes, inside)
        seen = self._seen.get(key)
        if seen is not None and seen[0] == items:
            return seen[1]
        uri = self._pack(items, ask)
        self._seen[key] = (items, uri)
        return uri

    def _pack(self, items: list[packages.Item], ask: Ask) -> str:
        uri = packages.uri_of(packages.digest_of(items))
        if _is_there(uri, ask):
            return uri
        with tempfile.TemporaryDirectory(prefix="mray-package-") as scratch:
            path = f"{scratch}/package.zip"
            packages.write_zip(items, path)
            _send(path, uri, ask)
        return uri

    def _module(self, path: str, excludes: tuple[str, ...], ask: Ask) -> str:
        if path.startswith(packages.SCHEME) or path.endswith(".zip"):
            return self._directory_or_zip(path, (), ask)
        path = os.path.abspath(os.path.expanduser(path))
        if os.path.isdir(path):
            return self._directory(path, excludes, True, ask)
        if os.path.isfile(path) and path.endswith(".whl"):
            uri = packages.uri_of(packages.digest_of_file(path), os.path.basename(path))
            _send(path, uri, ask)
            return uri
        if os.path.isfile(path) and path.endswith(".py"):
            facts = os.stat(path)
            name = os.path.basename(path)
            item = packages.Item(name, path, facts.st_size, facts.st_mtime_ns, facts.st_mode)
            return self._pack([item], ask)
        raise ValueError(
            f"runtime_env['py_modules']: {path} is no directory, .py, .zip or .whl file on this "
            "machine"
        )

    def _hook(self, hook: Callable[[], Any], ask: Ask) -> str:
        import cloudpickle

        data = cloudpickle.dumps(hook)
        uri = packages.uri_of(hashlib.blake2b(data, digest_size=16).hexdigest(), "hook")
        if not _is_there(uri, ask):
            with tempfile.NamedTemporaryFile(prefix="mray-hook-") as file:
                file.write(data)
                file.flush()
                _send(file.name, uri, ask)
        return uri


def _put(uri: str, total: int, offset: int, data: bytes, ask: Ask) -> PackageState:
    name = packages.file_of(uri)
    answer = ask(lambda rid: PutPackage(rid, name, total, offset, data))
    if isinstance(answer, PackageState):
        return answer
    text = answer.text if isinstance(answer, Refused) else getattr(answer, "text", repr(answer))
    raise RuntimeEnvSetupError(f"the cluster did not take the package {uri}: {text}")


def _is_there(uri: str, ask: Ask) -> bool:
    return _put(uri, 0, 0, b"", ask).complete


def _send(path: str, uri: str, ask: Ask) -> None:
    total = os.path.getsize(path)
    if total > packages.PACKAGE_BYTES_MAX:
        raise ValueError(
            f"{path} has {format_bytes(total)}; a package of a runtime_env may have "
            f"{format_bytes(packages.PACKAGE_BYTES_MAX)}"
        )
    if total == 0:
        raise ValueError(f"{path} is an empty file and no package")
    if _is_there(uri, ask):
        return
    with open(path, "rb") as file:
        offset = 0
        while data := file.read(PIECE_BYTES):
            if _put(uri, total, offset, data, ask).complete:
                return
            offset += len(data)
    raise RuntimeEnvSetupError(f"{path} changed while it was uploaded as {uri}")
