"""``mray.cluster_utils.Cluster``: a cluster of several nodes on this machine, for tests.

Each node is a real node daemon with a session of its own, that listens on tcp at the loopback and
ends with this process. Nodes have one CPU and no GPU unless they are given more. Covers what Ray's
Cluster does; starting and ending nodes is bootstrap.py's.
"""

from __future__ import annotations

import atexit
import os
import signal
import time
from collections.abc import Mapping
from typing import Any, Final, Self

from mray import api, bootstrap, config
from mray.rpc.client import Client
from mray.session import create_session
from mray.session_end import end_session
from mray.state_ask import ClientAsker

__all__ = ["Cluster", "ClusterNode"]

_HOST: Final = "127.0.0.1"
_NODE_S: Final = 30.0
#: How often is looked whether nodes have come or gone.
_LOOK_S: Final = 0.02
#: Of a node that nothing is said about: Ray gives its store as much.
_STORE_BYTES: Final = 150 * 1024 * 1024
#: Arguments of Ray's nodes that mean nothing here.
_WITHOUT_MEANING: Final = frozenset(
    ("dashboard_host", "dashboard_port", "include_dashboard", "include_log_monitor",
     "num_redis_shards", "ray_debugger_external", "redis_port", "redis_max_clients",
     "env_vars", "object_manager_port", "node_manager_port", "node_name")
)  # fmt: skip


class ClusterNode:
    """One node of a Cluster. Ids are hex digits."""

    def __init__(self, starting: bootstrap.Starting) -> None:
        assert starting.node is not None
        self._starting = starting
        self.node_id = starting.node.node_id
        #: For init(address=...): a driver that is attached to this node.
        self.address = starting.session.path
        self.node_ip_address = _HOST
        self.pids = starting.pids

    def __repr__(self) -> str:
        return f"ClusterNode({self.node_id[:12]}, pid {self.pids['node']})"

    @property
    def _started(self) -> bootstrap.Started:
        return self._starting.finish()

    @property
    def unique_id(self) -> str:
        """Another name of ``node_id``."""
        return self.node_id

    @property
    def raylet_pid(self) -> int:
        """The process of the node daemon."""
        return self.pids["node"]

    def any_processes_alive(self) -> bool:
        """Whether a daemon of this node runs."""
        return bool(self.live_processes())

    def remaining_processes_alive(self) -> bool:
        """Whether all daemons of this node run."""
        return len(self.live_processes()) == len(self.pids)

    def live_processes(self) -> list[tuple[str, int]]:
        """Kind and pid of the daemons that run."""
        ended = {one.pid for one in self._starting.spawned if one.has_ended()}
        return [(kind, pid) for kind, pid in self.pids.items() if pid not in ended]

    def kill_raylet(self) -> None:
        """SIGKILL to the node daemon; its workers die with it."""
        self.signal(signal.SIGKILL, "node")

    def signal(self, number: int, kind: str = "node") -> None:
        """Send a signal to the ``node`` daemon or the ``head``."""
        # Our own child: its pid is nobody else's before it is reaped.
        if (kind, self.pids[kind]) in self.live_processes():
            os.kill(self.pids[kind], number)

    def _end(self, graceful: bool) -> None:
        if not graceful:
            self.kill_raylet()
        report = end_session(
            self._starting.session, force=not graceful, grace_s=5.0, reason="it is removed"
        )
        for spawned in self._starting.spawned:
            spawned.reap()
        if report.survivors:
            raise RuntimeError(f"processes of {self} could not be ended: {report.survivors}")


