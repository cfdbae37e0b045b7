"""Calls the nodes of a head that has begun anew in another place: they wait in the old one.

A node knows where its head was and tries that address; the storage, which the head alone knows,
says where the nodes listen. So it is the new head that has to speak first. It gives those time that
find it by themselves: a head in the old place calls hardly anybody. Decides nothing about nodes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from mray.rpc.endpoints import split_host_port
from mray.rpc.pump import Pump
from mray.wire.messages import Address, NodeInfo, RegisterAgain

log = logging.getLogger("mray.head")

#: A node that the head's old place serves has registered again long before.
FIRST_S: Final = 2.0
#: What it answers may be lost with a head that goes again, so it is called more than once.
AGAIN_S: Final = 5.0
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


class Calling:
    """``expected()``: the nodes that have not come back. ``head``: where this one listens."""

    def __init__(
        self, pump: Pump, head: Address, epoch: int, expected: Callable[[], list[NodeInfo]]
    ) -> None:
        self._pump = pump
        self._head = head
        self._epoch = epoch
        self._expected = expected
        self._called: set[bytes] = set()
        if epoch > 1 and head.tcp and expected():
            pump.after(FIRST_S, self._call)

    def _call(self) -> None:
        nodes = self._expected()
        for node in nodes:
            try:
                self._say(node)
            except ValueError as error:
                log.warning("node %s cannot be called: %s", node.node_id.hex()[:10], error)
        if nodes:
            self._pump.after(AGAIN_S, self._call)

    def _say(self, node: NodeInfo) -> None:
        there = node.address.tcp
        if not there:
            return
        if _is_loopback(self._head.tcp) and not _is_loopback(there):
            if node.node_id not in self._called:
                self._called.add(node.node_id)
                log.warning(
                    "node %s at %s cannot be told where its head is now: this one listens at %s, "
                    "for this machine alone; start it with --node-ip-address IP",
                    node.node_id.hex()[:10], there, self._head.tcp,
                )  # fmt: skip
            return
        if node.node_id not in self._called:
            self._called.add(node.node_id)
            log.info("node %s is called at %s", node.node_id.hex()[:10], there)
        # By tcp alone, where links keep the order: it may have come by itself at this moment.
        address = Address(node.node_id, node.node_id, tcp=there)
        self._pump.send_to(address, RegisterAgain(self._epoch, self._head))

    def lost(self, node_id: bytes) -> None:
        """A node is dead: nobody is to try its address any more."""
        if node_id in self._called:
            self._called.discard(node_id)
            self._pump.hang_up(node_id)


def _is_loopback(tcp: str) -> bool:
    return split_host_port(tcp)[0] in _LOOPBACK
