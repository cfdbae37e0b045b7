"""Addresses of other nodes: known while the node lives."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from mray.runtime.node_book import NodeBook
from mray.runtime.node_deaths import node_gone
from mray.wire.messages import Address, DeathCause, NodeGone, NodeInfo, Nodes, NodeView

HEAD = Address(b"head", b"n")


def view(node_id: bytes) -> NodeView:
    address = Address(node_id, node_id, "", "10.0.0.1:1")
    info = NodeInfo(node_id, address, "", "", 1, {}, {}, "", "", "", 0, True, "1", "3")
    return NodeView(info, "ALIVE", {}, [], 0, 0, 0.0)


def test_no_address_outlives_its_node() -> None:
    node_ids = [number.to_bytes(28, "big") for number in range(200)]
    answers: list[Any] = []
    door = SimpleNamespace(knows=lambda node_id: False)
    rt: Any = SimpleNamespace(
        dead_nodes={}, reach=lambda address: True, on_node_gone=[],
        node=SimpleNamespace(node_id=b"own"), pump=SimpleNamespace(door=door, peers=list),
        ledger=SimpleNamespace(peers=lambda node_id: set()),
        tasks=SimpleNamespace(dispatcher=SimpleNamespace(by_worker={})),
        head_link=SimpleNamespace(ask=lambda make, answered, timeout_s: answers.append(answered)),
    )  # fmt: skip
    book = rt.nodes = NodeBook(rt)
    told: list[bool] = []
    book.reach(node_ids[0], told.append)
    answers[0](Nodes(1, "", HEAD, [view(node_id) for node_id in node_ids]))
    for node_id in node_ids:
        node_gone(rt, b"", NodeGone(node_id, DeathCause("node_died")))
    book.reach(b"late" * 7, told.append)
    answers[1](Nodes(2, "", HEAD, [view(node_id) for node_id in node_ids]))  # Of before their end.
    assert told == [True, False]
    assert not book._addresses
    assert not book._waiting
