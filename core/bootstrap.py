"""Starts the daemons of a session and waits until they are ready.

Covers: spawning ``python -m mray.node head|node``, handing over parameters, readiness, undoing a
start that fails, joining a head elsewhere. Does not choose the session (session.py) nor end it for
good (session_end.py). What runs inside the daemons is mray.node's.

Parameters travel by a pipe on the daemon's standard input, as msgpack of DaemonParams: never on
the command line, where every user of the machine could read the token. Each daemon answers with
one line of JSON on a pipe of its own.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

import msgspec

from mray.config import Resolved
from mray.session import Session
from mray.session_end import EndReport
from mray.wire.messages import Address


class NodeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a user may say of a node beside the configuration."""

    #: Amounts as users give them. CPU, GPU, memory and object_store_memory that are missing here
    #: are detected by the node.
    resources: dict[str, float] = {}
    labels: dict[str, str] = {}
    #: The address other machines reach this node at; "" lets the node find out.
    ip: str = ""
    #: Where the node listens on tcp; "" for not at all, port 0 for a free one.
    tcp_host: str = ""
    tcp_port: int = 0


class DaemonParams(msgspec.Struct, frozen=True, kw_only=True):
    """All that a daemon is told at birth."""

    #: Its process id; a node's node id.
    process_id: bytes
    cluster_id: str
    session_dir: str
    #: Whether the head runs in this session.
    is_head: bool
    #: The head: where to dial it, or, in the head itself, where it listens (ipc).
    head: Address
    #: The path this daemon listens on.
    ipc: str
    #: msgpack of mray.config.Config.
    config: bytes
    #: "" without tcp.
    token: str
    #: The head's own tcp address to bind; "" for none.
    tcp_host: str
    tcp_port: int
    node: NodeOptions
    #: The process to die with; 0 for none.
    owner_pid: int
    owner_start_time: int
    #: Pipe to write the one line to.
    ready_fd: int


class StartError(RuntimeError):
    """A daemon did not start. ``kind`` is an exception's name, ``daemon`` head or node,
    ``log_path`` where to read more."""

    def __init__(self, daemon: str, kind: str, text: str, log_path: str = "") -> None:
        super().__init__(text)
        self.daemon = daemon
        self.kind = kind
        self.log_path = log_path


@dataclass(kw_only=True)
class Started:
    """A session whose daemons are ready. ``head.tcp`` is "" where the head has no port."""

    session: Session
    cluster_id: str
    head: Address
    #: The node daemon of this session; a driver registers there.
    node: Address
    pids: dict[str, int]
    processes: list[subprocess.Popen[bytes]]


def start_head(
    session: Session,
    resolved: Resolved,
    *,
    tcp_host: str = "",
    tcp_port: int | None = None,
    node: NodeOptions = NodeOptions(),  # noqa: B008 (frozen)
    with_node: bool = True,
    die_with_pid: int = 0,
    timeout_s: float = 30.0,
) -> Started:
    """Start the head and, in parallel, this machine's node daemon.

    ``tcp_host`` "" listens on no port; ``tcp_port`` None takes gcs_server_port. ``die_with_pid``:
    the process whose end ends the cluster (a driver's own pid), 0 for a cluster that stays. Raises
    StartError, and then nothing is left running; TokenError; ValueError for an open port without
    authentication.
    """
    raise NotImplementedError


def start_node(
    session: Session,
    resolved: Resolved,
    *,
    cluster_id: str,
    head: Address,
    node: NodeOptions = NodeOptions(),  # noqa: B008
    die_with_pid: int = 0,
    timeout_s: float = 30.0,
) -> Started:
    """Start one more node daemon in ``session`` for a head that runs. Raises as start_head."""
    raise NotImplementedError


def start_local(
    resolved: Resolved, *, node: NodeOptions = NodeOptions(), timeout_s: float = 30.0  # noqa: B008
) -> Started:
    """A new session with head and node that lives as long as this process: for `init()`."""
    raise NotImplementedError


def stop_local(started: Started, *, grace_s: float = 5.0) -> EndReport:
    """End a cluster that this process started, and reap its daemons."""
    raise NotImplementedError


def join(
    address: str,
    resolved: Resolved,
    *,
    node: NodeOptions = NodeOptions(),  # noqa: B008
    timeout_s: float = 30.0,
) -> Started:
    """Start a node on this machine for the head at ``host:port``: `mray start --address`.

    Cluster-wide settings are the head's. Raises ConnectionError where no head answers (wrong
    address, wrong token), StartError, TokenError.
    """
    raise NotImplementedError
