"""Turning doors in tests until what is waited for has come."""

from __future__ import annotations

from collections.abc import Callable

from mray.rpc.door import Door
from mray.wire.messages import Address

MakeDoor = Callable[..., Door]
Listen = Callable[[Door], Address]
NODE = b"n" * 16


def receive(door: Door, count: int = 1, timeout_s: float = 10.0) -> list[tuple[bytes, bytes]]:
    """The next messages; fewer when there are none for the time given."""
    found: list[tuple[bytes, bytes]] = []
    while len(found) < count:
        got = list(door.poll(timeout_s))
        if not got:
            break
        found += got
    return found


def deliver(*doors: Door) -> list[tuple[bytes, bytes]]:
    """Turn several doors until one has a message."""
    found: list[tuple[bytes, bytes]] = []
    for _ in range(500):
        for door in doors:
            found += door.poll(0.01)
        if found:
            return found
    raise AssertionError("no message arrived")


def listen_tcp(door: Door) -> Address:
    port = door.listen_tcp("127.0.0.1", 0)
    return Address(door.process_id, b"other node", tcp=f"127.0.0.1:{port}")
