"""What the death of another node means to a driver or worker: all processes there are dead.

A process is told of nodes by its own node daemon, which has it from the head. Of the end of its own
node it learns from the kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mray.ids import is_on
from mray.wire.messages import DeathCause, NodeGone, ProcessDied

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime

#: Dead nodes that are remembered.
_DEAD_MAX: Final = 10_000


def node_gone(rt: Runtime, sender: bytes, message: NodeGone) -> None:
    """Handler of NodeGone: whoever matters here and lived there is dead. Told once a node."""
    node_id, cause = message.node_id, message.cause
    if node_id in rt.dead_nodes or node_id == rt.node.node_id:
        return
    rt.dead_nodes[node_id] = message
    rt.nodes.gone(node_id)
    while len(rt.dead_nodes) > _DEAD_MAX:
        del rt.dead_nodes[next(iter(rt.dead_nodes))]
    text = f"its node {node_id.hex()[:10]} is gone: {cause.text}"
    kind = "drained" if cause.kind == "drained" else "node_died"
    ended = DeathCause(kind, text, node_id=node_id)
    peers = {*rt.pump.peers(), *rt.ledger.peers(node_id), *rt.tasks.dispatcher.by_worker}
    for process_id in peers:
        if is_on(process_id, node_id):
            rt.process_died(ProcessDied(process_id, "process", b"", ended))
    for call in rt.on_node_gone:
        call(message)
