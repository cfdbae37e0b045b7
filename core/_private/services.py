"""``ray._private.services``: the one name that programs import from there."""

from mray.util.node_address import get_node_ip_address

__all__ = ["get_node_ip_address"]
