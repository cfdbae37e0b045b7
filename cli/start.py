"""`mray start`: a head with a node on this machine, or a node for a head elsewhere."""

from __future__ import annotations

import os
import time
from typing import Annotated, NoReturn

import typer

from mray.auth import TokenError
from mray.bootstrap import NodeOptions, Started, StartError, join, resume_head, start_head
from mray.cli import arguments
from mray.cli.cluster import connect, find, knock
from mray.cli.failure import FAILED, Failure, WrongUsage
from mray.cli.options import ConfigFile
from mray.cli.progress import waiting
from mray.cli.render import amounts, note
from mray.cli.settings import print_warnings, settings
from mray.config import Resolved
from mray.exceptions import AuthenticationError
from mray.session import Session, all_running, all_sessions, create_session
from mray.session_end import end_session
from mray.still_head import end_still, still_head
from mray.storage_place import storage_place
from mray.units import format_bytes, format_duration
from mray.wire.messages import NodeInfo

app = typer.Typer(add_completion=False)

#: Where a head listens unless told otherwise: a port for this machine alone.
_LOOPBACK = "127.0.0.1"


@app.command()
def start(
    head: Annotated[bool, typer.Option("--head", help="Start a new cluster here.")] = False,
    address: Annotated[
        str | None,
        typer.Option(
            "--address", metavar="HOST:PORT", help="Start a node here for the head at HOST:PORT."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port", min=0, max=65535, metavar="PORT", show_default=False,
            help="The head's TCP port; 0 takes a free one. Default: 6379.",
        ),
    ] = None,
    node_ip_address: Annotated[
        str | None,
        typer.Option(
            "--node-ip-address", metavar="IP",
            help="The address of this machine to listen on and be reached at. Default: 127.0.0.1, "
            "which other machines cannot reach.",
        ),
    ] = None,
    num_cpus: Annotated[
        float | None,
        typer.Option("--num-cpus", min=0, metavar="N", help="CPUs to offer. Default: all."),
    ] = None,
    num_gpus: Annotated[
        float | None,
        typer.Option("--num-gpus", min=0, metavar="N", help="GPUs to offer. Default: all."),
    ] = None,
    resources: Annotated[
        str | None,
        typer.Option(
            "--resources", metavar="JSON", help="More resources, as in '{\"license\": 2}'."
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory", metavar="SIZE", help="Memory that tasks may ask for: 2GiB, or bytes."
        ),
    ] = None,
    object_store_memory: Annotated[
        str | None,
        typer.Option(
            "--object-store-memory", metavar="SIZE",
            help="Capacity of the object store: 2GiB, or bytes. Default: 30 % of memory.",
        ),
    ] = None,
    object_spilling_directory: Annotated[
        str | None,
        typer.Option(
            "--object-spilling-directory", metavar="DIR,...",
            help="Where objects go when the store fills up. Default: the session's directory.",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option("--labels", metavar="K=V,...", help="Labels of the node."),
    ] = None,
    temp_dir: Annotated[
        str | None,
        typer.Option(
            "--temp-dir", metavar="DIR", help="Where the session's directory is made."
        ),
    ] = None,
    metrics_export_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-export-port", min=0, max=65535, metavar="PORT", show_default=False,
            help="Serve http://127.0.0.1:PORT/metrics for Prometheus. Default: 0, which does not.",
        ),
    ] = None,
    min_worker_port: Annotated[
        int | None,
        typer.Option(
            "--min-worker-port", min=0, max=65535, metavar="PORT", show_default=False,
            help="The first TCP port for workers and drivers of this node.",
        ),
    ] = None,
    max_worker_port: Annotated[
        int | None,
        typer.Option(
            "--max-worker-port", min=0, max=65535, metavar="PORT", show_default=False,
            help="The last one. Default: 0, for any free port.",
        ),
    ] = None,
    gcs_storage: Annotated[
        str | None,
        typer.Option(
            "--gcs-storage", metavar="PLACE",
            help="Where the head keeps its state: a file, redis://[:PASSWORD@]HOST:PORT/DB, or "
            "memory. Default: a file of the session.",
        ),
    ] = None,
    config_file: ConfigFile = None,
    block: Annotated[
        bool,
        typer.Option("--block", help="Stay, and end the session when told to or when it breaks."),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also print processes and their logs.")
    ] = False,
) -> int:  # fmt: skip
    """Start a cluster on this machine, or add this machine to one.

    Where a cluster here has lost its head, --head starts that again: jobs, actors
    and nodes that run go on.

    \b
      mray start --head
      mray start --head --port 7000 --num-cpus 4 --object-store-memory 2GiB
      mray start --head --node-ip-address 10.0.0.5     # for other machines
      mray start --address 10.0.0.5:6379               # on another machine
    """
    if head == (address is not None):
        raise WrongUsage(
            "say either --head, for a new cluster, or --address HOST:PORT, for a node of one"
            f"{'; not both' if head else ''}"
        )
    if address is not None and port is not None:
        raise WrongUsage("--port is the head's port and goes with --head only")
    if address is not None and gcs_storage is not None:
        raise WrongUsage("--gcs-storage is the head's and goes with --head only")
    node = NodeOptions(
        resources=_amounts(num_cpus, num_gpus, memory, resources),
        labels=arguments.labels(labels) if labels else {},
        ip=node_ip_address or "",
        tcp_host=node_ip_address or "",
    )
    resolved = settings(
        config_file,
        tmpdir=os.path.abspath(os.path.expanduser(temp_dir)) if temp_dir else None,
        object_store_memory=object_store_memory,
        object_spilling_directory=object_spilling_directory,
        metrics_export_port=metrics_export_port,
        gcs_storage=gcs_storage,
        min_worker_port=min_worker_port,
        max_worker_port=max_worker_port,
    )
    print_warnings(resolved)
    begun = time.monotonic()
    if address is None:
        started = _start_head(resolved, node, port)
    else:
        started = _join(address, resolved, node)
    took_s = time.monotonic() - begun
    _print_banner(started, resolved, took_s, is_head=head, verbose=verbose, temp_dir=temp_dir)
    return _block(started) if block else 0


