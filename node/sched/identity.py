"""What a node says of itself, and the object store it has: made once, when the daemon starts."""

from __future__ import annotations

import os
import platform
import socket
from typing import Any

from mray.config import Config
from mray.node.daemon import Daemon, StartFailed
from mray.node.objects.arena import Arena, ArenaError
from mray.node.objects.opening import open_server
from mray.node.objects.server import StoreServer
from mray.node.objects.spill_pool import StoreMemory
from mray.node.sched.detect import look, node_resources, store_capacity
from mray.node.transfer.bulk import Bulk
from mray.node.transfer.opening import open_bulk, pull_rules
from mray.rpc.door import Keys
from mray.rpc.endpoints import split_host_port
from mray.units import format_bytes
from mray.version import VERSION
from mray.wire.messages import Address, NodeInfo


def open_store(daemon: Daemon) -> tuple[StoreServer, NodeInfo, Bulk | None]:
    """The object store, what the node says of itself, and what brings objects from other nodes
    where there may be any. StartFailed where one of them cannot be."""
    params, session = daemon.params, daemon.session
    options, node_id = params.node, params.process_id
    machine = look(os.environ)
    try:
        asked = options.resources.get("object_store_memory")
        capacity = store_capacity(machine, daemon.config, asked)
        arena = Arena.make(session.name, node_id.hex(), capacity)
        resources = node_resources(
            machine, options.resources,
            store_bytes=arena.capacity_bytes, ip=options.ip, is_head=params.is_head,
        )  # fmt: skip
    except (ValueError, ArenaError) as error:
        raise StartFailed(type(error).__name__, str(error)) from error
    try:
        store, overflow_path = open_server(
            arena, daemon.config,
            session=session.name, session_dir=session.path, node=node_id.hex(),
            send=daemon.pump.send, call_soon=daemon.pump.call_soon,
        )  # fmt: skip
    except (ValueError, ArenaError) as error:
        arena.close()
        raise StartFailed(type(error).__name__, str(error)) from error
    bulk, reached_at = None, ""
    if params.tcp_host:
        memory = StoreMemory(arena.path, arena.virtual_bytes, overflow_path)
        rules = pull_rules(daemon.config, arena.capacity_bytes)
        try:
            bulk, reached_at = open_bulk(daemon, rules, memory, os.cpu_count() or 1)
        except StartFailed:
            store.close()
            raise
    info = NodeInfo(
        node_id=node_id,
        address=Address(node_id, node_id, params.ipc, daemon.tcp),
        ip=options.ip,
        hostname=socket.gethostname(),
        pid=os.getpid(),
        resources=resources,
        labels={"ray.io/node-id": node_id.hex(), **options.labels},
        session_dir=session.path,
        log_dir=session.logs,
        store_path=arena.path,
        store_capacity_bytes=arena.capacity_bytes,
        is_head=params.is_head,
        mray_version=VERSION,
        python_version=platform.python_version(),
        memory_limit_bytes=machine.memory_total_bytes,
        memory_source=machine.memory_source,
        memory_monitor=monitor_words(daemon.config),
        overflow_path=overflow_path,
        bulk=reached_at,
    )
    return store, info, bulk


def reach(daemon: Daemon) -> dict[str, Any]:
    """How workers of this node are reached from others: fields of WorkerParams. None are set on a
    node that does not listen on tcp itself."""
    params, node = daemon.params, daemon.config.node
    if not daemon.tcp:
        return {}
    return {
        "tcp_host": params.tcp_host,
        "tcp_shown": split_host_port(daemon.tcp)[0],
        "tcp_ports": (node.min_worker_port, node.max_worker_port),
        "keys": Keys.from_token(params.token).parts(),
    }


def monitor_words(config: Config) -> str:
    """What the memory monitor does here, for `mray start` and `mray status`."""
    monitor = config.memory_monitor
    if not monitor.memory_monitor_refresh_ms:
        return "off (memory_monitor_refresh_ms=0)"
    share = f"{monitor.memory_usage_threshold:.4g}"
    free = ""
    if monitor.min_memory_free_bytes >= 0:
        free = f", unless {format_bytes(monitor.min_memory_free_bytes)} are free"
    return (
        f"every {monitor.memory_monitor_refresh_ms} ms, ends workers above {share} of the "
        f"limit{free} ({monitor.worker_killing_policy})"
    )
