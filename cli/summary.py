"""`mray summary`: tasks by function, actors by class, objects by where they were made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final

import typer

from mray import memory_collect
from mray.cli import listing, tasks
from mray.cli.cluster import Cluster, connect
from mray.cli.failure import WrongUsage
from mray.cli.memory import ask
from mray.cli.options import Address, AsJson
from mray.cli.render import amounts, print_json, print_table
from mray.resources import to_fixed
from mray.state_facts import Facts, function_facts
from mray.units import format_bytes, format_count, format_duration

app = typer.Typer(add_completion=False)

#: State -> its column, in the order of a task's life.
_STATES: Final = {
    "PENDING_ARGS_AVAIL": "args",
    "PENDING_NODE_ASSIGNMENT": "queued",
    "SUBMITTED_TO_WORKER": "sent",
    "RUNNING": "running",
    "FINISHED": "done",
    "FAILED": "failed",
}
_KINDS: Final = ("tasks", "actors", "objects")


def _complete_kind(incomplete: str) -> list[str]:
    return [kind for kind in _KINDS if kind.startswith(incomplete)]


@app.command()
def summary(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND", show_default=False, autocompletion=_complete_kind,
            help="tasks, actors or objects.",
        ),
    ],
    address: Address = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Count what is in the cluster: tasks by function with their times and memory, actors by
    class, objects by the line that made them.

    \b
      mray summary tasks
      mray summary objects --json
    """
    if kind not in _KINDS:
        raise WrongUsage(f"there is no summary of {kind!r}: one of {', '.join(_KINDS)}")
    with connect(address) as cluster:
        rows = {"tasks": _tasks, "actors": _actors, "objects": _objects}[kind](cluster)
    if as_json:
        print_json(rows)
    elif not rows:
        print(f"no {kind}")
    else:
        {"tasks": _show_tasks, "actors": _show_actors, "objects": _show_objects}[kind](rows)


def _tasks(cluster: Cluster) -> list[Facts]:
    counts = tasks.count(cluster)
    rows = function_facts(counts.rows, counts.peaks)
    return sorted(rows, key=lambda row: -_sum(row["state_counts"]))


def _show_tasks(rows: list[Facts]) -> None:
    states = [state for state in _STATES if any(state in row["state_counts"] for row in rows)]
    all_ = _sum(_sum(row["state_counts"]) for row in rows)
    print(f"{format_count(all_, 'attempt')} of {format_count(len(rows), 'function')}\n")
    columns = ["name", *(_STATES[state] for state in states), "p50", "mean", "max"]
    has_peaks = any(row["peak_memory_max_bytes"] for row in rows)
    if has_peaks:
        columns += ["mem p50", "mem max"]
    columns.append("requested")
    table = []
    for row in rows:
        counts = row["state_counts"]
        cells = [row["func_or_class_name"]]
        cells += [f"{counts[state]:,}" if state in counts else "-" for state in states]
        cells += [_time(row[key]) for key in ("p50_s", "mean_s", "max_s")]
        if has_peaks:
            cells += [tasks.peak(row[f"peak_memory_{key}_bytes"]) for key in ("p50", "max")]
        table.append([*cells, amounts(to_fixed(row["required_resources"]))])
    print_table(columns, table, right=columns[1:-1])


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else format_duration(seconds)


def _sum(counts: dict[str, int] | Iterable[int]) -> int:
    return sum(counts.values() if isinstance(counts, dict) else counts)


def _actors(cluster: Cluster) -> list[Facts]:
    classes: dict[str, dict[str, int]] = {}
    for actor in listing.FETCH["actors"](cluster):
        states = classes.setdefault(actor["class_name"], {})
        states[actor["state"]] = states.get(actor["state"], 0) + 1
    rows = [{"class_name": name, "state_counts": states} for name, states in classes.items()]
    return sorted(rows, key=lambda row: -_sum(row["state_counts"]))


def _show_actors(rows: list[Facts]) -> None:
    states = list(dict.fromkeys(state for row in rows for state in row["state_counts"]))
    print_table(
        ["class", *(state.lower() for state in states)],
        [
            [row["class_name"], *(f"{row['state_counts'].get(s, 0) or '-'}" for s in states)]
            for row in rows
        ],
        right=[state.lower() for state in states],
    )


def _objects(cluster: Cluster) -> list[Facts]:
    report = memory_collect.collect(cluster.nodes.nodes, lambda view: ask(cluster, view))
    made: dict[tuple[str, str], dict[str, Any]] = {}
    for found in report.objects:
        key = found.name or "?", found.call_site or ""
        row = made.setdefault(
            key,
            {"name": key[0], "call_site": key[1] or None, "objects": 0, "bytes": 0, "kinds": {}},
        )
        row["objects"] += 1
        row["bytes"] += found.size_bytes or 0
        for reference in found.references:
            for kind, count in reference.kinds.items():
                row["kinds"][kind] = row["kinds"].get(kind, 0) + count
    return sorted(made.values(), key=lambda row: (-row["bytes"], -row["objects"]))


def _show_objects(rows: list[Facts]) -> None:
    size = format_bytes(sum(row["bytes"] for row in rows))
    count = format_count(sum(row["objects"] for row in rows), "object")
    print(f"{count}, {size}\n")
    table = [
        [row["name"], f"{row['objects']:,}", format_bytes(row["bytes"]), row["call_site"] or "-"]
        for row in rows
    ]
    print_table(["made by", "objects", "bytes", "call site"], table, right=["objects", "bytes"])
