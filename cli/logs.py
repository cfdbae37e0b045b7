"""`mray logs`: finds a log by name or by whose it is, and prints its end or all of it.

Covers: what the words after `mray logs` mean, and printing. Where the bytes come from, a running
cluster or the files of a session that has ended, is log_sources.py's business.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from mray.cli import tasks
from mray.cli.cluster import Cluster, NoCluster, connect
from mray.cli.failure import INTERRUPTED, Failure, WrongUsage
from mray.cli.follow import standard_output, write
from mray.cli.job import matching_jobs
from mray.cli.log_sources import ClusterLogs, LogSource, SessionLogs, last_session
from mray.cli.options import Address, AsJson, NodeId, NodeIp
from mray.cli.render import ID_DIGITS, moment, note, print_json
from mray.cli.settings import settings
from mray.task_output import look_up, printed
from mray.units import format_bytes, format_count
from mray.wire.messages import LogFile, NodeView, TaskView

app = typer.Typer(add_completion=False)

#: Short names of daemons' logs.
_DAEMONS: Final = {"raylet": "raylet.out", "gcs": "gcs_server.out", "gcs_server": "gcs_server.out"}
#: Words that say what the next one is.
_KINDS: Final = ("job", "worker", "actor", "task", "cluster")
#: Category -> the patterns of its files, for the list.
_CATEGORIES: Final = {
    "daemons": ("raylet*", "gcs_server*", "zygote*"),
    "jobs": ("job-driver-*",),
    "workers": ("worker-*",),
}
_FOLLOW_WAIT_S: Final = 1.0
_CHUNK_BYTES: Final = 262_144
#: Fewer digits of a task's id would mean any task.
_TASK_DIGITS_MIN: Final = 16
_ATTEMPTS_MAX: Final = 1000


#: A log, and the attempt of a task that is meant by it; None: all of it.
_Hit = tuple[LogSource, str, TaskView | None]


@app.command()
def logs(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="WHAT", show_default=False,
            help="raylet, gcs, a file or a pattern; job, worker, actor or task and an id; or just "
            "the first characters of an id. Without it: the list of all logs.",
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is added, until Ctrl-C.")
    ] = False,
    tail: Annotated[
        int, typer.Option("--tail", metavar="N", help="The last N lines; -1: all.")
    ] = 1000,
    id: Annotated[
        str | None, typer.Option("--id", "--pid", help="The id, or a worker's pid, as in Ray.")
    ] = None,
    node_ip: NodeIp = None,
    node_id: NodeId = None,
    attempt: Annotated[
        int | None,
        typer.Option(
            "--attempt-number", "-a", min=0, metavar="N", show_default=False,
            help="Of a task that ran several times: which run. Default: the last.",
        ),
    ] = None,
    err: Annotated[
        bool, typer.Option("--err", help="Standard error of the worker instead of its output.")
    ] = False,
    address: Address = None,
    as_json: AsJson = False,
) -> int:  # fmt: skip
    """Print a log, wherever in the cluster it is. Also works after the cluster has ended.

    \b
      mray logs                        # what there is
      mray logs raylet                 # the node daemon
      mray logs 'worker-*.err' -ip 10.0.0.5
      mray logs actor 3f2a --err -f
      mray logs job nightly --tail -1
      mray logs task --id 4a1f... --attempt-number 1
    """
    words = [*(what or ()), *([id] if id else [])]
    if words[:1] == ["cluster"]:
        del words[0]
    if len(words) > 2 or (len(words) == 2 and words[0] not in _KINDS):
        raise WrongUsage(f"`mray logs` takes one name, or {', '.join(_KINDS[:4])} and an id")
    if tail < -1:
        raise WrongUsage(f"--tail {tail}: a number of lines, or -1 for all")
    sources, cluster = _open(address, node_ip, node_id)
    try:
        if not words or (len(words) == 1 and words[0] == "*"):
            _print_list(sources, "*", as_json=as_json)
            return 0
        source, name, view = _resolve(
            words, sources, cluster, err=err, attempt=attempt, as_json=as_json
        )
        if source is None:
            return 0
        if view is not None:
            _print_attempt(source, name, view, tail=tail, follow=follow)
            return 0
        print_log(source, name, tail=tail, follow=follow)
        if name.endswith(".out"):
            _mention_errors(source, name)
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        if cluster is not None:
            cluster.client.close()


# -- where to look


def _open(
    address: str | None, node_ip: str | None, node_id: str | None
) -> tuple[list[LogSource], Cluster | None]:
    """The nodes to look at, the head's first; or the last session's files where none runs."""
    try:
        cluster = connect(address)
    except NoCluster:
        session = last_session(settings().config.node.tmpdir)
        if session is None or node_ip or node_id:
            raise
        note(f"no cluster runs; these are the logs of {session.name}, which has ended")
        return [SessionLogs(session.logs)], None
    nodes = [view for view in cluster.nodes.nodes if _is_meant(view, node_ip, node_id)]
    if not nodes:
        known = ", ".join(sorted({view.node.ip for view in cluster.nodes.nodes}))
        cluster.client.close()
        if not node_ip and not node_id:
            raise Failure("the cluster has no node, and so no logs to ask for")
        key, value = ("IP address", node_ip) if node_ip else ("id", node_id)
        raise Failure(f"no node has the {key} {value}; there are nodes at {known or 'none'}")
    sources: list[LogSource] = []
    for view in sorted(nodes, key=lambda view: not view.node.is_head):
        if view.state == "ALIVE":
            sources.append(ClusterLogs(cluster, view))
            continue
        gone = f"node {view.node.ip} ({view.node.node_id.hex()[:ID_DIGITS]}) is {view.state}"
        if os.path.isdir(view.node.log_dir):
            note(f"{gone}; its logs are read from {view.node.log_dir}")
            sources.append(SessionLogs(view.node.log_dir))
        else:
            note(f"{gone} and cannot be asked")
    return sources, cluster


def _is_meant(view: NodeView, ip: str | None, id: str | None) -> bool:
    return (ip is None or view.node.ip == ip) and (
        id is None or view.node.node_id.hex().startswith(id.lower())
    )


# -- what is meant


def _resolve(
    words: Sequence[str],
    sources: Sequence[LogSource],
    cluster: Cluster | None,
    *,
    err: bool,
    attempt: int | None,
    as_json: bool,
) -> tuple[LogSource | None, str, TaskView | None]:
    """The one log that is meant, and the attempt of a task whose lines of it are; None: all of it.
    (None, "", None) where a pattern meant several and they were listed."""
    if len(words) == 2:
        kind, id = words
        found = _by_id(kind, id, sources, cluster, err=err, attempt=attempt)
        if not found:
            raise Failure(f"there is no log of {kind} {id}; `mray logs` lists what there is")
        return _only(found, f"{kind} {id}")
    word = words[0]
    name = _DAEMONS.get(word, word)
    names = [name, f"{name}.out", f"{name}.log"]
    if err:
        names = [name.removesuffix(".out") + ".err", *names]
    for exact in names:
        for source in sources:  # The head's node comes first: `mray logs raylet` is its raylet.
            if any(file.name == exact for file in source.files(exact)):
                return source, exact, None
    if any(mark in word for mark in "*?["):
        found = _in_sources(sources, word)
        if not found:
            raise Failure(f"no log matches {word!r}; `mray logs` lists what there is")
        if len(found) == 1:
            return found[0]
        _print_list(sources, word, as_json=as_json)
        return None, "", None
    found = []
    for kind in ("job", "actor", "worker", "task"):
        if kind != "task" or not found:
            found += _by_id(kind, word, sources, cluster, err=err, attempt=attempt)
    if not found:
        raise Failure(
            f"there is no log called {word!r}, and no job, actor, worker or task whose id begins "
            "so; `mray logs` lists what there is"
        )
    return _only(list({hit[:2]: hit for hit in found}.values()), word)


def _only(found: Sequence[_Hit], what: str) -> _Hit:
    if len(found) == 1:
        return found[0]
    names = ", ".join(name for _, name, _ in found[:10])
    more = ", ..." if len(found) > 10 else ""
    raise Failure(f"{what!r} means {len(found)} logs: {names}{more}")


def _by_id(
    kind: str,
    id: str,
    sources: Sequence[LogSource],
    cluster: Cluster | None,
    *,
    err: bool,
    attempt: int | None,
) -> list[_Hit]:
    """The logs of the jobs, actors, workers or tasks that ``id`` may mean."""
    end = "err" if err else "out"
    if kind == "job":
        if cluster is None:
            return _in_sources(sources, f"job-driver-{id}*.log")
        names = {job.log_name for job in matching_jobs(cluster, id)} - {""}
        return [hit for name in sorted(names) for hit in _in_sources(sources, name)]
    id = id.lower()
    if kind == "task":
        return _of_task(id, sources, cluster, attempt, end)
    if kind == "worker":
        by_pid = _in_sources(sources, f"worker-*-{id}.{end}") if id.isdecimal() else []
        return by_pid or _in_sources(sources, f"worker-{id}*.{end}")
    pids = [
        actor.pid
        for actor in (cluster.actors() if cluster is not None else [])
        if actor.pid and (actor.actor_id.hex().startswith(id) or actor.name.lower() == id)
    ]
    return [hit for pid in pids for hit in _in_sources(sources, f"worker-*-{pid}.{end}")]


def _of_task(
    id: str, sources: Sequence[LogSource], cluster: Cluster | None, attempt: int | None, end: str
) -> list[_Hit]:
    """The log of the worker that ran an attempt of a task, the last one for None."""
    if cluster is None or len(id) < _TASK_DIGITS_MIN:
        return []
    views = tasks.find(cluster, [("task_id", "=", id)], _ATTEMPTS_MAX).views
    ran = [view for view in views if view.worker_id and attempt in (None, view.attempt)]
    if not ran:
        return []
    last = max(ran, key=lambda view: view.attempt)
    hits = _in_sources(sources, f"worker-{last.worker_id.hex()}-*.{end}")
    return [(source, name, last) for source, name, _ in hits]


def _in_sources(sources: Sequence[LogSource], pattern: str) -> list[_Hit]:
    return [(source, file.name, None) for source in sources for file in source.files(pattern)]


# -- printing


def print_log(source: LogSource, name: str, *, tail: int, follow: bool = False) -> None:
    """Print the last ``tail`` lines of a log (-1: all), byte for byte, and what is added later.

    What is added while printing is not waited for, but for ``follow``, which never ends.
    """
    out = standard_output()
    if tail == 0:
        offset = source.read(name, -1, _CHUNK_BYTES, 0.0).next_offset
    else:
        offset = -tail if tail > 0 else 0
    chunk = source.read(name, offset, _CHUNK_BYTES, 0.0)
    if tail > 0 and chunk.next_offset > len(chunk.data):
        note(f"the last {format_count(tail, 'line')} of {name}; --tail -1 shows all there is")
    while True:
        if chunk.skipped_bytes and tail == -1:
            note(f"{format_bytes(chunk.skipped_bytes)} of {name} are gone by rotation")
        write(out, chunk.data)
        if not follow and len(chunk.data) < _CHUNK_BYTES:
            return
        wait_s = _FOLLOW_WAIT_S if follow else 0.0
        chunk = source.read(name, chunk.next_offset, _CHUNK_BYTES, wait_s)


def _print_attempt(
    source: LogSource, name: str, view: TaskView, *, tail: int, follow: bool
) -> None:
    """Print what one attempt of a task printed."""
    found = look_up(source, name, view)
    if found.doubt:
        note(f"{view.name} in {name}: {found.doubt}")
    out = standard_output()
    for data in printed(source, name, view, found, tail=tail, follow=follow):
        write(out, data)
    other = name.removesuffix(".out") + ".err"
    if name.endswith(".out") and source.files(other) and not found.doubt:
        span = look_up(source, other, view).span
        if span.end is not None and span.end > span.begin:
            size = format_bytes(span.end - span.begin)
            note(f"it printed {size} on standard error too: --err shows them")


def _mention_errors(source: LogSource, name: str) -> None:
    other = name.removesuffix(".out") + ".err"
    size = sum(file.size_bytes for file in source.files(other) if file.name == other)
    if size:
        note(f"there are {format_bytes(size)} on standard error too: --err shows them")


def _print_list(sources: Sequence[LogSource], pattern: str, *, as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {
                    "node_id": source.node_id,
                    "node_ip": source.ip,
                    "category": _category(file.name),
                    "name": file.name,
                    "size_bytes": file.size_bytes,
                    "modified_unix_s": file.modified_unix_s,
                }
                for source in sources
                for file in source.files(pattern)
            ]
        )
        return
    for source in sources:
        files = source.files(pattern)
        print(f"{source.title}: {format_count(len(files), 'log')}")
        for category in (*_CATEGORIES, "other"):
            _print_category(category, [f for f in files if _category(f.name) == category])


def _print_category(category: str, files: Sequence[LogFile]) -> None:
    if files:
        print(f"\n  {category}")
    for file in sorted(files, key=lambda file: file.name):
        size = format_bytes(file.size_bytes)
        print(f"  {size:>10}  {moment(file.modified_unix_s)[5:-3]}  {file.name}")


def _category(name: str) -> str:
    for category, patterns in _CATEGORIES.items():
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            return category
    return "other"
