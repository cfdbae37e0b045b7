"""`mray stack`: what each thread of workers and drivers does at this moment, without root."""

from __future__ import annotations

from typing import Annotated

import typer

from mray.cli.cluster import connect
from mray.cli.failure import Failure, WrongUsage
from mray.cli.options import Address, AsJson
from mray.cli.render import print_json
from mray.wire.messages import GetStacks, Stacks

app = typer.Typer(add_completion=False)

_WAIT_S = 2.0


@app.command()
def stack(
    pid: Annotated[
        str,
        typer.Argument(metavar="PID", help="A worker's or driver's pid, or all."),
    ] = "all",
    address: Address = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Print the stacks of all threads of workers and drivers, the innermost call first.

    Works while they compute or hang, and disturbs nothing.

    \b
      mray stack
      mray stack 4711
    """
    if pid != "all" and not pid.isdecimal():
        raise WrongUsage(f"{pid!r} is no pid; `mray list workers` shows them")
    pids = [] if pid == "all" else [int(pid)]
    found = []
    with connect(address) as cluster:
        for node in cluster.nodes.nodes:
            if node.state == "ALIVE":
                told = cluster.ask_node(
                    node, lambda rid: GetStacks(rid, pids, _WAIT_S), Stacks, _WAIT_S + 5.0
                )
                found += [(node.node.ip, *row) for row in told.stacks]
    if pids and not found:
        raise Failure(f"no worker and no driver has pid {pid}; `mray list workers` shows them")
    if as_json:
        names = ("ip", "pid", "type", "title", "stacks")
        print_json([dict(zip(names, row, strict=True)) for row in found])
        return
    for ip, number, kind, title, text in found:
        print(f"== {kind} pid {number}, ip {ip}" + (f", {title}" if title else "") + " ==")
        print(f"{text.strip()}\n")