class Cluster:
    """Nodes that come and go, as a test wants them. Also a context manager."""

    def __init__(
        self,
        initialize_head: bool = False,
        connect: bool = False,
        head_node_args: Mapping[str, Any] | None = None,
        shutdown_at_exit: bool = True,
    ) -> None:
        """``initialize_head`` starts the head's node with ``head_node_args`` (those of add_node);
        ``connect`` makes this process a driver of it. RuntimeError for one without the other."""
        self.head_node: ClusterNode | None = None
        self.worker_nodes: list[ClusterNode] = []
        self.connected = False
        self._resolved: config.Resolved | None = None
        self._tmpdir = ""
        self._started_at = time.monotonic()
        if not initialize_head and connect:
            raise RuntimeError("a Cluster cannot connect to a head that it was not told to start")
        if shutdown_at_exit:
            atexit.register(self.shutdown)
        if initialize_head:
            self.add_node(**(head_node_args or {}))
            if connect:
                self.connect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.shutdown()

    @property
    def address(self) -> str:
        """``host:port`` of the head, for init(address=...). RuntimeError before there is one."""
        return self._head().head.tcp

    @property
    def gcs_address(self) -> str:
        """Another name of ``address``."""
        return self.address

    def connect(self, namespace: str | None = None, **options: Any) -> None:
        """Make this process a driver on the head's node. ``options`` of init()."""
        api.init(address=self._head().session.path, namespace=namespace, **options)
        self.connected = True

    def add_node(self, wait: bool = True, **node_args: Any) -> ClusterNode:
        """Start a node; the first one has the head.

        ``num_cpus`` (1), ``num_gpus`` (0), ``memory`` and ``object_store_memory`` (bytes),
        ``resources``, ``labels``; of the first node also ``_system_config`` (settings of the
        cluster) and ``_temp_dir``. ``wait``: until the cluster knows it; else wait_for_nodes()
        does, and several nodes start at once. TypeError for other arguments, StartError where
        the node does not start.
        """
        settings = dict(node_args.pop("_system_config", None) or {})
        temp_dir = node_args.pop("_temp_dir", None)
        resources = dict(node_args.pop("resources", None) or {})
        resources["CPU"] = node_args.pop("num_cpus", 1)
        resources["GPU"] = node_args.pop("num_gpus", 0)
        memory = node_args.pop("memory", None)
        if memory is not None:
            resources["memory"] = memory
        resources["object_store_memory"] = node_args.pop("object_store_memory", _STORE_BYTES)
        labels = dict(node_args.pop("labels", None) or {})
        unknown = set(node_args) - _WITHOUT_MEANING
        if unknown:
            raise TypeError(f"add_node() got unknown arguments: {', '.join(sorted(unknown))}")
        if self.head_node is not None and settings:
            raise ValueError("_system_config is for the first node: it holds in the whole cluster")
        options = bootstrap.NodeOptions(
            resources=resources, labels=labels, ip=_HOST, tcp_host=_HOST, tcp_port=0
        )
        if self.head_node is None:
            node = self.head_node = ClusterNode(self._start_head(options, settings, temp_dir))
        else:
            assert self._resolved is not None
            node = ClusterNode(
                bootstrap.begin_join(
                    self.address, self._resolved, node=options, die_with_pid=os.getpid()
                )
            )
            self.worker_nodes.append(node)
        if wait:
            self._finish(node)
            self._await({node.node_id}, True, _NODE_S)
        return node

    def _finish(self, node: ClusterNode) -> None:
        """Wait until a node is ready; it is none of ours where it does not start."""
        try:
            node._starting.finish(_NODE_S)
        except BaseException:
            if node in self.worker_nodes:
                self.worker_nodes.remove(node)
            raise

    def _start_head(
        self, options: bootstrap.NodeOptions, settings: dict[str, object], temp_dir: str | None
    ) -> bootstrap.Starting:
        if temp_dir is not None:
            settings["tmpdir"] = temp_dir
        self._resolved = config.load(settings, os.environ, flags_from="init")
        session = create_session(self._resolved.config.node.tmpdir)
        try:
            starting = bootstrap.begin_head(
                session, self._resolved,
                tcp_host=_HOST, tcp_port=0, node=options, die_with_pid=os.getpid(),
            )  # fmt: skip
            starting.finish()
            return starting
        except BaseException:
            session.release()
            raise

    def remove_node(self, node: ClusterNode, allow_graceful: bool = True) -> None:
        """End a node: in order, or by SIGKILL. Returns when the cluster knows it is gone.

        Where this process is a driver of it, disconnect first. ValueError if it is not a node of
        this cluster.
        """
        if node is not self.head_node and node not in self.worker_nodes:
            raise ValueError(f"{node} is no node of this cluster")
        node._end(allow_graceful)
        if node is self.head_node:
            self.head_node = None
        else:
            self.worker_nodes.remove(node)
            if self.head_node is not None and self.head_node.any_processes_alive():
                self._await({node.node_id}, False, _NODE_S)

    def wait_for_nodes(self, timeout: float = 30) -> None:
        """Until the cluster knows just the nodes that were added and not removed.

        TimeoutError after ``timeout`` seconds, StartError where one does not start.
        """
        wanted = {node.node_id for node in self.list_all_nodes()}
        deadline = time.monotonic() + timeout
        with Client() as client:
            while True:
                starting = [node for node in self.worker_nodes if not node._starting.is_finished]
                for node in starting:
                    if node._starting.has_answered():
                        self._finish(node)
                if not starting and self._living(client) == wanted:
                    return
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the cluster has not the {len(wanted)} nodes it should")
                time.sleep(_LOOK_S)

    def list_all_nodes(self) -> list[ClusterNode]:
        """The nodes, that of the head first."""
        head = [] if self.head_node is None else [self.head_node]
        return [*head, *self.worker_nodes]

    def remaining_processes_alive(self) -> bool:
        """Whether all daemons of all nodes run."""
        return all(node.remaining_processes_alive() for node in self.list_all_nodes())

    def shutdown(self) -> None:
        """Disconnect and end all nodes. Again does nothing."""
        atexit.unregister(self.shutdown)
        if self.connected:
            api.shutdown()
            self.connected = False
        # The head first: it has all nodes end at once.
        nodes, self.worker_nodes, self.head_node = self.list_all_nodes(), [], None
        for node in nodes:
            node._end(graceful=True)

    # -- inside

    def _head(self) -> bootstrap.Started:
        if self.head_node is None:
            raise RuntimeError("this Cluster has no head: add_node() starts it")
        return self.head_node._started

    def _living(self, client: Client) -> set[str]:
        views = ClientAsker(client, client.reach(f"ipc://{self._head().head.ipc}")).nodes()
        return {view.node.node_id.hex() for view in views if view.state == "ALIVE"}

    def _await(self, node_ids: set[str], there: bool, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        with Client() as client:
            while True:
                living = self._living(client)
                if node_ids <= living if there else not node_ids & living:
                    return
                if time.monotonic() > deadline:
                    what = "join" if there else "leave"
                    raise TimeoutError(f"nodes {sorted(node_ids)} did not {what} the cluster")
                time.sleep(_LOOK_S)
