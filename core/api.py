"""init, shutdown, get, put, wait, kill, get_actor, nodes: thin functions over the runtime.

Owns the arguments users give and the errors for wrong ones, automatic init, and this process's
connection. ZeroMQ and the runtime are imported when a runtime starts, not before: importing mray
must stay cheap.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar, overload

from mray import config as config_module
from mray import current, init_arguments, init_defaults
from mray.exceptions import RaySystemError
from mray.ids import new_namespace
from mray.object_ref import ObjectRef
from mray.object_ref_generator import ObjectRefGenerator
from mray.resources import to_float
from mray.version import RAY_VERSION

if TYPE_CHECKING:
    from mray.actor import ActorHandle
    from mray.bootstrap import Started
    from mray.runtime.driver import Driver

log = logging.getLogger("mray")
_entry_of = attrgetter("_entry")
#: Of so many references wait() does not remember what it left over.
_FEW_REFS = 32
T = TypeVar("T")


class _Connection:
    """What init() made, for shutdown()."""

    def __init__(self) -> None:
        self.driver: Driver | None = None
        self.started: Started | None = None
        self.pid = 0
        self.lock = threading.RLock()


_connection = _Connection()


class RayContext(Mapping[str, Any]):
    """What init() returns: facts of the cluster; ``with`` ends the connection on leaving."""

    def __init__(self, address_info: dict[str, Any]) -> None:
        self.address_info = address_info
        self.dashboard_url = ""
        self.python_version = sys.version.split()[0]
        self.ray_version = RAY_VERSION
        self.ray_commit = ""
        self.namespace = address_info.get("namespace", "")

    def __getitem__(self, key: str) -> Any:
        return self.address_info[key]

    def __iter__(self) -> Any:
        return iter(self.address_info)

    def __len__(self) -> int:
        return len(self.address_info)

    def __enter__(self) -> RayContext:  # noqa: PYI034 (not made to be subclassed)
        return self

    def __exit__(self, *exc: object) -> None:
        shutdown()

    def disconnect(self) -> None:
        """The same as shutdown()."""
        shutdown()

    def __repr__(self) -> str:
        return f"RayContext(address={self.address_info.get('address')!r})"


def init(
    address: str | None = None,
    *,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    resources: dict[str, float] | None = None,
    labels: dict[str, str] | None = None,
    object_store_memory: int | None = None,
    ignore_reinit_error: bool = False,
    configure_logging: bool = True,
    logging_level: int | str = logging.INFO,
    logging_format: str | None = None,
    log_to_driver: bool | None = None,
    namespace: str | None = None,
    runtime_env: dict[str, Any] | None = None,
    **other: Any,
) -> RayContext:
    """Connect this driver to a cluster, or start one that lives as long as the driver.

    ``address``: None takes MRAY_ADDRESS or RAY_ADDRESS, else the latest cluster that `mray start`
    began on this machine, else starts a local one; "auto" wants a running one; "local" always
    starts one; else "host:port" or a session directory.

    Raises RuntimeError when connected already (unless ``ignore_reinit_error``), ConnectionError
    when there is no such cluster, ValueError or TypeError for bad arguments, ConfigError for bad
    settings.
    """
    from mray import bootstrap, session
    from mray.runtime import driver as driver_module
    from mray.runtime_env import checked

    with _connection.lock:
        if current.runtime is not None:
            if ignore_reinit_error:
                log.info("init() was called again: this process is connected already")
                return _context()
            raise RuntimeError(
                "init() was called twice: this process is connected already. Call shutdown() "
                "first, or pass ignore_reinit_error=True"
            )
        flags = init_arguments.settings(other)
        spill_to = other.pop("object_spilling_directory", None)
        spill_to = other.pop("_object_spilling_directory", None) or spill_to
        if spill_to is not None:
            flags["object_spilling_directory"] = spill_to
        init_arguments.check_rest(other)
        memory = other.pop("_memory", None)
        amounts = init_arguments.node_amounts(num_cpus, num_gpus, resources, memory)
        if object_store_memory is None:
            object_store_memory = init_defaults.values.get("object_store_memory")
        if object_store_memory is not None:
            flags["object_store_memory"] = object_store_memory
        temp_dir = other.pop("_temp_dir", None)
        if temp_dir is not None:
            if not os.path.isabs(temp_dir):
                raise ValueError(f"_temp_dir must be an absolute path, not {temp_dir!r}")
            flags["tmpdir"] = temp_dir
        node_ip = other.pop("_node_ip_address", None) or ""
        if runtime_env is not None:
            runtime_env = checked(runtime_env)
        if configure_logging:
            _configure_logging(logging_level, logging_format)
        resolved = config_module.load(flags, os.environ, flags_from="init")
        for warning in resolved.warnings:
            log.warning("%s", warning)
        unasked = ""
        if not (address or os.environ.get("MRAY_ADDRESS") or os.environ.get("RAY_ADDRESS")):
            found = session.find_started(resolved.config.node.tmpdir)
            address = "local" if found is None else found.path
            if found is not None:
                unasked = f"the cluster that `mray start` began: {found.name}"
                log.info("connecting to %s", unasked)
        target = session.resolve_address(address, os.environ, tmpdir=resolved.config.node.tmpdir)
        if target.kind == "tcp":
            raise ConnectionError(
                f"{target.why}: no node daemon of that cluster runs on this machine; start one "
                f"with `mray start --address={target.endpoint.removeprefix('tcp://')}`"
            )
        started = None
        if target.kind == "local":
            options = bootstrap.NodeOptions(resources=amounts, labels=labels or {}, ip=node_ip)
            started = bootstrap.start_local(resolved, node=options)
            joined = started.session
        else:
            if amounts or object_store_memory is not None or labels:
                raise ValueError(
                    "num_cpus, num_gpus, resources, labels and object_store_memory belong to "
                    f"starting a cluster; this connects to a running one "
                    f"({unasked or target.why}); init('local') starts one of its own"
                )
            assert target.session is not None
            joined = target.session
        if log_to_driver is None:
            log_to_driver = resolved.config.logs.log_to_driver
        try:
            driver = driver_module.connect(
                joined,
                namespace=namespace or resolved.config.driver.namespace or new_namespace(),
                runtime_env=runtime_env or {},
                log_to_driver=log_to_driver,
                environ=dict(os.environ),
                settings=resolved,
            )
        except BaseException:
            if started is not None:
                bootstrap.stop_local(started, grace_s=2.0)
            raise
        _connection.driver = driver
        _connection.started = started
        _connection.pid = os.getpid()
        current.runtime = driver.runtime
        return _context()


def _configure_logging(level: int | str, form: str | None) -> None:
    logger = logging.getLogger("mray")
    if not logger.handlers and not logging.getLogger().handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(
            logging.Formatter(form or "%(asctime)s\t%(levelname)s %(name)s -- %(message)s")
        )
        logger.addHandler(handler)
    logger.setLevel(level.upper() if isinstance(level, str) else level)


def _context() -> RayContext:
    rt = current.get()
    driver = _connection.driver
    address = rt.head.tcp or (driver.session.path if driver is not None else rt.head.ipc)
    return RayContext(
        {
            "address": address,
            "gcs_address": rt.head.tcp or rt.head.ipc,
            "node_ip_address": rt.node.ip,
            "raylet_ip_address": rt.node.ip,
            "raylet_socket_name": rt.node.address.ipc,
            "object_store_address": rt.node.store_path,
            "session_dir": rt.node.session_dir,
            "temp_dir": os.path.dirname(rt.node.session_dir),
            "node_id": rt.node.node_id.hex(),
            "webui_url": "",
            "redis_address": None,
            "metrics_export_port": rt.config.metrics.metrics_export_port,
            "namespace": rt.namespace,
        }
    )


def shutdown(_exiting_interpreter: bool = False) -> None:
    """Disconnect; a cluster that init() started ends. Does nothing when not connected."""
    if _connection.pid != os.getpid():
        # A fork of the driver: the sockets and the cluster are the parent's.
        return
    with _connection.lock:
        driver, _connection.driver = _connection.driver, None
        started, _connection.started = _connection.started, None
        if driver is None:
            return
        if _exiting_interpreter:
            sys.stdout.flush()
            sys.stderr.flush()
        try:
            driver.disconnect()
        finally:
            current.runtime = None
            if started is not None:
                from mray import bootstrap

                bootstrap.stop_local(started)


def is_initialized() -> bool:
    """Whether this process is connected to a cluster."""
    return current.runtime is not None and not current.runtime.closed


def _auto_init() -> None:
    if current.start.forked:
        raise RuntimeError(
            "this process is a fork of a driver or worker, whose connection it cannot use: call "
            "init() in it before using mray, or spawn the process instead of forking it"
        )
    if sys.is_finalizing():
        raise RuntimeError("mray was used while the interpreter ends: it is disconnected already")
    init()


current.start.auto_init = _auto_init
atexit.register(shutdown, True)


@overload
def get(
    object_refs: ObjectRef[T], *, timeout: float | None = None, writable: bool = False
) -> T: ...
@overload
def get(
    object_refs: list[ObjectRef[T]], *, timeout: float | None = None, writable: bool = False
) -> list[T]: ...
def get(object_refs: Any, *, timeout: float | None = None, writable: bool = False) -> Any:
    """The value of a reference, or the values of a list of them, in order.

    ``timeout`` in seconds; None and -1: as long as it takes. Arrays inside are read-only views of
    the store, which all readers share; with ``writable`` they are private copies, of which only
    the pages that are written to take memory (copy-on-write); the object itself never changes.

    Raises GetTimeoutError (a TimeoutError) when the time runs out, and what the tasks raised: an
    exception that is both RayTaskError and the user's type. ValueError for what is neither a
    reference nor a list, TypeError for a list with something else in it, as in Ray.
    """
    rt = current.get()
    if type(object_refs) is ObjectRef:
        entry = object_refs._entry
        if entry.ready and entry.data is not None:
            return rt.objects.load(entry, writable)
        limit = None if timeout == -1 else timeout
        return rt.objects.get((object_refs,), limit, writable)[0]
    if isinstance(object_refs, ObjectRefGenerator):
        return object_refs  # As in Ray: there is no one value.
    if not isinstance(object_refs, list):
        raise ValueError(
            f"get() takes an ObjectRef or a list of ObjectRefs, not {type(object_refs).__name__}"
        )
    for ref in object_refs:
        if type(ref) is not ObjectRef:
            raise TypeError(
                f"get() was given a list with {type(ref).__name__} in it: {ref!r} is no ObjectRef"
            )
    return rt.objects.get(object_refs, None if timeout == -1 else timeout, writable)


def put(value: T, *, _owner: Any = None) -> ObjectRef[T]:
    """Store a value in the object store; its reference.

    Raises TypeError for a reference or a value that cannot be serialized (naming the culprit),
    ObjectStoreFullError when there is no room.
    """
    if _owner is not None:
        raise ValueError("put() knows no _owner: Ray has removed it, and mray never had it")
    if type(value) is ObjectRef:
        raise TypeError(
            "put() was given an ObjectRef: it is stored already. To keep a reference in the store "
            "put it inside a list"
        )
    return current.get().objects.put(value)


def wait(
    ray_waitables: Any,
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
    """Wait until ``num_returns`` of the references are ready, or ``timeout`` seconds.
    An ObjectRefGenerator among them is ready when its next reference, or its end, is there.
    ``fetch_local``: a value that is on another node is ready when a copy of it is here.

    Returns (ready, not ready), in the order given; never more than ``num_returns`` ready ones.
    """
    rt = current.get()
    if isinstance(ray_waitables, ObjectRef):
        raise TypeError("wait() takes a list of ObjectRefs, not a single one")
    if not isinstance(ray_waitables, list):
        raise TypeError(f"wait() takes a list of ObjectRefs, not {type(ray_waitables).__name__}")
    if timeout is not None and timeout < 0:
        raise ValueError(f"the timeout must be 0 or more, not {timeout}")
    refs = list(ray_waitables)
    if not refs:
        return [], []
    # A loop that takes one result after the other waits on all that are left each time.
    if not rt.objects.leftover.equals(refs):
        _check_distinct(refs)
    if num_returns <= 0:
        raise ValueError(f"num_returns must be 1 or more, not {num_returns}")
    if num_returns > len(refs):
        raise ValueError(f"num_returns is {num_returns}, but only {len(refs)} references are given")
    ready, rest = rt.objects.wait(refs, num_returns, timeout, fetch_local)
    if len(rest) > _FEW_REFS:
        rt.objects.leftover.keep(rest)
    return ready, rest


def _check_distinct(refs: list[Any]) -> None:
    """Raise TypeError for what is no ObjectRef, ValueError for one that is there twice."""
    try:
        distinct = len(set(map(_entry_of, refs)))
    except AttributeError:
        stranger = next(ref for ref in refs if type(ref) is not ObjectRef)
        raise TypeError(
            f"wait() was given a list with {type(stranger).__name__} in it: {stranger!r} is no "
            "ObjectRef"
        ) from None
    if distinct != len(refs):
        raise ValueError("wait() was given the same ObjectRef more than once")


def kill(actor: ActorHandle, *, no_restart: bool = True) -> None:
    """End an actor at once; its pending calls raise ActorDiedError."""
    from mray.actor import ActorHandle

    rt = current.get()
    if not isinstance(actor, ActorHandle):
        raise ValueError(f"kill() takes an actor handle, not {type(actor).__name__}")
    rt.actors.kill(actor._actor_id, no_restart)


def get_actor(name: str, namespace: str | None = None) -> ActorHandle:
    """The handle of a living named actor. ValueError if there is none of that name, TypeError for
    names that are no text."""
    from mray.actor import handle_of

    for text in (name, namespace or ""):
        if not isinstance(text, str):
            raise TypeError(f"get_actor() takes names, which are str; {text!r} is {type(text)}")
    if not name:
        raise ValueError("get_actor() needs a name")
    rt = current.get()
    where = namespace or rt.namespace
    spec = rt.actors.find(name, where)
    if spec is None:
        raise ValueError(f"there is no living actor {name!r} in namespace {where!r}")
    return handle_of(spec)


def nodes() -> list[dict[str, Any]]:
    """The cluster's nodes, with Ray's keys.

    Ports that mray does not have are -1. ``DeathReason`` is Ray's number: 0 of a node that lives, 1
    of one that ended as it was told, 2 of one that was lost.
    """
    from mray.wire.messages import GetNodes, Nodes

    rt = _connected("nodes")
    reply = rt.ask(rt.head, GetNodes, Nodes)
    port = rt.config.metrics.metrics_export_port or -1
    return [
        {
            "NodeID": view.node.node_id.hex(),
            "Alive": view.state != "DEAD",
            "NodeManagerAddress": view.node.ip,
            "NodeManagerHostname": view.node.hostname,
            "NodeManagerPort": int(view.node.address.tcp.rpartition(":")[2] or 0),
            "ObjectManagerPort": -1,
            "MetricsExportPort": port if view.node.node_id == rt.node.node_id else -1,
            "MetricsAgentPort": -1,
            "DashboardAgentListenPort": -1,
            "RuntimeEnvAgentPort": -1,
            "NodeName": view.node.ip,
            "ObjectStoreSocketName": view.node.store_path,
            "RayletSocketName": view.node.address.ipc,
            "Resources": to_float(view.node.resources) if view.state != "DEAD" else {},
            "Labels": dict(view.node.labels),
            "DeathReason": 0 if view.cause is None else 1 if view.cause.kind == "intended" else 2,
            "DeathReasonMessage": "" if view.cause is None else view.cause.text,
            "alive": view.state != "DEAD",
        }
        for view in reply.nodes
    ]


def cluster_resources() -> dict[str, float]:
    """All resources of the living nodes."""
    _connected("cluster_resources")
    return _sum(node["Resources"] for node in nodes())


def available_resources() -> dict[str, float]:
    """The resources nobody holds or has in a placement group, as of each node's last report."""
    from mray.wire.messages import GetNodes, Nodes

    rt = _connected("available_resources")
    reply = rt.ask(rt.head, GetNodes, Nodes)
    return _sum(to_float(view.available) for view in reply.nodes if view.state != "DEAD")


def _connected(what: str) -> Any:
    if current.runtime is None:
        raise RaySystemError(f"{what}() needs a connection: call init() first")
    return current.runtime


def _sum(parts: Any) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for name, amount in part.items():
            total[name] = total.get(name, 0.0) + amount
    # What bundles of placement groups offer is no more than what they took.
    return {name: amount for name, amount in total.items() if amount and "_group_" not in name}
