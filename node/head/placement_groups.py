"""Placement groups: their registry, where their bundles are, their ends.

    PENDING --all nodes: BundlesReserved--> CREATED --a node is lost--> RESCHEDULING -> CREATED …
       |                                      |                             |
       +--------- removed, job over, the actor that made it dead ----------+--> REMOVED

Two phases: nodes reserve (each when it has room), and only when all have, are told to commit. A
node that is the only one does both at once. So a group is created whole or not at all. With parts
on several nodes, groups could wait for each other; so after a while what is reserved is given up
and tried again, each time later.

The maker's node is preferred. Does not choose nodes (bundle_plan.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mray.machine import InvariantError
from mray.node.head.bundle_plan import Places, spread_over
from mray.node.head.events import (
    ActorGone,
    Effect,
    From,
    GroupEnded,
    GroupPlaced,
    JobEnded,
    NodeLost,
    NodeUp,
    Note,
    Persist,
    RoomSeen,
    Send,
    Tick,
    ToNodes,
)
from mray.node.head.group_records import (
    RESERVE_S,
    TABLE,
    Group,
    bundle_orders,
    lost_bundles,
    restored,
)
from mray.node.head.group_texts import amounts, short, sum_of, unknown_group, why_it_waits
from mray.node.head.placement import Room
from mray.resources import Resources
from mray.wire.messages import (
    Ack,
    BundlesReserved,
    CommitBundles,
    CreatePlacementGroup,
    GetPlacementGroups,
    GroupSpec,
    NodeContents,
    PlacementGroups,
    PlacementGroupState,
    ProcessDied,
    Refused,
    RemovePlacementGroup,
    ReserveBundles,
    ReturnBundles,
    WatchPlacementGroup,
)

#: Groups removed lately, for the table and for who still has a handle.
REMOVED_MAX: Final = 1000
#: The time that nodes may take doubles up to this.
_RESERVE_MAX_S: Final = 60.0
#: Who asks for a group may be faster than the message that makes it.
_CREATION_WAIT_S: Final = 10.0


class GroupTable:
    """See the module. ``kept``: what changes is to be persisted."""

    def __init__(self, *, kept: bool = False) -> None:
        self._kept = kept
        #: What this event changed.
        self._changed: dict[bytes, None] = {}
        #: Nodes that bundles were on in a former life of this head, and that have not come back.
        self._expected: dict[bytes, None] = {}
        self._number = 0
        self._rooms: dict[bytes, Room] = {}
        #: Those that live and the last that were removed, by age.
        self._groups: dict[bytes, Group] = {}
        self._removed: dict[bytes, None] = {}
        #: (namespace, name) -> group.
        self._names: dict[tuple[str, str], bytes] = {}
        #: Those that wait for nodes: RoomSeen comes often.
        self._unplaced: dict[bytes, Group] = {}
        #: Those with a moment.
        self._timed: dict[bytes, Group] = {}
        self._unknown: dict[bytes, tuple[float, dict[bytes, None]]] = {}

    def handle(self, event: object, now: float) -> list[Effect]:
        """Take a message about groups, or what happened to nodes, jobs and actors."""
        effects = self._handle(event, now)
        return [*self._persist(), *effects] if self._changed else effects

    def _handle(self, event: object, now: float) -> list[Effect]:
        match event:
            case From(sender, message):
                return self._message(sender, message, now)
            case NodeUp(node, contents):
                self._expected.pop(node.node_id, None)
                self._rooms[node.node_id] = Room(
                    node_id=node.node_id, is_head=node.is_head, total=dict(node.resources),
                    available=dict(node.resources), labels=dict(node.labels),
                )  # fmt: skip
                adopted = [] if contents is None else self._adopt(node.node_id, contents)
                return adopted + self._place_waiting(now)
            case RoomSeen(node_id, available, draining):
                if node_id not in self._rooms:
                    return []
                self._rooms[node_id].available = dict(available)
                self._rooms[node_id].draining = draining
                return self._place_waiting(now)
            case NodeLost(node_id, _):
                return self._node_lost(node_id, now)
            case JobEnded(job_id):
                ours = [g for g in self._living() if g.spec.job_id == job_id]
                mine = [g for g in ours if not (g.spec.detached or g.spec.actor_id)]
                return self._remove_all(mine, "its job has ended")
            case ActorGone(actor_id):
                made = [g for g in self._living() if g.spec.actor_id == actor_id]
                kept = [g for g in made if not g.spec.detached]
                return self._remove_all(kept, "the actor that made it has ended")
            case Tick():
                return self._tick(now)
            case other:
                raise TypeError(f"not for placement groups: {other!r}")

    def deadline(self) -> float | None:
        """When an attempt is given up or made again, or a watcher of nothing is told so."""
        times = [g.due_at for g in self._timed.values() if g.due_at is not None]
        times += [at for at, _ in self._unknown.values()]
        return min(times, default=None)

    def _message(self, sender: bytes, message: object, now: float) -> list[Effect]:
        match message:
            case CreatePlacementGroup(rid, spec):
                return self._create(sender, rid, spec, now)
            case RemovePlacementGroup(rid, group_id):
                group = self._groups.get(group_id)
                if group is None:
                    return [Send(sender, Ack(rid))]
                group.watchers.pop(sender, None)  # It knows.
                return [Send(sender, Ack(rid)), *self._remove(group, "it was removed")]
            case WatchPlacementGroup(group_id):
                return self._watch(sender, group_id, now)
            case GetPlacementGroups():
                return [Send(sender, PlacementGroups(message.rid, self._find(message)))]
            case BundlesReserved():
                return self._reserved(sender, message, now)
            case ProcessDied(process_id):
                for group in self._groups.values():
                    group.watchers.pop(process_id, None)
                return []
            case other:
                raise TypeError(f"not for placement groups: {type(other).__name__}")

    def _living(self) -> list[Group]:
        return [group for group in self._groups.values() if group.state != "REMOVED"]

    def _find(self, message: GetPlacementGroups) -> list[PlacementGroupState]:
        if message.name:
            group_id = self._names.get((message.namespace, message.name))
            return [] if group_id is None else [self._groups[group_id].view()]
        if message.group_id:
            found = self._groups.get(message.group_id)
            return [] if found is None else [found.view()]
        return [group.view() for group in self._groups.values()]

    # -- birth

    def _create(self, sender: bytes, rid: int, spec: GroupSpec, now: float) -> list[Effect]:
        if spec.group_id in self._groups:
            return [Send(sender, Ack(rid))]
        name = (spec.namespace, spec.name)
        if spec.name and name in self._names:
            text = (
                f"a placement group named {spec.name!r} lives in namespace {spec.namespace!r} "
                f"already ({self._names[name].hex()}); get it with get_placement_group(), remove "
                "it, or take another name"
            )
            return [Send(sender, Refused(rid, "RaySystemError", text))]
        group = Group(spec, now, nodes=[b""] * len(spec.bundles))
        _, early = self._unknown.pop(spec.group_id, (0.0, {}))
        group.watchers = {sender: None, **early}
        self._groups[spec.group_id] = group
        self._number += 1
        group.number = self._number
        self._touch(spec.group_id)
        if spec.name:
            self._names[name] = spec.group_id
        self._unplaced[spec.group_id] = group
        return [Send(sender, Ack(rid)), *self._place(group, now)]

    def _place(self, group: Group, now: float) -> list[Effect]:
        """Ask nodes for the bundles that have none, if there are nodes for them."""
        spec = group.spec
        wanted = {i: b for i, b in enumerate(spec.bundles) if not group.nodes[i]}
        taken = [node for node in group.nodes if node]
        rooms = self._rooms_for(spec)

        def plan(idle: bool) -> Places | None:
            return spread_over(
                wanted, spec.strategy, rooms, taken=taken, prefer=spec.soft_node,
                selectors=spec.selectors, idle=idle,
            )  # fmt: skip

        places = plan(idle=False)
        could_be = plan(idle=True) if places is None else places
        if places is None and could_be is not None and len(set(could_be.values())) == 1:
            # A single node knows best when it has room.
            places = could_be
        if places is None:
            before = (group.reason, group.infeasible)
            group.infeasible = could_be is None
            group.reason = why_it_waits(spec, wanted, rooms, group.infeasible)
            return [] if before == (group.reason, group.infeasible) else self._tell(group)
        group.attempt += 1
        self._touch(spec.group_id)
        group.placing = list(places)
        parts: dict[bytes, dict[int, Resources]] = {}
        for index, node in places.items():
            group.nodes[index] = node
            parts.setdefault(node, {})[index] = spec.bundles[index]
        group.awaited = dict.fromkeys(parts)
        group.infeasible = False
        group.reason = "waits for room: " + "; ".join(
            f"node {short(node)} is to reserve {amounts(sum_of(part))}"
            for node, part in parts.items()
        )
        del self._unplaced[spec.group_id]
        alone = len(parts) == 1
        self._due(group, None if alone else now + group.reserve_s)
        effects: list[Effect] = [
            Send(node, ReserveBundles(spec.group_id, group.attempt, part, alone))
            for node, part in parts.items()
        ]
        return effects

    def _rooms_for(self, spec: GroupSpec) -> list[Room]:
        """Where what its maker submits can run, the maker's own node first."""
        own = spec.maker.node_id
        rooms = [room for room in self._rooms.values() if not room.draining]
        return sorted(rooms, key=lambda room: room.node_id != own)

    def _reserved(self, sender: bytes, message: BundlesReserved, now: float) -> list[Effect]:
        group = self._groups.get(message.group_id)
        if group is None or group.state == "REMOVED":
            return [Send(sender, ReturnBundles(message.group_id))]
        if group.attempt != message.attempt or sender not in group.awaited:
            if group.attempt != message.attempt:
                return [Send(sender, ReturnBundles(message.group_id, message.attempt))]
            return []  # Said twice.
        if message.refusal:
            effects = self._give_up(group, now)
            group.reason, group.infeasible = message.refusal, True
            return [*effects, *self._tell(group)]
        del group.awaited[sender]
        if group.awaited:
            return []
        self._due(group, None)
        self._touch(message.group_id)
        parts = dict.fromkeys(group.nodes[index] for index in group.placing)
        effects = []
        if len(parts) > 1:
            for node in parts:
                effects.append(Send(node, CommitBundles(message.group_id, group.attempt)))
        group.placing = []
        group.reserve_s = RESERVE_S
        if group.state == "PENDING":
            group.created_after_s = now - group.made_at
        group.state, group.reason, group.infeasible = "CREATED", "", False
        placed = GroupPlaced(message.group_id, list(group.nodes))
        return [*effects, placed, *self._tell(group)]

    def _give_up(self, group: Group, now: float) -> list[Effect]:
        """End the present attempt; the next comes later."""
        self._touch(group.spec.group_id)
        effects: list[Effect] = [
            Send(node, ReturnBundles(group.spec.group_id, group.attempt))
            for node in dict.fromkeys(group.nodes[index] for index in group.placing)
            if node in self._rooms
        ]
        for index in group.placing:
            group.nodes[index] = b""
        group.placing, group.awaited = [], {}
        self._unplaced[group.spec.group_id] = group
        self._due(group, now + group.reserve_s)
        group.reserve_s = min(2 * group.reserve_s, _RESERVE_MAX_S)
        return effects

    # -- the end

    def _remove_all(self, groups: list[Group], why: str) -> list[Effect]:
        effects: list[Effect] = []
        for group in groups:
            name = group.spec.name or group.spec.group_id.hex()
            effects += [*self._remove(group, why), Note(f"placement group {name} ends: {why}")]
        return effects

    def _remove(self, group: Group, why: str) -> list[Effect]:
        if group.state == "REMOVED":
            return []
        spec = group.spec
        self._touch(spec.group_id)
        group.state, group.reason, group.infeasible = "REMOVED", why, False
        group.nodes = [b""] * len(spec.bundles)
        group.placing, group.awaited = [], {}
        self._due(group, None)
        self._unplaced.pop(spec.group_id, None)
        self._names.pop((spec.namespace, spec.name), None)
        told = self._tell(group)
        group.watchers = {}
        self._removed[spec.group_id] = None
        if len(self._removed) > REMOVED_MAX:
            oldest = next(iter(self._removed))
            del self._removed[oldest], self._groups[oldest]
            self._touch(oldest)
        # To all: those without bundles may have tasks that wait for it.
        return [ToNodes(ReturnBundles(spec.group_id)), GroupEnded(spec.group_id), *told]

    # -- nodes and time

    def _node_lost(self, node_id: bytes, now: float) -> list[Effect]:
        self._rooms.pop(node_id, None)
        self._expected.pop(node_id, None)
        effects: list[Effect] = []
        for group in self._living():
            if node_id not in group.nodes:
                continue
            if group.placing:
                effects += self._give_up(group, now)
            effects += self._lose(group, [i for i, n in enumerate(group.nodes) if n == node_id])
            effects += self._place(group, now)
            effects += self._tell(group)
        return effects

    def _lose(self, group: Group, indexes: list[int]) -> list[Effect]:
        """Bundles of a group that is not being placed are gone."""
        effects: list[Effect] = []
        self._touch(group.spec.group_id)
        group.nodes = [b"" if i in indexes else node for i, node in enumerate(group.nodes)]
        if group.state == "CREATED":
            group.state = "RESCHEDULING"
            effects.append(GroupPlaced(group.spec.group_id, list(group.nodes)))
        self._due(group, None)
        self._unplaced[group.spec.group_id] = group
        return effects

    def _adopt(self, node_id: bytes, contents: NodeContents) -> list[Effect]:
        """A node that had its bundles before this head's life."""
        effects: list[Effect] = list(bundle_orders(self._groups, node_id, contents))
        for group in self._living():
            lost = [] if group.placing else lost_bundles(group, node_id, contents)
            if lost:
                effects += self._lose(group, lost)
        return effects

    # -- what outlives the head

    def _touch(self, group_id: bytes) -> None:
        if self._kept:
            self._changed[group_id] = None

    def _persist(self) -> list[Effect]:
        changed, self._changed = self._changed, {}
        found = [(group_id, self._groups.get(group_id)) for group_id in changed]
        return [Persist(TABLE, key, None if group is None else group.row()) for key, group in found]

    def restore(self, rows: Mapping[bytes, bytes], now: float) -> list[Effect]:
        """Take in what was stored, before anything else; the other machines have to know too."""
        effects: list[Effect] = []
        for group in restored(rows, now):
            group_id = group.spec.group_id
            self._groups[group_id] = group
            self._number = group.number
            if group.state == "REMOVED":
                self._removed[group_id] = None
                effects.append(GroupEnded(group_id))
                continue
            if group.spec.name:
                self._names[group.spec.namespace, group.spec.name] = group_id
            if group.state != "CREATED":
                self._unplaced[group_id] = group
            if any(group.nodes):
                effects.append(GroupPlaced(group_id, list(group.nodes)))
        self._expected = dict.fromkeys(self.nodes())
        return effects

    def rows(self) -> dict[bytes, bytes]:
        """What should be stored now."""
        return {group_id: group.row() for group_id, group in self._groups.items()}

    def nodes(self) -> set[bytes]:
        """Where bundles are."""
        return {node for group in self._living() for node in group.nodes} - {b""}

    def _place_waiting(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for group in list(self._unplaced.values()):
            if group.due_at is None or group.due_at <= now:
                effects += self._place(group, now)
        return effects

    def _tick(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for group in list(self._timed.values()):
            if group.due_at is not None and group.due_at <= now:
                self._due(group, None)
                effects += self._give_up(group, now) if group.placing else []
        effects += self._place_waiting(now)
        for group_id, (give_up_at, watchers) in list(self._unknown.items()):
            if give_up_at <= now:
                del self._unknown[group_id]
                gone = unknown_group(group_id)
                effects += [Send(watcher, gone) for watcher in watchers]
        return effects

    def _due(self, group: Group, at: float | None) -> None:
        group.due_at = at
        if at is None:
            self._timed.pop(group.spec.group_id, None)
        else:
            self._timed[group.spec.group_id] = group

    # -- telling

    def _watch(self, sender: bytes, group_id: bytes, now: float) -> list[Effect]:
        group = self._groups.get(group_id)
        if group is None:
            _, watchers = self._unknown.setdefault(group_id, (now + _CREATION_WAIT_S, {}))
            watchers[sender] = None
            return []
        if group.state != "REMOVED":
            group.watchers[sender] = None
        return [Send(sender, group.view())]

    def _tell(self, group: Group) -> list[Effect]:
        view = group.view()
        return [Send(watcher, view) for watcher in group.watchers]

    def check(self) -> None:
        """See mray.machine."""
        for group_id, group in self._groups.items():
            placing, living = bool(group.placing), group.state != "REMOVED"
            if (group_id in self._removed) == living:
                raise InvariantError(f"group {group_id.hex()} is filed as removed and is not")
            if group.state == "CREATED" and (not all(group.nodes) or placing):
                raise InvariantError(f"group {group_id.hex()} is created without all its bundles")
            known = {b"", *self._rooms, *self._expected}
            if not known.issuperset(group.nodes):
                raise InvariantError(f"group {group_id.hex()} has a bundle on a node that is gone")
            if placing != bool(group.awaited):
                raise InvariantError(f"group {group_id.hex()} waits for nobody, or for nothing")
            waits = living and group.state != "CREATED" and not placing
            if waits != (group_id in self._unplaced):
                raise InvariantError(f"group {group_id.hex()} is to be placed and is not filed so")
        for name, group_id in self._names.items():
            if self._groups[group_id].state == "REMOVED":
                raise InvariantError(f"the name {name} leads to a removed group")
