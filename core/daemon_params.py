"""What a daemon is told at birth: values only, carried by bootstrap.py, read by the daemon."""

from __future__ import annotations

from typing import Final

import msgspec

from mray.storage_place import StoragePlace
from mray.wire.messages import Address

#: Where the head keeps the cluster's configuration in its KV, for those who are about to join.
CONFIG_NAMESPACE: Final = "_mray"
CONFIG_KEY: Final = b"config"


class NodeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a user may say of a node beside the configuration."""

    #: Amounts as users give them. CPU, GPU, memory and object_store_memory that are missing here
    #: are detected by the node.
    resources: dict[str, float] = {}
    labels: dict[str, str] = {}
    #: The address other machines reach this node at; filled in by bootstrap where it is "".
    ip: str = ""
    #: Where the node listens on tcp; "" for not at all. Port 0 takes a free one.
    tcp_host: str = ""
    tcp_port: int = 0


class DaemonParams(msgspec.Struct, frozen=True, kw_only=True):
    """All that a daemon is told."""

    #: Its process id; a node's is its node id.
    process_id: bytes
    cluster_id: str
    session_dir: str
    #: Whether the head runs in this session.
    is_head: bool
    #: Where the head listens. ``head.node_id`` is the node on the head's machine, so that
    #: processes there take the unix socket.
    head: Address
    #: The head's process where it runs on this machine, else 0.
    head_pid: int
    head_start_time: int
    #: The path this daemon listens on.
    ipc: str
    #: msgpack of mray.config.Config.
    config: bytes
    #: "" without tcp.
    token: str
    #: The tcp address this daemon binds; "" for none. Port 0 takes a free one.
    tcp_host: str
    tcp_port: int
    node: NodeOptions
    #: The process to die with; 0 for none.
    owner_pid: int
    owner_start_time: int
    #: Pipe to write the one line to.
    ready_fd: int
    #: Where the head keeps its state.
    storage: StoragePlace = StoragePlace(kind="memory")
    #: The head takes up the cluster of these ids, whose nodes run, or does not start.
    resume: bool = False
