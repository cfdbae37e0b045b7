"""Starts the daemons of a session and waits until they are ready.

Covers: what a new head, one that is started again, and a node of a head elsewhere are told; ending
a cluster of init(). Does not choose the session (session.py) nor end it for good (session_end.py).
Spawning, readiness, and undoing a start that fails are starting.py's; what runs inside the daemons
is mray.node's.
"""

from __future__ import annotations

import os
import socket
import time
from typing import Final

import msgspec

from mray.auth import check_bind, ensure_token, load_token
from mray.config import Config, Resolved, adopt
from mray.daemon_params import CONFIG_KEY, CONFIG_NAMESPACE, DaemonParams, NodeOptions
from mray.daemon_spawn import StartError
from mray.exceptions import AuthenticationError
from mray.ids import new_head_id, new_node_id
from mray.process import start_time_of
from mray.rpc.client import AskError, Client
from mray.rpc.door import Keys
from mray.rpc.endpoints import is_ipv6, join_host_port, split_host_port
from mray.session import NodeEntry, Session, SessionInfo, create_session
from mray.session_end import EndReport, end_session, remove_dead_stores
from mray.starting import Started, Starting, begin
from mray.storage_place import StoragePlace, storage_place
from mray.wire.messages import Address, GetNodes, KvGet, KvValue, Nodes

__all__ = [
    "DaemonParams",
    "NodeOptions",
    "StartError",
    "Started",
    "Starting",
    "begin_head",
    "begin_join",
    "join",
    "resume_head",
    "start_head",
    "start_local",
    "start_node",
    "stop_local",
]

