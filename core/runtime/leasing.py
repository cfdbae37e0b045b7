"""Leases, as the owner of tasks talks about them with node daemons.

The shell of the demand side of tasks/dispatch.py: demands and returned leases go out, grants,
refusals and names of other nodes come in. Where tasks of a class may be at all is placing.py's.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from mray.placement import INFEASIBLE, Where
from mray.rpc.pump import Timer
from mray.tasks.asked import HOME
from mray.tasks.effects import ReturnLease
from mray.tasks.lease import SchedulingClass
from mray.wire.messages import (
    LeaseDemand,
    LeaseElsewhere,
    LeaseGranted,
    LeaseOverElsewhere,
    LeaseRefused,
    LeaseReturned,
    LeasesWanted,
    Message,
    NodeGone,
)

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime

log = logging.getLogger("mray.runtime")


class LeasingPart:
    """See the module."""

    def __init__(self, runtime: Runtime) -> None:
        self.rt = runtime
        #: Scheduling class -> why no node can ever run it; what its environment waits for.
        self.infeasible: dict[int, str] = {}
        self.setting_up: dict[int, str] = {}
        self._said_infeasible: set[int] = set()
        self._later: dict[int, Timer] = {}
        pump = runtime.pump
        pump.on(LeaseGranted, self._granted)
        pump.on(LeaseRefused, self._refused)
        pump.on(LeasesWanted, self._wanted)
        pump.on(LeaseElsewhere, self._elsewhere)
        runtime.on_node_gone.append(self._node_gone)

    def tell(self, node: bytes, message: Message) -> None:
        """Send to a node daemon: HOME, or a node that this process has heard of."""
        rt = self.rt
        if node == HOME:
            rt.tell(rt.node.address, message)
        elif not rt.pump.send(node, message):
            rt.nodes.tell(node, message)

    def demand(self, class_id: int, count: int, node: bytes) -> None:
        """So many leases of a class are wanted of a node from now on."""
        rt = self.rt
        sclass = rt.tasks.dispatcher.classes[class_id]
        if sclass.placed and count and not rt.placing.may_have_workers(sclass):
            return
        if node != HOME:
            rt.nodes.reach(node, lambda there: self._ask_away(sclass, node, there))
            return
        asked = sclass.asked
        avoid = asked.avoid(rt.pump.clock()) if asked.shunned else []
        stay = asked.targets is not None
        rt.tell(rt.node.address, self._demand(sclass, count, stay=stay, avoid=avoid))

    def _demand(
        self, sclass: SchedulingClass, count: int, home: bytes = b"", stay: bool = False,
        avoid: list[bytes] | None = None,
    ) -> LeaseDemand:  # fmt: skip
        return LeaseDemand(
            sclass.class_id, count, sclass.resources, sclass.job_id, sclass.runtime_env,
            exclusive=sclass.exclusive, where=sclass.where, home=home, stay=stay,
            avoid=avoid or [],
        )  # fmt: skip

    def _ask_away(self, sclass: SchedulingClass, node: bytes, there: bool) -> None:
        """Another node is there, or not; what is wanted of it may have changed meanwhile."""
        rt, asked = self.rt, sclass.asked
        if not there:
            if asked.targets is not None:
                rt.placing.target_lost(sclass, node)
            else:
                rt.tasks.dispatcher.node_gone(node)
            rt.mailbox.wake()  # This round has dispatched already.
            return
        stay = asked.targets is not None or node in asked.staying
        rt.pump.send(node, self._demand(sclass, asked.of(node), rt.node.node_id, stay))

    def give_back(self, lease: ReturnLease) -> None:
        """A lease is over."""
        self.tell(lease.node, LeaseReturned(lease.lease_id, lease.reuse))
        if lease.freed:
            self.tell(HOME, LeaseOverElsewhere(lease.node, lease.freed))

    # -- what nodes say

    def _node_of(self, sender: bytes) -> bytes:
        return HOME if sender == self.rt.node.node_id else sender

    def _granted(self, sender: bytes, message: LeaseGranted) -> None:
        if sender in self.rt.dead_nodes:
            return  # Read after the end of the node: nobody would tell of the worker's.
        self.infeasible.pop(message.class_id, None)
        self.setting_up.pop(message.class_id, None)
        self.rt.tasks.dispatcher.granted(
            message.class_id,
            message.lease_id,
            message.worker,
            message.worker_pid,
            self.rt.pump.clock(),
            self._node_of(sender),
        )
        # News of a death come by another way, and may be here before the lease is.
        death = self.rt.dead_processes.get(message.worker.process_id)
        if death is not None:
            self.rt.tasks.process_died(death)

    def _refused(self, sender: bytes, message: LeaseRefused) -> None:
        class_id, kind = message.class_id, message.kind
        if kind == "env_setup":
            self.setting_up[class_id] = message.text
        elif kind == "busy":
            self.rt.tasks.dispatcher.busy(class_id, sender, self.rt.pump.clock())
        elif kind == "infeasible":
            self._is_infeasible(class_id, message.text)
        else:
            self.rt.tasks.dispatcher.refused(class_id, kind, message.text)

    def _is_infeasible(self, class_id: int, text: str) -> None:
        """No node can ever run a class: its tasks wait for one that can, or fail."""
        sclass = self.rt.tasks.dispatcher.classes[class_id]
        if sclass.where:
            where = msgspec.msgpack.decode(sclass.where, type=Where)
            if where.node_id and not where.soft:  # Other nodes are no help.
                on = f"it has to be on node {where.node_id.hex()}, where it is {INFEASIBLE}"
                self._give_up(class_id, f"{on}: {text}")
                return
        self.infeasible[class_id] = text
        if class_id not in self._said_infeasible:
            self._said_infeasible.add(class_id)
            log.warning("tasks wait for resources that no node has: %s", text)
        timeout_s = self.rt.config.tasks.infeasible_timeout_s
        if timeout_s:
            self.rt.pump.after(timeout_s, lambda: self._waited(class_id, text, timeout_s))

    def _waited(self, class_id: int, text: str, timeout_s: float) -> None:
        if self.infeasible.get(class_id) == text:
            more = f"given up after {timeout_s:g} s (infeasible_timeout_s)"
            self._give_up(class_id, f"{INFEASIBLE}: {text}; {more}")

    def _give_up(self, class_id: int, text: str) -> None:
        """Fail the tasks of a class; tasks that come later ask anew."""
        self.infeasible.pop(class_id, None)
        sclass = self.rt.tasks.dispatcher.classes[class_id]
        self.rt.tasks.dispatcher.refused(class_id, "unschedulable", text)
        self.tell(HOME, self._demand(sclass, 0))

    def _wanted(self, sender: bytes, message: LeasesWanted) -> None:
        dispatcher, now = self.rt.tasks.dispatcher, self.rt.pump.clock()
        dispatcher.wanted(message.waiting, now, self._node_of(sender))

    def _elsewhere(self, sender: bytes, message: LeaseElsewhere) -> None:
        node = message.node
        self.infeasible.pop(message.class_id, None)
        if not self.rt.reach(node):
            log.debug("node %s is gone and was named for leases", node.node_id.hex()[:8])
        dispatcher = self.rt.tasks.dispatcher
        dispatcher.moved(message.class_id, node.node_id, message.count, message.stay)

    def _node_gone(self, message: NodeGone) -> None:
        self.rt.tasks.dispatcher.node_gone(message.node_id)
