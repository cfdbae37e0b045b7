"""The head's storage, in both places: batches, epochs, and everything that can be wrong with it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mray.node.head.storage.sqlite import SqliteStorage
from mray.node.head.storage.store import (
    Fenced,
    Storage,
    StorageDamaged,
    StorageError,
    open_storage,
)
from mray.storage_place import StoragePlace, storage_place

from ...redis_server import RedisServer

Open = Callable[[], Storage]


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens one and the same place, again and again."""
    opened: list[Storage] = []
    if request.param == "sqlite":
        where = StoragePlace(kind="file", path=str(tmp_path / "below" / "gcs.sqlite"))
    else:
        server: RedisServer = request.getfixturevalue("redis_server")
        where = StoragePlace(kind="redis", url=server.url, namespace=tmp_path.name)

    def open_it() -> Storage:
        storage = open_storage(where)
        assert storage is not None
        opened.append(storage)
        return storage

    yield open_it
    for storage in opened:
        storage.close()


def test_what_was_committed_is_there_for_the_next_head(place: Open) -> None:
    storage = place()
    assert storage.load() == {}
    assert storage.take_over({("meta", b"id"): b"x"}) == 1
    storage.commit({("jobs", b"\0\1"): b"one", ("kv", b""): b"", ("kv", b"k"): bytes(range(256))})
    storage.commit({("jobs", b"\0\1"): b"two", ("kv", b"k"): None, ("kv", b"never"): None})
    storage.commit({})
    again = place()
    assert again.load() == {"meta": {b"id": b"x"}, "jobs": {b"\0\1": b"two"}, "kv": {b"": b""}}
    assert again.take_over({}) == 2


def test_a_big_batch_is_one(place: Open) -> None:
    storage = place()
    storage.take_over({})
    rows = {("kv", number.to_bytes(4, "big")): b"v" * 100 for number in range(5000)}
    storage.commit(rows)
    assert {("kv", key): value for key, value in place().load()["kv"].items()} == rows


def test_a_head_that_was_overtaken_writes_nothing(place: Open) -> None:
    old, new = place(), place()
    assert old.take_over({("jobs", b"a"): b"1"}) == 1
    assert new.take_over({}) == 2
    with pytest.raises(Fenced) as caught:
        old.commit({("jobs", b"a"): b"2", ("jobs", b"b"): b"2"})
    assert (caught.value.epoch, caught.value.stored) == (1, 2)
    assert new.load()["jobs"] == {b"a": b"1"}
    new.commit({("jobs", b"a"): b"3"})
    assert new.load()["jobs"] == {b"a": b"3"}


def test_namespaces_are_apart(redis_server: RedisServer) -> None:
    one, two = (
        open_storage(StoragePlace(kind="redis", url=redis_server.url, namespace=name))
        for name in ("apart-1", "apart-2")
    )
    assert one is not None
    assert two is not None
    one.take_over({("jobs", b"a"): b"1"})
    assert two.load() == {}
    assert two.take_over({}) == 1
    one.close()
    two.close()


def test_memory_is_no_storage() -> None:
    assert open_storage(StoragePlace(kind="memory")) is None


# -- SQLite


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "gcs.sqlite")


def test_the_file_is_its_owners_alone(path: str) -> None:
    former = os.umask(0)
    try:
        storage = SqliteStorage(path)
    finally:
        os.umask(former)
    storage.take_over({("kv", b"k"): b"v"})
    for suffix in ("", "-wal", "-shm"):
        assert stat.S_IMODE(os.stat(path + suffix).st_mode) == 0o600
    storage.close()


def test_each_commit_is_forced_to_the_disk(path: str) -> None:
    storage = SqliteStorage(path)
    database = storage._opened()
    assert database.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert database.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    storage.close()


def test_a_log_that_was_torn_ends_with_the_last_whole_commit(path: str, tmp_path: Path) -> None:
    storage = SqliteStorage(path)
    storage.take_over({})
    sizes = []
    for number in range(4):
        storage.commit({("jobs", b"a"): bytes([number]) * 3000, ("jobs", bytes([number])): b"x"})
        sizes.append(os.path.getsize(f"{path}-wal"))
    # As the machine's end leaves it: no checkpoint, the last frames cut or never written.
    for cut, last in ((sizes[3] - 1, 2), (sizes[2] + 30, 2), (sizes[1] + 4200, 1), (sizes[0], 0)):
        copy = str(tmp_path / f"copy-{cut}")
        shutil.copy(path, copy)
        shutil.copy(f"{path}-wal", f"{copy}-wal")
        os.truncate(f"{copy}-wal", cut)
        torn = SqliteStorage(copy)
        jobs = torn.load()["jobs"]
        assert jobs[b"a"] == bytes([last]) * 3000
        assert set(jobs) == {b"a", *(bytes([number]) for number in range(last + 1))}
        assert torn.take_over({}) == 2
        torn.close()
    storage.close()


