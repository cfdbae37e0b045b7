"""Texts of tcp addresses, IPv6 among them."""

from __future__ import annotations

import pytest

from mray.rpc.endpoints import is_ipv6, join_host_port, split_host_port


@pytest.mark.parametrize(
    ("host", "port", "text"),
    [
        ("127.0.0.1", 80, "127.0.0.1:80"),
        ("node-1.example", 6379, "node-1.example:6379"),
        ("::1", 80, "[::1]:80"),
        ("[fe80::1]", 80, "[fe80::1]:80"),
    ],
)
def test_addresses_are_written_and_read(host: str, port: int, text: str) -> None:
    assert join_host_port(host, port) == text
    assert split_host_port(text) == (host.strip("[]"), port)
    assert is_ipv6(host) == ("[" in text)


@pytest.mark.parametrize(
    "text", ["", "host", "host:", ":80", "host:x", "::1:80", "h:70000", "h:-1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no address"):
        split_host_port(text)
