"""Opening a node's bulk connection, where the node is to be reached from others."""

from __future__ import annotations

from mray.config.sections import Config
from mray.node.daemon import Daemon, StartFailed
from mray.node.objects.spill_pool import StoreMemory
from mray.node.transfer.bulk import Bulk
from mray.node.transfer.chunks import bulk_name
from mray.node.transfer.pulls import PullRules
from mray.rpc.bulk_door import BulkDoor
from mray.rpc.door import Keys
from mray.rpc.endpoints import join_host_port


def pull_rules(config: Config, capacity_bytes: int) -> PullRules:
    """The rules of pulls for a store of this capacity."""
    transfer = config.transfer
    return PullRules(
        quota_bytes=int(capacity_bytes * transfer.pull_memory_share),
        chunk_bytes=transfer.object_manager_default_chunk_size,
        window_bytes=transfer.pull_window_bytes,
    )


def open_bulk(
    daemon: Daemon, rules: PullRules, memory: StoreMemory, cpus: int
) -> tuple[Bulk, str]:
    """The connection, on a free port of the host that the daemon listens on, and its "host:port" as
    others reach it. It listens; ``start`` it. StartFailed where it cannot."""
    params = daemon.params
    door = BulkDoor(bulk_name(params.process_id), Keys.from_token(params.token), cpus)
    host = params.tcp_host
    try:
        port = door.listen_tcp(host, 0)
    except Exception as error:
        door.close()
        raise StartFailed("OSError", f"cannot listen on {host} for objects: {error}") from error
    shown = params.node.ip if host in ("0.0.0.0", "::", "*") else host
    bulk = Bulk(door, memory, rules.chunk_bytes, daemon.pump.call_soon)
    return bulk, join_host_port(shown, port)
