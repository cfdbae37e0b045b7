"""`mray health-check`: whether a cluster answers, as an exit code."""

from __future__ import annotations

import time

import typer

from mray.cli.cluster import connect
from mray.cli.options import Address, AsJson
from mray.cli.render import print_json
from mray.units import format_count, format_duration
from mray.wire.messages import GetNodes, Nodes

app = typer.Typer(add_completion=False)


@app.command()
def health_check(address: Address = None, as_json: AsJson = False) -> None:
    """Ask the head whether it is well. Exit code 0 if it answers, 1 if not, within 5 seconds.

    \b
      mray health-check && mray submit job.py
      mray health-check --address 10.0.0.5:6379
    """
    with connect(address) as cluster:
        begun = time.perf_counter()
        nodes = cluster.ask_head(GetNodes, Nodes).nodes
        took_s = time.perf_counter() - begun
        where = cluster.address
    alive = sum(view.state == "ALIVE" for view in nodes)
    if as_json:
        print_json({"healthy": True, "address": where, "answer_s": took_s, "nodes_alive": alive})
    else:
        count = format_count(alive, "node")
        print(f"healthy: the head at {where} answers in {format_duration(took_s)}; {count} alive")
