"""Placement groups as this process knows them, and conditions that its tasks put on nodes.

The shell of neither machine: it keeps the head's word on groups, makes and removes them, answers
``ready()``, and judges which scheduling classes can have workers at all. Workers are leased from
this process's own node only; a class that wants another one waits, with the reason, or fails where
Ray fails it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from mray.exceptions import TaskPlacementGroupRemoved
from mray.object_ref import ObjectRef
from mray.ownership.entry import Entry
from mray.placement import Where, describe_conditions, group_in, matches
from mray.rpc.pump import RequestFailed
from mray.runtime.calls import present_work
from mray.serialization.failures import error_envelope
from mray.serialization.pickler import pack
from mray.tasks.lease import SchedulingClass
from mray.wire.messages import (
    Ack,
    CreatePlacementGroup,
    GetNodes,
    GetPlacementGroups,
    GroupSpec,
    Message,
    Nodes,
    PlacementGroups,
    PlacementGroupState,
    Refused,
    RemovePlacementGroup,
    WatchPlacementGroup,
)

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime

log = logging.getLogger("mray.runtime")

_TIMEOUT_S = 30.0
_TRIES = 3
#: Groups that are gone and remembered.
_GONE_MAX = 10_000


class PlacingPart:
    """See the module."""

    def __init__(self, runtime: Runtime) -> None:
        self.rt = runtime
        #: The head's last word on groups that matter to this process.
        self._states: dict[bytes, PlacementGroupState] = {}
        #: Those that the head was asked to tell of.
        self._known: set[bytes] = set()
        self._gone: dict[bytes, None] = {}
        #: Those that this process removed itself.
        self._ended: set[bytes] = set()
        #: What ready() gave out, by group, with the value to be.
        self._waiting: dict[bytes, list[tuple[Entry, bytes]]] = {}
        #: For each capturing group an object that stands for it: see Runtime.scope.
        self._scopes: dict[bytes, object] = {}
        runtime.pump.on(PlacementGroupState, self._state)

    # ----------------------------------------------------------------------------- any thread

    def create(
        self, group_id: bytes, strategy: str, bundles: list[dict[str, int]], name: str,
        detached: bool, soft_node: bytes, selectors: list[dict[str, str]],
    ) -> None:  # fmt: skip
        """Have the head make a group. One with a name waits for the head's word: RaySystemError if
        the name is taken."""
        rt = self.rt
        maker = rt.actor_spec
        spec = GroupSpec(
            group_id, rt.job_id, rt.address, strategy, bundles, name, rt.namespace, detached,
            soft_node, selectors,
            maker.actor_id if maker is not None and maker.detached else b"",
        )  # fmt: skip
        self._known.add(group_id)  # Who makes a group is told of it.
        if name:
            rt.ask(rt.head, lambda rid: CreatePlacementGroup(rid, spec), Ack, _TIMEOUT_S)
        else:
            rt.post(lambda: self._create(spec, 1))

    def remove(self, group_id: bytes) -> None:
        """Have the head remove a group. For this process it is gone at once: whatever it asks the
        head or its node from here on comes after."""
        self._ended.add(group_id)
        self.rt.post(lambda: self._remove(group_id))

    def find(self, name: str, group_id: bytes) -> list[PlacementGroupState]:
        """What the head knows of a group, or of all."""
        rt = self.rt
        return rt.ask(
            rt.head,
            lambda rid: GetPlacementGroups(rid, name, rt.namespace, group_id),
            PlacementGroups,
        ).groups

    def know(self, group_id: bytes) -> None:
        """This process wants to be told of the group from now on."""
        if group_id not in self._known:
            self._known.add(group_id)
            self.rt.post_to(self.rt.head, WatchPlacementGroup(group_id))

    def ready(self, group_id: bytes, handle: Any) -> ObjectRef[Any]:
        """A reference that becomes ready when the group is created, or an error with its end."""
        rt = self.rt
        packed = pack(handle)
        data = packed if isinstance(packed, bytes) else packed.to_bytes()
        entry = Entry(rt.ids.put(), None, rt.mailbox, 1, "PlacementGroup.ready")
        rt.references.entries[entry.object_id] = entry
        ref: ObjectRef[Any] = ObjectRef(entry)
        self.know(group_id)
        rt.post(lambda: self._await(group_id, entry, data))
        return ref

    def wait(self, group_id: bytes, handle: Any, timeout_s: float) -> bool:
        """Whether the group is created within the time. ValueError if it was removed."""
        state = self._states.get(group_id)
        if group_id in self._ended:
            raise ValueError(f"placement group {group_id.hex()} is gone: it was removed")
        if state is None or state.state not in ("CREATED", "REMOVED"):
            self.rt.objects.wait([self.ready(group_id, handle)], 1, timeout_s)
            state = self._states.get(group_id)
        if state is not None and state.state == "REMOVED":
            raise ValueError(f"placement group {group_id.hex()} is gone: {state.reason}")
        return state is not None and state.state == "CREATED"

    def current_group(self) -> bytes:
        """The group that the calling thread's task, or this actor, runs in; b"" for none."""
        if self.rt.actor_spec is not None:
            return self.rt.actor_spec.group
        work = present_work()
        return work.template.group if work is not None else b""

    def enter(self, group_id: bytes) -> None:
        """What is submitted from here on runs in the group unless it says else; b"" ends that."""
        self.rt.scope_group = group_id
        self.rt.scope = self._scopes.setdefault(group_id, object()) if group_id else self.rt

    # ------------------------------------------------------------------------------- the loop

    def _create(self, spec: GroupSpec, tries: int) -> None:
        rt = self.rt

        def answered(reply: Message) -> None:
            if isinstance(reply, RequestFailed) and tries < _TRIES and not rt.closed:
                self._create(spec, tries + 1)
            elif isinstance(reply, (RequestFailed, Refused)):
                text = f"it was not made: {reply.text}"
                self._state(b"", PlacementGroupState(spec.group_id, spec, "REMOVED", reason=text))

        rt.reach(rt.head)
        rt.pump.request(
            rt.head.process_id,
            lambda rid: CreatePlacementGroup(rid, spec),
            answered,
            _TIMEOUT_S,
        )

    def _remove(self, group_id: bytes, tries: int = 1) -> None:
        rt = self.rt

        def answered(reply: Message) -> None:
            if isinstance(reply, RequestFailed) and tries < _TRIES and not rt.closed:
                self._remove(group_id, tries + 1)
            elif isinstance(reply, (RequestFailed, Refused)):
                log.error("removing placement group %s failed: %s", group_id.hex(), reply.text)

        rt.reach(rt.head)
        rt.pump.request(
            rt.head.process_id,
            lambda rid: RemovePlacementGroup(rid, group_id),
            answered,
            _TIMEOUT_S,
        )
        state = self._states.get(group_id)
        if state is None or state.state != "REMOVED":
            gone = PlacementGroupState(group_id, None, "REMOVED", reason="it was removed")
            self._state(b"", gone)

    def _await(self, group_id: bytes, entry: Entry, data: bytes) -> None:
        self._waiting.setdefault(group_id, []).append((entry, data))
        state = self._states.get(group_id)
        if state is not None:
            self._settle(state)

    def _state(self, sender: bytes, message: PlacementGroupState) -> None:
        group_id = message.group_id
        before = self._states.get(group_id)
        if before is not None and before.state == "REMOVED":
            return
        self._states[group_id] = message
        self._settle(message)
        if message.infeasible and not (before is not None and before.infeasible):
            log.warning("placement group %s waits: %s", group_id.hex()[:10], message.reason)
        if message.state != "REMOVED":
            return
        self._gone[group_id] = None
        if len(self._gone) > _GONE_MAX:
            oldest = next(iter(self._gone))
            del self._gone[oldest], self._states[oldest]
            self._known.discard(oldest)
            self._ended.discard(oldest)
        dispatcher = self.rt.tasks.dispatcher
        for sclass in dispatcher.classes.values():
            found = group_in(sclass.resources)
            if found is not None and found[0] == group_id and sclass.queue:
                dispatcher.refused(sclass.class_id, "group_removed", _removed_text(message))

    def _settle(self, state: PlacementGroupState) -> None:
        """Answer those who wait for a group, if that can be done now."""
        if state.state not in ("CREATED", "REMOVED"):
            return
        references = self.rt.references
        error = b""
        if state.state == "REMOVED":
            error = error_envelope(TaskPlacementGroupRemoved(_removed_text(state)))
        for entry, data in self._waiting.pop(state.group_id, ()):
            references.fill(entry, error or data, None)
            if not entry.local:
                references.settle(entry)

    def reason(self, entry: Entry) -> str:
        """Why the reference of a ready() is not ready; "" if it is none."""
        for group_id, waiting in self._waiting.items():
            if any(other is entry for other, _ in waiting):
                return self._why(group_id)
        return ""

    def _why(self, group_id: bytes) -> str:
        state = self._states.get(group_id)
        name = f"placement group {group_id.hex()[:10]}"
        if state is None:
            return f"waits for {name}, of which the head has not told yet"
        return f"waits for {name}, which is {state.state}: {state.reason or 'in use'}"

    # -- who can have workers

    def reason_of(self, sclass: SchedulingClass) -> str:
        """Why tasks of the class have no workers, as far as their group goes; "" if not so."""
        found = group_in(sclass.resources)
        if found is None:
            return ""
        state = self._states.get(found[0])
        if state is not None and state.state == "CREATED":
            elsewhere = self._elsewhere(state, found[1])
            return elsewhere or f"waits for room in placement group {found[0].hex()[:10]}"
        return self._why(found[0])

    def _elsewhere(self, state: PlacementGroupState, index: int) -> str:
        own = self.rt.node.node_id
        nodes = state.nodes if index < 0 else state.nodes[index : index + 1]
        if own in nodes:
            return ""
        there = ", ".join(sorted({node.hex()[:10] for node in nodes}))
        return (
            f"the bundle is on node {there}, and this process leases workers from its own node "
            f"{own.hex()[:10]} only"
        )

    def may_have_workers(self, sclass: SchedulingClass) -> bool:
        """Whether the node is to be asked for workers of the class. If not, its tasks fail here or
        wait with a reason."""
        found = group_in(sclass.resources)
        if found is not None:
            state = self._states.get(found[0])
            if state is not None and state.state == "REMOVED":
                self._refuse(sclass, "group_removed", _removed_text(state))
                return False
        if not sclass.where:
            return True
        where = msgspec.msgpack.decode(sclass.where, type=Where)
        node = self.rt.node
        if where.node_id and where.node_id != node.node_id:
            if not where.soft:
                self._look_for(sclass, where.node_id)
                return False
        elif not matches(where.labels, node.labels):
            self._wait_for_ever(
                sclass,
                f"it needs a node with {describe_conditions(where.labels)}, and node "
                f"{node.node_id.hex()[:10]}, the only one this process leases workers from, has "
                f"{dict(node.labels)}",
            )
            return False
        return True

    def _look_for(self, sclass: SchedulingClass, node_id: bytes) -> None:
        """Ask whether a node that tasks have to be on is there."""
        rt = self.rt
        text = f"the node {node_id.hex()} that it has to be on (NodeAffinitySchedulingStrategy)"

        def answered(reply: Message) -> None:
            if not isinstance(reply, Nodes):
                self._refuse(sclass, "unschedulable", f"{text} could not be asked for: {reply}")
                return
            alive = {view.node.node_id for view in reply.nodes if view.state != "DEAD"}
            if node_id not in alive:
                self._refuse(sclass, "unschedulable", f"{text} is not in the cluster")
                return
            own = rt.node.node_id.hex()[:10]
            self._wait_for_ever(
                sclass,
                f"{text} is not this process's own, {own}, the only one it leases workers from in "
                "this version",
            )

        rt.reach(rt.head)
        rt.pump.request(rt.head.process_id, GetNodes, answered, _TIMEOUT_S)

    def _wait_for_ever(self, sclass: SchedulingClass, text: str) -> None:
        """Its tasks wait, as in Ray, and whoever looks is told why."""
        if self.rt.tasks.infeasible.get(sclass.class_id) != text:
            self.rt.tasks.infeasible[sclass.class_id] = text
            log.warning("tasks wait for a node that they cannot have: %s", text)

    def _refuse(self, sclass: SchedulingClass, kind: str, text: str) -> None:
        self.rt.tasks.dispatcher.refused(sclass.class_id, kind, text)


def _removed_text(state: PlacementGroupState) -> str:
    return f"placement group {state.group_id.hex()} of the task is gone: {state.reason}"
