"""What a node daemon keeps of other nodes that are gone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mray.ids import new_node_id, new_process_id
from mray.node.neighbours import Neighbours
from mray.node.sched.cluster_view import ClusterView
from mray.wire.messages import Address, DeathCause, NodeGone, NodeInfo


def info(node_id: bytes) -> NodeInfo:
    address = Address(node_id, node_id, "", "10.0.0.1:1")
    return NodeInfo(node_id, address, "", "", 1, {}, {}, "", "", "", 0, True, "1", "3")


class Daemon:
    """A node daemon's connections and its neighbours."""

    def __init__(self) -> None:
        self.own = new_node_id()
        self.connected: dict[bytes, None] = {}
        self.gone: list[bytes] = []
        pump: Any = SimpleNamespace(
            peers=lambda: list(self.connected), hang_up=lambda p: self.connected.pop(p, None)
        )
        peers: Any = []
        self.neighbours = Neighbours(
            pump, peers, ClusterView(info(self.own)), on_process=lambda process_id: None,
            on_node=lambda node_id, cause: self.gone.append(node_id), on_change=lambda: None,
            on_own_end=lambda text: None,
        )  # fmt: skip


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


def test_no_connection_outlives_the_node_at_its_other_end(daemon: Daemon) -> None:
    """Lines that are dialled would be dialled for ever, links ask for ever what has come."""
    mine = new_process_id(daemon.own)
    daemon.connected[mine] = None
    for _ in range(100):
        node_id = new_node_id()
        daemon.neighbours.joined([info(node_id)])
        for process_id in (node_id, new_process_id(node_id), new_process_id(node_id)):
            daemon.connected[process_id] = None
        lost = NodeGone(node_id, DeathCause("node_died", node_id=node_id))
        daemon.neighbours.handlers[NodeGone](b"head", lost)
    assert list(daemon.connected) == [mine]
    assert len(daemon.gone) == 100


def test_what_was_known_of_a_node_is_told_once_when_it_is_gone(daemon: Daemon) -> None:
    node, told = info(new_node_id()), list[NodeInfo]()
    daemon.neighbours.on_gone.append(told.append)
    lost = NodeGone(node.node_id, DeathCause("node_died", node_id=node.node_id))
    daemon.neighbours.handlers[NodeGone](b"head", lost)
    assert told == []  # Never heard of.
    other = Daemon()
    other.neighbours.on_gone.append(told.append)
    other.neighbours.joined([node])
    for _ in range(2):
        other.neighbours.handlers[NodeGone](b"head", lost)
    assert told == [node]
