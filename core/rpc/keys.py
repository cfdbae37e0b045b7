"""The CURVE keys of a cluster and of its processes, all derived from the cluster's token.

Opens no socket: door.py and bulk_door.py use them.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

import zmq
from zmq.utils import z85

from mray.ids import is_head


@dataclass(frozen=True)
class Keys:
    """CURVE keys of a cluster, all derived from its token: whoever has the token has all ends."""

    server_public: bytes
    server_secret: bytes
    client_public: bytes
    client_secret: bytes
    #: What the keys of single processes are derived from.
    seed: bytes

    @classmethod
    def from_token(cls, token: str) -> Keys:
        """Keys by HMAC-SHA256 of the token, as RFC 26's model of one shared client key."""
        if not zmq.has("curve"):
            raise RuntimeError("this libzmq has no CURVE; install pyzmq's own wheel")
        seed = hmac.new(token.encode(), b"mray/curve/v1/process", hashlib.sha256).digest()
        pairs = []
        for side in ("server", "client"):
            raw = hmac.new(token.encode(), f"mray/curve/v1/{side}".encode(), hashlib.sha256)
            pairs.append(_pair(raw.digest()))
        return cls(*pairs[0], *pairs[1], seed)

    @classmethod
    def from_parts(cls, parts: tuple[bytes, ...]) -> Keys | None:
        """What ``parts()`` gave; None for ()."""
        return cls(*parts) if parts else None

    def parts(self) -> tuple[bytes, ...]:
        """For another process of the cluster."""
        return (
            self.server_public, self.server_secret, self.client_public, self.client_secret,
            self.seed,
        )  # fmt: skip

    def server(self, process_id: bytes) -> tuple[bytes, bytes]:
        """Public and secret key under which a process listens."""
        if is_head(process_id):
            return self.server_public, self.server_secret
        return _pair(hmac.new(self.seed, process_id, hashlib.sha256).digest())


def _pair(raw: bytes) -> tuple[bytes, bytes]:
    secret = z85.encode(raw)
    return zmq.curve_public(secret), secret
