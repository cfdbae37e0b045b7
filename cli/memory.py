"""`mray memory`: what fills the object stores, who holds each object and why it is alive."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from mray import memory_collect, memory_text
from mray import memory_selection as selection
from mray.cli import arguments
from mray.cli.cluster import Cluster, connect
from mray.cli.failure import Failure, WrongUsage
from mray.cli.options import Address, AsJson
from mray.cli.render import print_json
from mray.memory_report import Memory, MemoryObject, NodeMemory, Process, Reference
from mray.units import format_count, format_duration, parse_duration
from mray.wire.messages import MemoryReport, NodeView

app = typer.Typer(add_completion=False)

#: Entries as JSON has them. Any: JSON.
Facts = dict[str, Any]

#: What Ray calls the same.
_RAY_SORTS: Final = {"OBJECT_SIZE": "size", "PID": "pid", "REFERENCE_TYPE": "kind"}
_RAY_GROUPS: Final = {"NODE_ADDRESS": "node", "STACK_TRACE": "callsite"}
#: So few objects are shown with all that is known of them.
_DETAILED_MAX: Final = 3


@app.command()
def memory(
    sort: Annotated[
        str,
        typer.Option(
            "--sort", "--sort-by", metavar="KEY",
            help="size, age, count, pid or kind; Ray's OBJECT_SIZE, PID, REFERENCE_TYPE too.",
        ),
    ] = "size",
    filter: Annotated[
        list[str] | None,
        typer.Option(
            "--filter", "-f", metavar="KEY=VALUE",
            help="Only objects with this value, or without it (KEY!=VALUE); repeatable. Keys: "
            + ", ".join(selection.FILTERS) + ".",
        ),
    ] = None,
    group_by: Annotated[
        str,
        typer.Option(
            "--group-by", metavar="KEY", show_default=False,
            help="Show sums by callsite, owner, node or kind; Ray's NODE_ADDRESS and STACK_TRACE "
            "too.",
        ),
    ] = "",
    leaks: Annotated[
        bool,
        typer.Option(
            "--leaks", help="Only objects that no live Python reference keeps alive anywhere."
        ),
    ] = False,
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than", metavar="TIME",
            help="With --leaks, also objects of this age (10min, 2h) that nobody reads.",
        ),
    ] = None,
    units: Annotated[
        str, typer.Option("--units", metavar="auto|B|KB|MB|GB", help="How sizes are shown.")
    ] = "auto",
    num_entries: Annotated[
        int | None,
        typer.Option(
            "--num-entries", "-n", "--n", min=1, metavar="N", show_default=False,
            help="Show N objects, or groups, instead of what fits 20 lines.",
        ),
    ] = None,
    stats_only: Annotated[
        bool, typer.Option("--stats-only", help="Only the totals.")
    ] = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Show what holds memory: totals, the biggest objects and why each is alive, call sites.

    \b
      mray memory
      mray memory --sort age -n 50
      mray memory --leaks --older-than 10min
      mray memory --filter kind=OUT_OF_BAND --filter pid!=4711
      mray memory --filter object_id=0300000000 --json
    """
    sort = _one_of("--sort", sort, selection.SORTS, _RAY_SORTS)
    if group_by:
        group_by = _one_of("--group-by", group_by, selection.GROUPS, _RAY_GROUPS)
    units = _one_of("--units", units, ("auto", *memory_text.UNITS), {})
    wanted = arguments.filters(filter or [])
    older_than_s = _age(older_than, leaks)
    try:
        selection.chosen([], wanted)
    except ValueError as error:
        raise WrongUsage(f"--filter: {error}") from error
    with connect(address) as cluster:
        report = memory_collect.collect(cluster.nodes.nodes, lambda view: ask(cluster, view))
    objects = selection.chosen(report.objects, wanted)
    heading = ""
    if leaks:
        objects = selection.leaks(objects, older_than_s)
        heading = _leaks_heading(objects, older_than_s)
    objects = selection.ordered(objects, sort)
    if as_json:
        print_json(facts(report, objects[:num_entries], group_by))
        return
    lines = memory_text.overview(
        report,
        objects,
        width=shutil.get_terminal_size((80, 24)).columns,
        units=units,
        entries=num_entries,
        heading=heading,
        group_by=group_by,
        stats_only=stats_only,
    )
    if wanted and not stats_only and not group_by and len(objects) <= _DETAILED_MAX:
        for found in objects:
            lines += ["", *memory_text.details(found, units)]
    print("\n".join(lines))
    if report.nodes and len(report.unreachable) == len(report.nodes):
        raise Failure("no node could be asked")


