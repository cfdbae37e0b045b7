"""A broadcast at full size, between nine nodes of this machine: minutes on a small one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import mray as ray
from mray import current
from mray.cluster_utils import Cluster
from mray.wire.messages import GetNodes, GetStoreStats, Nodes, StoreStats

pytestmark = pytest.mark.integration

MIB = 1 << 20


@ray.remote(num_cpus=0)
def total(array: Any) -> int:
    return int(array.sum())


def sent() -> list[int]:
    """What each node has sent to others."""
    rt = current.get()
    return [
        rt.ask(view.node.address, GetStoreStats, StoreStats).sent_bytes_total
        for view in rt.ask(rt.head, GetNodes, Nodes).nodes
    ]


@pytest.mark.soak
def test_a_quarter_of_a_gibibyte_reaches_eight_nodes_and_no_node_sends_it_thrice() -> None:
    size = 256 * MIB
    with Cluster(
        initialize_head=True, connect=True, head_node_args={"object_store_memory": 320 * MIB}
    ) as wide:
        names = [f"wide{number}" for number in range(8)]
        for name in names:
            wide.add_node(resources={name: 1}, object_store_memory=300 * MIB)
        ref = ray.put(np.ones(size, dtype=np.uint8))
        tasks = [total.options(resources={name: 0.001}).remote(ref) for name in names]
        assert ray.get(tasks, timeout=300) == [size] * 8
        assert max(sent()) <= 2 * size + 4 * MIB
        assert 8 * size <= sum(sent()) <= 8 * size + 32 * MIB
