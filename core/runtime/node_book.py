"""Other nodes' daemons, as far as this process has to talk to them about its objects.

Owns finding out their addresses, from the head and only when needed. Who is alive is the head's to
say; of a node that is not known, or cannot be reached, whoever asks is told so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from mray.wire.messages import Address, GetNodes, Message, Nodes

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime

log = logging.getLogger("mray.runtime")

_TIMEOUT_S = 30.0


class NodeBook:
    """See the module. All in the loop."""

    def __init__(self, runtime: Runtime) -> None:
        self.rt = runtime
        #: Of living nodes.
        self._addresses: dict[bytes, Address] = {}
        #: Who waits for the head's list, by the node asked for.
        self._waiting: dict[bytes, list[Callable[[bool], None]]] = {}

    def reach(self, node_id: bytes, told: Callable[[bool], None]) -> None:
        """Connect to a node; ``told`` says, now or later, whether there is a way."""
        rt = self.rt
        if node_id in rt.dead_nodes:
            told(False)
        elif rt.pump.door.knows(node_id):
            told(True)
        elif node_id in self._addresses:
            told(rt.reach(self._addresses[node_id]))
        else:
            self._waiting.setdefault(node_id, []).append(told)
            if len(self._waiting) == 1 and len(self._waiting[node_id]) == 1:
                self._ask()

    def tell(self, node_id: bytes, message: Message) -> None:
        """Send once there is a way. What cannot be sent is dropped: the node is gone."""

        def told(reached: bool) -> None:
            if not (reached and self.rt.pump.send(node_id, message)):
                log.debug("node %s is not told: it cannot be reached", node_id.hex()[:8])

        self.reach(node_id, told)

    def gone(self, node_id: bytes) -> None:
        """A node is dead."""
        self._addresses.pop(node_id, None)

    def _ask(self) -> None:
        rt = self.rt

        def answered(reply: Message) -> None:
            if isinstance(reply, Nodes):
                for view in reply.nodes:
                    node_id = view.node.node_id
                    if view.state != "DEAD" and node_id not in rt.dead_nodes:
                        self._addresses[node_id] = view.node.address
            waiting, self._waiting = self._waiting, {}
            for node_id, calls in waiting.items():
                address = self._addresses.get(node_id)
                reached = address is not None and rt.reach(address)
                for call in calls:
                    call(reached)

        rt.head_link.ask(GetNodes, answered, _TIMEOUT_S)
