"""Where the head of a cluster keeps its state: what the setting ``gcs_storage`` means.

Opens nothing: the head does (mray.node.head.storage).
"""

from __future__ import annotations

import os
import re
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

#: The file of a session, where the setting names no place.
FILE_NAME: Final = "gcs.sqlite"
_SCHEMES: Final = ("redis", "rediss")
_HOST_PORT: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:/@]+):([0-9]{1,5})")


class StoragePlace(msgspec.Struct, frozen=True, kw_only=True):
    """``kind``: memory (ends with the head), file (``path``, SQLite), or redis (``url``)."""

    kind: Literal["memory", "file", "redis"]
    path: str = ""
    url: str = ""
    #: What keys in Redis begin with.
    namespace: str = ""
    #: It was named by the user, and so may hold a cluster that another session began.
    named: bool = False

    @property
    def text(self) -> str:
        """For people: without a password."""
        if self.kind == "redis":
            parts = urlsplit(self.url)
            host = parts.hostname or ""
            database = parts.path.strip("/") or "0"
            return f"{parts.scheme}://{host}:{parts.port or 6379}/{database} ({self.namespace})"
        return self.path or "memory"


def storage_place(setting: str, namespace: str, session_dir: str) -> StoragePlace:
    """The place that ``gcs_storage`` names; "" is the session's file. ValueError for nonsense.

    Ray's words: "rocksdb" is its embedded store, so ours; HOST:PORT is a Redis.
    """
    text = setting.strip()
    if text in ("", "rocksdb"):
        return StoragePlace(kind="file", path=f"{session_dir}/{FILE_NAME}")
    if text == "memory":
        return StoragePlace(kind="memory")
    # RAY_REDIS_ADDRESS may name several, of which Ray takes the first.
    first = text.split(",")[0].strip()
    if _HOST_PORT.fullmatch(first):
        text = f"redis://{first}"
    scheme, found, _ = text.partition("://")
    if found and scheme in _SCHEMES:
        try:
            parts = urlsplit(text)
            port = parts.port or 6379
        except ValueError as error:
            raise ValueError(f"gcs_storage={scheme}://…: {error}") from error
        database = parts.path.strip("/")
        if not parts.hostname or not port or (database and not database.isdigit()):
            raise ValueError(
                f"gcs_storage={scheme}://… is no address of a Redis: expected "
                f"{scheme}://[:PASSWORD@]HOST:PORT/DATABASE"
            )
        return StoragePlace(kind="redis", url=text, namespace=namespace, named=True)
    if found and scheme in ("file", "sqlite"):
        text = text.partition("://")[2]
    elif found or text == "redis":
        raise ValueError(
            f"gcs_storage={setting!r} is no place that mray knows: expected a file's path, "
            "redis://[:PASSWORD@]HOST:PORT/DATABASE, or memory"
        )
    path = os.path.abspath(os.path.expanduser(text))
    if os.path.isdir(path):
        # What Ray calls the path of its store is a directory.
        path = f"{path}/{FILE_NAME}"
    return StoragePlace(kind="file", path=path, named=True)
