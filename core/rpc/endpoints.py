"""Texts of tcp addresses: ``host:port``, and ``[host]:port`` where the host is an IPv6 address."""

from __future__ import annotations


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
