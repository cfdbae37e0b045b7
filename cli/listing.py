"""`mray list`: tasks, actors, nodes, workers, jobs, objects and placement groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import typer

from mray.cli import arguments, job, status, tasks
from mray.cli.cluster import Cluster, connect
from mray.cli.failure import WrongUsage
from mray.cli.options import Address, AsJson
from mray.cli.render import ID_DIGITS, amounts, note, print_json, print_table, print_yaml
from mray.resources import to_fixed, to_float
from mray.units import format_bytes, format_count, format_duration
from mray.wire.messages import (
    ActorState,
    GetStoreStats,
    GetWorkers,
    NodeView,
    PlacementGroupState,
    StoreStats,
    Workers,
    WorkerView,
)
from mray.worker_exits import exit_detail, exit_type

app = typer.Typer(add_completion=False)

#: Entries as JSON has them. Any: JSON.
Facts = dict[str, Any]

#: Kind -> the columns of its table; JSON has all there is.
_COLUMNS: Final = {
    "tasks": tasks.COLUMNS,
    "actors": ("actor_id", "class_name", "state", "name", "node_id", "pid"),
    "nodes": ("node_id", "state", "ip", "is_head", "workers", "hostname"),
    "workers": ("worker_id", "type", "state", "pid", "node_id", "age_s", "exit_type"),
    "jobs": ("submission_id", "job_id", "status", "exit_code", "entrypoint"),
    "objects": ("object_id", "size_bytes", "state", "pins", "node_id"),
    "placement-groups": (
        "placement_group_id",
        "name",
        "state",
        "strategy",
        "bundles",
        "waits_for",
    ),
}
_FORMATS: Final = ("table", "json", "yaml")
_NOUNS: Final = {"tasks": ("task", "tasks")}
_NUMBERS: Final = ("pid", "workers", "age_s", "size_bytes", "pins", "exit_code")


def _complete_kind(incomplete: str) -> list[str]:
    return [kind for kind in _COLUMNS if kind.startswith(incomplete)]


@app.command()
def list_entries(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND", show_default=False, autocompletion=_complete_kind,
            help="tasks, actors, nodes, workers, jobs, objects or placement-groups.",
        ),
    ],
    filter: Annotated[
        list[str] | None,
        typer.Option(
            "--filter", "-f", metavar="KEY=VALUE",
            help="Only entries with this value, or without it (KEY!=VALUE); repeatable.",
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, metavar="N", help="Show at most N entries.")
    ] = 100,
    format: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="table|json|yaml", show_default=False,
            help="How to print them. Default: a table, YAML with --detail.",
        ),
    ] = None,
    detail: Annotated[
        bool, typer.Option("--detail", help="All that is known.")
    ] = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """List what is in the cluster.

    \b
      mray list tasks -f state=RUNNING
      mray list tasks -f name=train -f state!=FINISHED --detail
      mray list actors --filter state=ALIVE --json
      mray list workers -f state!=idle --limit 20
    """
    if kind not in _COLUMNS:
        raise WrongUsage(f"there is no list of {kind!r}: one of {', '.join(_COLUMNS)}")
    format = format or ("yaml" if detail else "table")
    if format not in _FORMATS:
        raise WrongUsage(f"--format {format!r} is none of {', '.join(_FORMATS)}")
    wanted = arguments.filters(filter or [])
    with connect(address) as cluster:
        if kind == "tasks":
            told = tasks.find(cluster, wanted, limit)
            total, shown = told.total, tasks.facts_of(told)
        else:
            found = [entry for entry in FETCH[kind](cluster) if arguments.matches(entry, wanted)]
            total, shown = len(found), found[:limit]
    if total > len(shown):
        whole = format_count(total, *_NOUNS.get(kind, ("entry", "entries")))
        note(f"showing {len(shown):,} of {whole}")
    if as_json or format == "json":
        print_json(shown)
    elif format == "yaml":
        print_yaml(shown)
    elif not shown:
        print(f"no {kind}{' that match' if wanted else ''}")
    elif kind == "tasks":
        print_table(tasks.COLUMNS, [tasks.row_of(facts) for facts in shown], right=tasks.NUMBERS)
    else:
        columns = _COLUMNS[kind]
        print_table(
            columns,
            [[_cell(name, entry[name]) for name in columns] for entry in shown],
            right=_NUMBERS,
        )


def _actors(cluster: Cluster) -> list[Facts]:
    return [_actor_facts(actor) for actor in cluster.actors()]


def _actor_facts(actor: ActorState) -> Facts:
    cause = actor.cause
    return {
        "actor_id": actor.actor_id.hex(),
        "class_name": actor.class_name,
        "name": actor.name or None,
        "state": actor.state,
        "job_id": actor.actor_id[-4:].hex(),
        "node_id": actor.node_id.hex() or None,
        "worker_id": actor.worker.process_id.hex() if actor.worker else None,
        "pid": actor.pid or None,
        "incarnation": actor.incarnation,
        "restarts_left": actor.restarts_left,
        "waits_for": actor.reason or None,
        "death_cause": {"kind": cause.kind, "text": cause.text} if cause else None,
    }


def _nodes(cluster: Cluster) -> list[Facts]:
    return [status.node_facts(view) for view in cluster.nodes.nodes]


def _workers(cluster: Cluster) -> list[Facts]:
    entries = []
    for node in _alive(cluster):
        reply = cluster.ask_node(node, lambda rid: GetWorkers(rid, ended=True), Workers)
        entries += [_worker_facts(view, node, "worker") for view in reply.workers]
        entries += [_worker_facts(view, node, "driver") for view in reply.drivers]
    return entries


def _worker_facts(view: WorkerView, node: NodeView, type: str) -> Facts:
    return {
        "worker_id": view.process_id.hex(),
        "type": type,
        "state": view.state,
        "pid": view.pid,
        "job_id": view.job_id.hex() or None,
        "actor_id": view.actor_id.hex() or None,
        "owner_id": view.owner_id.hex() or None,
        "node_id": node.node.node_id.hex(),
        "resources": to_float(view.resources),
        "age_s": round(view.age_s, 3),
        "exit_type": None if view.cause is None else exit_type(view.cause),
        "exit_detail": None if view.cause is None else exit_detail(view.cause),
    }


def _jobs(cluster: Cluster) -> list[Facts]:
    return [job.facts(details) for details in job.newest_first(cluster.jobs())]


def _objects(cluster: Cluster) -> list[Facts]:
    entries = [
        {
            "object_id": object_id.hex(),
            "size_bytes": size_bytes,
            "state": state,
            "pins": pins,
            "owner_id": owner_id.hex(),
            "node_id": node.node.node_id.hex(),
        }
        for node in _alive(cluster)
        for object_id, size_bytes, state, pins, owner_id in cluster.ask_node(
            node, lambda rid: GetStoreStats(rid, objects=True), StoreStats
        ).objects
    ]
    return sorted(entries, key=lambda entry: -int(entry["size_bytes"]))


def _groups(cluster: Cluster) -> list[Facts]:
    return [_group_facts(group) for group in reversed(cluster.groups()) if group.spec is not None]


def _group_facts(group: PlacementGroupState) -> Facts:
    spec = group.spec
    assert spec is not None
    return {
        "placement_group_id": group.group_id.hex(),
        "name": spec.name or None,
        "state": group.state,
        "strategy": spec.strategy,
        "bundles": [to_float(bundle) for bundle in spec.bundles],
        "bundle_nodes": [node.hex() or None for node in group.nodes],
        "job_id": spec.job_id.hex(),
        "is_detached": spec.detached,
        "waits_for": (group.reason or None) if group.state != "REMOVED" else None,
        "is_infeasible": group.infeasible,
        "removed_because": group.reason if group.state == "REMOVED" else None,
    }


def _alive(cluster: Cluster) -> Sequence[NodeView]:
    """The nodes that can be asked; the others are named, never silently left out."""
    for view in cluster.nodes.nodes:
        if view.state != "ALIVE":
            note(f"node {view.node.node_id.hex()[:ID_DIGITS]} is {view.state} and was not asked")
    return [view for view in cluster.nodes.nodes if view.state == "ALIVE"]


FETCH: Final[dict[str, Callable[[Cluster], list[Facts]]]] = {
    "actors": _actors,
    "nodes": _nodes,
    "workers": _workers,
    "jobs": _jobs,
    "objects": _objects,
    "placement-groups": _groups,
}


def _cell(name: str, value: Any) -> str:
    if value is None or value == "":
        return "-"
    if name == "size_bytes":
        return format_bytes(value)
    if name == "age_s":
        return format_duration(value)
    if name == "bundles":
        return "; ".join(amounts(to_fixed(bundle)) for bundle in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    # A submission id is to be typed again and its first characters are those of all others.
    return text[:ID_DIGITS] if name.endswith("_id") and name != "submission_id" else text
