"""Requests to a peer that may go away for a while and come back without its memory: the head.

Owns the requests that are not answered. While the peer is away they wait, however long their own
time is; when it is back they are sent again, also those that it may have had before: handlers are
idempotent. Whoever owns this learns by itself that the peer is away, back, or gone for good.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from mray.rpc.pump import OnReply, Pump, RequestFailed
from mray.wire.messages import Message


class _Request:
    __slots__ = ("make", "on_reply", "rid", "timeout_s")

    def __init__(self, make: Callable[[int], Message], on_reply: OnReply, timeout_s: float) -> None:
        self.make = make
        self.on_reply = on_reply
        self.timeout_s = timeout_s
        #: Of its present try; None while it waits.
        self.rid: int | None = None


class PatientRequests:
    """See the module. Used by the pump's thread."""

    def __init__(self, pump: Pump, peer: bytes) -> None:
        self._pump = pump
        self._peer = peer
        self.away = False
        self._numbers = itertools.count()
        self._open: dict[int, _Request] = {}

    def __len__(self) -> int:
        return len(self._open)

    def ask(self, make: Callable[[int], Message], on_reply: OnReply, timeout_s: float) -> None:
        """As Pump.request(), but ``timeout_s`` counts from when the peer is there."""
        number = next(self._numbers)
        request = self._open[number] = _Request(make, on_reply, timeout_s)
        if not self.away:
            self._send(number, request)

    def _send(self, number: int, request: _Request) -> None:
        def answered(reply: Message) -> None:
            request.rid = None
            if isinstance(reply, RequestFailed) and self.away:
                return
            if self._open.pop(number, None) is not None:
                request.on_reply(reply)

        request.rid = self._pump.request(self._peer, request.make, answered, request.timeout_s)

    def gone(self) -> None:
        """The peer is away. What it was asked may still be answered."""
        self.away = True

    def back(self) -> None:
        """The peer is there (again): it is asked everything that it has not answered."""
        self.away = False
        for number, request in list(self._open.items()):
            if request.rid is not None:
                self._pump.forget_request(request.rid)
            self._send(number, request)

    def give_up(self, text: str) -> None:
        """The peer does not come back: everything has failed."""
        requests, self._open = self._open, {}
        for request in requests.values():
            if request.rid is not None:
                self._pump.forget_request(request.rid)
            request.on_reply(RequestFailed("RpcError", text))
