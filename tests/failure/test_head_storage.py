"""The head's storage fails: writes are refused with the reason, reads go on, nothing is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..redis_server import RedisServer
from ..started import StartedCluster, started
from ..waiting import eventually

pytestmark = pytest.mark.failure

#: "put N" makes a group by name, "find N" looks for it, "work" needs no head.
WRITER = """
from mray.util import get_placement_group, placement_group
mray.get(square.remote(1))
actor = Counter.remote()
mray.get(actor.add.remote())
say("ready")
while (command := line()):
    word, _, name = command.partition(" ")
    try:
        if word == "put":
            mray.get(placement_group([{"CPU": 0.001}], name=name).ready(), timeout=60)
        elif word == "find":
            get_placement_group(name)
        else:
            mray.get([square.remote(2), actor.add.remote()], timeout=60)
        say("done", command)
    except Exception as error:
        say("failed", command, type(error).__name__, str(error).replace(chr(10), " "))
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    """Until nothing goes on the disk any more."""
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def test_a_full_disk_refuses_writes_until_there_is_room(tmp_path: Path, small_disk: Path) -> None:
    storage = str(small_disk / "gcs")
    with started(tmp_path / "c", RAY_gcs_storage_path=storage) as cluster:
        program = cluster.program(WRITER)
        program.expect("ready")
        program.tell("put first")
        program.expect("done put first")
        ballast = small_disk / "ballast"
        fill(ballast)
        refused = ""
        for number in range(200):  # What SQLite has of its own may take a few yet.
            program.tell(f"put more-{number}")
            said = program.expect("")
            if said.startswith("failed"):
                refused = said
                break
        assert "cannot be written" in refused
        assert "full" in refused or "disk" in refused
        program.tell("find first")
        program.expect("done find first")
        program.tell("work")
        program.expect("done work")
        assert cluster.run("status").returncode == 0
        ballast.unlink()
        program.tell("put after")
        program.expect("done put after", 60)
        assert "can be written again" in cluster.log("gcs_server")
        cluster.kill_head()
        cluster.start()
        program.tell("find after")
        program.expect("done find after")
        program.tell("")
        assert program.end() == 0


def test_a_deleted_storage_is_noticed(tmp_path: Path) -> None:
    with started(tmp_path / "c") as cluster:
        program = cluster.program(WRITER)
        program.expect("ready")
        path = f"{cluster.session.path}/gcs.sqlite"
        os.rename(path, f"{path}.away")
        program.tell("put lost")
        assert "cannot be written: No such file" in program.expect("failed put lost")
        program.tell("work")
        program.expect("done work")
        os.rename(f"{path}.away", path)
        program.tell("put kept")
        program.expect("done put kept")
        program.tell("")
        assert program.end() == 0


def test_a_damaged_storage_is_not_begun_with(tmp_path: Path) -> None:
    with started(tmp_path / "c") as cluster:
        program = cluster.program("line()")
        path = f"{cluster.session.path}/gcs.sqlite"
        eventually(lambda: os.path.getsize(f"{path}-wal") > 8192)
        cluster.kill_head()
        for suffix in ("-wal", "-shm"):
            os.unlink(path + suffix)
        with open(path, "r+b") as file:
            file.write(b"\xa5" * 4096)
        shown = cluster.run("start", "--head", "--port", "0")
        assert shown.returncode != 0
        assert "is damaged" in shown.stderr
        assert "mray stop" in shown.stderr
        assert "Traceback" not in shown.stderr
        # The nodes were not ended by the attempt.
        assert cluster.daemon("node").alive
        assert "is away" in cluster.run("status").stderr
        program.close()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def on_redis(tmp_path: Path, redis_server: RedisServer) -> Iterator[StartedCluster]:
    with started(tmp_path / "c", RAY_REDIS_ADDRESS=redis_server.url) as cluster:
        yield cluster


def test_an_outage_of_redis_stops_nothing_but_what_must_be_kept(
    on_redis: StartedCluster, redis_server: RedisServer
) -> None:
    program = on_redis.program(WRITER)
    program.expect("ready")
    program.tell("put first")
    program.expect("done put first")
    redis_server.stop()
    program.tell("work")
    program.expect("done work")
    program.tell("put meanwhile")  # Waits, then is refused.
    assert "cannot be written" in program.expect("failed put meanwhile")
    program.tell("find first")
    program.expect("done find first")
    redis_server.start()
    program.tell("put after")
    program.expect("done put after")
    on_redis.kill_head()
    on_redis.start()
    for name in ("first", "after"):
        program.tell(f"find {name}")
        program.expect(f"done find {name}")
    program.tell("")
    assert program.end() == 0


def test_a_head_elsewhere_takes_up_what_is_in_redis(
    on_redis: StartedCluster, redis_server: RedisServer, tmp_path: Path
) -> None:
    program = on_redis.program("""
mray.get(Counter.options(name="kept", lifetime="detached").remote().add.remote())
say("made")
""")
    program.expect("made")
    assert program.end() == 0
    on_redis.kill_head(signal.SIGKILL)
    with started(tmp_path / "d", RAY_REDIS_ADDRESS=redis_server.url) as elsewhere:
        assert elsewhere.session.info().cluster_id == on_redis.session.info().cluster_id
        listed = elsewhere.json("list", "actors")
        assert isinstance(listed, list)
        assert [actor["name"] for actor in listed] == ["kept"]


def test_nodes_are_not_taken_up_by_a_head_whose_redis_was_emptied(
    on_redis: StartedCluster, redis_server: RedisServer
) -> None:
    program = on_redis.program(WRITER)
    program.expect("ready")
    redis_server.flush()
    program.tell("put lost")
    assert "was emptied" in program.expect("failed put lost")
    on_redis.kill_head()
    shown = on_redis.run("start", "--head", "--port", "0")
    assert shown.returncode != 0
    assert "holds nothing, and the nodes that run belong to cluster" in shown.stderr
    assert "Traceback" not in shown.stderr
    assert on_redis.daemon("node").alive
    program.tell("work")
    program.expect("done work")
    program.close()
