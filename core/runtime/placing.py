"""Placement groups as this process knows them, and conditions that its tasks put on nodes.

The shell of neither machine: it keeps the head's word on groups, makes and removes them, answers
``ready()``, and says which nodes alone can serve a scheduling class: those of a group's bundles, or
one by its name. Which of many nodes is best is the own node's to say (node/sched/elsewhere.py).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from mray.exceptions import TaskPlacementGroupRemoved
from mray.object_ref import ObjectRef
from mray.ownership.entry import Entry
from mray.placement import Where, group_in
from mray.rpc.pump import RequestFailed
from mray.runtime.calls import present_work
from mray.serialization.failures import error_envelope
from mray.serialization.pickler import pack
from mray.tasks.asked import HOME
from mray.tasks.lease import SchedulingClass
from mray.wire.messages import (
    Ack,
    CreatePlacementGroup,
    GetPlacementGroups,
    GroupSpec,
    Message,
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
        runtime.head_link.on_back.append(self._head_back)

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

        rt.head_link.ask(lambda rid: CreatePlacementGroup(rid, spec), answered, _TIMEOUT_S)

    def _remove(self, group_id: bytes, tries: int = 1) -> None:
        rt = self.rt

        def answered(reply: Message) -> None:
            if isinstance(reply, RequestFailed) and tries < _TRIES and not rt.closed:
                self._remove(group_id, tries + 1)
            elif isinstance(reply, (RequestFailed, Refused)):
                log.error("removing placement group %s failed: %s", group_id.hex(), reply.text)

        rt.head_link.ask(lambda rid: RemovePlacementGroup(rid, group_id), answered, _TIMEOUT_S)
        state = self._states.get(group_id)
        if state is None or state.state != "REMOVED":
            gone = PlacementGroupState(group_id, None, "REMOVED", reason="it was removed")
            self._state(b"", gone)

    def _head_back(self) -> None:
        """A head that has begun anew does not know who watches."""
        for group_id in self._known:
            if group_id not in self._gone:
                self.rt.tell(self.rt.head, WatchPlacementGroup(group_id))

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
        self._aim_anew(group_id)
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
            if found is not None and found[0] == group_id:
                dispatcher.close(sclass.class_id, "group_removed", _removed_text(message))

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
        away = self.rt.head_link.why()
        if away:
            return f"waits for {name}, and {away}"
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
            return f"waits for room in placement group {found[0].hex()[:10]}"
        return self._why(found[0])

    def aim(self, sclass: SchedulingClass) -> None:
        """Find out which nodes alone can serve a class: those of its group's bundles, or the one
        that it has to be on. Of all others the own node knows best. From any thread."""
        sclass.aimed = True
        found = group_in(sclass.resources)
        if found is not None:
            sclass.asked.targets = self._targets(found[0], found[1])
            return
        where = msgspec.msgpack.decode(sclass.where, type=Where)
        sclass.spread = where.spread
        if where.node_id and not where.soft:
            sclass.asked.targets = [self._asked_as(where.node_id)]

    def _asked_as(self, node_id: bytes) -> bytes:
        return HOME if node_id == self.rt.node.node_id else node_id

    def _targets(self, group_id: bytes, index: int) -> list[bytes]:
        """The nodes to ask for workers in a group; none before it is created. Of one that is gone
        the own node, so that tasks are not without anybody to ask, and fail."""
        state = self._states.get(group_id)
        if state is None or not state.nodes:
            return [HOME] if state is not None and state.state == "REMOVED" else []
        nodes = state.nodes if index < 0 else state.nodes[index : index + 1]
        return [self._asked_as(node_id) for node_id in dict.fromkeys(nodes) if node_id]

    def _aim_anew(self, group_id: bytes) -> None:
        """The group's bundles may be elsewhere now."""
        dispatcher = self.rt.tasks.dispatcher
        for sclass in list(dispatcher.classes.values()):
            found = group_in(sclass.resources)
            if found is not None and found[0] == group_id:
                sclass.aimed = True
                dispatcher.retarget(sclass.class_id, self._targets(group_id, found[1]))

    def may_have_workers(self, sclass: SchedulingClass) -> bool:
        """Whether a node is to be asked for workers of the class. If not, its tasks fail here."""
        found = group_in(sclass.resources)
        state = self._states.get(found[0]) if found is not None else None
        if state is not None and state.state == "REMOVED":
            self._refuse(sclass, "group_removed", _removed_text(state))
            return False
        return True

    def target_lost(self, sclass: SchedulingClass, node_id: bytes) -> None:
        """A node that the class has to be on is not in the cluster. Bundles are placed anew; what
        has to be on a node by its name can never run."""
        if group_in(sclass.resources) is None:
            text = f"the node {node_id.hex()} that it has to be on (NodeAffinitySchedulingStrategy)"
            self._refuse(sclass, "unschedulable", f"{text} is not in the cluster")

    def _refuse(self, sclass: SchedulingClass, kind: str, text: str) -> None:
        self.rt.tasks.dispatcher.refused(sclass.class_id, kind, text)


def _removed_text(state: PlacementGroupState) -> str:
    return f"placement group {state.group_id.hex()} of the task is gone: {state.reason}"
