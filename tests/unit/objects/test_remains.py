"""What a dead node has left is removed by a living one of its machine; what lives is left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mray.config import Config
from mray.config.sections import Spilling
from mray.node.objects import remains, remote
from mray.node.objects.arena import Arena
from mray.node.objects.disks import LocalDisk
from mray.node.objects.remains import LOOKS_S, Remains, remove
from mray.node.objects.remote import RemoteDisk
from mray.wire.messages import Address, NodeInfo

from ...waiting import eventually

pytest.importorskip("fsspec")

NODE = "6d" + "11" * 27
DIES = """
import os, sys
from mray.node.objects.arena import Arena
from mray.node.objects.disks import LocalDisk
from mray.node.objects.remote import RemoteDisk
shm, disk, url, node = sys.argv[1:]
arena = Arena.make("killed", node, 1 << 20, shm)
for place in (LocalDisk(disk, "killed", node, 1.0), RemoteDisk(url, "killed", node)):
    place.write(1, 4, [(0, memoryview(b"abcd"))])
os._exit(0)
"""


def info(session_dir: str) -> NodeInfo:
    node_id = bytes.fromhex(NODE)
    return NodeInfo(
        node_id=node_id, address=Address(node_id, node_id), ip="10.0.0.1", hostname="host", pid=1,
        resources={}, labels={}, session_dir=session_dir, log_dir="", store_path="",
        store_capacity_bytes=0, is_head=False, mray_version="1", python_version="3.11.7",
    )  # fmt: skip


class Places:
    """Memory, a disk and a URL, and the settings that name them."""

    def __init__(self, folder: Path) -> None:
        self.folders = [folder / name for name in ("shm", "disk", "url")]
        for each in self.folders:
            each.mkdir()
        self.shm, self.disk = map(str, self.folders[:2])
        self.url = f"local://{self.folders[2]}"
        spilling = Spilling(object_spilling_directory=f"{self.disk},{self.url}")
        self.config = Config(spilling=spilling)

    def left(self) -> list[int]:
        return [len(os.listdir(each)) for each in self.folders]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


def test_what_a_dead_node_has_left_goes_and_nothing_else(places: Places) -> None:
    other = RemoteDisk(places.url, "another", NODE)
    (places.folders[1] / "data").mkdir()
    arguments = [places.shm, places.disk, places.url, NODE]
    subprocess.run([sys.executable, "-c", DIES, *arguments], check=True, timeout=60)
    assert places.left() == [1, 2, 2]
    assert remove(info("/tmp/killed"), places.config, places.shm)
    assert places.left() == [0, 1, 1]
    assert remove(info("/tmp/killed"), places.config, places.shm)
    other.close()


def test_what_a_living_node_has_stays(places: Places) -> None:
    arena = Arena.make("alive", NODE, 1 << 20, places.shm)
    disks = [LocalDisk(places.disk, "alive", NODE, 1.0), RemoteDisk(places.url, "alive", NODE)]
    assert not remove(info("/tmp/alive"), places.config, places.shm)
    assert places.left() == [1, 1, 1]
    for disk in disks:
        disk.close()
    arena.close()
    assert remove(info("/tmp/alive"), places.config, places.shm)


def test_two_that_remove_the_same_at_once_leave_nothing(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [places.shm, places.disk, places.url, NODE]
    subprocess.run([sys.executable, "-c", DIES, *arguments], check=True, timeout=60)
    import fsspec

    kind = type(fsspec.core.url_to_fs(places.url)[0])
    real = kind.rm

    def torn(self: Any, path: str, recursive: bool = False) -> None:
        monkeypatch.setattr(kind, "rm", real)
        os.unlink(f"{path}/{remote.OWNER_NAME}")
        raise FileNotFoundError(path)

    monkeypatch.setattr(kind, "rm", torn)
    assert remove(info("/tmp/killed"), places.config, places.shm)
    assert places.left() == [0, 0, 0]


class _Pump:
    """Keeps what is to be called later."""

    def __init__(self) -> None:
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.soon: list[Callable[[], None]] = []

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        self.later.append((delay_s, call))

    def call_soon(self, call: Callable[[], None]) -> None:
        self.soon.append(call)


def test_what_is_in_use_still_is_looked_at_again_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pump: Any = _Pump()
    monkeypatch.setattr(remains, "remove", lambda info, config: False)
    Remains(pump, Config()).node_gone(info(str(tmp_path)))
    waited = []
    while pump.later:
        [(delay_s, look)] = pump.later
        pump.later.clear()
        waited.append(delay_s)
        look()
        eventually(lambda: bool(pump.soon))
        pump.soon.pop()()
    assert tuple(waited) == LOOKS_S


def test_the_node_of_another_machine_is_not_looked_for(tmp_path: Path) -> None:
    pump: Any = _Pump()
    Remains(pump, Config()).node_gone(info(f"{tmp_path}/elsewhere"))
    assert pump.later == []
