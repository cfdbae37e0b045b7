"""The head's storage as the head sees it: tables of rows, written in batches under an epoch.

Owns the words and the errors. What is kept, and when, is journal.py's business; how, that of
sqlite.py and redis.py. Rows are opaque bytes under opaque keys.

Whoever takes the storage over makes its epoch grow by one. Each batch names the epoch of its writer
and is refused, whole, when another one has taken over since. So two heads never both decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from mray.storage_place import StoragePlace

#: What identifies the cluster; the rest are the machines' tables.
META: Final = "meta"
CLUSTER_ID: Final = b"cluster_id"
HEAD_ID: Final = b"head_id"
CONFIG: Final = b"config"

Tables = dict[str, dict[bytes, bytes]]
#: (table, key) -> the row as it is now; None: no more.
Writes = Mapping[tuple[str, bytes], bytes | None]


class StorageError(Exception):
    """The storage cannot be read or written. The text says which, why, and what to do."""


class StorageDamaged(StorageError):
    """What is stored cannot be trusted: damaged, of another version, or gone."""


class Fenced(StorageError):
    """Another head has taken over. ``epoch``: that of this one; ``stored``: of the other."""

    def __init__(self, text: str, epoch: int, stored: int) -> None:
        super().__init__(
            f"another head of this cluster has taken over {text} (its epoch is {stored}, this "
            f"head's {epoch}): this one must not decide anything any more"
        )
        self.epoch = epoch
        self.stored = stored


class Storage(Protocol):
    """One place. Used by one thread."""

    #: For people.
    text: str

    def load(self) -> Tables:
        """Everything that is there. StorageError, StorageDamaged."""

    def take_over(self, writes: Writes) -> int:
        """Make the epoch grow by one, with some writes; returns it. StorageError."""

    def commit(self, writes: Writes) -> None:
        """Write all or nothing, for good. StorageError: nothing was written, or, where the way to
        the storage broke, all. Writing the same again does no harm. Fenced: another head rules."""

    def close(self) -> None:
        """Idempotent."""


def open_storage(place: StoragePlace) -> Storage | None:
    """Open a place, or make it; None for memory. StorageError, StorageDamaged."""
    # Each is imported where it is used: a head in memory needs neither.
    if place.kind == "file":
        from mray.node.head.storage.sqlite import SqliteStorage

        return SqliteStorage(place.path)
    if place.kind == "redis":
        from mray.node.head.storage.redis import RedisStorage

        return RedisStorage(place)
    return None
