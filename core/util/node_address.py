"""``mray.util.get_node_ip_address``: under which address this machine is reached."""

from __future__ import annotations

from mray import current
from mray.bootstrap import own_ip

__all__ = ["get_node_ip_address"]


def get_node_ip_address(address: str | None = None) -> str:
    """The address of this process's node, as ``nodes()`` shows it.

    With ``address`` ("host" or "host:port"), and in a process that is not connected, the one this
    machine has on the way there (by default to the internet); 127.0.0.1 where there is no way.
    """
    runtime = current.runtime
    if address is not None:
        return own_ip(address.rpartition(":")[0] or address)
    return runtime.node.ip if runtime is not None else own_ip()
