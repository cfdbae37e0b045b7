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
    before = _threads()
    door = BulkDoor(new_process_id(), None, cpus)
    try:
        reaper = 1
        # By their ids: those of earlier doors may be ending.
        assert len(_threads() - before) == reaper + threads
    finally:
        door.close()


def _threads() -> set[str]:
    return set(os.listdir("/proc/self/task"))