def _amounts(
    num_cpus: float | None, num_gpus: float | None, memory: str | None, more: str | None
) -> dict[str, float]:
    amounts = arguments.resources(more) if more else {}
    own = {
        "CPU": num_cpus,
        "GPU": num_gpus,
        "memory": arguments.size(memory, "--memory") if memory else None,
    }
    amounts.update({name: value for name, value in own.items() if value is not None})
    arguments.checked_amounts(amounts, "--num-cpus, --num-gpus")
    return amounts


def _start_head(resolved: Resolved, node: NodeOptions, port: int | None) -> Started:
    config = resolved.config
    headless = _headless(resolved, port)
    if headless is not None:
        try:
            with waiting("starting the head again"):
                _end_still(headless)
                return resume_head(headless, resolved)
        except BaseException as error:
            _explain(error)
    wanted = config.node.gcs_server_port if port is None else port
    try:
        if wanted:
            _refuse_second(wanted, all_running(config.node.tmpdir))
        session = create_session(config.node.tmpdir)
    except OSError as error:
        raise Failure(f"no session can be made: {error}") from error
    try:
        with waiting("starting the head and a node"):
            return start_head(
                session,
                resolved,
                tcp_host=node.tcp_host or _LOOPBACK,
                tcp_port=port,
                node=node,
            )
    except BaseException as error:
        # What had started is gone already; this leaves no directory that looks like a session.
        end_session(session, force=True, reason="mray start failed")
        _explain(error)


def _end_still(session: Session) -> None:
    """Make way for the head of a session, where the former one stands still."""
    head = still_head(session)
    if head is None:
        return
    if not end_still(head):
        raise Failure(
            f"the head of session {session.name} (pid {head.pid}) was stopped and goes on by "
            "itself: `mray status` shows its cluster"
        )
    note(
        f"the head of session {session.name} (pid {head.pid}) was stopped (SIGSTOP) and held "
        "its port: it was ended, and a new one takes its place"
    )


def _headless(resolved: Resolved, port: int | None) -> Session | None:
    """The session whose nodes wait for the head that is to be started, if there is one: the former
    head has ended, or stands still at the very port that is wanted."""
    node = resolved.config.node
    wanted = node.gcs_server_port if port is None else port
    try:
        wait_s = resolved.config.liveness.gcs_rpc_server_reconnect_timeout_s
        for session in all_sessions(node.tmpdir):
            still = still_head(session) is not None
            if not still and not session.resumable(wait_s):
                continue
            info = session.info()
            if info.storage is None:
                continue
            place = storage_place(node.gcs_storage, node.external_storage_namespace, session.path)
            its_port = info.head_tcp.rpartition(":")[2]
            right_port = its_port == str(wanted) if still else not port or its_port == str(port)
            if right_port and (place == info.storage or not (place.named or node.gcs_storage)):
                return session
    except ValueError as error:
        raise WrongUsage(str(error)) from error
    except OSError as error:
        raise Failure(f"sessions cannot be looked up: {error}") from error
    return None


def _refuse_second(port: int, running: list[Session]) -> None:
    for session in running:
        info = session.info()
        if info.role == "head" and info.head_tcp.rpartition(":")[2] == str(port):
            still = still_head(session)
            if still is not None:
                kept = info.storage.text if info.storage is not None else "its memory alone"
                raise Failure(
                    f"the head at {info.head_tcp} (pid {still.pid}) is stopped (SIGSTOP) and holds "
                    f"the port, and its state is in {kept}, which is not what this start names: "
                    f"`kill -CONT {still.pid}` lets it go on, `mray stop --session {session.name}` "
                    "ends its cluster, --port 0 starts another beside it"
                )
            raise Failure(
                f"a cluster of yours already runs at {info.head_tcp}: `mray status` shows it, "
                f"`mray stop --session {session.name}` stops it, --port 0 starts another beside it"
            )