_JOIN_TIMEOUT_S: Final = 5.0
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


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
    authentication; ProcessLookupError where ``die_with_pid`` is gone.
    """
    starting = begin_head(
        session, resolved, tcp_host=tcp_host, tcp_port=tcp_port, node=node, with_node=with_node,
        die_with_pid=die_with_pid,
    )  # fmt: skip
    return starting.finish(timeout_s)


def begin_head(
    session: Session,
    resolved: Resolved,
    *,
    tcp_host: str = "",
    tcp_port: int | None = None,
    node: NodeOptions = NodeOptions(),  # noqa: B008
    with_node: bool = True,
    die_with_pid: int = 0,
) -> Starting:
    """As start_head, but does not wait."""
    token = ""
    if tcp_host:
        check_bind(tcp_host, resolved)
        token = ensure_token(resolved)
    node = _completed(node, tcp_host, resolved)
    if tcp_port is None:
        tcp_port = resolved.config.node.gcs_server_port
    node_id, head_id = new_node_id(), new_head_id()
    head = Address(
        head_id,
        node_id,
        ipc=f"{session.sockets}/gcs",
        tcp=join_host_port(_shown(tcp_host, node), tcp_port) if tcp_host else "",
    )
    entry = NodeEntry(
        node_id=node_id.hex(), ipc=_node_ipc(session, node_id),
        tcp_host=node.tcp_host, tcp_shown=_shown(node.tcp_host, node),
    )  # fmt: skip
    # A cluster that ends with its program has nothing to keep.
    place = StoragePlace(kind="memory") if die_with_pid else _storage(session, resolved)
    info = SessionInfo(
        cluster_id=head_id[1:17].hex(),
        role="head",
        head_id=head_id.hex(),
        head_ipc=head.ipc,
        head_tcp=head.tcp,
        nodes=[entry] if with_node else [],
        started_by="init" if die_with_pid else "cli",
        created_unix_s=time.time(),
        head_host=tcp_host,
        storage=None if place.kind == "memory" else place,
    )
    params = DaemonParams(
        process_id=head_id,
        cluster_id=info.cluster_id,
        session_dir=session.path,
        is_head=True,
        head=head,
        head_pid=0,
        head_start_time=0,
        ipc=head.ipc,
        config=_for_all(resolved.config),
        token=token,
        tcp_host=tcp_host,
        tcp_port=tcp_port,
        node=node,
        owner_pid=die_with_pid,
        owner_start_time=start_time_of(die_with_pid) if die_with_pid else 0,
        ready_fd=-1,
        storage=place,
    )
    nodes = [entry] if with_node else []
    return begin(session, resolved, info, params, nodes, True)


def resume_head(session: Session, resolved: Resolved, *, timeout_s: float = 30.0) -> Started:
    """Start the head of a session again whose former one has died, for the nodes that wait for it:
    under its ids, at its port, from its storage. A node daemon is started where none is left here.

    Raises as start_head, and leaves the session as it was. ``resolved`` counts for a new node
    daemon only: the cluster's settings are in the storage.
    """
    info = session.info()
    place = info.storage
    if place is None:
        raise ValueError(f"session {session.name} keeps no state that a head could take up")
    host, port = split_host_port(info.head_tcp) if info.head_tcp else ("", 0)
    token = load_token(resolved) if info.head_tcp else ""
    session.hold()  # Before anybody cleans up after it.
    for record in session.processes():
        if record.kind == "head" and not record.alive:
            session.forget_process("head", record.pid)
    living = {record.name for record in session.processes() if record.alive}
    nodes = [entry for entry in info.nodes if entry.node_id in living]
    new: list[NodeEntry] = []
    node = _completed(NodeOptions(ip=host), info.head_host, resolved)
    if not nodes:
        remove_dead_stores(session)
        node_id = new_node_id()
        entry = NodeEntry(
            node_id=node_id.hex(), ipc=_node_ipc(session, node_id),
            tcp_host=node.tcp_host, tcp_shown=_shown(node.tcp_host, node),
        )  # fmt: skip
        new.append(entry)
    info = msgspec.structs.replace(info, nodes=[*nodes, *new])
    head = Address(
        bytes.fromhex(info.head_id), bytes.fromhex(info.nodes[0].node_id), info.head_ipc,
        info.head_tcp,
    )  # fmt: skip
    params = DaemonParams(
        process_id=head.process_id,
        cluster_id=info.cluster_id,
        session_dir=session.path,
        is_head=True,
        head=head,
        head_pid=0,
        head_start_time=0,
        ipc=info.head_ipc,
        config=_for_all(resolved.config),
        token=token,
        tcp_host=info.head_host,
        tcp_port=port,
        node=node,
        owner_pid=0,
        owner_start_time=0,
        ready_fd=-1,
        storage=place,
        resume=True,
    )
    starting = begin(session, resolved, info, params, new, True, new=False)
    return starting.finish(timeout_s)


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
    """Start one more node daemon in ``session`` for a head that runs. Raises as start_head.

    In a session without a session.json, the node is the first of a session of its own.
    """
    starting = _begin_node(session, resolved, cluster_id, head, node, die_with_pid)
    return starting.finish(timeout_s)


def _begin_node(
    session: Session,
    resolved: Resolved,
    cluster_id: str,
    head: Address,
    node: NodeOptions,
    die_with_pid: int,
) -> Starting:
    token = ""
    if head.tcp:
        check_bind(node.tcp_host or "127.0.0.1", resolved)
        token = load_token(resolved)
    node = _completed(node, node.tcp_host, resolved)
    node_id = new_node_id()
    entry = NodeEntry(
        node_id=node_id.hex(), ipc=_node_ipc(session, node_id),
        tcp_host=node.tcp_host, tcp_shown=_shown(node.tcp_host, node),
    )  # fmt: skip
    try:
        info = session.info()
        info = msgspec.structs.replace(info, nodes=[*info.nodes, entry])
    except FileNotFoundError:
        info = SessionInfo(
            cluster_id=cluster_id,
            role="node",
            head_id=head.process_id.hex(),
            head_ipc="",
            head_tcp=head.tcp,
            nodes=[entry],
            started_by="init" if die_with_pid else "cli",
            created_unix_s=time.time(),
        )
    head_record = next((r for r in session.processes() if r.kind == "head" and r.alive), None)
    params = DaemonParams(
        process_id=node_id,
        cluster_id=cluster_id,
        session_dir=session.path,
        is_head=False,
        head=head,
        head_pid=head_record.pid if head_record else 0,
        head_start_time=head_record.start_time if head_record else 0,
        ipc=entry.ipc,
        config=_for_all(resolved.config),
        token=token,
        tcp_host=node.tcp_host,
        tcp_port=node.tcp_port,
        node=node,
        owner_pid=die_with_pid,
        owner_start_time=start_time_of(die_with_pid) if die_with_pid else 0,
        ready_fd=-1,
    )
    return begin(session, resolved, info, params, [entry], False)


def start_local(
    resolved: Resolved,
    *,
    node: NodeOptions = NodeOptions(),  # noqa: B008
    timeout_s: float = 30.0,
) -> Started:
    """A new session with head and node that lives as long as this process: for `init()`."""
    session = create_session(resolved.config.node.tmpdir)
    try:
        return start_head(
            session, resolved, node=node, die_with_pid=os.getpid(), timeout_s=timeout_s
        )
    except BaseException:
        session.release()
        raise


def stop_local(started: Started, *, grace_s: float = 5.0, reason: str = "shutdown") -> EndReport:
    """End a cluster that this process started, and reap its daemons."""
    report = end_session(started.session, grace_s=grace_s, reason=reason)
    for spawned in started._spawned:
        spawned.reap()
    return report


def join(
    address: str,
    resolved: Resolved,
    *,
    node: NodeOptions = NodeOptions(),  # noqa: B008
    die_with_pid: int = 0,
    timeout_s: float = 30.0,
) -> Started:
    """Start a node on this machine for the head at ``host:port``: `mray start --address`.

    Cluster-wide settings are the head's. Raises ConnectionError where no head answers (wrong
    address, wrong token), StartError, TokenError.
    """
    starting = begin_join(address, resolved, node=node, die_with_pid=die_with_pid)
    return starting.finish(timeout_s)


def begin_join(
    address: str,
    resolved: Resolved,
    *,
    node: NodeOptions = NodeOptions(),  # noqa: B008
    die_with_pid: int = 0,
) -> Starting:
    """As join, but does not wait for the node: several start at once. Raises as join, but for what
    the node itself objects to: that its ``finish()`` raises."""
    nodes, config = _ask_head(address, load_token(resolved))
    head_host = address.rpartition(":")[0].strip("[]")
    # What the user typed is known to work from here; what the head thinks of itself may not be.
    head = msgspec.structs.replace(nodes.head, ipc="", tcp=address)
    if not node.tcp_host:
        host = own_ip(head_host)
        if head_host in _LOOPBACK:
            host = head_host if is_ipv6(head_host) else "127.0.0.1"
        node = msgspec.structs.replace(node, tcp_host=host, ip=node.ip or host)
    joined = msgspec.structs.replace(resolved, config=adopt(resolved.config, config))
    session = create_session(resolved.config.node.tmpdir)
    try:
        return _begin_node(session, joined, nodes.cluster_id, head, node, die_with_pid)
    except BaseException:
        session.release()
        raise


def own_ip(towards: str = "8.8.8.8") -> str:
    """This machine's address on the way to ``towards``; 127.0.0.1 where there is no way.

    Nothing is sent: connecting a datagram socket only asks the routing table.
    """
    family = socket.AF_INET6 if is_ipv6(towards) else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((towards, 1))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _storage(session: Session, resolved: Resolved) -> StoragePlace:
    """Where the head of a cluster that stays keeps its state."""
    node = resolved.config.node
    return storage_place(node.gcs_storage, node.external_storage_namespace, session.path)


def _for_all(config: Config) -> bytes:
    """The configuration as processes of the cluster get it: a place may have a password in it."""
    if not config.node.gcs_storage:
        return config.to_bytes()
    node = msgspec.structs.replace(config.node, gcs_storage="")
    return msgspec.structs.replace(config, node=node).to_bytes()


def _ask_head(address: str, token: str) -> tuple[Nodes, Config]:
    """Who the head is, and the cluster's configuration. ConnectionError where none answers,
    AuthenticationError where it refuses the token."""
    with Client(Keys.from_token(token)) as client:
        peer = client.reach(f"tcp://{address}")
        try:
            nodes = client.ask(peer, GetNodes, Nodes, _JOIN_TIMEOUT_S)
            config = client.ask(
                peer, lambda rid: KvGet(rid, CONFIG_NAMESPACE, CONFIG_KEY), KvValue, _JOIN_TIMEOUT_S
            )
        except AskError as error:
            if error.kind == "AuthenticationError":
                raise AuthenticationError(
                    f"the head at {address} refuses the cluster token of this user: set "
                    "RAY_AUTH_TOKEN to the one that `mray get-auth-token` prints on its machine"
                ) from error
            raise ConnectionError(
                f"no mray head answered at {address} within {_JOIN_TIMEOUT_S:.0f} s: either none "
                "runs there, or it cannot be reached from here"
            ) from error
    if config.value is None:
        raise ConnectionError(f"the head at {address} has no configuration to give: is it ready?")
    return nodes, Config.from_bytes(config.value)


def _completed(node: NodeOptions, head_host: str, resolved: Resolved) -> NodeOptions:
    """The options with what follows from where the head listens."""
    host = node.tcp_host or head_host
    if host:
        check_bind(host, resolved)
    ip = node.ip
    if not ip:
        ip = host if host and host not in ("0.0.0.0", "::") else (own_ip() if host else "127.0.0.1")
    return msgspec.structs.replace(node, tcp_host=host, ip=ip)


def _shown(host: str, node: NodeOptions) -> str:
    return node.ip if host in ("0.0.0.0", "::") else host


def _node_ipc(session: Session, node_id: bytes) -> str:
    return f"{session.sockets}/raylet-{node_id[:5].hex()}"
