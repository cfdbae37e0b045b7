"""This node's side of its membership: joining, heartbeats, and a head that goes and comes back.

A heartbeat goes out when what it says has changed, at most every 50 ms, and every two seconds, or
in two thirds of health_check_period_ms. A head on this machine is watched as a process; one
elsewhere has to answer a Ping now and then.

    JOINED --its process ended, its pings are not answered--> AWAY --it answers--> registering
      ^                                                        |                       |
      |                                                        +- too long -> the end  |
      +------------------- NodeRegistered, of no lower epoch --------------------------+

While the head is away the node serves on. It is redialled by ZeroMQ; here it is only asked whether
it is there. To a head of a new epoch the node tells what it has, and what it said last again: the
former head may not have read it. A cluster that ends with its driver ends with its head too.

A head that has begun anew in another place says so by itself (RegisterAgain): it knows from its
storage where its nodes listen, and they would look for it in the old place for ever.

A node obeys the epoch it has registered with and never a lower one. That is enough: a head's words
come on the connection that the registration went out on, and none leaves a head whose storage has
been taken over (journal.py of the head).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from mray.node.daemon import Daemon
from mray.rpc.patience import PatientRequests
from mray.rpc.pump import RequestFailed, Timer
from mray.units import format_duration
from mray.wire.messages import (
    Ack,
    ActorStartFailed,
    Address,
    GetHeadState,
    HeadAway,
    HeadBack,
    HeadState,
    Heartbeat,
    JobExited,
    JobStarted,
    Message,
    NodeContents,
    NodeInfo,
    NodeRegistered,
    Ping,
    ProcessDied,
    Refused,
    RegisterAgain,
    RegisterNode,
)

_REGISTER_TIMEOUT_S: Final = 30.0
_REGISTER_AGAIN_TIMEOUT_S: Final = 5.0
_HEARTBEAT_S: Final = 2.0
_NEWS_S: Final = 0.05
#: Once the head is gone for good, workers get this long.
HEAD_GONE_GRACE_S: Final = 2.0
#: A head that is away is asked so often whether it is there.
_PROBE_S: Final = 0.5
#: Between a question that was not answered and the next.
_AGAIN_S: Final = 0.05
#: What is said again to a head that has begun anew: of so many messages, those that are so young
#: (as the longest wait for a head, if that is longer), or came while it was away.
_SAID_MAX: Final = 1000
_SAID_S: Final = 30.0
_SAID_AGAIN: Final = (ProcessDied, ActorStartFailed, JobStarted, JobExited)


class HeadLink:
    """``beat()`` gives the present heartbeat."""

    def __init__(self, daemon: Daemon, beat: Callable[[], Heartbeat]) -> None:
        self._daemon = daemon
        self._pump = daemon.pump
        self._head_id = daemon.params.head.process_id
        self._beat = beat
        self._requests = PatientRequests(self._pump, self._head_id)
        self._last: Heartbeat | None = None
        self._last_at = float("-inf")
        # Often enough that one that is late is not taken for silence.
        period_s = daemon.config.liveness.health_check_period_ms / 1000
        self._beat_s = min(_HEARTBEAT_S, period_s * 2 / 3)
        self._news_timer: Timer | None = None
        self._heard_at = self._pump.clock()
        self._on_joined: Callable[[NodeRegistered], None] = lambda reply: None
        self._contents: Callable[[], NodeContents] = lambda: NodeContents([], [], [], [], [])
        #: The processes of this node.
        self._processes: Callable[[], Iterable[bytes]] = lambda: ()
        self._node: NodeInfo | None = None
        self._epoch = 0
        self._away_since: float | None = None
        self._why = ""
        self._registering = False
        self._end_timer: Timer | None = None
        self._said: deque[tuple[float, Message]] = deque(maxlen=_SAID_MAX)
        self._watched_pid = 0
        self._pinging = False
        #: Where the head, by its own word, listens: not always what was typed to find it.
        self._says_it_is_at = ""
        #: Where the head is now, of which the processes here do not know yet.
        self._moved_to: Address | None = None
        self._pump.on(RegisterAgain, self._register_again)
        self._pump.on(GetHeadState, self._tell_state)

    # -- talking to the head

    def tell(self, message: Message) -> None:
        """Send to the head, also to the next one where that is of use to it."""
        is_said_again = isinstance(message, _SAID_AGAIN)
        if is_said_again:
            self._said.append((self._pump.clock(), message))
        # What the head is being told of this node was true when that was begun: it hears what has
        # changed since behind it.
        if self._away_since is None or (is_said_again and self._registering):
            self._pump.send(self._head_id, message)

    def ask(
        self, make: Callable[[int], Message], on_reply: Callable[[Message], None], timeout_s: float
    ) -> None:
        """A request to the head; it waits while the head is away."""
        self._requests.ask(make, on_reply, timeout_s)

    def join(
        self,
        node: NodeInfo,
        on_joined: Callable[[NodeRegistered], None],
        contents: Callable[[], NodeContents],
        processes: Callable[[], Iterable[bytes]],
    ) -> None:
        """Register; the daemon is ready when the head has answered, or fails to start.

        ``on_joined`` is called each time; ``contents()`` tells what the node has."""
        self._node, self._on_joined = node, on_joined
        self._contents, self._processes = contents, processes
        params = self._daemon.params
        self._pump.door.dial(params.head, params.process_id)
        self._pump.on_reset = self._lost_its_memory
        self._pump.request(
            self._head_id, lambda rid: RegisterNode(rid, node), self._joined, _REGISTER_TIMEOUT_S
        )
        if params.head_pid:
            self._watch(params.head_pid, params.head_start_time)

    def _joined(self, reply: Message) -> None:
        if isinstance(reply, NodeRegistered):
            self._epoch = reply.epoch
            self._says_it_is_at = reply.head.tcp
            self._on_joined(reply)
            self._daemon.ready()
            self._pump.every(self._beat_s / 2, self._in_time)
            if not self._daemon.params.head_pid:
                self._begin_pings()
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

    def beat_now(self) -> None:
        """Send a heartbeat, before all that is told after it."""
        if self._daemon.was_ready:
            self._send(self._beat())

    def _in_time(self) -> None:
        beat = self._beat()
        if beat != self._last or self._pump.clock() - self._last_at >= self._beat_s * 0.9:
            self._send(beat)

    def _send(self, beat: Heartbeat) -> None:
        if self._away_since is not None:
            return
        self._last = beat
        self._last_at = self._pump.clock()
        self.tell(beat)

    @property
    def epoch(self) -> int:
        """Of the head that this node obeys."""
        return self._epoch

    # -- a head that goes

    def _watch(self, pid: int, start_time: int) -> None:
        """A head on this machine."""
        self._watched_pid = pid

        def ended() -> None:
            if self._watched_pid == pid:
                self._watched_pid = 0
                self._lost(f"the head (pid {pid}) has ended")

        self._daemon.watch_pid(pid, start_time, ended)

    def _begin_pings(self) -> None:
        """A head on another machine."""
        self._heard_at = self._pump.clock()
        if not self._pinging:
            self._ping()

    def _ping(self) -> None:
        self._pinging = True
        period_s = self._daemon.config.liveness.health_check_period_ms / 1000
        self._pump.request(self._head_id, Ping, self._ponged, period_s)

    def _ponged(self, reply: Message) -> None:
        if self._away_since is not None:
            self._pinging = False
            return
        liveness, now = self._daemon.config.liveness, self._pump.clock()
        period_s = liveness.health_check_period_ms / 1000
        if isinstance(reply, Ack):
            self._heard_at = now
            self._pump.after(period_s, self._ping)
            return
        # As the head judges nodes; a check that failed has taken its period already.
        silent_s = now - self._heard_at
        timeout_s = liveness.health_check_timeout_ms / 1000
        if silent_s >= min(timeout_s, period_s * liveness.health_check_failure_threshold):
            self._pinging = False
            self._lost(f"the head has answered no health check for {format_duration(silent_s)}")
        else:
            self._pump.after(_AGAIN_S, self._ping)

    def _lost(self, why: str) -> None:
        if self._away_since is not None or self._daemon.stopping:
            return
        wait_s = self._daemon.config.liveness.gcs_rpc_server_reconnect_timeout_s
        if self._daemon.params.owner_pid or not wait_s or not self._daemon.was_ready:
            self._daemon.stop(f"{why}, and the cluster with it", HEAD_GONE_GRACE_S)
            return
        self._away_since, self._why = self._pump.clock(), why
        self._requests.gone()
        self._daemon.log.warning(
            "%s: this node goes on, and waits for it for %s", why, format_duration(wait_s)
        )
        self._broadcast(HeadAway(0.0, why))
        self._end_timer = self._pump.after(wait_s, self._too_long)
        self._probe()

    def _too_long(self) -> None:
        assert self._away_since is not None
        away_s = self._pump.clock() - self._away_since
        text = (
            f"{self._why} and did not come back within {format_duration(away_s)} "
            f"(gcs_rpc_server_reconnect_timeout_s): neither at {self._place} nor, by its own word, "
            "in another place"
        )
        self._broadcast(HeadAway(away_s, text, final=True))
        self._requests.give_up(text)
        self._daemon.stop(text, HEAD_GONE_GRACE_S, code=1)

    # -- a head that comes

    def _probe(self) -> None:
        if self._away_since is None or self._daemon.stopping:
            return

        def answered(reply: Message) -> None:
            if isinstance(reply, Ack):
                self._register()
            elif self._away_since is not None:
                self._pump.after(_AGAIN_S, self._probe)

        self._pump.request(self._head_id, Ping, answered, _PROBE_S)

    def _lost_its_memory(self, process_id: bytes) -> None:
        if process_id == self._head_id:
            self._register()

    def _register_again(self, sender: bytes, message: RegisterAgain) -> None:
        if sender == self._head_id and message.epoch >= self._epoch:
            if message.head is not None and message.epoch > self._epoch:
                self._follow(message.head)
            self._register()

    @property
    def _place(self) -> str:
        head = self._daemon.params.head
        return head.tcp or head.ipc

    def _follow(self, head: Address) -> None:
        """A newer head: if it listens elsewhere, what runs here finds it there from now on.

        In the same place, by its own word, it is looked for as before: the way that was typed to
        find it (by a name, through a relay) is known to lead there.
        """
        if not head.tcp or head.tcp in (self._says_it_is_at, self._daemon.params.head.tcp):
            return
        self._daemon.log.warning("the head has moved from %s to %s", self._place, head.tcp)
        self._watched_pid = 0
        self._pump.door.redial(self._head_id, head.tcp)
        self._moved_to = self._daemon.head_moved(head.tcp)

    def _register(self) -> None:
        """Tell a head that may know nothing of this node what it has."""
        if self._registering or self._daemon.stopping or not self._daemon.was_ready:
            return
        self._registering = True
        node = self._node
        assert node is not None
        since = self._said_since()
        for at, message in self._said:
            if at >= since:
                self._pump.send(self._head_id, message)
        contents, cluster_id = self._contents(), self._daemon.params.cluster_id
        self._pump.request(
            self._head_id,
            lambda rid: RegisterNode(rid, node, cluster_id, self._epoch, contents),
            self._registered,
            _REGISTER_AGAIN_TIMEOUT_S,
        )

    def _said_since(self) -> float:
        """From when on the last head may not have passed on what it was told: it kept that for
        nodes which it expected back, and may have ended long before this node, which may have stood
        still, noticed."""
        last = self._pump.clock() if self._away_since is None else self._away_since
        if not self._daemon.params.head_pid:
            last = min(last, self._heard_at)
        return last - max(_SAID_S, self._daemon.config.liveness.gcs_rpc_server_reconnect_timeout_s)

    def _registered(self, reply: Message) -> None:
        self._registering = False
        if isinstance(reply, Refused) and reply.kind != "OSError":
            text = f"the head does not take this node back: {reply.text}"
            self._broadcast(HeadAway(0.0, text, final=True))
            self._daemon.stop(text, 0.0, code=1)
        elif isinstance(reply, NodeRegistered) and reply.epoch >= self._epoch:
            self._is_back(reply)
        elif isinstance(reply, NodeRegistered):
            self._daemon.log.warning(
                "a head of epoch %d is not obeyed: this node has obeyed epoch %d",
                reply.epoch, self._epoch,
            )  # fmt: skip
            self._lost("only a former head of the cluster answers")
            self._pump.after(_PROBE_S, self._probe)
        else:
            # A silent one, or one whose storage cannot be written: then later. It may have come
            # back before anybody noticed that it was away, and have taken what it did not confirm.
            again = self._register if self._away_since is None else self._probe
            self._pump.after(_PROBE_S, again)

    def _is_back(self, reply: NodeRegistered) -> None:
        self._epoch = reply.epoch
        self._says_it_is_at = reply.head.tcp
        self._away_since = None
        if self._end_timer is not None:
            self._end_timer.cancel()
            self._end_timer = None
        self._daemon.log.info("registered again with the head, epoch %d", reply.epoch)
        self._on_joined(reply)
        self._send(self._beat())
        self._requests.back()
        self._broadcast(HeadBack(reply.epoch, self._moved_to))
        self._moved_to = None
        if self._daemon.params.head_pid:
            if not self._watched_pid:
                self._watch_next()
        else:
            self._begin_pings()

    def _watch_next(self) -> None:
        """The next head on this machine, by what it has written down of itself."""
        for record in self._daemon.session.processes():
            if record.kind == "head" and record.alive:
                self._watch(record.pid, record.start_time)
                return
        # It has ended since, or lives in another session: as one on another machine.
        self._begin_pings()

    # -- telling of it

    def _broadcast(self, message: Message) -> None:
        for process_id in self._processes():
            self._pump.send(process_id, message)

    def greet(self, process_id: bytes) -> None:
        """A process that is new here has to know too."""
        if self._away_since is not None:
            away_s = self._pump.clock() - self._away_since
            self._pump.send(process_id, HeadAway(away_s, self._why))

    def _tell_state(self, sender: bytes, message: GetHeadState) -> None:
        away_s = wait_s = 0.0
        if self._away_since is not None:
            away_s = self._pump.clock() - self._away_since
            limit_s = self._daemon.config.liveness.gcs_rpc_server_reconnect_timeout_s
            wait_s = max(0.0, limit_s - away_s)
        state = HeadState(
            message.rid, self._away_since is not None, away_s,
            self._why if self._away_since is not None else "", wait_s, self._epoch,
        )  # fmt: skip
        self._pump.send(sender, state)
