"""A pump without sockets, whose clock stands still until a test moves it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from mray.rpc.pump import Timer
from mray.wire.messages import Ack, Message


class StillPump:
    """The part of mray.rpc.pump.Pump that logs need."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, int, Timer]] = []
        self.numbers = itertools.count()
        self.handlers: dict[type[Message], Callable[[bytes, Any], None]] = {}
        #: Requests that nobody has answered: (peer, on_reply).
        self.asked: list[tuple[bytes, Callable[[Message], None]]] = []

    def clock(self) -> float:
        return self.now

    def at(self, when: float, call: Callable[[], None]) -> Timer:
        timer = Timer(call, None)
        heapq.heappush(self.timers, (when, next(self.numbers), timer))
        return timer

    def after(self, delay_s: float, call: Callable[[], None]) -> Timer:
        return self.at(self.now + delay_s, call)

    def on(self, kind: type[Message], handler: Callable[[bytes, Any], None]) -> None:
        self.handlers[kind] = handler

    def request(
        self,
        peer: bytes,
        make: Callable[[int], Message],
        on_reply: Callable[[Message], None],
        timeout_s: float,
    ) -> int:
        self.asked.append((peer, on_reply))
        return len(self.asked)

    def answer_all(self) -> None:
        asked, self.asked = self.asked, []
        for _, on_reply in asked:
            on_reply(Ack(1))

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while self.timers and self.timers[0][0] <= until:
            self.now, _, timer = heapq.heappop(self.timers)
            if timer.call is not None:
                timer.call()
        self.now = until


@pytest.fixture
def pump() -> StillPump:
    return StillPump()
