"""The event loop of a process: messages in, handlers, timers, requests with an end.

Owns dispatch by message type, pending requests with their deadlines, timers and calls from other
threads. Decides nothing about the domain. One pump a process, run by one thread; ``call_soon``
and ``wake`` are the only doors for others.

What goes over tcp goes by a link (link.py), one for each peer, so that handlers see all messages of
a living peer once and in order. ``life`` is this process's, for links.

A handler that raises ends the request, not the process: the sender gets Refused with the reason
and the log gets the traceback. Junk from a peer is counted and complained about at most every ten
seconds.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable
from os import sched_yield
from typing import Any, Protocol

from mray.rpc.door import Door
from mray.rpc.link import LINK_BYTE, Link
from mray.rpc.vigil import WINDOW_S, Vigil
from mray.wire.codec import ProtocolError, decode, encode
from mray.wire.messages import Ack, Address, Message, Ping, Refused

log = logging.getLogger("mray.pump")

Handler = Callable[[bytes, Any], None]
OnReply = Callable[[Message], None]
#: A request: what to call, when to give up, whom was asked and for what.
Pending = tuple[OnReply, float, bytes, str]
_COMPLAIN_EVERY_S = 10.0


class RequestFailed(Message, frozen=True, tag=0):
    """Given to ``on_reply`` when no reply came: never on the wire."""

    kind: str
    text: str


class Timer:
    """A pending call; ``cancel()`` forgets it."""

    __slots__ = ("call", "period_s")

    def __init__(self, call: Callable[[], None], period_s: float | None) -> None:
        self.call: Callable[[], None] | None = call
        self.period_s = period_s

    def cancel(self) -> None:
        """Never call it (again)."""
        self.call = None


class Inbox(Protocol):
    """Notes for the loop from other threads. See runtime/mailbox.py."""

    posts: Any
    asleep: bool


class Pump:
    """See the module. ``node_id`` decides whether peers are dialled by unix socket or tcp."""

    def __init__(
        self,
        door: Door,
        node_id: bytes = b"",
        clock: Callable[[], float] = time.monotonic,
        linked: bool = True,
    ) -> None:
        self.door = door
        self.node_id = node_id
        self.clock = clock
        self.running = False
        #: Where other threads leave notes that a hook reads: while ``asleep``, they wake the loop.
        self.inbox: Inbox | None = None
        #: Called at the end of each round, before waiting: the place to send what was collected.
        self.hooks: list[Callable[[], None]] = []
        self.junk_count = 0
        self._handlers: dict[type, Handler] = {Ping: self._pong}
        #: By rid.
        self._requests: dict[int, Pending] = {}
        self._rids = itertools.count(1)
        self._calls: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._timer_numbers = itertools.count()
        self._next_expiry = float("inf")
        self._complained_at = float("-inf")
        self.life = 1
        #: Called when a peer has lost its memory: what it was told before is lost.
        self.on_reset: Callable[[bytes], None] = lambda process_id: None
        self._vigil = Vigil()
        #: The last round brought a message.
        self._busy = False
        self._links: dict[bytes, Link] = {}
        #: When each link wants its tick, and by which timer.
        self._link_timers: dict[bytes, tuple[float, Timer]] = {}
        if linked:
            door.on_tcp = self._new_link
            door.on_again = self._again
            for process_id in door.dialled_by_tcp():
                self._new_link(process_id)

    # -- wiring

    def on(self, kind: type[Message], handler: Handler) -> None:
        """Handle messages of a type: ``handler(sender_process_id, message)``."""
        self._handlers[kind] = handler

    def at(self, when: float, call: Callable[[], None]) -> Timer:
        """Call once at ``when`` (this pump's clock)."""
        if when != when:
            raise ValueError("no timer rings at NaN: it would disturb all others")
        timer = Timer(call, None)
        heapq.heappush(self._timers, (when, next(self._timer_numbers), timer))
        return timer

    def after(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Call once after a delay."""
        return self.at(self.clock() + delay_s, call)

    def every(self, period_s: float, call: Callable[[], None]) -> Timer:
        """Call again and again, first after one period."""
        timer = Timer(call, period_s)
        heapq.heappush(self._timers, (self.clock() + period_s, next(self._timer_numbers), timer))
        return timer

    def call_soon(self, call: Callable[[], None]) -> None:
        """Run ``call`` in the pump's thread. From any thread; takes no lock."""
        self._calls.append(call)
        self.door.wake()

    # -- sending

    def send(self, process_id: bytes, message: Message) -> bool:
        """Send to a peer that we dialled or that dialled us. False if it is gone."""
        link = self._links.get(process_id)
        if link is None:
            return self.door.send(process_id, encode(message))
        # Away for the moment or not: the link sends it again.
        self.door.send(process_id, link.send(encode(message), self.clock()))
        self._arm_link(process_id, link)
        return True

    def send_to(self, address: Address, message: Message) -> bool:
        """Send, dialling first if need be."""
        if not self.door.knows(address.process_id):
            self.door.dial(address, self.node_id)
        return self.send(address.process_id, message)

    def request(
        self,
        process_id: bytes,
        make: Callable[[int], Message],
        on_reply: OnReply,
        timeout_s: float,
    ) -> int:
        """Send ``make(rid)``; ``on_reply`` gets the reply, Refused, or RequestFailed in time."""
        rid = next(self._rids)
        message = make(rid)
        entry = on_reply, self.clock() + timeout_s, process_id, type(message).__name__
        self._expect(rid, entry)
        if not self._ask(rid, message, process_id):
            del self._requests[rid]
            self._fail_soon(on_reply, entry[3])
        return rid

    def _expect(self, rid: int, entry: Pending) -> None:
        self._requests[rid] = entry
        self._next_expiry = min(self._next_expiry, entry[1])

    def _ask(self, rid: int, message: Message, process_id: bytes) -> bool:
        """Send a request that is expected to be answered; False if the peer is gone."""
        return self.send(process_id, message)

    def forget_request(self, rid: int) -> None:
        """Drop a pending request; its reply will be ignored."""
        self._requests.pop(rid, None)

    def peers(self) -> list[bytes]:
        """Those that we are connected to, or were and may be again: they have a link."""
        return list(dict.fromkeys([*self.door.peers(), *self._links]))

    def hang_up(self, process_id: bytes) -> None:
        """A process is dead: drop its connection; what it was asked fails in the next round."""
        self.door.hang_up(process_id)
        self._links.pop(process_id, None)
        for rid, (on_reply, _, peer, what) in list(self._requests.items()):
            if peer == process_id:
                del self._requests[rid]
                self._fail_soon(on_reply, what)

    def _fail_soon(self, on_reply: OnReply, what: str) -> None:
        failure = RequestFailed("RpcError", f"{what}: the peer is gone")
        self.call_soon(lambda: on_reply(failure))

    # -- links

    def _new_link(self, process_id: bytes) -> Link:
        link = self._links.get(process_id)
        if link is None:
            link = self._links[process_id] = Link(self.life)
        return link

    def _receive_frame(self, sender: bytes, data: bytes) -> None:
        link = self._links.get(sender)
        if link is None:
            if not self.door.knows(sender):
                return  # It was hung up on.
            link = self._new_link(sender)
        try:
            received = link.receive(data, self.clock())
        except ValueError as error:
            self._complain(sender, ProtocolError(str(error)))
            return
        for frame in received.frames:
            self.door.send(sender, frame)
        self._arm_link(sender, link)
        if received.reset:
            self._guard(lambda: self.on_reset(sender))
        for payload in received.payloads:
            self._dispatch_one(sender, payload)

    def _again(self, process_id: bytes) -> None:
        """The connection to a peer has broken, and stands again."""
        link = self._links.get(process_id)
        if link is not None:
            for frame in link.again():
                self.door.send(process_id, frame)

    def _arm_link(self, process_id: bytes, link: Link) -> None:
        due = link.deadline()
        armed = self._link_timers.get(process_id)
        if armed is not None:
            if due is not None and armed[0] <= due:
                return  # It is armed again then: most of what is sent is confirmed before.
            armed[1].cancel()
            del self._link_timers[process_id]
        if due is not None:
            timer = self.at(due, lambda: self._tick_link(process_id))
            self._link_timers[process_id] = (due, timer)

    def _tick_link(self, process_id: bytes) -> None:
        del self._link_timers[process_id]
        link = self._links.get(process_id)
        if link is None:
            return
        for frame in link.tick(self.clock()):
            self.door.send(process_id, frame)
        self._arm_link(process_id, link)

    # -- the loop

    def run(self) -> None:
        """Until stop()."""
        self.running = True
        while self.running:
            self.run_once(None)

    def stop(self) -> None:
        """End run() after this round. From any thread."""
        self.running = False
        self.door.wake()

    def run_once(self, timeout_s: float | None, done: Callable[[], bool] | None = None) -> None:
        """One round: calls, hooks, timers, then wait (at most ``timeout_s``) and dispatch.

        ``done`` is asked before waiting: the round ends there if what the caller is after has
        come about already. Who gives it has nothing else to do: see vigil.py.
        """
        # Those that calls add wait for the next round: two that call each other starve nobody.
        for _ in range(len(self._calls)):
            self._guard(self._calls.popleft())
        now = self.clock()
        if self._timers and self._timers[0][0] <= now:
            self._run_timers(now)
        if self._next_expiry <= now:
            self._expire(now)
        for hook in self.hooks:
            self._guard(hook)
        if done is not None and done():
            return
        if self._calls:
            timeout_s = 0.0
        else:
            wake_at = self._next_expiry
            timers = self._timers
            while timers and timers[0][2].call is None:
                heapq.heappop(timers)  # Nobody wakes for what was cancelled.
            if timers and timers[0][0] < wake_at:
                wake_at = timers[0][0]
            if wake_at != float("inf"):
                wait_s = max(0.0, wake_at - self.clock())
                timeout_s = wait_s if timeout_s is None else min(timeout_s, wait_s)
        inbox = self.inbox
        if inbox is None:
            for sender, data in self.door.poll(timeout_s, self._guard):
                self._dispatch(sender, data)
            return
        if done is not None and self._busy and timeout_s != 0.0 and self._vigil.is_worth_it():
            self._keep_vigil(inbox, timeout_s)
        self._busy = False
        # In this order: who leaves a note after the look sees that the loop sleeps.
        inbox.asleep = True
        if inbox.posts:
            timeout_s = 0.0
        for sender, data in self.door.poll(timeout_s, self._guard):
            self._dispatch(sender, data)
            self._busy = True
        inbox.asleep = False

    def _keep_vigil(self, inbox: Inbox, timeout_s: float | None) -> None:
        """Look for what comes, a moment long. ``inbox`` is looked at: nobody wakes this loop."""
        clock, is_ready, posts, calls = self.clock, self.door.is_ready, inbox.posts, self._calls
        end = clock() + (WINDOW_S if timeout_s is None else min(timeout_s, WINDOW_S))
        while not (posts or calls or is_ready()):
            if clock() >= end:
                self._vigil.ended(False)
                return
            sched_yield()
        self._vigil.ended(True)

    def _guard(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            log.exception("a call in the event loop failed")

    def _run_timers(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            when, number, timer = heapq.heappop(self._timers)
            if timer.call is None:
                continue
            self._guard(timer.call)
            if timer.period_s is not None and timer.call is not None:
                next_at = max(when + timer.period_s, now)
                heapq.heappush(self._timers, (next_at, number, timer))

    def _expire(self, now: float) -> None:
        for rid in [rid for rid, pending in self._requests.items() if pending[1] <= now]:
            pending = self._requests.pop(rid, None)
            if pending is None:
                continue  # Forgotten by the callback of one before it.
            on_reply, _, peer, what = pending
            failure = RequestFailed("RpcError", f"{what} to {peer.hex()[:8]}: no answer in time")
            self._guard(lambda on_reply=on_reply, failure=failure: on_reply(failure))  # type: ignore[misc]
        self._next_expiry = min((p[1] for p in self._requests.values()), default=float("inf"))

    def _dispatch(self, sender: bytes, data: bytes) -> None:
        if data and data[0] == LINK_BYTE:
            self._receive_frame(sender, data)
        else:
            self._dispatch_one(sender, data)

    def _dispatch_one(self, sender: bytes, data: bytes) -> None:
        try:
            message = decode(data)
        except ProtocolError as error:
            self._complain(sender, error)
            if error.kind in self._handlers:
                self.send(sender, Refused(error.rid, "ValueError", str(error)))
            return
        handler = self._handlers.get(type(message))
        if handler is not None:
            try:
                handler(sender, message)
            except Exception as error:
                log.exception("%s from %s failed", type(message).__name__, sender.hex()[:8])
                rid = getattr(message, "rid", None)
                if rid is not None:
                    self.send(sender, Refused(rid, type(error).__name__, str(error)))
            return
        rid = getattr(message, "rid", None)
        pending = None
        if rid is not None:
            pending = self._requests.get(rid)
            if pending is None:
                return  # An answer that came too late.
        # Numbers of requests are easily guessed, by accident too: only who was asked may answer.
        if rid is None or pending is None or pending[2] != sender:
            self._complain(sender, ProtocolError(f"unexpected {type(message).__name__}"))
            return
        del self._requests[rid]
        on_reply = pending[0]
        self._guard(lambda: on_reply(message))

    def _complain(self, sender: bytes, error: ProtocolError) -> None:
        self.junk_count += 1
        now = self.clock()
        if now - self._complained_at >= _COMPLAIN_EVERY_S:
            self._complained_at = now
            log.warning(
                "ignored junk from peer %s (%d so far): %s",
                sender.hex()[:16],
                self.junk_count,
                error,
            )

    def _pong(self, sender: bytes, message: Ping) -> None:
        self.send(sender, Ack(message.rid))
