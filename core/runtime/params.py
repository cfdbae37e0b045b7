"""What a worker is told at birth: one value, made by the node daemon, carried by the zygote."""

from __future__ import annotations

import msgspec

from mray.wire.messages import Address, JobInfo, NodeInfo

#: Exit code of a worker that could not set itself up as its environment says.
SETUP_FAILED = 87


class Places(msgspec.Struct, array_like=True, frozen=True):
    """Where the parts of an environment are; empty for what it does not have."""

    working_dir: str = ""
    module_paths: tuple[str, ...] = ()
    #: The interpreter's command; () for the one of the node.
    python: tuple[str, ...] = ()
    hook_path: str = ""


class WorkerParams(msgspec.Struct, array_like=True, frozen=True):
    """Everything a worker needs before its first message."""

    #: The id the node chose for this process; the first message carries it.
    process_id: bytes
    node: NodeInfo
    #: Pid of the node daemon: whoever is not its child any more must die.
    node_pid: int
    head: Address
    cluster_id: str
    #: msgpack of mray.config.Config.
    config: bytes
    job: JobInfo
    #: msgpack of the environment of this worker, b"" for none.
    runtime_env: bytes
    #: Where the worker listens.
    ipc: str
    #: 8-byte file in which the worker keeps the number of the last task it began (little endian).
    progress_path: str
    #: Open already as descriptors 1 and 2; here so that the worker can rotate them.
    out_path: str
    err_path: str
    places: Places = Places()
    #: The host to listen on by tcp, "" for not at all; that under which others reach it; the ports
    #: to choose from (0, 0: any); the parts of mray.rpc.door.Keys.
    tcp_host: str = ""
    tcp_shown: str = ""
    tcp_ports: tuple[int, int] = (0, 0)
    keys: tuple[bytes, ...] = ()
