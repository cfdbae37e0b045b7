"""The tasks of a cluster as a trace: what chrome://tracing and Perfetto draw.

A row a node, a line in it a worker. Each attempt is a bar as long as it ran, with what it waited
for before in its arguments. Pure but for ``timeline()``, which asks the cluster of this process and
writes the file.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from mray import current
from mray.state_ask import RuntimeAsker
from mray.state_collect import TIMELINE_MAX, tasks
from mray.state_facts import Facts
from mray.task_filters import parent_of
from mray.wire.messages import TaskView

#: Colours are the viewer's names.
_COLOURS: Final = {"FAILED": "terrible", "RUNNING": "thread_state_running"}


def trace_of(
    views: Iterable[TaskView], now_unix_s: float, node_names: Mapping[bytes, str] | None = None
) -> list[Facts]:
    """Trace events of all attempts that have begun, the first first. ``node_names``: how to call
    the rows."""
    names = node_names or {}
    begun = sorted((v for v in views if v.start_unix_s), key=lambda view: view.start_unix_s)
    events: list[Facts] = []
    rows: set[tuple[str, str]] = set()
    for view in begun:
        node = names.get(view.node_id) or f"node {view.node_id.hex()[:8]}"
        row = node, f"worker pid {view.pid}"
        if row not in rows:
            rows.add(row)
            events.append(_name("thread_name", row, row[1]))
            if sum(node == other for other, _ in rows) == 1:
                events.append(_name("process_name", row, node))
        events.append(_bar(view, row, now_unix_s))
    return events


def _name(kind: str, row: tuple[str, str], name: str) -> Facts:
    return {"ph": "M", "name": kind, "pid": row[0], "tid": row[1], "args": {"name": name}}


def _bar(view: TaskView, row: tuple[str, str], now_unix_s: float) -> Facts:
    facts: Facts = {
        "ph": "X",
        "cat": f"task::{view.name}",
        "name": view.name,
        "pid": row[0],
        "tid": row[1],
        "ts": round(view.start_unix_s * 1e6, 1),
        "dur": round(max(0.0, (view.end_unix_s or now_unix_s) - view.start_unix_s) * 1e6, 1),
        "args": {
            "task_id": view.task_id.hex(),
            "attempt_number": view.attempt,
            "state": view.state,
            "type": view.type,
            "job_id": view.job_id.hex(),
            "parent_task_id": parent_of(view).hex(),
            "waited_s": round(max(0.0, view.start_unix_s - view.created_unix_s), 6),
        },
    }
    if view.actor_id:
        facts["args"]["actor_id"] = view.actor_id.hex()
    if view.error_type:
        facts["args"]["error_type"] = view.error_type
        facts["args"]["error_message"] = view.error_message
    if view.state in _COLOURS:
        facts["cname"] = _COLOURS[view.state]
    return facts


def timeline(filename: str | None = None) -> list[Facts] | None:
    """The trace of the cluster that this process is connected to: events for chrome://tracing.

    With ``filename`` it is written there as JSON, and None returned. Any attempt that has begun is
    in it, of the newest that the head keeps (task_events_max_num_task_in_gcs). RuntimeError in a
    process that is not connected.
    """
    if current.runtime is None:
        raise RuntimeError("timeline() needs a connection: call init() first")
    asker = RuntimeAsker(current.get())
    names = {view.node.node_id: f"node {view.node.ip}" for view in asker.nodes()}
    events: Any = trace_of(tasks(asker, [], TIMELINE_MAX).views, time.time(), names)
    if filename is None:
        return list(events)
    with open(filename, "w", encoding="utf-8") as file:
        json.dump(events, file)
    return None
