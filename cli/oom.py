"""`mray oom explain`: each node's memory, and whom its monitor would end, without ending any."""

from __future__ import annotations

import json
from typing import Any

import typer

from mray.cli.cluster import connect
from mray.cli.failure import Failure
from mray.cli.options import Address, AsJson
from mray.cli.render import note, print_json, print_table
from mray.units import format_bytes
from mray.wire.messages import GetOomState, OomState

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def oom() -> None:
    """See what the memory monitor sees, and whom it would end.

    \b
      mray oom explain
    """


@app.command()
def explain(address: Address = None, as_json: AsJson = False) -> None:
    """Show each node's memory and, in their order, the workers that would be ended. Ends none.

    \b
      mray oom explain
      mray oom explain --json
    """
    found: list[dict[str, Any]] = []  # Any: JSON
    with connect(address) as cluster:
        for view in cluster.nodes.nodes:
            if view.state != "ALIVE":
                continue
            try:
                answer = cluster.ask_node(view, GetOomState, OomState)
            except Failure as failure:
                note(str(failure))
                continue
            found.append(json.loads(answer.facts))
    if as_json:
        print_json(found)
        return
    for number, facts in enumerate(found):
        if number:
            print()
        _show(facts)


def _show(facts: dict[str, Any]) -> None:
    used, limit, threshold = (facts[f"{n}_bytes"] for n in ("used", "limit", "threshold"))
    print(f"Node {facts['node_id'][:12]}: {format_bytes(used)} of {format_bytes(limit)} used")
    room = threshold - used
    where = f"{format_bytes(room)} left" if room >= 0 else f"{format_bytes(-room)} above it"
    print(f"  threshold     {format_bytes(threshold)} ({where})")
    admits = "new tasks are admitted" if facts["admits_tasks"] else "no new tasks are admitted"
    print(f"  soft mark     {format_bytes(facts['soft_mark_bytes'])} ({admits})")
    state = "off" if facts["monitor"] == "off" else f"on, {facts['phase']}"
    print(f"  monitor       {state}; policy {facts['policy']}")
    print(f"  measured by   {facts['source']}")
    print(f"  object store  {format_bytes(facts['store_used_bytes'])}")
    for driver in facts["drivers"]:
        size = format_bytes(driver["private_bytes"])
        print(f"  driver        pid {driver['pid']}, {size}; never ended")
    if not facts["ranks"]:
        print("No worker could be ended.")
        return
    now = "now" if facts["would_kill_now"] else "if memory ran short"
    print(f"Would be ended {now}, in this order:")
    print_table(
        ["#", "pid", "what", "memory", "rule", "retried", "why"],
        [
            [
                str(rank), str(choice["pid"]), f"{choice['kind']} {choice['name']}".strip(),
                format_bytes(choice["private_bytes"]), choice["rule"],
                "yes" if choice["should_retry"] else "no", choice["why"],
            ]
            for rank, choice in enumerate(facts["ranks"], start=1)
        ],
        right=["#", "pid", "memory"],
    )  # fmt: skip
