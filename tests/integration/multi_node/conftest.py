"""Clusters of several nodes on this machine, whose processes talk over tcp as those of many do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mray.cluster_utils import Cluster, ClusterNode

#: A node that is not heard of for two seconds is dead: nobody wants to wait for ten.
SETTINGS = {
    "same_machine_ipc": False,
    "health_check_period_ms": 600,
    "health_check_timeout_ms": 2000,
}


class Three:
    """The head's node with one CPU, where the driver is, and two nodes with two."""

    def __init__(self) -> None:
        settings = dict(SETTINGS)
        self.cluster = Cluster(True, head_node_args={"_system_config": settings})
        self.cluster.connect(log_to_driver=False)
        assert self.cluster.head_node is not None
        self.head: ClusterNode = self.cluster.head_node
        self.left = self.cluster.add_node(
            num_cpus=2, resources={"left": 4, "side": 2}, labels={"zone": "a", "disk": "ssd"}
        )
        self.right = self.cluster.add_node(
            num_cpus=2, resources={"right": 4, "side": 2}, labels={"zone": "b"}
        )

    def ids(self) -> list[str]:
        return [node.node_id for node in self.cluster.list_all_nodes()]


@pytest.fixture(scope="module")
def three() -> Iterator[Three]:
    """See Three; one for all tests of a file."""
    made = Three()
    yield made
    made.cluster.shutdown()


class Gate:
    """Holds tasks at work, on whatever node, until it is opened: see hold()."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = str(folder)

    def arrived(self) -> int:
        """How many tasks wait here."""
        return len(list(self.folder.glob("at-*")))

    def open(self) -> None:
        (self.folder / "open").touch()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    made = Gate(tmp_path)
    yield made
    made.open()
