"""Of which kind the file system of a directory is."""

from __future__ import annotations

import os
from pathlib import Path

from mray.node.objects.mounts import IN_MEMORY, file_system_of


def test_shared_memory_is_memory() -> None:
    assert file_system_of("/dev/shm") in IN_MEMORY
    assert file_system_of("/proc") == "proc"


def test_the_device_of_a_path_is_looked_up_in_the_table(tmp_path: Path) -> None:
    device = os.stat(tmp_path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 0:999 / /elsewhere rw - tmpfs tmpfs rw\n"
        "torn\n"
        f"23 1 {number} / / rw,relatime shared:1 master:2 - ext4 /dev/root rw\n"
    )
    assert file_system_of(str(tmp_path), str(table)) == "ext4"
    table.write_text("")
    assert file_system_of(str(tmp_path), str(table)) == ""
    assert file_system_of(str(tmp_path / "none")) == ""
    assert file_system_of(str(tmp_path), str(tmp_path / "none")) == ""
