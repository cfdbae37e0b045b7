"""Faults on purpose, for tests: messages that are lost or late, by testing_rpc_failure and more.

A failure is what mray's dialogues have to stand, and no more: a living peer's messages come once
and in order (unix sockets, and links over tcp), so what can happen is that a request is answered
late, asked twice, or never answered.

- Requests (what `Pump.request` sends), over any transport. **req**: the request is lost. **resp**:
  the peer does what it is asked and the reply is lost. In both the pump hears nothing and asks
  again, under the same number and within the request's deadline, as is done when the head comes
  back: handlers are idempotent, so the asker must get the very same answer, or RequestFailed at its
  deadline. **in flight**: the asker is told RequestFailed at once, though the peer does it; Ray's
  asker is told so in all three cases.
- All other messages, over tcp only, below the link: **req**: the frame is lost. **resp**: so is its
  confirmation, so that it is sent once more: it leaves twice. **in flight**: the frame leaves
  damaged. Over a unix socket nothing of the kind exists, and nothing is done.
- Delays hold a message up before its handler, and with it all later ones of that sender.

Each method has its own counts in each process. What is drawn depends on the seed and on the kind of
process alone. Nothing here is in the way where nothing is set: `install` puts itself into the pump
of one process, else it leaves it alone.
"""

from __future__ import annotations

import enum
import logging
import random
from collections import deque
from typing import TYPE_CHECKING, Final

from mray.rpc.fault_rules import ANY_METHOD, FailureRule, parse_delays, parse_failures
from mray.rpc.link import HEAD_BYTES, LINK_BYTE, is_data
from mray.rpc.pump import Pump, RequestFailed
from mray.wire.codec import ProtocolError, decode
from mray.wire.messages import Message

if TYPE_CHECKING:
    from mray.config import Config

log = logging.getLogger("mray.chaos")

#: How long nothing is heard before a request is sent again: at first, and at most.
_AGAIN_S: Final = 0.02
_AGAIN_MAX_S: Final = 1.0


class Fault(enum.Enum):
    """What is lost."""

    REQUEST = "the request is lost"
    REPLY = "the reply is lost"
    IN_FLIGHT = "lost in flight"


class _Method:
    """What one method of one process still has to suffer."""

    def __init__(self, rule: FailureRule) -> None:
        self.left = rule.num_failures
        self.owed = [
            fault
            for fault, count in zip(Fault, rule.lower_bounds, strict=True)
            for _ in range(count)
        ]
        self.shares = tuple(
            zip(
                Fault,
                (rule.req_failure_prob, rule.resp_failure_prob, rule.in_flight_failure_prob),
                strict=True,
            )
        )

    def draw(self, chance: random.Random) -> Fault | None:
        """What fails this time; None: nothing."""
        if self.left == 0:
            return None
        if self.owed:
            self.left -= self.left > 0
            return self.owed.pop(0)
        drawn = chance.random() * 100
        for fault, share in self.shares:
            if drawn < share:
                self.left -= self.left > 0
                return fault
            drawn -= share
        return None


