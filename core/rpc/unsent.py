"""What the kernel still holds for a peer that counts as dead.

A closed tcp connection goes on to deliver what was written to it, for minutes if need be. A peer
that was cut off, declared dead and replaced would then get, once the cable is back, calls that its
successor runs as well. Owns that one socket option; libzmq has none for it.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

from mray.rpc.endpoints import split_host_port

_ABORT: Final = struct.pack("ii", 1, 0)


def discard_unsent(descriptor: int, endpoint: str) -> None:
    """Have the connection to ``endpoint`` (``tcp://host:port``), which libzmq closes next, throw
    away what the peer has not taken. Nothing where ``descriptor`` is another thing by now."""
    try:
        copy = os.dup(descriptor)
    except OSError:
        return  # It is closed: nothing is to be done any more.
    try:
        connection = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return
    with connection:
        try:
            port = connection.getpeername()[1:2]
        except OSError:
            return  # It is no connection, or not one that stands.
        if port == (split_host_port(endpoint.removeprefix("tcp://"))[1],):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
