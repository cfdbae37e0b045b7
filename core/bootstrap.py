"""Starts the daemons of a session and waits until they are ready.

Covers: spawning ``python -m mray.node head|node``, handing over parameters, readiness, undoing a
start that fails, joining a head elsewhere. Does not choose the session (session.py) nor end it for
good (session_end.py). What runs inside the daemons is mray.node's.

Parameters travel by a pipe on the daemon's standard input, as msgpack of DaemonParams: never on
the command line, where every user of the machine could read the token. Each daemon answers with
one line of JSON on a pipe of its own. Head and node start at the same time: the node is told where
the head will listen, and its connection waits there.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from mray.auth import check_bind, ensure_token, load_token
from mray.config import Config, Resolved, adopt
from mray.daemon_params import CONFIG_KEY, CONFIG_NAMESPACE, DaemonParams, NodeOptions
from mray.daemon_spawn import Spawned, StartError, spawn, wait_ready
from mray.exceptions import AuthenticationError
from mray.ids import new_head_id, new_node_id
from mray.process import start_time_of
from mray.rpc.client import AskError, Client
from mray.rpc.door import Keys
from mray.rpc.endpoints import is_ipv6, join_host_port, split_host_port
from mray.session import NodeEntry, Session, SessionInfo, create_session
from mray.session_end import EndReport, clean_stale, end_session, remove_dead_stores
from mray.storage_place import StoragePlace, storage_place
from mray.wire.messages import Address, GetNodes, KvGet, KvValue, Nodes

__all__ = [
    "DaemonParams",
    "NodeOptions",
    "StartError",
    "Started",
    "join",
    "resume_head",
    "start_head",
    "start_local",
    "start_node",
    "stop_local",
]

#: How long a start that failed gives to what it had started already.
_UNDO_GRACE_S: Final = 2.0
_JOIN_TIMEOUT_S: Final = 5.0
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


@dataclass(kw_only=True)
class Started:
    """A session whose daemons are ready. ``head.tcp`` is "" where the head has no port."""

    session: Session
    cluster_id: str
    head: Address
    #: The node daemon started, for a driver to register at; None without one.
    node: Address | None
    #: Of the daemons started: "head", "node".
    pids: dict[str, int]
    #: Of a head that was started: 1 for the first of its cluster.
    epoch: int = 0
    _spawned: list[Spawned] = field(default_factory=list, repr=False)

    @property
    def address(self) -> str:
        """What others pass to join: "host:port", or the session's directory without a port."""
        return self.head.tcp or self.session.path


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
    return _start(session, resolved, info, params, [entry] if with_node else [], True, timeout_s)


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
    return _start(session, resolved, info, params, new, True, timeout_s, new=False)


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
    return _start(session, resolved, info, params, [entry], False, timeout_s)


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
        return start_node(
            session,
            joined,
            cluster_id=nodes.cluster_id,
            head=head,
            node=node,
            die_with_pid=die_with_pid,
            timeout_s=timeout_s,
        )
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


def _start(
    session: Session,
    resolved: Resolved,
    info: SessionInfo,
    params: DaemonParams,
    nodes: list[NodeEntry],
    with_head: bool,
    timeout_s: float,
    *,
    new: bool = True,
) -> Started:
    """Spawn what is asked for, wait for it, write down what came of it; or undo it all.

    ``new``: the session has no head yet.
    """
    session.hold()
    # Before anything runs, so that whatever happens to us, `mray stop` can find it.
    try:
        session.write_info(info, new=with_head and new)
    except FileExistsError as error:
        text = f"the session {session.path} was begun by another start; make a new one"
        raise StartError("head", "RuntimeError", text) from error
    spawned: list[Spawned] = []
    facts: list[dict[str, Any]] = []
    try:
        if with_head:
            spawned.append(spawn("head", params, session))
            params = msgspec.structs.replace(
                params, head_pid=spawned[0].pid, head_start_time=start_time_of(spawned[0].pid)
            )
            if params.storage.named:
                # It may hold a cluster: the head says who it is before anybody looks for it.
                facts = wait_ready(spawned, timeout_s)
                info, params = _identified(info, params, facts[0])
        for entry in nodes:
            node_params = msgspec.structs.replace(
                params,
                process_id=bytes.fromhex(entry.node_id),
                ipc=entry.ipc,
                tcp_host=params.node.tcp_host,
                tcp_port=params.node.tcp_port,
            )
            spawned.append(spawn("node", node_params, session))
        # While they start, for it costs them nothing.
        clean_stale(
            os.path.dirname(os.path.dirname(session.path)),
            retention_s=resolved.config.node.session_retention_s,
            retention_count=resolved.config.node.session_retention_count,
        )
        facts += wait_ready(spawned[len(facts) :], timeout_s)
    except BaseException as error:
        whole = new and len(info.nodes) == len(nodes)
        _undo(session, spawned, str(error) or "interrupted", whole=whole)
        raise
    head, kinds = params.head, [one.kind for one in spawned]
    if with_head:
        head = msgspec.structs.replace(head, tcp=facts[0]["tcp"])
        session.write_info(msgspec.structs.replace(info, head_tcp=head.tcp))
    address = None
    if nodes:
        node_id = bytes.fromhex(nodes[0].node_id)
        address = Address(node_id, node_id, ipc=nodes[0].ipc, tcp=facts[-1]["tcp"])
    elif info.nodes and with_head:
        node_id = bytes.fromhex(info.nodes[0].node_id)
        address = Address(node_id, node_id, ipc=info.nodes[0].ipc)
    return Started(
        session=session,
        cluster_id=info.cluster_id,
        head=head,
        epoch=facts[0].get("epoch", 1) if with_head else 0,
        node=address,
        pids={kind: one.pid for kind, one in zip(kinds, spawned, strict=True)},
        _spawned=spawned,
    )


def _identified(
    info: SessionInfo, params: DaemonParams, facts: dict[str, Any]
) -> tuple[SessionInfo, DaemonParams]:
    """The ids that a head found in its storage, in place of those that were made for it."""
    head_id = bytes.fromhex(facts["head_id"])
    head = msgspec.structs.replace(params.head, process_id=head_id)
    info = msgspec.structs.replace(info, head_id=head_id.hex(), cluster_id=facts["cluster_id"])
    return info, msgspec.structs.replace(params, head=head, cluster_id=info.cluster_id)


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


def _undo(session: Session, spawned: list[Spawned], reason: str, *, whole: bool) -> None:
    """End what was spawned, and the session with it where it has nothing else."""
    for one in spawned:
        one.terminate()
    for one in spawned:
        one.reap(_UNDO_GRACE_S)
    if whole:
        end_session(session, force=True, reason=reason)


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
