"""This node's side of its membership: joining, heartbeats, and noticing that the head is gone.

A heartbeat goes out when what it says has changed, at most every 50 ms, and every two seconds. A
head on this machine is watched as a process; one elsewhere has to answer a Ping now and then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mray.node.daemon import Daemon
from mray.rpc.pump import RequestFailed, Timer
from mray.wire.messages import (
    Ack,
    Heartbeat,
    Message,
    NodeInfo,
    NodeRegistered,
    Ping,
    Refused,
    RegisterNode,
)

_REGISTER_TIMEOUT_S: Final = 30.0
_HEARTBEAT_S: Final = 2.0
_NEWS_S: Final = 0.05
#: Once the head is gone, workers get this long.
HEAD_GONE_GRACE_S: Final = 2.0


class HeadLink:
    """``beat()`` gives the present heartbeat."""

    def __init__(self, daemon: Daemon, beat: Callable[[], Heartbeat]) -> None:
        self._daemon = daemon
        self._pump = daemon.pump
        self._head_id = daemon.params.head.process_id
        self._beat = beat
        self._last: Heartbeat | None = None
        self._last_at = float("-inf")
        self._news_timer: Timer | None = None
        self._silent_count = 0
        self._on_joined: Callable[[NodeRegistered], None] = lambda reply: None

    def tell(self, message: Message) -> None:
        """Send to the head. Lost where it is gone: then so are we, soon."""
        self._pump.send(self._head_id, message)

    def ask(
        self, make: Callable[[int], Message], on_reply: Callable[[Message], None], timeout_s: float
    ) -> None:
        """A request to the head."""
        self._pump.request(self._head_id, make, on_reply, timeout_s)

    def join(self, node: NodeInfo, on_joined: Callable[[NodeRegistered], None]) -> None:
        """Register; the daemon is ready when the head has answered, or fails to start."""
        self._on_joined = on_joined
        params = self._daemon.params
        self._pump.door.dial(params.head, params.process_id)
        self.ask(lambda rid: RegisterNode(rid, node), self._joined, _REGISTER_TIMEOUT_S)
        if params.head_pid:
            text = f"the head (pid {params.head_pid}) has ended, and the cluster with it"
            self._daemon.watch_pid(
                params.head_pid,
                params.head_start_time,
                lambda: self._daemon.stop(text, HEAD_GONE_GRACE_S),
            )

    def _joined(self, reply: Message) -> None:
        if isinstance(reply, NodeRegistered):
            self._on_joined(reply)
            self._daemon.ready()
            self._pump.every(_HEARTBEAT_S / 2, self._in_time)
            if not self._daemon.params.head_pid:
                self._ping()
            return
        kind, text = "RpcError", f"the head answered {type(reply).__name__}"
        if isinstance(reply, (Refused, RequestFailed)):
            kind, text = reply.kind, f"the head did not let this node in: {reply.text}"
        self._daemon.fail(kind, text)
        self._daemon.finish(1)

    # -- heartbeats

    def news(self) -> None:
        """Something that heartbeats tell may have changed."""
        if self._news_timer is not None or not self._daemon.was_ready:
            return
        at = max(self._last_at + _NEWS_S, self._pump.clock())
        self._news_timer = self._pump.at(at, self._tell_news)

    def _tell_news(self) -> None:
        self._news_timer = None
        beat = self._beat()
        if beat != self._last:
            self._send(beat)

    def _in_time(self) -> None:
        beat = self._beat()
        if beat != self._last or self._pump.clock() - self._last_at >= _HEARTBEAT_S * 0.9:
            self._send(beat)

    def _send(self, beat: Heartbeat) -> None:
        self._last = beat
        self._last_at = self._pump.clock()
        self.tell(beat)

    # -- a head on another machine

    def _ping(self) -> None:
        timeout_s = self._daemon.config.liveness.health_check_timeout_ms / 1000
        self.ask(Ping, self._ponged, timeout_s)

    def _ponged(self, reply: Message) -> None:
        liveness = self._daemon.config.liveness
        period_s = liveness.health_check_period_ms / 1000
        if isinstance(reply, Ack):
            self._silent_count = 0
        else:
            self._silent_count += 1
            if self._silent_count >= liveness.health_check_failure_threshold:
                text = f"the head answered none of the last {self._silent_count} health checks"
                self._daemon.stop(text, HEAD_GONE_GRACE_S)
                return
        self._pump.after(period_s, self._ping)
