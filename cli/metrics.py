"""`mray metrics`: figures of the nodes and of users' metrics, as Prometheus reads them."""

from __future__ import annotations

import sys
from typing import Final

import typer

from mray.cli.cluster import connect
from mray.cli.failure import FAILED, Failure
from mray.cli.options import Address, AsJson
from mray.cli.render import note, print_json
from mray.metrics_text import facts, joined, render
from mray.wire.messages import GetMetrics, NodeMetrics

app = typer.Typer(add_completion=False)

#: Ten thousand series take a node less than a second.
_ANSWER_S: Final = 15.0


@app.command()
def metrics(address: Address = None, as_json: AsJson = False) -> int:
    """Print the metrics of all nodes: what mray measures, and what mray.util.metrics recorded.

    The text is the one that Prometheus reads. With metrics_export_port set, each node serves it at
    http://127.0.0.1:PORT/metrics too.

    \b
      mray metrics
      mray metrics --json
    """
    told: list[NodeMetrics] = []
    failed = False
    with connect(address) as cluster:
        for view in cluster.nodes.nodes:
            if view.state != "ALIVE":
                continue
            try:
                told.append(cluster.ask_node(view, GetMetrics, NodeMetrics, _ANSWER_S))
            except Failure as failure:
                note(str(failure))
                failed = True
    if as_json:
        print_json([{"labels": node.labels, "metrics": facts(node.families)} for node in told])
    else:
        families, left_out = joined((node.labels, node.families) for node in told)
        for name in left_out:
            note(f"{name}: nodes disagree on its kind or boundaries; those of the first are shown")
        sys.stdout.write(render(families))
    return FAILED if failed and not told else 0
