"""`mray drain`: have a node take nothing new, end its tasks, move its actors, and leave."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from mray.cli.cluster import Cluster, connect
from mray.cli.failure import Failure
from mray.cli.options import Address
from mray.cli.render import short
from mray.units import format_duration
from mray.wire.messages import Ack, DrainNode, GetNodes, Nodes, NodeView

app = typer.Typer(add_completion=False)

#: What the node needs beyond its deadline to end what is left.
_OVERTIME_S = 15.0
_LOOK_S = 0.1


@app.command()
def drain(
    node: Annotated[
        str, typer.Argument(metavar="NODE", help="The id of the node, or how it begins.")
    ],
    reason: Annotated[
        str, typer.Option("--reason", help="Why; shown by whatever ends because of it.")
    ] = "mray drain",
    deadline: Annotated[
        float, typer.Option("--deadline", help="Seconds that running tasks get to end.")
    ] = 30.0,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Return when the node has left.")
    ] = True,
    address: Address = None,
) -> None:
    """Take a node out of the cluster without losing work.

    It gets no new tasks and actors. Tasks that run may end until the deadline; actors that may
    restart begin anew on other nodes, which is not counted. Then the node ends.

    \b
      mray drain 6d4f0a
      mray drain 6d4f0a --reason maintenance --deadline 300
    """
    if deadline < 0:
        raise Failure(f"--deadline must be 0 or more seconds, not {deadline:g}")
    with connect(address) as cluster:
        view = _find(cluster.nodes, node)
        name = short(view.node.node_id)
        if view.node.is_head and len(_living(cluster.nodes)) > 1:
            raise Failure(
                f"node {name} is the head's: the cluster ends with its head, not with a node; "
                "use mray stop"
            )
        cluster.ask_node(view, lambda rid: DrainNode(rid, reason, deadline), Ack)
        print(f"node {name} drains: at most {format_duration(deadline)}")
        if wait:
            _await(cluster, view, deadline + _OVERTIME_S)
            print(f"node {name} has left")


def _living(nodes: Nodes) -> list[NodeView]:
    return [view for view in nodes.nodes if view.state != "DEAD"]


def _find(nodes: Nodes, prefix: str) -> NodeView:
    found = [view for view in _living(nodes) if view.node.node_id.hex().startswith(prefix)]
    if len(found) != 1:
        how_many = "no living node has" if not found else f"{len(found)} nodes have"
        raise Failure(f"{how_many} an id that begins with {prefix!r}; `mray status` shows them")
    return found[0]


def _await(cluster: Cluster, view: NodeView, timeout_s: float) -> None:
    give_up_at = time.monotonic() + timeout_s
    while True:
        now = cluster.ask_head(GetNodes, Nodes)
        if view.node.node_id not in {one.node.node_id for one in _living(now)}:
            return
        if time.monotonic() > give_up_at:
            raise Failure(f"node {short(view.node.node_id)} has not left in time")
        time.sleep(_LOOK_S)
