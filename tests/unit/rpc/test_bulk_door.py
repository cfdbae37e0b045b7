"""The door for bulk: as many threads of libzmq as the machine has room for."""

from __future__ import annotations

import os

import pytest

from mray.ids import new_process_id
from mray.rpc.bulk_door import BulkDoor


@pytest.mark.parametrize(("cpus", "threads"), [(1, 1), (2, 1), (8, 4), (64, 4)])
def test_frames_are_encrypted_by_several_threads_where_there_are_cpus(
    cpus: int, threads: int
) -> None:
    before = len(os.listdir("/proc/self/task"))
    door = BulkDoor(new_process_id(), None, cpus)
    try:
        reaper = 1
        assert len(os.listdir("/proc/self/task")) - before == reaper + threads
    finally:
        door.close()