def _join(address: str, resolved: Resolved, node: NodeOptions) -> Started:
    target = find(address, resolved)
    if target.kind == "local":
        raise WrongUsage("--address local is no cluster; mray start --head starts one")
    head_tcp = address
    if target.session is not None:
        head_tcp = target.session.info().head_tcp
    knock(f"tcp://{head_tcp}", target.why)
    try:
        with waiting(f"joining {address}"):
            return join(head_tcp, resolved, node=node)
    except BaseException as error:
        _explain(error)


def _explain(error: BaseException) -> NoReturn:
    """Raise what the user should see of a start that failed."""
    if isinstance(error, StartError):
        lines = [line for line in str(error).splitlines() if line.strip()]
        # What a daemon wrote in its last moments may be long; its end says what was wrong.
        raise Failure(" ".join([lines[0], *lines[1:][-2:]])) from error
    if isinstance(error, TokenError | ConnectionError | AuthenticationError):
        raise Failure(str(error)) from error
    if isinstance(error, ValueError):
        raise WrongUsage(str(error)) from error
    if isinstance(error, OSError):
        raise Failure(f"the cluster did not start: {error}") from error
    raise error


def _print_banner(
    started: Started,
    resolved: Resolved,
    took_s: float,
    *,
    is_head: bool,
    verbose: bool,
    temp_dir: str | None,
) -> None:
    with connect(started.session.path, resolved) as cluster:
        assert started.node is not None
        node = cluster.node_of(started.node.node_id).node
        address = cluster.address
        node_count = sum(view.state == "ALIVE" for view in cluster.nodes.nodes)
    what = "Head and node are" if is_head else f"This node is one of {node_count} of the cluster,"
    print(f"Local node IP: {node.ip}")
    if started.epoch > 1:
        what = f"The head is back (epoch {started.epoch}), with what it had kept,"
    print(f"\n{what} up after {format_duration(took_s)}.")
    print("\nNext steps")
    for title, line in _next_steps(started, address, is_head=is_head, temp_dir=temp_dir):
        print(f"  {title:<26}{line}")
    print("\nThis node")
    for title, line in _node_facts(node, started, resolved):
        print(f"  {title:<26}{line}")
    if verbose:
        print("\nProcesses")
        for kind, pid in started.pids.items():
            log = "gcs_server.out" if kind == "head" else "raylet.out"
            print(f"  {kind:<26}pid {pid}, {started.session.logs}/{log}")


def _next_steps(
    started: Started, address: str, *, is_head: bool, temp_dir: str | None
) -> list[tuple[str, str]]:
    steps = []
    if temp_dir:
        # Commands look for sessions where the settings say.
        steps.append(("Let commands find it", f"export MRAY_TMPDIR={os.path.abspath(temp_dir)}"))
    if is_head:
        steps.append(("Add a node", f"mray start --address {address}"))
        if address.startswith(f"{_LOOPBACK}:"):
            steps.append(("  from other machines", "start the head with --node-ip-address IP"))
        steps.append(("Connect from Python", "import mray as ray; ray.init()"))
        steps.append(("Submit a job", "mray submit job.py"))
    steps.append(("See what runs", "mray status"))
    steps.append(("Read the logs", "mray logs raylet"))
    steps.append(("Stop", f"mray stop --session {started.session.name}, or mray stop"))
    return steps


def _node_facts(node: NodeInfo, started: Started, resolved: Resolved) -> list[tuple[str, str]]:
    # The store has a line of its own, and what marks a node is not for people.
    offered = {
        name: amount
        for name, amount in node.resources.items()
        if name != "object_store_memory" and not name.startswith("node:")
    }
    return [
        ("resources", amounts(offered)),
        ("memory limit", f"{format_bytes(node.memory_limit_bytes)} by {node.memory_source}"),
        ("object store", f"{format_bytes(node.store_capacity_bytes)} in {node.store_path}"),
        ("memory monitor", node.memory_monitor),
        ("settings from", ", ".join(resolved.files) or "defaults; no file is in effect"),
        ("session", started.session.path),
    ]


def _block(started: Started) -> int:
    """Stay until a daemon ends or a signal comes; then end the session."""
    from mray.cli.blocking import wait_for_end

    names = {pid: kind for kind, pid in started.pids.items()}
    code = wait_for_end(names, "\nStaying in the foreground: Ctrl-C stops the session.")
    report = end_session(started.session, reason="mray start --block ended")
    if report.survivors:
        pids = ", ".join(f"{p.kind} {p.pid}" for p in report.survivors)
        note(f"still alive: {pids}")
        return code or FAILED
    return code
