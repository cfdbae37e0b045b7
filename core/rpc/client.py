"""A blocking client: ask one question, wait for the answer, with a deadline.

For the command line and start-up code, which have no event loop running. Owns nothing but a pump
that turns in the caller's thread while a question is open.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self, TypeVar

from mray.ids import new_process_id
from mray.rpc.door import Door, Keys
from mray.rpc.pump import Pump, RequestFailed
from mray.wire.messages import Address, Message, Refused

ReplyT = TypeVar("ReplyT", bound=Message)

#: So many handshakes broken off are no accident: a head that ends breaks off one.
_REFUSALS = 3


class AskError(RuntimeError):
    """A question had no answer. ``kind`` names the reason: an exception's name, RpcError for
    silence, AuthenticationError where the peer does not take the key of our token."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text


class Client:
    """Asks processes of one cluster. Use as a context manager."""

    def __init__(self, keys: Keys | None = None, node_id: bytes = b"") -> None:
        self.process_id = new_process_id()
        self.pump = Pump(Door(self.process_id, keys), node_id, linked=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets."""
        self.pump.door.close()

    def reach(self, endpoint: str) -> bytes:
        """Dial an endpoint (``ipc://…`` or ``tcp://…``); returns the name to ask it by."""
        name = new_process_id()
        self.pump.door.dial_endpoint(name, endpoint)
        return name

    def ask(
        self,
        peer: bytes | Address,
        make: Callable[[int], Message],
        reply: type[ReplyT],
        timeout_s: float = 5.0,
    ) -> ReplyT:
        """Send ``make(rid)`` and wait for a ``reply``. AskError if refused or not answered."""
        if isinstance(peer, Address):
            self.pump.door.dial(peer, self.pump.node_id)
            peer = peer.process_id
        box: list[Message] = []

        def arrived(message: Message) -> None:
            box.append(message)
            self.pump.door.wake()  # Else the end of the time would begin another round of waiting.

        rid = self.pump.request(peer, make, arrived, timeout_s)
        give_up_at = time.monotonic() + timeout_s + 1.0
        try:
            while not box and time.monotonic() < give_up_at:
                self.pump.run_once(0.5)
                if self.pump.door.refusals >= _REFUSALS:
                    raise AskError("AuthenticationError", "the peer refuses our cluster token")
        finally:
            self.pump.forget_request(rid)
        answer = box[0] if box else RequestFailed("RpcError", "no answer in time")
        if isinstance(answer, (Refused, RequestFailed)):
            raise AskError(answer.kind, answer.text)
        if not isinstance(answer, reply):
            raise AskError("RpcError", f"expected {reply.__name__}, got {type(answer).__name__}")
        return answer
