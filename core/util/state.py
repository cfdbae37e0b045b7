"""``mray.util.state``: list, get and count what is in a cluster, from programs.

Ray's names and arguments. ``address`` None means the cluster that this process is connected to,
else the one that ``init()`` would find. Filters are ``(key, "=" or "!=", value)``; those of tasks
are applied where tasks are known, so limits cut only what was asked for. The newest come first.

``timeout`` bounds each question in seconds. ``explain`` (or Ray's ``_explain``) prints to standard
error what is missing in an answer; with ``raise_on_missing_output`` processes that did not answer
raise RayStateApiException.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

from mray import memory_collect
from mray.absent import refuse_attribute
from mray.exceptions import RayError
from mray.object_ref import ObjectRef
from mray.resources import to_float
from mray.state_answers import (
    Filters,
    asking,
    chosen,
    living,
    node_of,
    one,
    tell_missing,
)
from mray.state_collect import counts, tasks
from mray.state_facts import function_facts, task_facts
from mray.state_groups import get_placement_group as get_placement_group
from mray.state_groups import list_placement_groups as list_placement_groups
from mray.state_logs import find_log, read_log
from mray.state_records import (
    ActorState,
    JobState,
    NodeState,
    ObjectState,
    TaskState,
    WorkerState,
)
from mray.task_filters import checked
from mray.wire.messages import (
    ActorList,
    GetJobs,
    GetWorkers,
    Jobs,
    ListActors,
    ListLogs,
    LogFiles,
    MemoryReport,
    Message,
    NodeView,
    Workers,
)
from mray.worker_exits import exit_detail, exit_type

_ATTEMPTS_MAX = 1000
#: Ray's names of states.
_ACTOR_STATES = {"PENDING": "PENDING_CREATION"}
_LOG_KINDS = {
    "raylet": "raylet", "gcs_server": "gcs_server", "job-driver": "driver", "worker": "worker",
}  # fmt: skip


# ------------------------------------------------------------------------------------------- tasks


def list_tasks(
    address: str | None = None,
    filters: Filters = None,
    limit: int = 100,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    explain: bool = False,
    *,
    _explain: bool = False,
) -> list[TaskState]:
    """Attempts of tasks, those submitted last first. ValueError for a filter that there is not."""
    wanted = checked([(key, op, str(value)) for key, op, value in filters or ()])
    with asking(address, timeout) as ask:
        found = tasks(ask, wanted, limit)
    tell_missing(found.silent, found.forgotten, raise_on_missing_output, explain or _explain)
    now = time.time()
    return [TaskState(**task_facts(view, now, detail)) for view in found.views]


def get_task(
    id: str | ObjectRef[Any],
    address: str | None = None,
    timeout: int = 30,
    _explain: bool = False,
) -> TaskState | list[TaskState] | None:
    """The task with this id, or that makes this object: a list where it ran several times, None
    where there is none."""
    task_id = id.task_id().hex() if isinstance(id, ObjectRef) else id
    found = list_tasks(
        address, [("task_id", "=", task_id)], _ATTEMPTS_MAX, timeout, True, explain=_explain
    )
    found = [state for state in found if state.task_id == task_id.lower()]
    if len(found) > 1:
        return found
    return found[0] if found else None


def summarize_tasks(
    address: str | None = None,
    timeout: int = 30,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> dict[str, Any]:
    """Attempts counted by function and state."""
    with asking(address, timeout) as ask:
        found = counts(ask)
    tell_missing(found.silent, found.forgotten, raise_on_missing_output, _explain)
    totals = {"NORMAL_TASK": 0, "ACTOR_TASK": 0, "ACTOR_CREATION_TASK": 0}
    summary: dict[str, Any] = {}
    for entry in function_facts(found.rows, found.peaks):
        name, kind, states = (
            entry["func_or_class_name"], entry["type"], entry["state_counts"]
        )  # fmt: skip
        totals[kind] = totals.get(kind, 0) + sum(states.values())
        for peak in ("peak_memory_p50_bytes", "peak_memory_max_bytes"):
            if entry[peak] is None:
                del entry[peak]
        summary[name if name not in summary else f"{name} ({kind})"] = entry
    told = {
        "summary": summary,
        "total_tasks": totals["NORMAL_TASK"],
        "total_actor_tasks": totals["ACTOR_TASK"],
        "total_actor_scheduled": totals["ACTOR_CREATION_TASK"],
        "summary_by": "func_name",
    }
    return {"cluster": told}


# ------------------------------------------------------------------------------------------ actors


def list_actors(
    address: str | None = None,
    filters: Filters = None,
    limit: int = 100,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    explain: bool = False,
    *,
    _explain: bool = False,
) -> list[ActorState]:
    """Actors, the dead ones that the head remembers too."""
    with asking(address, timeout) as ask:
        told = ask.ask_head(ListActors, ActorList, timeout).actors
    found = []
    for actor in told:
        cause = actor.cause
        state = ActorState(
            actor.actor_id.hex(),
            actor.class_name,
            _ACTOR_STATES.get(actor.state, actor.state),
            actor.actor_id[-4:].hex(),
            actor.name,
            actor.node_id.hex() or None,
            actor.pid or None,
            actor.reason or None,
        )
        if detail:
            state.worker_id = actor.worker.process_id.hex() if actor.worker else None
            state.num_restarts = max(0, actor.incarnation)
            state.restarts_left = actor.restarts_left
            if cause is not None:
                state.death_cause = {
                    "kind": cause.kind,
                    "error_message": cause.text,
                    "exit_code": cause.exit_code,
                    "signal": cause.signal,
                }
        found.append(state)
    return chosen(ActorState, found, filters)[:limit]


def get_actor(
    id: str, address: str | None = None, timeout: int = 30, _explain: bool = False
) -> ActorState | None:
    """The actor with this id, None where there is none."""
    return one(list_actors(address, [("actor_id", "=", id)], 2**31, timeout, True), "actor_id", id)


def summarize_actors(
    address: str | None = None,
    timeout: int = 30,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> dict[str, Any]:
    """Actors counted by class and state."""
    summary: dict[str, Any] = {}
    found = list_actors(address, None, 2**31, timeout)
    for actor in found:
        entry = summary.setdefault(
            actor.class_name, {"class_name": actor.class_name, "state_counts": {}}
        )
        states = entry["state_counts"]
        states[actor.state] = states.get(actor.state, 0) + 1
    told = {"summary": summary, "total_actors": len(found), "summary_by": "class"}
    return {"cluster": told}


# -------------------------------------------------------------------------- nodes, workers, jobs


def list_nodes(
    address: str | None = None,
    filters: Filters = None,
    limit: int = 100,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    explain: bool = False,
    *,
    _explain: bool = False,
) -> list[NodeState]:
    """Nodes, the dead ones too. ``state``: ALIVE or DEAD."""
    with asking(address, timeout) as ask:
        nodes = ask.nodes()
    found = [
        NodeState(
            view.node.node_id.hex(),
            view.node.ip,
            view.node.is_head,
            view.state,
            view.cause.text if view.cause is not None else None,
            view.node.hostname,
            to_float(view.node.resources),
            dict(view.node.labels),
        )
        for view in nodes
    ]
    return chosen(NodeState, found, filters)[:limit]


def get_node(
    id: str, address: str | None = None, timeout: int = 30, _explain: bool = False
) -> NodeState | None:
    """The node with this id, None where there is none."""
    return one(list_nodes(address, [("node_id", "=", id)], 2**31, timeout, True), "node_id", id)


def list_workers(
    address: str | None = None,
    filters: Filters = None,
    limit: int = 100,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    explain: bool = False,
    *,
    _explain: bool = False,
) -> list[WorkerState]:
    """Workers and drivers that live, then the last that have ended."""
    found = []
    with asking(address, timeout) as ask:
        for node in living(ask):
            told = ask.ask_node(node, _every_worker, Workers, timeout)
            for kind, views in (("WORKER", told.workers), ("DRIVER", told.drivers)):
                found += [
                    WorkerState(
                        view.process_id.hex(), view.cause is None, kind,
                        None if view.cause is None else exit_type(view.cause),
                        node.node.node_id.hex(),
                        node.node.ip, view.pid, view.state, view.job_id.hex() or None,
                        view.actor_id.hex() or None, round(view.age_s, 3),
                        None if view.cause is None else exit_detail(view.cause),
                    )
                    for view in views
                ]  # fmt: skip
    found.sort(key=lambda worker: not worker.is_alive)
    return chosen(WorkerState, found, filters)[:limit]


def _every_worker(rid: int) -> Message:
    return GetWorkers(rid, ended=True)


def get_worker(
    id: str, address: str | None = None, timeout: int = 30, _explain: bool = False
) -> WorkerState | None:
    """The worker or driver with this id, None where there is none; long dead ones are forgotten."""
    found = list_workers(address, [("worker_id", "=", id)], 2**31, timeout, True)
    return one(found, "worker_id", id)


def list_jobs(
    address: str | None = None,
    filters: Filters = None,
    limit: int = 100,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    explain: bool = False,
    *,
    _explain: bool = False,
) -> list[JobState]:
    """Jobs, the newest first."""
    with asking(address, timeout) as ask:
        jobs = ask.ask_head(GetJobs, Jobs, timeout).jobs
    found = [
        JobState(
            job.job_id.hex() or None,
            job.submission_id or None,
            job.kind,
            job.status,
            job.entrypoint,
            job.message,
            round(job.start_unix_s * 1000) or None,
            round(job.end_unix_s * 1000) or None,
            job.metadata,
            job.exit_code,
            job.node_id.hex() or None,
        )
        for job in sorted(jobs, key=lambda job: -job.start_unix_s)
    ]
    return chosen(JobState, found, filters)[:limit]


def get_job(
    id: str, address: str | None = None, timeout: int = 30, _explain: bool = False
) -> JobState | None:
    """The job with this submission id or job id, None where there is none."""
    found = list_jobs(address, None, 2**31, timeout, True)
    return one(found, "submission_id", id) or one(found, "job_id", id)


# ----------------------------------------------------------------------------------------- objects


def list_objects(
    address: str | None = None,
    filters: Filters = None,
    limit: int = 100,
    timeout: int = 30,
    detail: bool = False,
    raise_on_missing_output: bool = True,
    explain: bool = False,
    *,
    _explain: bool = False,
) -> list[ObjectState]:
    """Objects, the biggest first: an entry for each way in which a process holds one."""
    with asking(address, timeout) as ask:

        def report(node: NodeView) -> MemoryReport | str:
            try:
                return ask.ask_node(
                    node, memory_collect.question, MemoryReport, memory_collect.ANSWER_S
                )
            except RayError as error:
                return str(error)

        memory = memory_collect.collect(ask.nodes(), report)
    found = [
        ObjectState(
            held.object_id,
            held.size_bytes,
            {"pending": "PENDING_NODE_ASSIGNMENT", "error": "FAILED"}.get(held.state, "FINISHED"),
            kind,
            held.call_site or "disabled",
            reference.process.type.upper(),
            reference.process.pid,
            reference.process.ip,
        )
        for held in memory.objects
        for reference in held.references
        for kind in reference.kinds
    ]
    return chosen(ObjectState, found, filters)[:limit]


def get_objects(
    id: str, address: str | None = None, timeout: int = 30, _explain: bool = False
) -> list[ObjectState]:
    """All ways in which processes hold the object."""
    return list_objects(address, [("object_id", "=", id)], 2**31, timeout, True)


def summarize_objects(
    address: str | None = None,
    timeout: int = 30,
    raise_on_missing_output: bool = True,
    _explain: bool = False,
) -> dict[str, Any]:
    """References counted by the line that made them (record_ref_creation_sites)."""
    summary: dict[str, Any] = {}
    found = list_objects(address, None, 2**31, timeout)
    for held in found:
        entry = summary.setdefault(
            held.call_site,
            {
                "total_objects": 0, "total_size_mb": 0.0, "total_num_workers": set(),
                "total_num_nodes": set(), "task_state_counts": {}, "ref_type_counts": {},
            },
        )  # fmt: skip
        entry["total_objects"] += 1
        entry["total_size_mb"] += (held.object_size or 0) / 2**20
        entry["total_num_workers"].add(held.pid)
        entry["total_num_nodes"].add(held.ip)
        for key, value in (("task_state", held.task_status), ("ref_type", held.reference_type)):
            known = entry[f"{key}_counts"]
            known[value] = known.get(value, 0) + 1
    for entry in summary.values():
        entry["total_num_workers"] = len(entry["total_num_workers"])
        entry["total_num_nodes"] = len(entry["total_num_nodes"])
    sizes = {held.object_id: held.object_size or 0 for held in found}
    told = {
        "summary": summary,
        "total_objects": len(sizes),
        "total_size_mb": sum(sizes.values()) / 2**20,
        "callsite_enabled": any(site != "disabled" for site in summary),
        "summary_by": "callsite",
    }
    return {"cluster": told}


# -------------------------------------------------------------------------------------------- logs


def list_logs(
    address: str | None = None,
    node_id: str | None = None,
    node_ip: str | None = None,
    glob_filter: str | None = None,
    timeout: int = 30,
) -> dict[str, list[str]]:
    """The names of a node's log files by category. Without a node: the head's."""
    with asking(address, timeout) as ask:
        node = node_of(ask, node_id, node_ip)
        files = ask.ask_node(
            node, lambda rid: ListLogs(rid, glob_filter or "*"), LogFiles, timeout
        ).files
    found: dict[str, list[str]] = {}
    for file in files:
        kind = next((k for start, k in _LOG_KINDS.items() if file.name.startswith(start)), "misc")
        if kind == "worker":
            kind = "worker_err" if file.name.endswith(".err") else "worker_out"
        found.setdefault(kind, []).append(file.name)
    return found


def get_log(
    address: str | None = None,
    node_id: str | None = None,
    node_ip: str | None = None,
    filename: str | None = None,
    actor_id: str | None = None,
    task_id: str | None = None,
    pid: int | None = None,
    follow: bool = False,
    tail: int = -1,
    timeout: int = 30,
    suffix: str = "out",
    encoding: str | None = "utf-8",
    errors: str | None = "strict",
    submission_id: str | None = None,
    attempt_number: int = 0,
) -> Generator[Any, None, None]:
    """The text of a log, piece by piece (bytes with ``encoding=None``).

    One of ``filename``, ``pid``, ``actor_id``, ``task_id`` and ``submission_id`` says which. Of a
    task it is what attempt ``attempt_number`` printed; of a call of an actor that runs several at a
    time, what all of them did. ``tail``: the last lines, -1 for all. ``follow``: go on with what is
    added, of a task until the attempt ends.

    Raises ValueError where nothing or too much is named, or there is no such log.
    """
    with asking(address, timeout) as ask:
        place = find_log(
            ask, timeout, node_of(ask, node_id, node_ip) if node_id or node_ip else None,
            filename=filename, actor_id=actor_id, task_id=task_id, pid=pid,
            submission_id=submission_id, suffix=suffix, attempt=attempt_number,
        )  # fmt: skip
        for data in read_log(ask, place, tail, follow, timeout):
            yield data if encoding is None else data.decode(encoding, errors or "strict")


def __getattr__(name: str) -> object:
    refuse_attribute("util.state", name)
