"""Objects between real nodes: arguments, results, broadcasts, small stores, spills, deaths.

The nodes share this machine, so bytes go through the loopback, encrypted as between machines.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import mray as ray
from mray import current
from mray.cluster_utils import Cluster, ClusterNode
from mray.wire.messages import Ack, DrainNode, GetNodes, GetStoreStats, Nodes, StoreStats
from tests.waiting import eventually

pytestmark = pytest.mark.integration

MIB = 1 << 20


@ray.remote(num_cpus=0)
def total(array: Any) -> int:
    return int(array.sum())


@ray.remote(num_cpus=0)
def make(size: int, fill: int = 1) -> Any:
    return np.full(size, fill, dtype=np.uint8)


@ray.remote(num_cpus=0)
def count(refs: list[Any]) -> int:
    return len(refs)


@ray.remote(num_cpus=0)
def read_inside(refs: list[Any]) -> int:
    return int(ray.get(refs[0]).sum())


def on(name: str) -> dict[str, Any]:
    """Options of what has to run on a node."""
    return {"resources": {name: 0.001}}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(
        initialize_head=True,
        connect=True,
        head_node_args={
            "object_store_memory": 300 * MIB,
            # A node that is killed is known to be dead after two seconds, not ten.
            "_system_config": {"health_check_period_ms": 500, "health_check_failure_threshold": 3},
        },
    ) as cluster:
        for name in ("a", "b", "c"):
            cluster.add_node(resources={name: 1}, object_store_memory=300 * MIB)
        yield cluster


def stats() -> dict[str, StoreStats]:
    """The store of each living node, by its id."""
    rt = current.get()
    return {
        view.node.node_id.hex(): rt.ask(
            view.node.address, lambda rid: GetStoreStats(rid, True), StoreStats
        )
        for view in rt.ask(rt.head, GetNodes, Nodes).nodes
        if view.state == "ALIVE"
    }


def nodes_with(ref: Any) -> set[str]:
    """The nodes that have an object."""
    return {
        node for node, one in stats().items() if any(o[0] == ref.binary() for o in one.objects)
    }


def named(cluster: Cluster, name: str) -> ClusterNode:
    return cluster.worker_nodes["abc".index(name)]


def test_a_big_argument_reaches_a_task_on_another_node(cluster: Cluster) -> None:
    ref = ray.put(np.full(8 * MIB, 3, dtype=np.uint8))
    assert ray.get(total.options(**on("a")).remote(ref), timeout=30) == 24 * MIB
    assert nodes_with(ref) == {cluster.head_node.node_id, named(cluster, "a").node_id}


def test_a_big_result_comes_back_when_it_is_read_and_not_before(cluster: Cluster) -> None:
    ref = make.options(**on("a")).remote(8 * MIB)
    ray.wait([ref], fetch_local=False)
    assert nodes_with(ref) == {named(cluster, "a").node_id}
    array = ray.get(ref, timeout=30)
    assert array.sum() == 8 * MIB
    assert not array.flags.writeable
    assert len(nodes_with(ref)) == 2


def test_wait_has_a_value_brought_here(cluster: Cluster) -> None:
    refs = [make.options(**on(name)).remote(2 * MIB) for name in "abc"]
    ready, rest = ray.wait(refs, num_returns=3, timeout=30)
    assert (len(ready), rest) == (3, [])
    for ref in refs:
        assert cluster.head_node.node_id in nodes_with(ref)


def test_a_get_waits_for_a_transfer_no_longer_than_it_was_told_to(cluster: Cluster) -> None:
    node = named(cluster, "c")
    ref = make.options(**on("c")).remote(4 * MIB)
    ray.wait([ref], fetch_local=False)
    node.signal(signal.SIGSTOP)
    try:
        with pytest.raises(ray.exceptions.GetTimeoutError, match="has not come from there"):
            ray.get(ref, timeout=0.2)
    finally:
        node.signal(signal.SIGCONT)
    assert ray.get(ref, timeout=30).sum() == 4 * MIB


def test_futures_have_values_brought(cluster: Cluster) -> None:
    refs = [make.options(**on(name)).remote(2 * MIB) for name in "abc"]
    futures = [ref.future() for ref in refs]
    assert [future.result(timeout=30).sum() for future in futures] == [2 * MIB] * 3


def test_big_arguments_given_by_value_are_brought_too(cluster: Cluster) -> None:
    array = np.ones(4 * MIB, dtype=np.uint8)
    assert ray.get(total.options(**on("b")).remote(array), timeout=30) == 4 * MIB


def test_references_inside_values_move_no_data_until_they_are_read(cluster: Cluster) -> None:
    ref = ray.put(np.ones(4 * MIB, dtype=np.uint8))
    assert ray.get(count.options(**on("a")).remote([ref]), timeout=30) == 1
    assert nodes_with(ref) == {cluster.head_node.node_id}
    assert ray.get(read_inside.options(**on("a")).remote([ref]), timeout=30) == 4 * MIB
    assert len(nodes_with(ref)) == 2


def test_many_objects_of_two_nodes_are_read_in_their_order(cluster: Cluster) -> None:
    refs = [make.options(**on("ab"[i % 2])).remote(300_000, i) for i in range(40)]
    arrays = ray.get(refs, timeout=60)
    assert [int(array[7]) for array in arrays] == list(range(40))


def test_a_node_reads_what_a_third_one_has(cluster: Cluster) -> None:
    ref = make.options(**on("a")).remote(4 * MIB)
    assert ray.get(total.options(**on("b")).remote(ref), timeout=30) == 4 * MIB
    assert nodes_with(ref) == {named(cluster, "a").node_id, named(cluster, "b").node_id}


def test_a_broadcast_makes_one_copy_a_node_and_one_node_does_not_send_them_all(
    cluster: Cluster,
) -> None:
    size = 64 * MIB
    ref = ray.put(np.ones(size, dtype=np.uint8))
    before = stats()
    tasks = [total.options(**on(name)).remote(ref) for name in "abc" for _ in range(2)]
    assert ray.get(tasks, timeout=60) == [size] * 6
    after = stats()
    sent = {node: after[node].sent_bytes_total - before[node].sent_bytes_total for node in after}
    pulled = [after[node].pulled_bytes_total - before[node].pulled_bytes_total for node in after]
    assert len(nodes_with(ref)) == 4
    assert all(0 <= one <= size + MIB for one in pulled)
    assert 3 * size <= sum(sent.values()) <= 3 * size + 8 * MIB
    assert sent[cluster.head_node.node_id] <= 2 * size + 4 * MIB


def test_all_copies_go_with_the_last_reference(cluster: Cluster) -> None:
    ref = ray.put(np.ones(4 * MIB, dtype=np.uint8))
    ray.get([total.options(**on(name)).remote(ref) for name in "abc"], timeout=30)
    object_id = ref.binary()
    assert len(nodes_with(ref)) == 4
    del ref

    def gone() -> bool:
        return all(o[0] != object_id for one in stats().values() for o in one.objects)

    eventually(gone, 5.0)


def test_a_store_takes_more_in_turn_than_it_holds(cluster: Cluster) -> None:
    node = cluster.add_node(resources={"small": 1}, object_store_memory=80 * MIB)
    try:
        refs = [ray.put(np.full(20 * MIB, i, dtype=np.uint8)) for i in range(10)]
        sums = ray.get([total.options(**on("small")).remote(ref) for ref in refs], timeout=60)
        assert sums == [i * 20 * MIB for i in range(10)]
        small = stats()[node.node_id]
        assert small.pulled_bytes_total >= 200 * MIB
        assert small.spilled_bytes_total == 0, "copies of what others keep are not worth a disk"
    finally:
        cluster.remove_node(node)


def test_a_spilled_object_is_given_from_its_file(cluster: Cluster) -> None:
    node = cluster.add_node(resources={"spiller": 1}, object_store_memory=80 * MIB)
    try:
        refs = [make.options(**on("spiller")).remote(20 * MIB, i) for i in range(8)]
        ray.wait(refs, num_returns=8, timeout=60, fetch_local=False)
        eventually(lambda: stats()[node.node_id].spilled_objects >= 3, 20.0)
        for i, ref in enumerate(refs):
            assert int(ray.get(ref, timeout=60)[5]) == i
        assert stats()[node.node_id].restored_objects_total == 0
        del refs, ref
    finally:
        cluster.remove_node(node)


def test_a_transfer_goes_on_from_another_node_when_its_source_is_killed(cluster: Cluster) -> None:
    node = cluster.add_node(resources={"victim": 1}, object_store_memory=200 * MIB)
    ref = make.options(max_retries=0, **on("victim")).remote(100 * MIB)
    # A second copy, which the owner knows of.
    assert ray.get(total.options(**on("a")).remote(ref), timeout=60) == 100 * MIB
    eventually(lambda: current.get().recovering.locations.copies.get(ref.binary()), 5.0)
    before = stats()[node.node_id].sent_bytes_total
    task = total.options(**on("b")).remote(ref)
    give_up_at = time.monotonic() + 20
    while stats()[node.node_id].sent_bytes_total == before and not ray.wait([task], timeout=0)[0]:
        assert time.monotonic() < give_up_at
    cluster.remove_node(node, allow_graceful=False)
    assert ray.get(task, timeout=60) == 100 * MIB
    assert ray.get(ref, timeout=60).sum() == 100 * MIB


def test_what_a_draining_node_keeps_is_given_to_another_before_it_goes(cluster: Cluster) -> None:
    node = cluster.add_node(resources={"leaver": 1}, object_store_memory=100 * MIB)
    refs = [
        make.options(max_retries=0, **on("leaver")).remote(3 * MIB, number) for number in range(8)
    ]
    ray.wait(refs, num_returns=8, timeout=60, fetch_local=False)
    rt = current.get()
    address = next(
        view.node.address
        for view in rt.ask(rt.head, GetNodes, Nodes).nodes
        if view.node.node_id.hex() == node.node_id
    )
    rt.ask(address, lambda rid: DrainNode(rid, "for a test", 30.0), Ack)
    eventually(lambda: not node.any_processes_alive(), 30.0)
    assert [int(array[9]) for array in ray.get(refs, timeout=30)] == list(range(8))
    cluster.remove_node(node)


def test_reports_name_all_nodes_of_an_object(cluster: Cluster) -> None:
    ref = ray.put(np.ones(4 * MIB, dtype=np.uint8))
    ray.get(total.options(**on("c")).remote(ref), timeout=30)
    nodes = {cluster.head_node.node_id, named(cluster, "c").node_id}
    environ = {**os.environ, "MRAY_ADDRESS": cluster.head_node.address}
    for command in (["memory", "--json"], ["list", "objects", "--json"]):
        text = subprocess.run(
            [sys.executable, "-m", "mray.cli", *command],
            env=environ, capture_output=True, text=True, timeout=60, check=True,
        ).stdout  # fmt: skip
        assert all(node[:12] in text for node in nodes), text
