"""The head's storage in a file: SQLite with a write-ahead log, forced to the disk at each commit.

What was committed outlives the death of the process and of the machine (synchronous=FULL). A log
that was torn in the middle of a commit ends, for SQLite, with the last whole one. Not for network
file systems, whose locks cannot be trusted.
"""

from __future__ import annotations

import os
import sqlite3
from typing import Final

from mray.node.head.storage.store import Fenced, StorageDamaged, StorageError, Tables, Writes

#: "mray" in ASCII: whose file it is; and how its tables are laid out.
_APPLICATION: Final = 0x6D726179
_LAYOUT: Final = 1
#: How long another process may hold the file's lock.
_BUSY_MS: Final = 2000
_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS ruler (one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER)",
    "INSERT OR IGNORE INTO ruler VALUES (1, 0)",
    "CREATE TABLE IF NOT EXISTS entries (number INTEGER PRIMARY KEY, place TEXT NOT NULL, "
    "key BLOB NOT NULL, value BLOB NOT NULL, UNIQUE (place, key))",
)
_UPSERT: Final = (
    "INSERT INTO entries (place, key, value) VALUES (?, ?, ?) "
    "ON CONFLICT (place, key) DO UPDATE SET value = excluded.value"
)


class SqliteStorage:
    """See the module. Makes the file, readable by its owner alone, where there is none."""

    def __init__(self, path: str) -> None:
        self.text = path
        self._path = path
        self._epoch = 0
        try:
            os.makedirs(os.path.dirname(path) or ".", 0o700, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._inode = os.stat(path).st_ino
        except OSError as error:
            raise StorageError(
                f"the head's storage {path} cannot be opened for writing: {error.strerror}"
            ) from error
        self._database: sqlite3.Connection | None = None
        try:
            self._open()
        except sqlite3.Error as error:
            self.close()
            raise self._unusable(error) from error

    def _open(self) -> None:
        database = sqlite3.connect(self._path, timeout=_BUSY_MS / 1000, isolation_level=None)
        self._database = database
        application = database.execute("PRAGMA application_id").fetchone()[0]
        layout = database.execute("PRAGMA user_version").fetchone()[0]
        if (application, layout) not in ((0, 0), (_APPLICATION, _LAYOUT)):
            self.close()
            raise StorageDamaged(
                f"{self._path} is no storage of this version of mray (application {application:#x},"
                f" layout {layout}; expected {_APPLICATION:#x}, {_LAYOUT}): name another file with "
                "--gcs-storage, or start the version that made it"
            )
        found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        database.execute("PRAGMA journal_mode = WAL").fetchone()
        database.execute("PRAGMA synchronous = FULL")
        if application:
            return
        database.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA:
            database.execute(statement)
        database.execute(f"PRAGMA application_id = {_APPLICATION}")
        database.execute(f"PRAGMA user_version = {_LAYOUT}")
        database.execute("COMMIT")

    def _unusable(self, error: sqlite3.Error) -> StorageError:
        if isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.InterfaceError:
            return StorageError(f"the head's storage {self._path} cannot be used: {error}")
        return StorageDamaged(
            f"the head's storage {self._path} is damaged ({error}), so what it says of the cluster "
            "cannot be trusted. Put a copy of it back (with its -wal file, if it has one), or "
            f"begin an empty cluster: `mray stop`, move {self._path}* away, `mray start --head`. "
            f"`sqlite3 {self._path} .recover` shows what can still be read"
        )

    def load(self) -> Tables:
        """See Storage."""
        tables: Tables = {}
        try:
            found = self._opened().execute("SELECT place, key, value FROM entries ORDER BY number")
            for place, key, value in found:
                tables.setdefault(place, {})[key] = value
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        return tables

    def take_over(self, writes: Writes) -> int:
        """See Storage."""
        self._epoch = self._write(writes, None)
        return self._epoch

    def commit(self, writes: Writes) -> None:
        """See Storage."""
        self._write(writes, self._epoch)

    def _write(self, writes: Writes, epoch: int | None) -> int:
        """One transaction; returns the epoch that is stored after it."""
        database = self._opened()
        self._look()
        try:
            database.execute("BEGIN IMMEDIATE")
            stored: int = database.execute("SELECT epoch FROM ruler").fetchone()[0]
            if epoch is None:
                stored += 1
                database.execute("UPDATE ruler SET epoch = ?", (stored,))
            elif stored != epoch:
                raise Fenced(self.text, epoch, stored)
            there = [(t, k, v) for (t, k), v in writes.items() if v is not None]
            gone = [(table, key) for (table, key), value in writes.items() if value is None]
            if there:
                database.executemany(_UPSERT, there)
            if gone:
                database.executemany("DELETE FROM entries WHERE place = ? AND key = ?", gone)
            database.execute("COMMIT")
        except sqlite3.Error as error:
            raise StorageError(
                f"the head's storage {self._path} cannot be written: {error}"
            ) from error
        finally:
            if database.in_transaction:
                database.execute("ROLLBACK")
        return stored

    def _look(self) -> None:
        """Whether the file that would be written is the one that a later head will read."""
        try:
            same = os.stat(self._path).st_ino == self._inode
        except OSError as error:
            raise StorageError(
                f"the head's storage {self._path} cannot be written: {error.strerror}; it was "
                "there when the head started: put it back, or start the cluster anew"
            ) from error
        if not same:
            raise StorageError(
                f"the head's storage {self._path} cannot be written: another file is in its place"
            )

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            raise StorageError(f"the head's storage {self._path} is closed")
        return self._database

    def close(self) -> None:
        """See Storage."""
        if self._database is not None:
            self._database.close()
            self._database = None
