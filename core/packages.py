"""Packages: a directory, module or file as one zip whose name says its content.

Owns which files of a directory go in, the name, the zip, and unpacking one that may be hostile.
Does not move packages between processes (uploads.py) nor keep them (node/environments).

The same content has the same name wherever it lies, so a package is uploaded once to a cluster and
unpacked once on a node. Times, owners and order of listing are no content.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from mray.units import format_bytes

log = logging.getLogger("mray")

#: A package may be so big (Ray's limit).
PACKAGE_BYTES_MAX: Final = 500 * 1024 * 1024
#: What is in it may be so big.
UNPACKED_BYTES_MAX: Final = 10 * 1024 * 1024 * 1024
#: Whoever uploads a bigger file is warned.
FILE_BYTES_WARNING: Final = 10 * 1024 * 1024
#: What no package has: nobody means to send these.
DEFAULT_EXCLUDES: Final = (".git", ".venv", "venv", "__pycache__")
_IGNORE_FILES: Final = (".gitignore", ".rayignore")
SCHEME: Final = "gcs://"
_PREFIX: Final = "_ray_pkg_"
_COPY_BYTES: Final = 1 << 20
#: Of zips: what a file with this time unpacks to does not matter, only that it is always the same.
_TIME: Final = (1980, 1, 1, 0, 0, 0)

Ignored = Callable[[str], bool]


class Item(NamedTuple):
    """A file or directory of a package."""

    #: Below the package's top, with "/"; directories end with it.
    name: str
    path: str
    size: int
    mtime_ns: int
    mode: int


def uri_of(digest: str, suffix: str = "zip") -> str:
    """The URI of a package."""
    return f"{SCHEME}{_PREFIX}{digest}.{suffix}"


def file_of(uri: str) -> str:
    """The file name in a URI. ValueError where it is no package's."""
    name = uri.removeprefix(SCHEME)
    stem, _, suffix = name.removeprefix(_PREFIX).partition(".")
    known = name.startswith(_PREFIX) and stem.isalnum() and stem.isascii()
    if not uri.startswith(SCHEME) or not known or not (
        suffix in ("zip", "hook") or (suffix.endswith(".whl") and "/" not in suffix)
    ):
        raise ValueError(f"{uri!r} names no package of this cluster")
    return name


# -- packing


def items_of(directory: str, excludes: Sequence[str] = (), prefix: str = "") -> list[Item]:
    """What a package of the directory has, sorted by name.

    ``excludes`` are patterns as in .gitignore, relative to the directory; .gitignore and .rayignore
    of each directory hold below it. ``prefix`` comes before all names. Links are followed, except
    one that leads to a directory it lies in. Raises ValueError where it is more than
    UNPACKED_BYTES_MAX in all.
    """
    found: list[Item] = []
    own = _matcher([*DEFAULT_EXCLUDES, *excludes], "")
    total = 0
    for item in _walk(directory, "", [own], {os.path.realpath(directory)}):
        total += item.size
        if total > UNPACKED_BYTES_MAX:
            raise _too_big(f"the files of {directory}", UNPACKED_BYTES_MAX, item)
        found.append(item._replace(name=prefix + item.name))
    return sorted(found)


def _too_big(what: str, limit: int, item: Item) -> ValueError:
    return ValueError(
        f"{what} are more than {format_bytes(limit)}, the most that a runtime_env may upload "
        f"({item.path} went beyond it): leave out what workers do not need with "
        "runtime_env['excludes'] or a .rayignore file, and read big data from where it is"
    )


def _matcher(patterns: Sequence[str], base: str) -> Ignored:
    import pathspec

    spec = pathspec.GitIgnoreSpec.from_lines(patterns)
    return lambda name: name.startswith(base) and spec.match_file(name[len(base) :])