class Chaos:
    """See the module. ``failures`` and ``delays`` as the settings say them."""

    def __init__(self, pump: Pump, failures: str, delays: str, seed: str) -> None:
        self._pump = pump
        self._rules = parse_failures(failures)
        self._delays = parse_delays(delays)
        self._chance = random.Random(seed)
        self._methods: dict[str, _Method | None] = {}
        #: By sender: what waits for its time, and whether a timer runs for the first.
        self._late: dict[bytes, deque[bytes]] = {}
        #: How many failures there were, by method.
        self.counts: dict[str, int] = {}
        self._plain_dispatch = pump._dispatch_one
        self._plain_send = pump.door.send
        if self._rules:
            pump._ask = self._ask  # type: ignore[method-assign]
            pump.door.send = self._send  # type: ignore[method-assign]
        if self._delays:
            pump._dispatch_one = self._dispatch  # type: ignore[method-assign]

    def _fault(self, name: str) -> Fault | None:
        if name not in self._methods:
            rule = self._rules.get(name, self._rules.get(ANY_METHOD))
            self._methods[name] = None if rule is None else _Method(rule)
        method = self._methods[name]
        fault = None if method is None else method.draw(self._chance)
        if fault is not None:
            self.counts[name] = self.counts.get(name, 0) + 1
            log.warning("%s: %s", name, fault.value)
        return fault

    # -- requests

    def _ask(self, rid: int, message: Message, process_id: bytes) -> bool:
        """As Pump._ask."""
        return self._attempt(rid, message, _AGAIN_S)

    def _attempt(self, rid: int, message: Message, again_s: float) -> bool:
        """Send a request that waits for its reply, or lose it; False if the peer is gone."""
        pump = self._pump
        entry = pump._requests[rid]
        on_reply, deadline, peer, what = entry

        def again() -> None:
            pump.after(again_s, retry)

        def retry() -> None:
            if rid in pump._requests:  # Nobody has forgotten it, and its time is not over.
                self._attempt(rid, message, min(2 * again_s, _AGAIN_MAX_S))

        def lose(reply: Message) -> None:
            if isinstance(reply, RequestFailed):
                on_reply(reply)
                return
            pump._expect(rid, entry)
            again()

        def fail(reply: Message | None = None) -> None:
            # The reply itself may be faster than the loop's next round.
            if reply is not None or pump._requests.pop(rid, None) is not None:
                text = f"{what} to {peer.hex()[:8]}: lost in flight (testing_rpc_failure)"
                on_reply(RequestFailed("RpcError", text))

        match self._fault(what):
            case Fault.REQUEST:
                again()
                return pump.door.knows(peer)
            case Fault.REPLY:
                pump._requests[rid] = (lose, deadline, peer, what)
            case Fault.IN_FLIGHT:
                pump._requests[rid] = (fail, deadline, peer, what)
                pump.call_soon(fail)
        return pump.send(peer, message)

    # -- frames of links

    def _send(
        self, process_id: bytes, data: bytes | bytearray | memoryview, copy: bool = True
    ) -> bool:
        if data[0] == LINK_BYTE and is_data(data):
            try:
                message = decode(memoryview(data)[HEAD_BYTES:])
            except ProtocolError:
                return self._plain_send(process_id, data, copy)
            # Requests have had their share.
            is_request = getattr(message, "rid", None) in self._pump._requests
            match None if is_request else self._fault(type(message).__name__):
                case Fault.REQUEST:
                    return True
                case Fault.REPLY:
                    self._plain_send(process_id, data, copy)
                case Fault.IN_FLIGHT:
                    damaged = bytearray(data)
                    damaged[0] ^= 1
                    data = bytes(damaged)
        return self._plain_send(process_id, data, copy)

    # -- delays

    def _dispatch(self, sender: bytes, data: bytes) -> None:
        waiting = self._late.get(sender)
        if waiting is not None:
            waiting.append(data)
            return
        delay_s = self._delay_s(data)
        if not delay_s:
            self._plain_dispatch(sender, data)
            return
        self._late[sender] = deque([data])
        self._pump.after(delay_s, lambda: self._on_time(sender))

    def _delay_s(self, data: bytes) -> float:
        try:
            name = type(decode(data)).__name__
        except ProtocolError:
            return 0.0
        bounds = self._delays.get(name, self._delays.get(ANY_METHOD))
        return 0.0 if bounds is None else self._chance.randint(*bounds) / 1e6

    def _on_time(self, sender: bytes) -> None:
        waiting = self._late[sender]
        delay_s = 0.0
        while waiting and not delay_s:
            self._plain_dispatch(sender, waiting.popleft())
            delay_s = self._delay_s(waiting[0]) if waiting else 0.0
        if waiting:
            self._pump.after(delay_s, lambda: self._on_time(sender))
        else:
            del self._late[sender]


def install(pump: Pump, config: Config, kind: str) -> Pump:
    """The pump of a process of this kind, made to suffer what the configuration says, if it does.

    ``kind``: head, node, driver or worker.
    """
    testing = config.testing
    failures, delays = testing.testing_rpc_failure, testing.testing_asio_delay_us
    if not (failures or delays):
        return pump
    seed = testing.testing_rpc_seed or random.SystemRandom().randrange(1, 1 << 31)
    log.warning(
        "messages are lost and late on purpose: testing_rpc_failure=%s testing_asio_delay_us=%s "
        "testing_rpc_seed=%d", failures, delays, seed,
    )  # fmt: skip
    Chaos(pump, failures, delays, f"{seed} {kind}")
    return pump