def _one_of(option: str, text: str, names: Sequence[str], ray: dict[str, str]) -> str:
    """``text`` as mray calls it, from its own name or Ray's; WrongUsage lists what there is."""
    for name in names:
        if text.lower() == name.lower():
            return name
    if text.upper() in ray:
        return ray[text.upper()]
    known = ", ".join((*names, *ray))
    raise WrongUsage(f"{option} {text!r} is none of {known}")


def _age(text: str | None, leaks: bool) -> float | None:
    if text is None:
        return None
    if not leaks:
        raise WrongUsage("--older-than belongs to --leaks; `--sort age` shows the oldest first")
    try:
        return parse_duration(text)
    except ValueError as error:
        raise WrongUsage(f"--older-than: {error}") from error


def _leaks_heading(found: Sequence[MemoryObject], older_than_s: float | None) -> str:
    text = f"{format_count(len(found), 'object')} kept alive without a live Python reference"
    if older_than_s is not None:
        text += f", or older than {format_duration(older_than_s)} and read by nobody"
    return text


def ask(cluster: Cluster, view: NodeView) -> MemoryReport | str:
    try:
        return cluster.ask_node(
            view, memory_collect.question, MemoryReport, memory_collect.ANSWER_S
        )
    except Failure as failure:
        return failure.text


# ------------------------------------------------------------------------------------------ JSON


def facts(report: Memory, objects: Sequence[MemoryObject], group_by: str) -> Facts:
    """What --json prints: full ids, bytes, seconds; null for what is not known."""
    found: Facts = {
        "nodes": [_node_facts(node) for node in report.nodes],
        "totals": {
            "objects": len(report.objects),
            "unlisted_objects": report.unlisted_count,
            "size_bytes": selection.total_size(report.objects),
            "kinds": report.kinds,
        },
        "processes": [_process_facts(process) for process in report.processes],
        "objects": [_object_facts(one) for one in objects],
        "call_sites": _group_facts(objects, "callsite", "call_site"),
    }
    if group_by:
        found["groups"] = _group_facts(objects, group_by, "key")
    return found


def _group_facts(objects: Sequence[MemoryObject], by: str, name: str) -> list[Facts]:
    return [
        {name: group.key, "objects": len(group.objects), "size_bytes": group.size_bytes}
        for group in selection.grouped(objects, by)
    ]


def _node_facts(node: NodeMemory) -> Facts:
    facts: Facts = {"node_id": node.node_id, "ip": node.ip, "error": node.error or None}
    if node.report is None:
        return {**facts, "store": None}
    stats = node.report.store
    return {
        **facts,
        "store": {
            "capacity_bytes": stats.capacity_bytes,
            "used_bytes": stats.used_bytes,
            "warm_bytes": stats.warm_bytes,
            "objects": stats.object_count,
            "spilled_bytes": stats.spilled_bytes,
            "spilled_objects": stats.spilled_objects,
            "overflow_bytes": stats.overflow_bytes,
            "spilled_bytes_total": stats.spilled_bytes_total,
            "spilled_objects_total": stats.spilled_objects_total,
            "restored_bytes_total": stats.restored_bytes_total,
            "restored_objects_total": stats.restored_objects_total,
            "spill_troubles": stats.spill_troubles,
        },
    }


def _process_facts(process: Process) -> Facts:
    return {
        "worker_id": process.process_id,
        "pid": process.pid,
        "type": process.type,
        "node_id": process.node_id,
        "ip": process.ip,
        "job_id": process.job_id or None,
        "actor_id": process.actor_id or None,
        "title": process.title or None,
        "answered": process.answered,
    }


def _object_facts(found: MemoryObject) -> Facts:
    return {
        "object_id": found.object_id,
        "size_bytes": found.size_bytes,
        "state": found.state,
        "reason": found.reason or None,
        "age_s": round(found.age_s, 3) if found.age_s is not None else None,
        "name": found.name or None,
        "call_site": found.call_site or None,
        "owner_id": found.owner_id or None,
        "owner_pid": found.owner.pid if found.owner is not None else None,
        "stored_on": list(found.stored_on),
        "kind": found.kind,
        "kinds": found.kinds,
        "count": found.count,
        "why_alive": found.why,
        "leak": found.is_leak,
        "references": [_reference_facts(reference) for reference in found.references],
    }


def _reference_facts(reference: Reference) -> Facts:
    process = reference.process
    return {
        "worker_id": process.process_id,
        "pid": process.pid,
        "type": process.type,
        "title": process.title or None,
        "node_id": process.node_id,
        "is_owner": reference.is_owner,
        "kind": reference.kind,
        "kinds": reference.kinds,
        "state": reference.state,
        "age_s": round(reference.age_s, 3) if reference.age_s is not None else None,
        "call_site": reference.call_site or None,
    }