@pytest.mark.parametrize("damage", ["junk", "middle", "cut"])
def test_a_damaged_file_is_refused_with_what_to_do(path: str, damage: str) -> None:
    storage = SqliteStorage(path)
    storage.take_over({("kv", number.to_bytes(2, "big")): b"v" * 500 for number in range(200)})
    storage.close()
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        if damage == "cut":
            file.truncate(size // 2)
        else:
            file.seek(0 if damage == "junk" else 4096)
            file.write(b"\xa5" * (size if damage == "junk" else 8192))
    with pytest.raises(StorageDamaged) as caught:
        SqliteStorage(path)
    assert path in str(caught.value)
    assert "mray start --head" in str(caught.value)


def test_a_file_of_another_layout_is_refused(path: str) -> None:
    SqliteStorage(path).close()
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(StorageDamaged, match="layout 99"):
        SqliteStorage(path)


def test_somebody_elses_database_is_left_alone(path: str) -> None:
    database = sqlite3.connect(path)
    database.execute("PRAGMA application_id = 7")
    database.execute("CREATE TABLE theirs (x)")
    database.commit()
    database.close()
    with pytest.raises(StorageDamaged, match="no storage of this version of mray"):
        SqliteStorage(path)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_deleted_file_is_not_written_in_silence(path: str, replaced: bool) -> None:
    storage = SqliteStorage(path)
    storage.take_over({("kv", b"k"): b"v"})
    os.rename(path, f"{path}.away")
    if replaced:
        Path(path).touch()
    with pytest.raises(StorageError, match="cannot be written"):
        storage.commit({("kv", b"k"): b"w"})
    assert storage.load()["kv"] == {b"k": b"v"}
    os.rename(f"{path}.away", path)
    storage.commit({("kv", b"k"): b"w"})
    assert storage.load()["kv"] == {b"k": b"w"}
    storage.close()


def test_a_place_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be opened for writing"):
        SqliteStorage(str(tmp_path / "file" / "gcs.sqlite"))


def test_what_could_not_be_written_can_be_written_again(path: str) -> None:
    storage = SqliteStorage(path)
    storage.take_over({})
    pages = storage._opened().execute("PRAGMA page_count").fetchone()[0]
    storage._opened().execute(f"PRAGMA max_page_count = {pages}")
    rows = {("kv", number.to_bytes(2, "big")): b"v" * 3000 for number in range(50)}
    with pytest.raises(StorageError, match="full"):
        storage.commit(rows)
    assert storage.load() == {}
    storage._opened().execute("PRAGMA max_page_count = 100000")
    storage.commit(rows)
    assert len(storage.load()["kv"]) == 50
    storage.close()


# -- Redis


def test_a_redis_that_was_emptied_is_not_written(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    try:
        storage = open_storage(StoragePlace(kind="redis", url=server.url, namespace="n"))
        assert storage is not None
        storage.take_over({("meta", b"id"): b"x"})
        server.flush()
        with pytest.raises(StorageError, match="emptied"):
            storage.commit({("jobs", b"a"): b"1"})
        assert storage.load() == {}
        server.stop()
        with pytest.raises(StorageError, match="cannot be written"):
            storage.commit({("jobs", b"a"): b"1"})
        with pytest.raises(StorageError, match="does not answer"):
            open_storage(StoragePlace(kind="redis", url=server.url, namespace="n"))
        storage.close()
    finally:
        server.stop()


def test_a_redis_that_was_restarted_is_written_on(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    try:
        storage = open_storage(StoragePlace(kind="redis", url=server.url, namespace="n"))
        assert storage is not None
        storage.take_over({("meta", b"id"): b"x"})
        server.stop()
        server.start()
        storage.commit({("jobs", b"a"): b"1"})
        assert storage.load() == {"meta": {b"id": b"x"}, "jobs": {b"a": b"1"}}
        storage.close()
    finally:
        server.stop()


# -- what the setting means


@pytest.mark.parametrize(
    ("setting", "kind", "text"),
    [
        ("", "file", "/s/gcs.sqlite"), ("rocksdb", "file", "/s/gcs.sqlite"),
        ("memory", "memory", "memory"), ("/data/gcs", "file", "/data/gcs"),
        ("file:///data/gcs", "file", "/data/gcs"), ("sqlite:///data/gcs", "file", "/data/gcs"),
        ("redis://:secret@host:7/3", "redis", "redis://host:7/3 (ns)"),
        ("rediss://host", "redis", "rediss://host:6379/0 (ns)"),
        ("10.0.0.1:6379", "redis", "redis://10.0.0.1:6379/0 (ns)"),
    ],
)  # fmt: skip
def test_what_a_setting_names(setting: str, kind: str, text: str) -> None:
    place = storage_place(setting, "ns", "/s")
    assert (place.kind, place.text) == (kind, text)
    assert place.named == (setting not in ("", "rocksdb", "memory"))


@pytest.mark.parametrize("setting", ["redis", "postgresql://x/y", "redis://", "redis://h:x/1",
                                     "redis://host/name"])  # fmt: skip
def test_what_names_no_place_is_refused(setting: str) -> None:
    with pytest.raises(ValueError, match="gcs_storage="):
        storage_place(setting, "ns", "/s")


def test_a_directory_holds_the_file(tmp_path: Path) -> None:
    assert storage_place(str(tmp_path), "ns", "/s").path == f"{tmp_path}/gcs.sqlite"
