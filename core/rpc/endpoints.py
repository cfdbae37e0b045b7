"""Texts of tcp addresses: ``host:port``, and ``[host]:port`` where the host is an IPv6 address."""

from __future__ import annotations

import socket


def join_host_port(host: str, port: int | str) -> str:
    """``host:port``, with the brackets that an IPv6 address needs."""
    bare = host.strip("[]")
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"


def split_host_port(text: str) -> tuple[str, int]:
    """Host (without brackets) and port of ``host:port``. ValueError where it is no such text."""
    host, colon, port = text.rpartition(":")
    bare = host.strip("[]")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not bare or not port.isdecimal() or (":" in bare and not bracketed):
        raise ValueError(f"{text!r} is no address: expected HOST:PORT, or [HOST]:PORT for IPv6")
    if int(port) > 65535:
        raise ValueError(f"{text!r} is no address: a port is at most 65535")
    return bare, int(port)


def is_ipv6(host: str) -> bool:
    """Whether a host is written as an IPv6 address."""
    return ":" in host.strip("[]")


def is_same_endpoint(dialled: str, told: str) -> bool:
    """Whether ``tcp://host:port`` as it was dialled is the one that libzmq tells of.

    It tells addresses: as given at first, as resolved later. So a host by name is any host with
    that port, and addresses are compared as numbers. False for what is no tcp endpoint.
    """
    if dialled == told:
        return True
    if not (dialled.startswith("tcp://") and told.startswith("tcp://")):
        return False
    host, port = split_host_port(dialled.removeprefix("tcp://"))
    told_host, told_port = split_host_port(told.removeprefix("tcp://"))
    if port != told_port:
        return False
    number, told_number = _number(host), _number(told_host)
    return not number or not told_number or number == told_number


def _number(host: str) -> bytes:
    """An address; b"" of a host by name."""
    family = socket.AF_INET6 if is_ipv6(host) else socket.AF_INET
    try:
        return socket.inet_pton(family, host.partition("%")[0])
    except OSError:
        return b""
