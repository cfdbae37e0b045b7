"""`mray timeline`: the tasks of the cluster as a file that chrome://tracing and Perfetto draw."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from mray.cli import tasks
from mray.cli.cluster import connect
from mray.cli.failure import Failure
from mray.cli.options import Address
from mray.cli.render import note
from mray.state_collect import TIMELINE_MAX
from mray.trace import trace_of
from mray.units import format_bytes, format_count

app = typer.Typer(add_completion=False)


@app.command()
def timeline(
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", show_default=False,
            help="Where to write it; - for standard output. Default: mray-timeline-<time>.json.",
        ),
    ] = None,
    address: Address = None,
) -> None:  # fmt: skip
    """Write what ran where and when: a bar for each attempt of a task, a line for each worker.

    \b
      mray timeline
      mray timeline -o run.json     # open it at https://ui.perfetto.dev
    """
    with connect(address) as cluster:
        found = tasks.find(cluster, [], TIMELINE_MAX)
        names = {view.node.node_id: f"node {view.node.ip}" for view in cluster.nodes.nodes}
    events = trace_of(found.views, time.time(), names)
    text = json.dumps(events)
    if output == "-":
        print(text)
        return
    path = output or time.strftime("mray-timeline-%Y-%m-%d_%H-%M-%S.json")
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}") from error
    bars = sum(event["ph"] == "X" for event in events)
    print(f"{path}: {format_count(bars, 'attempt')}, {format_bytes(len(text))}")
    print("Open it in chrome://tracing or at https://ui.perfetto.dev")
    if found.total > len(found.views):
        note(f"the newest {len(found.views):,} of {found.total:,} attempts")
