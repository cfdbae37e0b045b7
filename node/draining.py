"""A node that is about to leave: takes nothing new, lets tasks end, moves what can live elsewhere.

Begun by `mray drain`, or by SIGTERM where there is another node. Tasks that run get until the
deadline; actors that may restart, and whose calls are retried, begin anew elsewhere at once, the
others live on until the tasks have ended; then the node stops. Neither is charged to restarts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from mray.node.daemon import Daemon
from mray.node.sched.cluster_view import ClusterView
from mray.node.sched.head_link import HeadLink
from mray.node.sched.leases import Effect, Leases
from mray.rpc.pump import Timer
from mray.wire import messages as m

log = logging.getLogger("mray.node")

#: What tasks get after SIGTERM.
GRACE_S: Final = 30.0
#: The head has to know that nothing is to be placed here before actors come back to it.
_HEAD_KNOWS_S: Final = 0.2
_LOOK_EVERY_S: Final = 0.05
#: Leases whose worker waited in get when they were asked for are asked for again.
_ASK_EVERY_S: Final = 0.5
#: What is left is ended within.
_STOP_S: Final = 5.0


class Draining:
    """``act`` carries out effects of the leases. ``busy``: what else is waited for."""

    def __init__(
        self, daemon: Daemon, head: HeadLink, view: ClusterView, leases: Leases,
        act: Callable[[Sequence[Effect]], None], busy: list[Callable[[], bool]],
    ) -> None:  # fmt: skip
        self._daemon = daemon
        self._pump = daemon.pump
        self._head = head
        self._view = view
        self._leases = leases
        self._act = act
        self.busy = busy
        #: Called when it begins, with the seconds until the deadline.
        self.on_begin: list[Callable[[float], None]] = []
        #: Why it drains; "" while it does not.
        self.reason = ""
        self._until = 0.0
        self._timer: Timer | None = None
        daemon.on_term = self._on_term
        self._pump.on(m.DrainNode, self._asked)

    @property
    def cause(self) -> m.DeathCause:
        """Of what ends because of it."""
        text = f"its node was drained: {self.reason}"
        return m.DeathCause("drained", text, node_id=self._view.own_id)

    def _on_term(self, name: str) -> bool:
        """Whether the node drains first. A second signal ends it at once."""
        alone = not any(not node.draining for node in self._view.others())
        if self.reason or alone:
            return False
        self.begin(f"{name} received", GRACE_S)
        return True

    def _asked(self, sender: bytes, message: m.DrainNode) -> None:
        self.begin(message.reason, message.deadline_s)
        self._pump.send(sender, m.Ack(message.rid))

    def begin(self, reason: str, deadline_s: float) -> None:
        """Take nothing new from now on. Again may bring the deadline forward."""
        until = self._pump.clock() + deadline_s
        if self.reason:
            self._until = min(self._until, until)
            return
        self.reason, self._until = reason or "no reason was given", until
        log.info("this node drains: %s (at most %.0f s)", self.reason, deadline_s)
        self._view.nodes[self._view.own_id].draining = True
        self._act(self._leases.drain(self.cause))
        self._ask_back()
        for call in self.on_begin:
            call(deadline_s)
        self._pump.after(_HEAD_KNOWS_S, self._move_actors)

    def refuse(self, message: m.StartActor) -> None:
        """The head did not know yet."""
        spec = message.spec
        self._head.tell(m.ActorStartFailed(spec.actor_id, message.incarnation, self.cause))

    def _move_actors(self) -> None:
        for hold in list(self._leases.holds.by_worker.values()):
            if hold.actor is None or not (
                hold.actor.spec.max_restarts and hold.actor.spec.max_task_retries
            ):
                continue
            pool = self._leases.pool
            if pool.workers[hold.worker].state != "draining":
                effects = pool.end(hold.worker, self.cause, pool.rules.grace_s)
                self._act([e for e in effects if isinstance(e, Effect)])
        self._timer = self._pump.every(_LOOK_EVERY_S, self._look)

    def _ask_back(self) -> None:
        """An owner that keeps a lease would send one task after the other to it."""
        if not self._daemon.stopping:
            self._act(self._leases.ask_all_back())
            self._pump.after(_ASK_EVERY_S, self._ask_back)

    def _look(self) -> None:
        waits = bool(self._leases.holds.by_lease) or any(is_busy() for is_busy in self.busy)
        if self._daemon.stopping or (waits and self._pump.clock() < self._until):
            return
        assert self._timer is not None
        self._timer.cancel()
        late = "; what still ran at the deadline is ended" if waits else ""
        self._daemon.farewell = self.cause
        self._daemon.stop(f"it was drained: {self.reason}{late}", _STOP_S)