def _walk(directory: str, base: str, ignored: list[Ignored], above: set[str]) -> Iterator[Item]:
    for ignore_file in _IGNORE_FILES:
        path = f"{directory}/{ignore_file}"
        if os.path.isfile(path):
            with open(path, encoding="utf-8", errors="replace") as file:
                ignored = [*ignored, _matcher(file.read().splitlines(), base)]
    with os.scandir(directory) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    for entry in entries:
        try:
            facts = entry.stat()
        except FileNotFoundError:
            continue  # A link to nowhere, or gone meanwhile.
        is_dir = stat.S_ISDIR(facts.st_mode)
        name = base + entry.name + ("/" if is_dir else "")
        if any(matches(name) for matches in ignored):
            continue
        if is_dir:
            real = os.path.realpath(entry.path)
            if real in above:
                continue
            yield Item(name, entry.path, 0, 0, facts.st_mode)
            yield from _walk(entry.path, name, ignored, above | {real})
        elif stat.S_ISREG(facts.st_mode):
            yield Item(name, entry.path, facts.st_size, facts.st_mtime_ns, facts.st_mode)


def digest_of(items: Sequence[Item]) -> str:
    """The name of the content. OSError where a file cannot be read."""
    total = hashlib.blake2b(digest_size=16)
    for item in items:
        mark = "d" if item.name.endswith("/") else "x" if item.mode & 0o100 else "f"
        total.update(f"{mark}{len(item.name.encode())}:{item.name}".encode())
        if mark != "d":
            total.update(_file_digest(item.path))
    return total.hexdigest()


def _file_digest(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()


def digest_of_file(path: str) -> str:
    """The name of the content of one file."""
    return _file_digest(path).hex()


def write_zip(items: Sequence[Item], path: str) -> None:
    """Write the zip to ``path``, of mode 0600; warns of big files. ValueError where it becomes
    bigger than PACKAGE_BYTES_MAX."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with (
        os.fdopen(fd, "wb") as target,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        for item in items:
            entry = zipfile.ZipInfo(item.name, _TIME)
            entry.external_attr = (item.mode & 0xFFFF) << 16
            if item.name.endswith("/"):
                archive.writestr(entry, b"")
                continue
            if item.size > FILE_BYTES_WARNING:
                log.warning(
                    "%s (%s) is uploaded with a runtime_env: exclude it where workers do not need "
                    "it", item.path, format_bytes(item.size),
                )  # fmt: skip
            entry.compress_type = zipfile.ZIP_DEFLATED
            with open(item.path, "rb") as source, archive.open(entry, "w") as sink:
                while data := source.read(_COPY_BYTES):
                    sink.write(data)
                    if target.tell() > PACKAGE_BYTES_MAX:
                        raise _too_big("the packed files", PACKAGE_BYTES_MAX, item)


# -- unpacking


def unpack_zip(path: str, target: str, bytes_max: int | None = None) -> int:
    """Unpack into the new directory ``target`` (0700); returns the bytes written.

    Nothing is written where an entry has an absolute path, leaves the target, is no file or
    directory, or where all of them are more than ``bytes_max`` (by what is really unpacked).
    ValueError for these and for what is no zip, OSError.
    """
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{os.path.basename(path)} is no zip file: {error}") from error
    with archive:
        entries = archive.infolist()
        for entry in entries:
            _refuse_outside(entry)
        os.mkdir(target, 0o700)
        written = 0
        for entry in entries:
            place = os.path.join(target, *_parts(entry.filename))
            if entry.is_dir():
                os.makedirs(place, 0o700, exist_ok=True)
                continue
            os.makedirs(os.path.dirname(place), 0o700, exist_ok=True)
            mode = 0o700 if (entry.external_attr >> 16) & 0o100 else 0o600
            fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
            try:
                with os.fdopen(fd, "wb") as sink, archive.open(entry) as source:
                    while data := source.read(_COPY_BYTES):
                        written += len(data)
                        if bytes_max is not None and written > bytes_max:
                            raise ValueError(
                                f"{os.path.basename(path)} unpacks to more than "
                                f"{format_bytes(bytes_max)}"
                            )
                        sink.write(data)
            except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
                raise ValueError(f"{entry.filename} cannot be unpacked: {error}") from error
        return written


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]


def _refuse_outside(entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if name.startswith(("/", "\\")) or "\\" in name or name[1:2] == ":":
        raise ValueError(f"the zip has the absolute path {name!r}: it is not unpacked")
    if ".." in name.split("/") or "\0" in name:
        raise ValueError(f"the zip has {name!r}, which leads out of it: it is not unpacked")
    if kind and not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        raise ValueError(f"the zip has {name!r}, which is no file or directory: it is not unpacked")
