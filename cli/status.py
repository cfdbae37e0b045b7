"""`mray status`: nodes, resources, object stores, what waits, and jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import typer

from mray.cli.cluster import connect
from mray.cli.options import Address, AsJson
from mray.cli.render import amount, amounts, print_json, print_table, short
from mray.placement import group_in, is_in_group, plain
from mray.resources import to_float
from mray.units import GIB, MIB, format_bytes, format_count, format_duration
from mray.wire.messages import JobDetails, Nodes, NodeView, PlacementGroupState

app = typer.Typer(add_completion=False)


@app.command()
def status(address: Address = None, as_json: AsJson = False) -> None:
    """Show the cluster: its nodes, what is used, what waits and why, and its jobs.

    \b
      mray status
      mray status --json
    """
    with connect(address) as cluster:
        nodes, jobs, where = cluster.nodes, cluster.jobs(), cluster.address
        groups = [group for group in cluster.groups() if group.state != "REMOVED"]
        path = cluster.target.session.path if cluster.target.session else ""
    if as_json:
        print_json(facts(nodes, jobs, where, path, groups))
        return
    print(f"Cluster {nodes.cluster_id[:12]} at {where}, up {format_duration(nodes.uptime_s)}")
    if path:
        print(f"Session {path}")
    print()
    print_table(
        ["node", "ip", "state", "cpu", "memory (threshold)", "object store", "workers"],
        [_row(view) for view in nodes.nodes],
        right=["workers"],
    )
    alive = [view for view in nodes.nodes if view.state == "ALIVE"]
    for words in dict.fromkeys(view.node.memory_monitor for view in alive):
        print(f"\nMemory monitor: {words}")
    for line in [*_disk_lines(alive), *_lost_lines(alive)]:
        print(line)
    print("\nResources in use")
    for name, (used, total) in sorted(_usage(alive).items()):
        print(f"  {f'{amount(name, used)} of {amount(name, total)}':<26}{name}")
    print("\nWaiting")
    demands = _demands(alive)
    for shape, count in demands:
        print(f"  {format_count(count, 'task or actor', 'tasks or actors')} for {shape}")
    if not demands:
        print("  nothing waits for resources")
    if groups:
        states = Counter(group.state for group in groups)
        print("\nPlacement groups")
        print("  " + ", ".join(f"{count} {state}" for state, count in sorted(states.items())))
        for group in groups:
            if group.state != "CREATED":
                print(f"  {short(group.group_id)} {group.reason}")
    counts = Counter(job.status for job in jobs)
    in_words = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    print(f"\nJobs\n  {in_words or 'none so far'}")
    for view in nodes.nodes:
        if view.state != "ALIVE" and view.cause is not None and view.cause.text:
            print(f"\nNode {short(view.node.node_id)} is {view.state}: {view.cause.text}")


def facts(
    nodes: Nodes,
    jobs: Sequence[JobDetails],
    address: str,
    session_dir: str,
    groups: Sequence[PlacementGroupState] = (),
) -> dict[str, Any]:  # Any: JSON
    """What --json prints: full ids, bytes, resources in users' units."""
    alive = [view for view in nodes.nodes if view.state == "ALIVE"]
    return {
        "cluster_id": nodes.cluster_id,
        "address": address,
        "session_dir": session_dir,
        "uptime_s": round(nodes.uptime_s, 3),
        "nodes": [node_facts(view) for view in nodes.nodes],
        "resources": {
            name: {"used": used, "total": total}
            for name, (used, total) in (
                (name, to_float({"u": u, "t": t}).values())
                for name, (u, t) in sorted(_usage(alive).items())
            )
        },
        "pending": [
            {"resources": to_float(shape), "count": count}
            for view in alive
            for shape, count in view.pending
        ],
        "jobs": dict(Counter(job.status for job in jobs)),
        "placement_groups": dict(Counter(group.state for group in groups)),
        "placement_groups_waiting": [
            {"placement_group_id": group.group_id.hex(), "reason": group.reason}
            for group in groups
            if group.state != "CREATED"
        ],
    }


