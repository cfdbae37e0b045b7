"""What the other nodes are to this daemon: who is there, who is gone, whose processes have ended.

The shell of sched/cluster_view.py. Passes the death of nodes and of processes elsewhere on to the
processes of this node, and finds out for them whether a process of another node lives: a process is
told of the deaths that come, not of those before its time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from mray.ids import is_on
from mray.node.sched.cluster_view import ClusterView
from mray.node.workers.peers import Peers
from mray.rpc.pump import Pump
from mray.wire import messages as m

#: The head's news of a node that others have heard of already may come so much later.
_UNKNOWN_S: Final = 5.0
_DEAD_MAX: Final = 100_000


class Neighbours:
    """See the module. ``on_process(process_id)`` for each process elsewhere that has ended,
    ``on_node(node_id, cause)`` for each node that is gone, ``on_change()`` after any news."""

    def __init__(
        self, pump: Pump, peers: Peers, view: ClusterView, *,
        on_process: Callable[[bytes], None],
        on_node: Callable[[bytes, m.DeathCause], None],
        on_change: Callable[[], None],
        on_own_end: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.view = view
        #: Processes elsewhere that have ended, the last ones.
        self._dead: dict[bytes, None] = {}
        self._pump = pump
        self._peers = peers
        self._on_process = on_process
        self._on_node = on_node
        self._on_change = on_change
        self._on_own_end = on_own_end
        #: Called with what was known of a node that is gone.
        self.on_gone: list[Callable[[m.NodeInfo], None]] = []
        self.handlers: dict[type[m.Message], Callable[[bytes, Any], None]] = {
            m.ProcessDied: self._process_died,
            m.NodeJoined: lambda sender, message: self.joined([message.node]),
            m.NodeGone: self._node_gone,
            m.ClusterNews: self._news,
            m.LeaseOverElsewhere: self._lease_over,
            m.CheckProcess: self._check,
        }

    def joined(self, nodes: Iterable[m.NodeInfo]) -> None:
        """Nodes are in the cluster."""
        self.view.joined(nodes)
        self._on_change()

    @property
    def draining(self) -> bool:
        """Whether this node takes nothing new."""
        return self.view.nodes[self.view.own_id].draining

    def lives(self, process_id: bytes, node_id: bytes) -> bool:
        """Whether a process of another node may be alive, for all that was heard."""
        known = node_id in self.view.nodes and node_id != self.view.own_id
        return known and is_on(process_id, node_id) and process_id not in self._dead

    def is_unknown(self, node_id: bytes) -> bool:
        """Whether nothing was heard of a node, not even its end."""
        return node_id not in self.view.nodes and node_id not in self.view.gone

    def send_to(self, node_id: bytes, message: m.Message) -> bool:
        """Send to the daemon of a node; False if it is not there."""
        info = self.view.address_of(node_id)
        return info is not None and self._pump.send_to(info.address, message)

    def _news(self, sender: bytes, message: m.ClusterNews) -> None:
        self.view.news(message)
        self._on_change()

    def _lease_over(self, sender: bytes, message: m.LeaseOverElsewhere) -> None:
        self.view.lease_over(message.node_id, message.resources)
        self._on_change()

    def _process_died(self, sender: bytes, message: m.ProcessDied) -> None:
        """The head, or its daemon, tells of the end of another node's process."""
        self._dead[message.process_id] = None
        if len(self._dead) > _DEAD_MAX:
            del self._dead[next(iter(self._dead))]
        for peer in self._peers:
            self._pump.send(peer.process_id, message)
        self._on_process(message.process_id)
        self._pump.hang_up(message.process_id)

    def _node_gone(self, sender: bytes, message: m.NodeGone) -> None:
        node_id, cause = message.node_id, message.cause
        if node_id == self.view.own_id:
            # Others run our tasks by now: nothing of ours may be heard of again.
            self._on_own_end(f"the head declared this node dead: {cause.text}")
            return
        info = self.view.address_of(node_id)
        if not self.view.left(node_id, cause):
            return
        if info is not None:
            for told in self.on_gone:
                told(info)
        for peer in self._peers:
            self._pump.send(peer.process_id, message)
        self._on_node(node_id, cause)
        for process_id in [node_id, *self._pump.peers()]:
            if is_on(process_id, node_id):
                self._pump.hang_up(process_id)
        self._on_change()

    # -- does it live?

    def _check(self, sender: bytes, message: m.CheckProcess) -> None:
        """A process here, or another daemon for one of its processes, asks. Silence is a yes."""
        if message.node_id == self.view.own_id:
            if message.process_id not in self._peers and message.process_id != message.node_id:
                text = "it had ended before anybody here asked for it"
                cause = m.DeathCause("exit", text, node_id=self.view.own_id)
                dead = m.ProcessDied(message.process_id, "process", b"", cause)
                self._pump.send(sender, dead)
        elif sender in self._peers:
            self._ask_there(sender, message, self._pump.clock() + _UNKNOWN_S)

    def _ask_there(self, asker: bytes, message: m.CheckProcess, until: float) -> None:
        node_id = message.node_id
        if node_id in self.view.nodes:
            self.send_to(node_id, message)
        elif node_id not in self.view.gone and self._pump.clock() < until:
            self._pump.after(_UNKNOWN_S / 10, lambda: self._ask_there(asker, message, until))
        else:
            unknown = m.DeathCause("node_died", "no such node is in the cluster", node_id=node_id)
            self._pump.send(asker, m.NodeGone(node_id, self.view.gone.get(node_id, unknown)))
