"""Where objects may be spilled to, looked at when the store is made."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mray.config.sections import Config, Spilling
from mray.node.objects.arena import Arena
from mray.node.objects.directory import ArenaError
from mray.node.objects.opening import open_disks, open_server
from mray.units import MIB


@pytest.fixture
def base() -> Iterator[str]:
    """A directory in memory."""
    base = tempfile.mkdtemp(prefix="opening-test-", dir="/dev/shm")
    yield base
    shutil.rmtree(base)


def test_spilling_to_where_the_store_lies_is_refused_with_why_and_what_to_do(
    base: str, tmp_path: Path
) -> None:
    arena = Arena.make("s1", "6d012345", 4 * MIB, base)
    # By another name, too.
    os.symlink(base, tmp_path / "link")
    try:
        for place in (base, f"{base}/", str(tmp_path / "link")):
            config = Config(spilling=Spilling(object_spilling_directory=place))
            with pytest.raises(ArenaError, match="the object store itself lies there") as caught:
                open_server(
                    arena, config, session="s1", session_dir=str(tmp_path), node="6d012345",
                    send=lambda to, message: None, call_soon=lambda call: None,
                )  # fmt: skip
            assert "Set object_spilling_directory to a directory on a disk" in str(caught.value)
    finally:
        arena.close()


def test_spilling_to_another_place_in_memory_is_told_of(
    base: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for disk in open_disks([f"{base}/spill"], "s1", "6d012345", 0.95):
            disk.close()
    assert f"objects are spilled to {base}/spill, which is a tmpfs" in caplog.text
