"""Making a node's transfers: the bulk connection, where others are to reach it, and the rest."""

from __future__ import annotations

from mray.config.sections import Config
from mray.node.daemon import Daemon, StartFailed
from mray.node.objects.server import StoreServer
from mray.node.objects.spill_pool import StoreMemory
from mray.node.sched.cluster_view import ClusterView
from mray.node.transfer.bulk import Bulk
from mray.node.transfer.chunks import bulk_name
from mray.node.transfer.leaving import Leaving
from mray.node.transfer.pulls import PullRules
from mray.node.transfer.service import Transfer
from mray.rpc.bulk_door import BulkDoor
from mray.rpc.door import Keys
from mray.rpc.endpoints import join_host_port
from mray.rpc.pump import Pump


def pull_rules(config: Config, capacity_bytes: int) -> PullRules:
    """The rules of pulls for a store of this capacity."""
    transfer = config.transfer
    return PullRules(
        quota_bytes=int(capacity_bytes * transfer.pull_memory_share),
        chunk_bytes=transfer.object_manager_default_chunk_size,
        window_bytes=transfer.pull_window_bytes,
    )


def open_transfer(
    pump: Pump, store: StoreServer, bulk: Bulk | None, view: ClusterView, config: Config
) -> tuple[Transfer, Leaving]:
    """The transfers of a node, and what becomes of its objects when it drains."""
    rules = pull_rules(config, store.arena.capacity_bytes)
    transfer = Transfer(pump, store, view.own_id, bulk, view.address_of, rules)
    leaving = Leaving(pump, store, transfer, view)
    transfer.handlers.update(leaving.handlers)
    return transfer, leaving


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
