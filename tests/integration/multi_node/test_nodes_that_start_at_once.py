"""Nodes of a Cluster that nobody waits for one by one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mray.bootstrap import StartError
from mray.cluster_utils import Cluster
from mray.process import read_stat
from mray.session import Session


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """The head's node alone."""
    made = Cluster(True)
    yield made
    made.shutdown()


def test_nodes_start_at_once_and_are_waited_for_together(cluster: Cluster) -> None:
    added = [cluster.add_node(wait=False) for _ in range(3)]
    assert not any(node._starting.is_finished for node in added)
    assert cluster.remaining_processes_alive()
    cluster.wait_for_nodes()
    assert all(node._starting.is_finished for node in added)
    assert cluster.list_all_nodes()[1:] == added
    assert {node._started.node.node_id.hex() for node in added if node._started.node} == {
        node.node_id for node in added
    }


def test_a_node_that_does_not_start_is_told_of_by_who_waits(cluster: Cluster) -> None:
    good = cluster.add_node(wait=False)
    bad = cluster.add_node(wait=False, object_store_memory=1 << 60)
    with pytest.raises(StartError, match="/dev/shm has only"):
        cluster.wait_for_nodes()
    assert cluster.worker_nodes == [good]
    assert not bad.any_processes_alive()
    assert Session(bad.address).ended
    cluster.wait_for_nodes()


def test_a_node_that_has_not_answered_can_be_ended(cluster: Cluster) -> None:
    removed, left = cluster.add_node(wait=False), cluster.add_node(wait=False)
    cluster.remove_node(removed, allow_graceful=False)
    assert cluster.worker_nodes == [left]
    cluster.shutdown()
    for node in (removed, left):
        assert read_stat(node.raylet_pid) is None
        assert Session(node.address).ended
