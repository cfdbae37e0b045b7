"""Asking a cluster's nodes for their memory, and putting the answers together.

Covers: every node by name, also the ones that cannot be asked; what to do with an address. The
command line brings its own connection; programs use ``of_runtime`` or ``of_address``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from mray.exceptions import RayError, RpcError
from mray.memory_report import Memory, NodeMemory, join
from mray.state_ask import asker
from mray.wire.messages import GetMemory, GetNodes, MemoryReport, Message, Nodes, NodeView

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime

#: Objects asked for of each process and store: the biggest.
LIMIT: Final = 10_000
#: How long a process may take to answer its node daemon; reading a million entries takes one.
WAIT_S: Final = 3.0
#: How long a node daemon may take, its processes included.
ANSWER_S: Final = WAIT_S + 4.0

#: Asks a living node: its report, or why there is none.
AskNode = Callable[[NodeView], MemoryReport | str]


def question(rid: int) -> Message:
    """What each node is asked."""
    return GetMemory(rid, LIMIT, WAIT_S)


def collect(nodes: Sequence[NodeView], ask: AskNode) -> Memory:
    """Ask each living node; the others are named with the reason."""
    told = []
    for view in nodes:
        node_id, ip = view.node.node_id.hex(), view.node.ip
        answer = ask(view) if view.state == "ALIVE" else f"it is {view.state}"
        if isinstance(answer, str):
            told.append(NodeMemory(node_id=node_id, ip=ip, report=None, error=answer))
        else:
            told.append(NodeMemory(node_id=node_id, ip=ip, report=answer))
    return join(told)


def of_runtime(rt: Runtime) -> Memory:
    """The cluster that this process is connected to."""

    def ask(view: NodeView) -> MemoryReport | str:
        try:
            return rt.ask(view.node.address, question, MemoryReport, ANSWER_S)
        except (RayError, ValueError) as error:
            return str(error)

    return collect(rt.ask(rt.head, GetNodes, Nodes).nodes, ask)


def of_address(address: str | None) -> Memory:
    """Another cluster, as ``init(address=...)`` finds it.

    Raises ConnectionError where there is none or it does not answer, ValueError for a bad address.
    """
    with asker(address) as ask:

        def report(view: NodeView) -> MemoryReport | str:
            try:
                return ask.ask_node(view, question, MemoryReport, ANSWER_S)
            except RpcError as error:
                return str(error)

        return collect(ask.nodes(), report)
