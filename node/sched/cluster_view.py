"""The other nodes as this one knows them: what they have, what is free there, who is gone.

Machine: methods are events of the head's; questions have no effect. What is free is as old as the
last news (a heartbeat and 0.1 s), so an answer is a guess that the other node may turn down.
"""

from __future__ import annotations

from collections.abc import Iterable

from mray.machine import InvariantError
from mray.resources import Resources, fits, take
from mray.wire.messages import ClusterNews, DeathCause, NodeInfo, NodeNews

#: How long it may take until the news of a node shows what was sent there.
DEBIT_S = 1.0
#: Dead nodes that are remembered.
GONE_MAX = 10_000


class Neighbour:
    """A living node. Amounts are fixed point, store numbers bytes."""

    __slots__ = ("available", "debits", "draining", "info", "store_used_bytes", "total", "waiting")

    def __init__(self, info: NodeInfo) -> None:
        self.info = info
        #: What it has, bundles of placement groups included, and what of it is free.
        self.total: Resources = dict(info.resources)
        self.available: Resources = dict(info.resources)
        #: What was sent there since, and until when that counts.
        self.debits: list[tuple[float, Resources]] = []
        #: Requests that wait there.
        self.waiting = 0
        self.store_used_bytes = 0
        #: It takes nothing new.
        self.draining = False


class ClusterView:
    """See the module. ``own``: the node that looks, which is in ``nodes`` too."""

    def __init__(self, own: NodeInfo) -> None:
        self.own_id = own.node_id
        #: In the order in which they were heard of.
        self.nodes: dict[bytes, Neighbour] = {own.node_id: Neighbour(own)}
        self.gone: dict[bytes, DeathCause] = {}

    def joined(self, infos: Iterable[NodeInfo]) -> None:
        """Nodes are there. Again is no harm; a dead one does not come back."""
        for info in infos:
            if info.node_id not in self.gone and info.node_id not in self.nodes:
                self.nodes[info.node_id] = Neighbour(info)

    def left(self, node_id: bytes, cause: DeathCause) -> bool:
        """A node is dead; whether that is new. Our own stays: it is about to end."""
        if node_id in self.gone or node_id == self.own_id:
            return False
        self.nodes.pop(node_id, None)
        self.gone[node_id] = cause
        if len(self.gone) > GONE_MAX:
            del self.gone[next(iter(self.gone))]
        return True

    def news(self, message: ClusterNews) -> None:
        """What has changed on nodes. Of nodes that are not known (yet, or any more) it is void.
        Whether our own drains is known here first."""
        for one in message.nodes:
            node = self.nodes.get(one.node_id)
            if node is not None:
                drains = node.draining if one.node_id == self.own_id else one.draining
                _apply(one, node)
                node.draining = drains

    def address_of(self, node_id: bytes) -> NodeInfo | None:
        """A living node."""
        node = self.nodes.get(node_id)
        return node.info if node is not None else None

    def debit(self, node: Neighbour, need: Resources, count: int, now: float) -> None:
        """So many requests are on their way there."""
        sum_of = {name: amount * count for name, amount in need.items()}
        node.debits.append((now + DEBIT_S, sum_of))

    def lease_over(self, node_id: bytes, freed: Resources) -> None:
        """An owner of ours has given a lease back to another node: what was sent there is over, or
        the last news of the node was of the time when it was not."""
        node = self.nodes.get(node_id)
        if node is None or node_id == self.own_id:
            return
        for _, debit in node.debits:
            if fits(freed, debit):
                take(freed, debit)
                return
        for name in freed.keys() & node.total.keys():
            free = node.available.get(name, 0) + freed[name]
            node.available[name] = min(node.total[name], free)

    def forget_debits(self, now: float) -> None:
        """No news came of what was sent: it was taken and is over, or was not taken."""
        for node in self.nodes.values():
            if node.debits:
                node.debits = [debit for debit in node.debits if debit[0] > now]

    def debits_end(self) -> float | None:
        """When the next of them is forgotten: nobody tells of that."""
        return min((at for node in self.nodes.values() for at, _ in node.debits), default=None)

    def free(self, node: Neighbour) -> Resources:
        """What is thought to be free on a node."""
        if not node.debits:
            return node.available
        left = dict(node.available)
        for _, amounts in node.debits:
            take(amounts, left)
        return left

    def others(self) -> list[Neighbour]:
        """The living nodes but ours."""
        return [node for key, node in self.nodes.items() if key != self.own_id]

    def check(self) -> None:
        """Raise InvariantError on a contradiction."""
        if self.own_id not in self.nodes:
            raise InvariantError("a node does not see itself")
        for node_id, node in self.nodes.items():
            if node_id != node.info.node_id:
                raise InvariantError("a node stands under another's id")
            if node_id in self.gone:
                raise InvariantError(f"node {node_id.hex()[:10]} lives and is gone")


def _apply(one: NodeNews, node: Neighbour) -> None:
    node.available = dict(one.available)
    node.debits.clear()
    node.total = one.total or node.total
    node.waiting = one.waiting
    node.store_used_bytes = one.store_used_bytes
