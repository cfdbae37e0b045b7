"""A node that is killed leaves nothing on a machine where another node of its cluster lives."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import mray
from mray.cluster_utils import Cluster
from mray.session_files import Session

from ...waiting import eventually

pytest.importorskip("fsspec")


def test_store_and_spilled_objects_of_a_killed_node_are_removed_by_another(tmp_path: Path) -> None:
    settings = {
        "object_spilling_directory": f"local://{tmp_path}", "health_check_period_ms": 600,
        "health_check_timeout_ms": 2000,
    }  # fmt: skip
    with Cluster(True, head_node_args={"_system_config": settings}) as cluster:
        victim = cluster.add_node(resources={"there": 1}, object_store_memory=80 << 20)
        cluster.connect(log_to_driver=False)

        @mray.remote(resources={"there": 1})
        def make() -> list[mray.ObjectRef]:
            return [mray.put(np.zeros(4 << 20)) for _ in range(4)]

        refs = mray.get(make.remote(), timeout=60)
        mine = f"mray-{os.getuid()}-{os.path.basename(victim.address)}-{victim.node_id[:8]}"
        eventually(lambda: len(os.listdir(tmp_path / mine)) > 1, 30)
        assert os.path.isdir(f"/dev/shm/{mine}")
        assert len(os.listdir(tmp_path)) == 2
        victim.kill_raylet()
        eventually(lambda: not os.path.exists(tmp_path / mine), 30)
        eventually(lambda: not os.path.exists(f"/dev/shm/{mine}"), 30)
        assert len(os.listdir(tmp_path)) == 1
        assert not Session(victim.address).ended
        del refs