def node_facts(view: NodeView) -> dict[str, Any]:  # Any: JSON
    """A node for JSON."""
    node = view.node
    return {
        "node_id": node.node_id.hex(),
        "state": view.state,
        "draining": view.draining,
        "is_head": node.is_head,
        "ip": node.ip,
        "hostname": node.hostname,
        "pid": node.pid,
        "resources_total": to_float(node.resources),
        "resources_available": {
            name: n for name, n in to_float(view.available).items() if not is_in_group(name)
        },
        "labels": node.labels,
        "workers": view.workers,
        "memory_used_bytes": view.memory_used_bytes,
        "memory_limit_bytes": view.memory_limit_bytes or node.memory_limit_bytes,
        "memory_threshold_bytes": view.memory_threshold_bytes,
        "memory_source": node.memory_source,
        "memory_monitor": node.memory_monitor,
        "object_store_capacity_bytes": node.store_capacity_bytes,
        "object_store_used_bytes": view.store_used_bytes,
        "object_store_path": node.store_path,
        "spilled_bytes": view.store_spilled_bytes,
        "spilled_objects": view.spilling.spilled_objects,
        "spilled_bytes_total": view.spilling.spilled_bytes_total,
        "spilled_objects_total": view.spilling.spilled_objects_total,
        "restored_bytes_total": view.spilling.restored_bytes_total,
        "restored_objects_total": view.spilling.restored_objects_total,
        "spill_troubles": view.spilling.troubles,
        "lost_log_lines": view.lost_output.lines,
        "lost_log_bytes": view.lost_output.size_bytes,
        "log_trouble": view.lost_output.trouble or None,
        "session_dir": node.session_dir,
        "since_heartbeat_s": round(view.since_heartbeat_s, 3),
        "mray_version": node.mray_version,
        "python_version": node.python_version,
        "death_cause": view.cause.text if view.cause is not None else None,
    }


def _disk_lines(alive: Sequence[NodeView]) -> list[str]:
    """What is on disk for want of memory, where anything was; and disks that fail."""
    lines: list[str] = []
    for view in alive:
        figures = view.spilling
        if not (view.store_spilled_bytes or figures.spilled_bytes_total or figures.troubles):
            continue
        written = f"{format_bytes(figures.spilled_bytes_total)} written"
        read = f"{format_bytes(figures.restored_bytes_total)} read back"
        lines.append(
            f"  {format_bytes(view.store_spilled_bytes)} of node {short(view.node.node_id)}, "
            f"{format_count(figures.spilled_objects, 'spilled object')}; so far {written}, {read}"
        )
        lines += [f"  not written to: {trouble}" for trouble in figures.troubles]
    return ["\nObjects on disk", *lines] if lines else []


def _lost_lines(alive: Sequence[NodeView]) -> list[str]:
    """What workers printed and the logs' disks had no room for."""
    lines: list[str] = []
    for view in alive:
        lost = view.lost_output
        if not (lost.size_bytes or lost.trouble):
            continue
        since = "and all that come now" if lost.trouble else "what came later was kept"
        lines.append(
            f"  {format_count(lost.lines, 'line')} ({format_bytes(lost.size_bytes)}) of the "
            f"workers of node {short(view.node.node_id)}, {since}"
        )
        if lost.trouble:
            lines.append(f"  not written: {lost.trouble}")
    return ["\nLost log lines", *lines] if lines else []


def _row(view: NodeView) -> list[str]:
    node = view.node
    used = {n: total - view.available.get(n, total) for n, total in node.resources.items()}

    def usage(name: str) -> str:
        total = node.resources.get(name, 0)
        return f"{amount(name, used.get(name, 0))}/{amount(name, total)}" if total else "-"

    store = f"{format_bytes(view.store_used_bytes)}/{format_bytes(node.store_capacity_bytes)}"
    shown = "DRAINING" if view.draining and view.state == "ALIVE" else view.state
    state = f"{shown}{' (head)' if node.is_head else ''}"
    return [
        short(node.node_id), node.ip, state, usage("CPU"), _memory(view), store,
        str(view.workers),
    ]  # fmt: skip


def _memory(view: NodeView) -> str:
    """Memory in use and its limit, in the limit's unit, with the threshold: "1.5/16 GiB (15.2)".

    "(off)" where the node's memory monitor is off.
    """
    limit = view.memory_limit_bytes
    if not limit or view.state == "DEAD":
        return "-"  # Dead, or it has only just joined.
    unit, name = (GIB, "GiB") if limit >= GIB else (MIB, "MiB")
    used, of, threshold = (
        f"{count / unit:.1f}".removesuffix(".0")
        for count in (view.memory_used_bytes, limit, view.memory_threshold_bytes)
    )
    return f"{used}/{of} {name} ({threshold if view.memory_threshold_bytes else 'off'})"


def _usage(views: Sequence[NodeView]) -> dict[str, tuple[int, int]]:
    """(used, total) of each resource, in fixed point; what marks a node is left out."""
    usage: dict[str, tuple[int, int]] = {}
    for view in views:
        for name, total in view.node.resources.items():
            if name.startswith("node:"):
                continue
            before = usage.get(name, (0, 0))
            used = total - view.available.get(name, total)
            usage[name] = (before[0] + used, before[1] + total)
    return usage


def _demands(views: Sequence[NodeView]) -> list[tuple[str, int]]:
    counts: Counter[str] = Counter()
    for view in views:
        for shape, count in view.pending:
            found = group_in(shape)
            where = f" in placement group {short(found[0])}" if found is not None else ""
            counts[amounts(plain(shape)) + where] += count
    return counts.most_common()
